"""Answers when little time is left: whether they leave before the invocation ends."""
