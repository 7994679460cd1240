"""What this machine's memory and arithmetic allow at best, and how near an engine comes."""
