"""A chat answer's text to what it says: content, reasoning and tool calls, as it comes.

Tool calls are read as a grammar (`tools.py`) lets the model write them, so that nothing here can be wrong but the end.
"""

import re
import uuid
from collections.abc import Callable

from msgspec import Struct

from api.call_styles import CallStyle
from api.events import CallArguments, CallBegun, Content, Reasoning, Said


class Reading(Struct, frozen=True):
    """How the answers of one request are read."""

    style: CallStyle | None
    """How calls are written, None where none are possible."""
    names: tuple[str, ...]
    """Of the tools that can be called."""
    thoughts: tuple[str, str] | None
    """What a thought begins and ends with, None where there are none."""
    thinking: bool
    """Whether the prompt ends within a thought."""

    def begin(self) -> "Reader":
        """The reader of one choice."""
        return Reader(self)


class Reader:
    """Reads the text of one choice."""

    def __init__(self, reading: Reading) -> None:
        self._style = reading.style
        self._thoughts = reading.thoughts or ("", "")
        self._marks = _marks(reading)
        self._held = ""
        """Text that is not read yet."""
        self._before = "\n"
        """The character before it: a call without a mark begins a line."""
        self._said: list[Said] = []
        self.calls = 0
        """Those that have begun."""
        self._last = False
        self._step: Callable[[], bool] = self._in_text if reading.thoughts is None else self._at_start
        """Reads what it can. True where another one goes on, False where it needs more text."""
        if reading.thinking:
            self._skip_space(self._in_thought)

    @property
    def thinking(self) -> bool:
        """Whether the next text belongs to a thought."""
        return self._step == self._in_thought or (self._step == self._in_space and self._next == self._in_thought)

    def add(self, text: str, *, last: bool) -> tuple[Said, ...]:
        """What became certain with more text; `last` is whether none will come."""
        self._held += text
        self._last = last
        while self._step():
            pass
        said, self._said = self._said, []
        return tuple(said)

    def _at_start(self) -> bool:
        begin, text = self._thoughts[0], self._held.lstrip()
        if text.startswith(begin):
            self._held = text[len(begin) :]
            return self._skip_space(self._in_thought)
        if begin.startswith(text) and not self._last:
            return False
        return self._go_on(self._in_text)

    def _in_thought(self) -> bool:
        end = self._thoughts[1]
        at = self._held.find(end)
        if at < 0:
            self._let_go(Reasoning, self._certain((end,)))
            return False
        self._let_go(Reasoning, len(self._held[:at].rstrip()))
        self._held = self._held[self._held.index(end) + len(end) :]
        return self._skip_space(self._in_text)

    def _in_text(self) -> bool:
        if self._style is None:
            self._let_go(Content, len(self._held))
            return False
        at = self._call_at(self._style)
        if at < 0:
            self._let_go(Content, self._certain(self._marks))
            return False
        self._let_go(Content, len(self._held[:at].rstrip()))
        return self._go_on(self._at_call)

    def _call_at(self, style: CallStyle) -> int:
        """Where the first call begins in the held text, -1 for nowhere."""
        if style.mark:
            return self._held.find(style.mark)
        found = re.search(f"(?<=\n)(?:{'|'.join(map(re.escape, self._marks))})", self._before + self._held)
        return -1 if found is None else found.start() - len(self._before)

    def _at_call(self) -> bool:
        assert self._style is not None
        _, before, rest = self._held.partition(self._style.before)
        name, between, rest = rest.partition(self._style.between)
        if not before or not between:
            return False
        self._said.append(CallBegun(self.calls, f"call_{uuid.uuid4().hex[:24]}", name))
        self.calls += 1
        self._held = rest
        self._depth, self._in_string, self._escaped = 0, False, False
        return self._go_on(self._in_arguments)

    def _in_arguments(self) -> bool:
        end = self._end_of_object()
        if text := self._held[:end]:
            self._said.append(CallArguments(self.calls - 1, text))
        self._held = self._held[end:]
        if self._depth or not text:
            return False
        return self._go_on(self._at_call)

    def _end_of_object(self) -> int:
        """How many of the held characters belong to the JSON object, whose beginning is read already."""
        for place, character in enumerate(self._held):
            if self._in_string:
                self._in_string = self._escaped or character != '"'
                self._escaped = character == "\\" and not self._escaped
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "]}":
                self._depth -= 1
                if self._depth == 0:
                    return place + 1
        return len(self._held)

    def _in_space(self) -> bool:
        self._held = self._held.lstrip()
        return bool(self._held) and self._go_on(self._next)

    def _skip_space(self, following: Callable[[], bool]) -> bool:
        """White space first, then `following`."""
        self._next = following
        return self._go_on(self._in_space)

    def _go_on(self, step: Callable[[], bool]) -> bool:
        self._step = step
        return True

    def _certain(self, marks: tuple[str, ...]) -> int:
        """How much of the held text is neither the beginning of a mark nor white space before one."""
        if self._last:
            return len(self._held)
        longest = max(map(len, marks)) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(mark.startswith(self._held[-length:]) for mark in marks):
                return len(self._held[:-length].rstrip())
        return len(self._held.rstrip())

    def _let_go(self, kind: type[Content] | type[Reasoning], length: int) -> None:
        if length:
            self._said.append(kind(self._held[:length]))
            self._before = self._held[length - 1]
            self._held = self._held[length:]


def _marks(reading: Reading) -> tuple[str, ...]:
    """What text a call can begin with."""
    style = reading.style
    if style is None:
        return ()
    return (style.mark,) if style.mark else tuple(f'{style.before}{name}"' for name in reading.names)
