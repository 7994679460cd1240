"""What a process holds in memory, and what several on one model share."""
