"""Measurements of this project: what a user of the function feels and pays. `python -m benchmarks --help`.

Nothing the service runs imports this package.
"""
