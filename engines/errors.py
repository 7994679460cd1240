"""The one error of loading, apart from `base` so that settings can be read before numpy is imported."""


class LoadError(Exception):
    """The model cannot be served. The message is one sentence that names the file and the remedy."""
