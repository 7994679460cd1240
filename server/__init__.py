"""What app.py needs beside the service: admission, the engine's thread, bodies, answers, metrics, draining."""
