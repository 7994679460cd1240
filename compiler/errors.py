"""What the compiler says when it will not compile. Knows nothing of how it compiles."""


class UnsupportedModelError(Exception):
    """The checkpoint cannot become an artifact. The message is one sentence with the reason."""

    def __str__(self) -> str:
        return f"{super().__str__()}; serve this checkpoint with the transformers engine instead."
