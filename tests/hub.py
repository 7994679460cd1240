"""A server that speaks the Hugging Face hub's protocol as far as downloading a model needs it."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """One public model, `team/demo`, and a gated one, `team/gated`."""

    files: Mapping[str, bytes]
    declared_size: int | None = None
    """What the hub says of every file's size, where that is not the truth."""
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == f"/api/models/team/demo/revision/{COMMIT}":
            sizes = {name: self.declared_size or len(content) for name, content in self.files.items()}
            siblings = [{"rfilename": name, "size": size} for name, size in sizes.items()]
            return self.answer(json.dumps({"id": "team/demo", "sha": COMMIT, "siblings": siblings}).encode())
        if path == f"/api/models/team/demo/tree/{COMMIT}":
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                for name, content in self.files.items()
            ]
            return self.answer(json.dumps(tree).encode())
        if path.startswith(f"/team/demo/resolve/{COMMIT}/"):
            return self.answer(self.files[path.rpartition("/")[2]])
        if path.startswith("/api/models/team/gated"):
            return self.refuse(403, "GatedRepo")
        if path.startswith("/api/models/team/demo/"):
            return self.refuse(404, "RevisionNotFound")
        return self.refuse(401, "RepoNotFound")

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
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


@contextlib.contextmanager
def serving_hub(files: Mapping[str, bytes], host: str = "127.0.0.1") -> Iterator[tuple[str, type[Hub]]]:
    """The hub on a free port, with `files` as its public model's: its address, and its handler to be changed."""
    handler = type("OneHub", (Hub,), {"files": files})
    server = ThreadingHTTPServer((host, 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}", handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
