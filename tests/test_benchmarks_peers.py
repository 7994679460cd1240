"""Other engines: their processes, their absence, and what they are compared with."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from benchmarks.errors import NotInstalledError
from benchmarks.peers.contenders import PEERS, interpreter
from benchmarks.peers.report import ratios, sections, side_by_side
from benchmarks.peers.session import PeerFailedError, Session

ROOT = Path(__file__).resolve().parent.parent
ECHO = """
import sys
sys.path.insert(0, {folder!r})
from loop import serve
serve(lambda: lambda ids, tokens: iter(ids * tokens) {extra})
"""


def _worker(tmp_path: Path, extra: str = "") -> list[str]:
    folder = str(ROOT / "benchmarks" / "peers" / "workers")
    script = tmp_path / "worker.py"
    script.write_text(ECHO.format(folder=folder, extra=extra))
    return [sys.executable, str(script)]


def test_a_worker_gives_the_tokens_asked_for_with_its_times(tmp_path: Path) -> None:
    with Session(_worker(tmp_path)) as session:
        reply = session.generate([7, 8], 3)
        assert reply["ids"] == [7, 8, 7]
        assert session.peak_memory > 1_000_000
    assert {"load_s", "first_s", "decode_s"} <= set(reply)


def test_a_worker_that_fails_or_dies_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    with (
        Session(_worker(tmp_path, "if tokens < 9 else 1 / 0")) as session,
        pytest.raises(PeerFailedError, match="Zero"),
    ):
        session.generate([1], 9)
    with pytest.raises(PeerFailedError, match="ended with status 3"), Session([sys.executable, "-c", "exit(3)"]):
        pass


def test_an_absent_peer_is_skipped_with_the_command_that_installs_it() -> None:
    peer = next(peer for peer in PEERS if peer.name == "llama.cpp")
    with pytest.raises(NotInstalledError, match=r"llama\.cpp is not installed; make bench-peers"):
        interpreter(peer, {"llama-cpp-python": "/nowhere/python"})


def test_peers_are_compared_pairwise_with_ours_of_the_same_precision() -> None:
    tuned = [("transformers float32", "float32"), ("rival int8", "int8"), ("rival int4", "int4"), ("own int8", "int8")]
    content: dict[str, Any] = {
        "tuning": [{"contender": label, "precision": precision} for label, precision in tuned],
        "ours": ["own int8"],
        "starts": [{"contender": label, "round": 0, "to_first_token_s": 1.0} for label, _ in tuned[1:]],
        "samples": [
            {"contender": label, "round": i, "prompt_tokens": 18, "tokens": 11, "load_s": 0.0, "first_s": 1.0,
             "decode_s": (1 + i) * factor}
            for i in range(3)
            for (label, _), factor in zip(tuned, (9, 3, 4, 1), strict=True)
        ],
    }  # fmt: skip
    head, _, *rows = ratios(content).splitlines()
    assert head == "|  | process to first token | first token, 18 in | each later, 18 in |"
    assert rows == [
        "| transformers float32 / own int8 | - | 1.00 | 9.00 |",
        "| rival int8 / own int8 | 1.00 | 1.00 | 3.00 |",
    ]


def test_contenders_that_answered_nothing_leave_tables_without_figures() -> None:
    content = json.loads((ROOT / "benchmarks" / "results" / "peers-demo.json").read_text())
    content["starts"] = []
    assert side_by_side(content).axes
    content["samples"] = []
    assert sections(content)["short"] == ""
    assert "llama.cpp" in sections(content)["tuning"]
