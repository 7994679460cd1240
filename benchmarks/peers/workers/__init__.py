"""Programs that run in a peer's environment. They import the peer and the standard library, nothing of this project.

Only `engine_worker` is ours: it runs the project's own engines the same way.
"""
