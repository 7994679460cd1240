"""The answer that is sent while it is made: the handler returns it, the runtime client (`aws/runtime.py`) sends it."""

from collections.abc import Generator
from typing import NamedTuple


class StreamedAnswer(NamedTuple):
    """An answer in parts."""

    content_type: str
    parts: Generator[bytes]
    """Each part is sent as soon as it exists, as a chunk of its own; an empty one only asks whether the reader is
    still there. An exception ends the answer as an error. Closed when the reader is gone."""
