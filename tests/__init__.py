"""What the project promises, one behaviour a test."""
