"""What a developer runs by hand; nothing at run time imports it."""
