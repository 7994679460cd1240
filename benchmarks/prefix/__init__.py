"""What reading a beginning once saves: the first token behind it, and the typical request."""
