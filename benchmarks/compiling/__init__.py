"""What compiling takes: time, memory, disk."""
