"""What is Lambda's own: event shapes, metrics, model source, runtime."""
