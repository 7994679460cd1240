"""The committed results of the clients' tests, and the table that docs/clients.md has of them."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.json")
DOCUMENT = Path(__file__).parents[2] / "docs" / "clients.md"
CHECKS = ("answer", "answer, streamed", "schema", "schema, streamed", "tools", "tools, streamed")
"""The columns."""
NAMES = {
    "openai_package": "`openai`",
    "langchain": "LangChain, `langchain-openai`",
    "litellm": "LiteLLM, `litellm`",
    "agents_sdk": "OpenAI Agents SDK, `openai-agents`",
    "pydantic_ai": "pydantic-ai, `pydantic-ai-slim`",
    "instructor": "`instructor`",
    "llama_index": "LlamaIndex, `llama-index-llms-openai-like`",
    "smolagents": "`smolagents`",
    "dspy": "DSPy, `dspy`",
    "llm_package": "`llm`",
    "anthropic_package": "`anthropic`",
    "openai_npm": "npm: `openai`",
    "ai_sdk": "npm: AI SDK, `ai`",
}
"""What the rows call each driver's client."""


def read_results() -> dict[str, Any]:
    """By driver: its client's version, and for each API and check what each door gave, None for no fault."""
    results: dict[str, Any] = json.loads(RESULTS.read_text())
    return results


def with_table(text: str, results: dict[str, Any]) -> str:
    """The document with the table of these results."""
    before, begin, rest = text.partition("<!-- clients -->\n")
    _, end, after = rest.partition("<!-- clients:end -->")
    return f"{before}{begin}{table(results)}\n{end}{after}"


def table(results: dict[str, Any]) -> str:
    """A row for each client and API, in Markdown."""
    lines = [
        f"| client | API | {' | '.join(CHECKS)} |",
        f"| --- | --- | {' | '.join(':---:' for _ in CHECKS)} |",
    ]
    for driver, name in NAMES.items():
        for api, checks in results[driver]["apis"].items():
            cells = [_cell(checks.get(check)) for check in CHECKS]
            lines.append(f"| {name} {results[driver]['version']} | {api} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(outcome: dict[str, str | None] | None) -> str:
    """Whether a check passed at every door, or the doors where it failed; a dash where a client has no such thing."""
    if outcome is None:
        return "–"
    failed = [door for door, fault in outcome.items() if fault is not None]
    return f"not: {', '.join(failed)}" if failed else "yes"


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8"), read_results()), encoding="utf-8")
