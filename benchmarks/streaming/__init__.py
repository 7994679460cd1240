"""Time to the first byte of an answer, streamed and whole."""
