"""A driver for each client library, and what they share."""
