"""Load on the server: requests are sent when they are due."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks.load.client import send


def test_load_is_sent_when_it_is_due_and_not_when_earlier_answers_are_back() -> None:
    finished = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Slow) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        samples = send(server.server_port, [0.0, 0.01, 0.02], {}, lambda: finished.append(1))
        server.shutdown()
        thread.join()
    assert sorted(sample["status"] for sample in samples) == [200, 200, 429]
    assert len(finished) == 3


class _Slow(BaseHTTPRequestHandler):
    """Answers nobody until three requests are in flight, and then one of them with 429."""

    together = threading.Barrier(3)

    def do_POST(self) -> None:
        self.send_response(429 if self.together.wait(timeout=30) == 0 else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Silent."""
