"""The checkpoint's chat template, parsed before the long work: one that cannot be would fail each chat request."""

from pathlib import Path

from api.chat import load_chat_template
from compiler.errors import CompileError
from engines.errors import LoadError


def require_parsed(checkpoint: Path) -> None:
    """CompileError where the checkpoint's chat template, if it has one, cannot be read or parsed."""
    try:
        template = load_chat_template(checkpoint, {})
    except LoadError as error:
        raise CompileError(str(error)) from None
    wrong = template.syntax_error() if template else None
    if wrong is not None:
        raise CompileError(f"The chat template of {checkpoint} cannot be parsed ({wrong}); copy the checkpoint again.")
