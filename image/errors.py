"""What the preparation of an image's model says when it cannot go on."""


class PrepareError(Exception):
    """The image cannot be built with this model. The message names what is wrong and the remedy."""
