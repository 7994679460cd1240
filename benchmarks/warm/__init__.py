"""Requests to an environment that has its model: first token, later tokens, and what is not the model's time."""
