"""What is AWS's own: events, batches, logs and metrics, models in S3, secrets, SnapStart, the runtime client."""
