"""What prefix reuse saves, from a results file's content and nothing else."""

import math
from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from benchmarks.stats import paired_ratio, summarise
from benchmarks.tables import dollars, milliseconds, table


def _times(content: dict[str, Any], variant: str, reuses: bool, kind: str, what: str) -> list[float]:
    """By round."""
    return [
        sample[what]
        for sample in sorted(content["samples"], key=lambda sample: int(sample["round"]))
        if (sample["variant"], sample["reuses"], sample["kind"]) == (variant, reuses, kind)
    ]


def _first_token(content: dict[str, Any]) -> str:
    rows = []
    for variant in content["settings"]["models"]:
        short, seen = (_times(content, variant, True, kind, "first_token_s") for kind in ("short", "seen"))
        unkept = _times(content, variant, False, "seen", "first_token_s")
        if short and len(short) == len(seen):
            rows.append(_row(variant, short, seen, milliseconds(summarise(unkept).median)))
    peers = sorted(content["peers"], key=lambda sample: int(sample["round"]))
    for peer in dict.fromkeys(sample["peer"] for sample in peers):
        short, seen = (
            [s["first_token_s"] for s in peers if (s["peer"], s["kind"]) == (peer, kind)] for kind in ("short", "seen")
        )
        if short and len(short) == len(seen):
            rows.append(_row(peer, short, seen, ""))
    settings = content["settings"]
    head = [
        "first token, median ms",
        f"{settings['new']} tokens",
        f"{settings['shared']} seen before, {settings['new']} new",
        "ratio",
        "the same, read whole",
    ]
    return table(head, rows)


def _row(name: str, short: list[float], seen: list[float], unkept: str) -> list[str]:
    medians = (milliseconds(summarise(times).median) for times in (short, seen))
    return [name, *medians, f"**{paired_ratio(short, seen)[0]:.2f}**", unkept]


def _typical(content: dict[str, Any]) -> str:
    rows = []
    for variant in content["settings"]["models"]:
        unkept, kept = (_times(content, variant, reuses, "typical", "call_s") for reuses in (False, True))
        if kept and len(kept) == len(unkept):
            times = (f"{milliseconds(summarise(calls).median)} ms" for calls in (unkept, kept))
            costs = (dollars(_per_million(content, calls)) for calls in (unkept, kept))
            rows.append([variant, *times, f"**{paired_ratio(unkept, kept)[0]:.2f}**", *costs])
    settings = content["settings"]
    about = (
        f"{settings['shared']} tokens of instructions, {settings['question']} of a question, {settings['answer']} of "
        f"an answer, {settings['runs']} requests; {settings['memory']} MB of memory in {settings['prices']['region']}."
    )
    head = ["typical request", "read whole", "with reuse", "ratio", "a million, read whole", "a million, with reuse"]
    return f"{about}\n\n{table(head, rows)}"


def _starts(content: dict[str, Any]) -> str:
    """How soon a process has its first token, with a prompt that was read before it began."""
    read = content["settings"].get("read")
    if read is None:
        return "*Not measured yet: `python -m benchmarks prefix`.*\n"
    samples = sorted(content["starts"], key=lambda sample: int(sample["round"]))
    rows = []
    for who, size in read["file_bytes"].items():
        short, behind = (
            [s["first_token_s"] for s in samples if (s["who"], s["kind"]) == (who, kind)] for kind in ("short", "read")
        )
        if short and len(short) == len(behind):
            rows.append(_row(who, short, behind, f"{size / 1e6:.1f} MB"))
    new = content["settings"]["new"]
    head = [f"{new} tokens", f"{read['tokens']} read before, {new} new", "ratio", "their file"]
    return table(["process start to first token, median ms", *head], rows)


def _per_million(content: dict[str, Any], calls: list[float]) -> float:
    """US dollars for a million requests that take as long, each rounded up to a millisecond as Lambda bills it."""
    settings, prices = content["settings"], content["settings"]["prices"]
    billed = sum(math.ceil(1000 * call) / 1000 for call in calls) / len(calls)
    return float(1e6 * (prices["request"] + billed * settings["memory"] / 1024 * prices["gb_second"]))


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown."""
    notes = [f"- Not measured: {text}." for text in content["skipped"]]
    notes += [f"- Failed: {name}: {error}." for name, error in content["failed"].items()]
    return {
        "first-token": _first_token(content),
        "typical": _typical(content),
        "starts": _starts(content),
        "notes": "\n".join(notes) + "\n" if notes else "",
    }


FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {}
