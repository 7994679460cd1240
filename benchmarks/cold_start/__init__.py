"""Cold starts: fresh processes under Lambda's own runtime client and emulator, phase by phase."""
