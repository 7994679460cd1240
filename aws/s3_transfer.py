"""Objects from a bucket into files: parallel ranged reads, resumed where they broke off, in bounded memory.

Each part goes straight to its place in its file. A journal notes finished parts, so that a process started after one
that was killed half way (Lambda's init phase ends after ten seconds) reads only what is missing. Knows nothing of
models.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

PART = 8 << 20
"""Bytes per ranged read, as S3's guidance has it (8 to 16 MB)."""
WORKERS = 8
"""Reads at once; one connection to S3 gives some 90 MB/s, a function at most some 600."""
CHUNK = 256 << 10
"""Bytes from socket to file at a time: memory is WORKERS * CHUNK, whatever the model's size."""
ATTEMPTS = 5
"""Reads in a row that may bring nothing before a part is given up."""
PATIENCE = 0.2
"""Seconds before the first retry; doubled for each further one."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One object as the listing showed it, and the path it gets below the target folder."""

    name: str
    key: str
    size: int
    etag: str


class GaveUpError(Exception):
    """A part did not come, however often it was asked for."""


def download(
    client: Any, bucket: str, files: Sequence[RemoteFile], folder: Path, journal: Path, report: Callable[[int], None]
) -> None:
    """Fill `folder` with `files`; `report` gets the bytes of each piece. Parts noted in `journal` are not read again.

    Raises GaveUpError, ClientError for an answer no retry can change (an object changed: 412), and OSError.
    """
    done = set(journal.read_text().split("\n")) if journal.exists() else set()
    handles: dict[str, int] = {}
    note = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    stop = threading.Event()

    def read_part(file: RemoteFile, start: int) -> None:
        end = min(start + PART, file.size)
        if _read_range(client, bucket, file, handles[file.name], (start, end), report, stop):
            os.write(note, f"{start} {file.name}\n".encode())

    try:
        for file in files:
            handles[file.name] = _open(folder / file.name)
            if file.size:
                os.posix_fallocate(handles[file.name], 0, file.size)  # a full disk shows before the first byte is read
        with ThreadPoolExecutor(WORKERS) as pool:
            parts = []
            for file in sorted(files, key=lambda file: -file.size):
                for start in range(0, file.size, PART):
                    if f"{start} {file.name}" in done:
                        report(min(PART, file.size - start))
                    else:
                        parts.append(pool.submit(read_part, file, start))
            try:
                for part in as_completed(parts):
                    part.result()
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        for handle in (note, *handles.values()):
            os.close(handle)


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT)


def _read_range(
    client: Any,
    bucket: str,
    file: RemoteFile,
    handle: int,
    span: tuple[int, int],
    report: Callable[[int], None],
    stop: threading.Event,
) -> bool:
    """Bytes `span` of the object to the same place in the file; False when `stop` was set before all had come.

    A broken read goes on at the byte where it broke off.
    """
    position, end = span
    failures = 0
    while position < end and not stop.is_set():
        reached = position
        reason = "the body ended early"
        try:
            answer = client.get_object(
                Bucket=bucket, Key=file.key, Range=f"bytes={position}-{end - 1}", IfMatch=file.etag
            )
            while position < end and (chunk := answer["Body"].read(min(CHUNK, end - position))):
                position += _write(handle, chunk, position)
                report(len(chunk))
        except (HTTPClientError, IncompleteReadError) as error:
            reason = str(error)
        except ClientError as error:
            if not _passing(error):
                raise
            reason = str(error)
        if position == end:
            return True
        failures = 0 if position > reached else failures + 1
        if failures == ATTEMPTS:
            raise GaveUpError(f"{file.key}, byte {position}: {reason}")
        stop.wait(PATIENCE * 2**failures)
    return False


def _write(handle: int, chunk: bytes, position: int) -> int:
    written = 0
    while written < len(chunk):
        written += os.pwrite(handle, memoryview(chunk)[written:], position + written)
    return written


def _passing(error: ClientError) -> bool:
    """Whether S3 may answer otherwise a moment later."""
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return status >= 500 or error.response["Error"]["Code"] in ("RequestTimeout", "SlowDown")


class Progress:
    """Counts bytes over threads and calls `say(done, total)` at most once per `interval` seconds, and at the end."""

    def __init__(self, total: int, say: Callable[[int, int], None], interval: float = 1.0) -> None:
        self.done = 0
        self._total = total
        self._say = say
        self._interval = interval
        self._said_at = time.monotonic()
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        """Count `size` bytes more."""
        with self._lock:
            self.done += size
            now = time.monotonic()
            if now - self._said_at < self._interval and self.done < self._total:
                return
            self._said_at = now
            done = self.done
        self._say(done, self._total)
