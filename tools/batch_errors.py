"""What keeps a batch from running."""


class BatchError(Exception):
    """The batch cannot be run as asked. The message is one sentence for a person."""
