"""A file of requests answered into a file of results, on this machine: many at once, and resumable.

A result is written when it is there, as one whole line; a run that is killed leaves at most half a line, which the next
run cuts off before it goes on with what is missing. Knows nothing of AWS.
"""

import contextlib
import fcntl
import json
import os
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from api.batch_lines import BatchLineError, check_line, custom_id_of, is_failure, read_line, result_line
from api.errors import ApiError, InternalError, InvalidRequestError
from api.preparation import PreparedRequest
from api.routes import encode
from api.service import Service
from api.validation import parse_json
from tools.batch_errors import BatchError
from tools.batch_tally import Tally

FIRST_BYTES = b'{"id":"batch_req_'
"""How each line of a file of results begins."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the requests."""

    number: int
    custom_id: str | None
    content: Any
    """The JSON value, or the BatchLineError that says why it is no request."""


class ResultsFile:
    """The results, of this run and those before it. A context manager: entering opens and reads what is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._answered: dict[str, bool] = {}
        """By custom_id: whether it failed."""
        self._refused: set[int] = set()
        self._file = -1

    def __enter__(self) -> "ResultsFile":
        """Raises BatchError for a file of anything else, which is left as it is, and while another run writes it."""
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._read()
            except BaseException:
                os.close(self._file)
                raise
        except BlockingIOError:
            raise BatchError(f"Another run is writing {self._path}; wait for it or name another file.") from None
        except OSError as error:
            raise BatchError(f"{self._path} cannot be written: {error.strerror}.") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def has(self, line: Line) -> bool:
        """Whether a run before this one has dealt with a line."""
        if isinstance(line.content, BatchLineError):
            return line.number in self._refused
        return line.custom_id in self._answered

    def failed(self, line: Line) -> bool:
        """Whether what a run before this one made of a line is an error."""
        return isinstance(line.content, BatchLineError) or self._answered[line.custom_id or ""]

    def add(self, result: Mapping[str, Any]) -> None:
        """Write a result. Raises BatchError when the disk does not take it."""
        rest = encode(result) + b"\n"
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            raise BatchError(f"{self._path} cannot be written: {error.strerror}; what is in it is kept.") from None

    def _read(self) -> None:
        whole = 0
        with open(self._path, "rb") as file:
            for number, text in enumerate(file, start=1):
                if not text.endswith(b"\n") and (text.startswith(FIRST_BYTES) or FIRST_BYTES.startswith(text)):
                    break
                self._note(text, number)
                whole += len(text)
        os.ftruncate(self._file, whole)

    def _note(self, text: bytes, number: int) -> None:
        try:
            result = json.loads(text)
            error = result["error"] or {}
            if "line" in error:
                self._refused.add(error["line"])
            else:
                self._answered[result["custom_id"]] = is_failure(result)
        except (ValueError, TypeError, KeyError):
            raise BatchError(f"Line {number} of {self._path} is no result of a batch; name another file.") from None


def count_lines(source: Path) -> int:
    """Lines of a file that hold something. Raises BatchError where it cannot be read or has none."""
    try:
        with source.open("rb") as file:
            count = sum(1 for text in file if text.strip())
    except OSError as error:
        raise BatchError(f"{source} cannot be read: {error.strerror}.") from None
    if count == 0:
        raise BatchError(f"{source} is empty; it needs a request on each line.")
    return count


def read_lines(source: Path) -> Iterator[Line]:
    """The lines that hold something, each with what is wrong with it as a line of this file."""
    first: dict[str, int] = {}
    with source.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                content = parse_json(text, "The line")
            except InvalidRequestError as error:
                yield Line(number, None, BatchLineError("invalid_json_line", error.message))
                continue
            custom_id = custom_id_of(content)
            try:
                check_line(content)
            except BatchLineError as error:
                content = error
            if custom_id is not None and first.setdefault(custom_id, number) != number:
                content = BatchLineError(
                    "duplicate_custom_id",
                    f"The line has the 'custom_id' of line {first[custom_id]}; give each line one of its own.",
                )
            yield Line(number, custom_id, content)


def answer_file(source: Path, target: Path, service: Service, lines: int) -> Tally:
    """Answer `source` into `target`, showing progress over its `lines`. Raises BatchError."""
    if target.exists() and target.samefile(source):
        raise BatchError("The results need a file of their own.")
    tally, run = Tally(), f"run-{uuid.uuid4().hex}"
    under_way: list[Line | None] = []
    started = time.monotonic()
    with ResultsFile(target) as results, _progress(lines) as (progress, task):

        def requests() -> Iterator[Callable[[], PreparedRequest]]:
            for line in read_lines(source):
                if results.has(line):
                    tally.done_before += 1
                    tally.failed_before += results.failed(line)
                    progress.advance(task)
                else:
                    under_way.append(line)
                    yield partial(_prepare, line, service)

        with contextlib.closing(service.answers(requests())) as answers:
            for place, outcome in answers:
                line, under_way[place] = under_way[place], None
                assert line is not None
                result = result_line(str(line.number), line.custom_id, _known(outcome), run)
                if isinstance(outcome, BatchLineError):
                    result["error"]["line"] = line.number
                results.add(result)
                tally.add(result)
                tally.seconds = time.monotonic() - started
                progress.update(task, advance=1, note=_note(tally))
    return tally


def _prepare(line: Line, service: Service) -> PreparedRequest:
    if isinstance(line.content, BatchLineError):
        raise line.content
    return service.prepare(read_line(line.content))


def _known(outcome: Any) -> Any:
    """`outcome`; what nobody foresaw is shown on standard error and becomes an error for the line."""
    if isinstance(outcome, Exception) and not isinstance(outcome, ApiError | BatchLineError):
        traceback.print_exception(outcome)
        return InternalError("Something went wrong here; standard error has it.")
    return outcome


@contextlib.contextmanager
def _progress(lines: int) -> Iterator[tuple[Progress, TaskID]]:
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress, progress.add_task("", total=lines, note="")


def _note(tally: Tally) -> str:
    failed = f", {tally.failures.total():,} failed" if tally.failures else ""
    return f"{tally.completion_tokens / tally.seconds:,.0f} tokens/s{failed}"
