"""What app.py needs beside the service: slots, bodies, answers on a socket, metrics, documentation, draining."""
