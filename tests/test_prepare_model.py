"""The image build's model step: local directories, a server that speaks the hub's protocol, and what can be wrong."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights" * 1000,
    "README.md": b"not served",
    "pytorch_model.bin": b"not served",
}


class Hub(BaseHTTPRequestHandler):
    """One public model, `team/demo`, and a gated one, `team/gated`."""

    declared_size: int | None = None
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == f"/api/models/team/demo/revision/{COMMIT}":
            siblings = [{"rfilename": name, "size": self.declared_size or len(FILES[name])} for name in FILES]
            return self.answer(json.dumps({"id": "team/demo", "sha": COMMIT, "siblings": siblings}).encode())
        if path == f"/api/models/team/demo/tree/{COMMIT}":
            tree = [{"type": "file", "path": name, "size": len(FILES[name]), "oid": "0" * 40} for name in FILES]
            return self.answer(json.dumps(tree).encode())
        if path.startswith(f"/team/demo/resolve/{COMMIT}/"):
            return self.answer(FILES[path.rpartition("/")[2]])
        if path.startswith("/api/models/team/gated"):
            return self.refuse(403, "GatedRepo")
        if path.startswith("/api/models/team/demo/"):
            return self.refuse(404, "RevisionNotFound")
        return self.refuse(401, "RepoNotFound")

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{hash(body) & 0xFFFF:040x}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    handler = type("OneHub", (Hub,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler
    server.shutdown()
    thread.join()
    server.server_close()


def prepare(
    model: str | Path, out: Path, *options: str, hub: str = "http://127.0.0.1:9"
) -> subprocess.CompletedProcess[str]:
    """Run the step as the Dockerfile does."""
    return subprocess.run(
        [sys.executable, "image/prepare_model.py", str(model), str(out), *options],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "HF_ENDPOINT": hub,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(out / "hf"),
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    for name, content in FILES.items():
        (directory / name).write_bytes(content)
    return directory


def test_copies_what_is_served_and_nothing_else(checkpoint: Path, tmp_path: Path) -> None:
    result = prepare(checkpoint, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "config.json",
        "tokenizer.json",
        "model.safetensors",
    }


def test_copies_an_artifact_whole(tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    (artifact / "x86-64-v3").mkdir(parents=True)
    (artifact / "manifest.json").write_text("{}")
    (artifact / "x86-64-v3" / "model.so").write_bytes(b"code")
    assert prepare(artifact, tmp_path / "out", "--engine", "compiled").returncode == 0
    assert (tmp_path / "out" / "x86-64-v3" / "model.so").read_bytes() == b"code"


def test_downloads_a_pinned_commit_from_the_hub(hub: tuple[str, type[Hub]], tmp_path: Path) -> None:
    result = prepare("team/demo", tmp_path / "out", "--revision", COMMIT, hub=hub[0])
    assert result.returncode == 0, result.stderr
    served = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir() if file.is_file()}
    assert served == {name: FILES[name] for name in ("config.json", "tokenizer.json", "model.safetensors")}


def test_none_leaves_an_empty_directory(tmp_path: Path) -> None:
    assert prepare("none", tmp_path / "out").returncode == 0
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("models/nowhere", (), "There is no checkpoint 'models/nowhere' in the build context"),
        ("no such thing", (), "There is no checkpoint 'no such thing'"),
        ("team/demo", (), "pin team/demo to a commit"),
        ("team/demo", ("--revision", "main"), "MODEL_REVISION is 'main'; pin team/demo to a commit"),
        ("team/demo", ("--revision", "f" * 40), f"team/demo has no commit {'f' * 40}"),
        ("team/unknown", ("--revision", COMMIT), "no public model 'team/unknown'"),
        ("team/gated", ("--revision", COMMIT), "asks for its licence to be accepted"),
        ("models/demo", ("--engine", "fast"), "ENGINE is 'fast'; set it to one of transformers, compiled"),
    ],
)
def test_says_what_is_wrong_in_one_sentence(
    model: str, options: tuple[str, ...], said: str, hub: tuple[str, type[Hub]], tmp_path: Path
) -> None:
    result = prepare(model, tmp_path / "out", *options, hub=hub[0])
    assert result.returncode == 1
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_says_that_the_hub_cannot_be_reached(tmp_path: Path) -> None:
    result = prepare("team/demo", tmp_path / "out", "--revision", COMMIT)
    assert result.returncode == 1
    assert "The hub could not be reached for team/demo" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_names_the_file_that_is_missing(name: str, checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / name).unlink()
    result = prepare(checkpoint, tmp_path / "out")
    assert result.returncode == 1
    assert "has no " + ("*.safetensors" if name == "model.safetensors" else name) in result.stderr


def test_says_that_the_disk_is_too_small_before_it_downloads(hub: tuple[str, type[Hub]], tmp_path: Path) -> None:
    hub[1].declared_size = 10**15
    result = prepare("team/demo", tmp_path / "out", "--revision", COMMIT, hub=hub[0])
    assert result.returncode == 1
    assert "The model needs 3000000.0 GB and the build's disk has" in result.stderr
