"""llama.cpp's own precisions of a checkpoint beside ours, on the same text."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers.contenders import PEERS, WORKERS, interpreter
from benchmarks.peers.session import PeerFailedError
from compiler import check
from compiler.measure import Scores, normalised
from engines.machine import usable_vcpus

KINDS = ("Q8_0", "Q4_0", "IQ4_XS", "Q4_K_M")
"""Names of llama.cpp's. No importance matrix is given: without one it has no data either."""
_ROWS = 512  # logits compared at a time


class LlamaCpp:
    """A checkpoint in llama.cpp, and what transformers in float32 says of a text, to be compared with it."""

    def __init__(self, checkpoint: Path, text: npt.NDArray[np.int64], window: int, scratch: Path) -> None:
        """Convert the checkpoint. Raises NotInstalledError where llama.cpp is not there, PeerFailedError."""
        peer = next(peer for peer in PEERS if peer.name == "llama.cpp")
        self._python, self._text, self._window, self._scratch = interpreter(peer, {}), text, window, scratch
        assert peer.converter is not None
        self._run(peer.converter, checkpoint, scratch / "float32.gguf", "float32")
        np.save(scratch / "text.npy", text)
        self._reference, self._logs = check.reference(checkpoint, text, window, scratch)

    def sample(self, kind: str) -> dict[str, Any]:
        """Perplexity `[its, float32's]`, agreement, divergence and bytes of one of KINDS. Raises PeerFailedError."""
        out = self._scratch / "logits.npy"
        said = self._run(
            "llama_cpp_logits.py", self._scratch / "float32.gguf", kind, self._scratch / "text.npy", self._window, out,
            usable_vcpus(),
        )  # fmt: skip
        logits, scores = np.load(out, mmap_mode="r"), Scores(self._text, self._logs, reference=False)
        for begin in range(0, len(logits), _ROWS):
            scores.add(normalised(logits[begin : begin + _ROWS]))
        found, theirs = scores.answer(), self._reference
        return {
            "perplexity": [float(np.exp(each["nll"].mean())) for each in (found, theirs)],
            "positions": len(logits),
            "agreement": float((found["choices"] == theirs["choices"]).mean()),
            "divergence": float(found["divergence"]),
            **json.loads(said.splitlines()[-1]),
        }

    def _run(self, worker: str, *arguments: object) -> str:
        command = [self._python, str(WORKERS / worker), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = next(iter(reversed(done.stderr.strip().splitlines())), "no message")
            raise PeerFailedError(last[:300])
        return done.stdout
