"""What the compiler says when it will not compile."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

UNSUPPORTED = 3
"""Exit status for a checkpoint that is whole but whose architecture cannot be compiled."""
REMEDY = "; serve this checkpoint with the transformers engine instead."


class CompileError(Exception):
    """Nothing was compiled. The message is one sentence with the reason."""


class UnsupportedModelError(CompileError):
    """The checkpoint is whole, but its architecture cannot become an artifact. The message is one sentence."""

    def __str__(self) -> str:
        return f"{super().__str__()}{REMEDY}"


class CannotCalibrateError(Exception):
    """A model can be quantised, but not by what its layers are fed with. The message is one clause with the reason."""


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn whatever torch raises within into UnsupportedModelError: "`what` (the reason)".

    Running out of memory or disk says nothing about the model: it is CompileError.
    """
    try:
        yield
    except (CompileError, MemoryError, OSError):
        raise
    except Exception as error:
        if "can't allocate memory" in str(error):
            raise CompileError("Memory ran out.") from error
        if "No space left on device" in str(error):
            raise CompileError(f"The disk of {tempfile.gettempdir()} is full; TMPDIR names another.") from error
        raise UnsupportedModelError(f"{what} ({first_line(error)})") from error


def first_line(error: Exception) -> str:
    """The first line of what an error says, without its full stop; its type's name where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
