"""The compiler as the image build runs it: in a process of its own, whose end decides what the image serves."""

import signal
import subprocess
import sys
from pathlib import Path

from compiler.errors import REMEDY, UNSUPPORTED
from image.errors import PrepareError
from image.room import memory


def compile_checkpoint(checkpoint: Path, out: Path, options: list[str]) -> str | None:
    """Compile `checkpoint` into `out`, the compiler's output passed on. None, or why its architecture does not compile.

    Raises PrepareError where the compiler ended in any other way.
    """
    command = [sys.executable, "-m", "compiler", str(checkpoint), str(out), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, bufsize=0) as compiler:
        assert compiler.stderr
        said = b""
        while some := compiler.stderr.read(4096):  # what there is, at once
            sys.stderr.buffer.write(some)
            sys.stderr.buffer.flush()
            said = (said + some)[-4000:]
    sentence = _sentence(said.decode(errors="replace"))
    if compiler.returncode == UNSUPPORTED:
        return sentence.removesuffix(REMEDY)
    if compiler.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL):
        raise PrepareError(
            f"The compiler was killed, as the kernel does when memory runs out; the build has {memory() / 1e9:.1f} GB: "
            "give Docker more, or set ENGINE=transformers."
        )
    if compiler.returncode:
        raise PrepareError(sentence or "The compiler failed; the lines above say why.")
    return None


def _sentence(said: str) -> str:
    """The last line that the compiler began with its name, or nothing; progress bars may be around it."""
    _, name, rest = said.rpartition("compiler: ")
    return rest.splitlines()[0].strip() if name else ""
