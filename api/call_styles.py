"""How models write tool calls, as their chat templates tell."""

import re

from msgspec import Struct


class CallStyle(Struct, frozen=True):
    """Calls are written: `opening`, then for each `before`, its name, `between`, its arguments, `after`; `closing`."""

    mark: str
    """What the first call begins with, and no other text; empty where only a line that is a call tells it."""
    opening: str
    before: str
    between: str
    after: str
    separator: str | None
    """What stands between two calls, None where there is only ever one."""
    closing: str = ""
    short_ids: bool = False
    """Whether the template takes nothing but ids of nine letters and digits."""

    @property
    def marks(self) -> set[str]:
        """What in it may be single tokens."""
        return set(_MARK.findall(self.opening + self.before + self.between + self.after + self.closing))

    def written(self, calls: list[tuple[str, str]]) -> str:
        """Calls, (name, arguments) each, as text."""
        texts = [self.before + name + self.between + arguments + self.after for name, arguments in calls]
        return self.opening + (self.separator or "").join(texts) + self.closing


_OBJECT = ('{"name": "', '", "arguments": ', "}")
HERMES = CallStyle("<tool_call>", "", '<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>", separator="\n")
"""Hermes, Qwen and many others."""
TAGGED_LIST = CallStyle("<tool_call>", "<tool_call>[", *_OBJECT, separator=", ", closing="]</tool_call>")
"""SmolLM2."""
MISTRAL = CallStyle("[TOOL_CALLS]", "[TOOL_CALLS][", *_OBJECT, separator=", ", closing="]", short_ids=True)
MISTRAL_SPACED = CallStyle("[TOOL_CALLS]", "[TOOL_CALLS] [", *_OBJECT, separator=", ", closing="]", short_ids=True)
MISTRAL_ARGS = CallStyle("[TOOL_CALLS]", "", "[TOOL_CALLS]", "[ARGS]", "", separator="", short_ids=True)
"""Mistral's three, from the oldest to the newest tokenizer but for the order of the first two."""
LLAMA = CallStyle("", "", '{"name": "', '", "parameters": ', "}", separator=None)
"""Llama 3."""
PLAIN = CallStyle("", "", *_OBJECT, separator="\n")
"""Where nothing else is known."""

_LLAMA = re.compile(r'"name": .{0,80}"parameters": ', re.DOTALL)
_KNOWS_TOOLS = re.compile(r"\b(?:xml_)?tools\b")
_MARK = re.compile(r"<[^<>]+>|\[[A-Z_]+\]")


def call_style(template: str) -> CallStyle:
    """The style that a chat template's source tells."""
    if "[TOOL_CALLS]" in template:
        if "[ARGS]" in template:
            return MISTRAL_ARGS
        return MISTRAL_SPACED if "[TOOL_CALLS] [" in template else MISTRAL
    if "<tool_call>" in template:
        return TAGGED_LIST if re.search(r"<tool_call>\s*\[", template) else HERMES
    return LLAMA if _LLAMA.search(template) else PLAIN


def knows_tools(template: str) -> bool:
    """Whether a chat template has a place for the tools."""
    return _KNOWS_TOOLS.search(template) is not None
