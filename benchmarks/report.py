"""Tables and plots from results files, and the documents that quote them. Drawn from the JSON, never typed.

A document quotes a table between `<!-- benchmarks:NAME:SECTION -->` and `<!-- benchmarks:end -->`.
"""

import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.batch import report as batch
from benchmarks.break_even import report as break_even
from benchmarks.cold_start import report as cold_start
from benchmarks.compiling import report as compiling
from benchmarks.deadlines import report as deadlines
from benchmarks.distributed_map import report as distributed_map
from benchmarks.drafts import report as drafts
from benchmarks.errors import InputError
from benchmarks.fidelity import report as fidelity
from benchmarks.load import report as load
from benchmarks.memory import report as memory
from benchmarks.peers import report as peers
from benchmarks.prefix import report as prefix
from benchmarks.remote import report as remote
from benchmarks.results import digest, load_result, measured_on, provenance
from benchmarks.roofline import report as roofline
from benchmarks.shapes import report as shapes
from benchmarks.streaming import report as streaming
from benchmarks.warm import report as warm

REPORTS = {
    "batch": batch,
    "break-even": break_even,
    "distributed-map": distributed_map,
    "load": load,
    "cold-start": cold_start,
    "warm": warm,
    "roofline": roofline,
    "peers": peers,
    "memory": memory,
    "fidelity": fidelity,
    "compile": compiling,
    "shapes": shapes,
    "drafts": drafts,
    "streaming": streaming,
    "prefix": prefix,
    "deadlines": deadlines,
    "remote": remote,
}
DOCUMENTS = (
    Path("README.md"),
    Path("docs/performance.md"),
    Path("docs/baked-prompts.md"),
    Path("docs/cold-start.md"),
    Path("docs/compiled-engine.md"),
    Path("docs/prefix-reuse.md"),
    Path("docs/baked-prompts.md"),
    Path("docs/batches.md"),
    Path("docs/operations.md"),
    Path("models/demo/README.md"),
)
_QUOTE = re.compile(r"(<!-- benchmarks:([\w-]+):([\w-]+) -->\n).*?(<!-- benchmarks:end -->)", re.DOTALL)


def markdown(content: dict[str, Any]) -> str:
    """A results file as one Markdown page."""
    report = _report_of(content)
    parts = [f"# {content['benchmark']}\n", content["what"] + "\n", provenance(content) + "\n"]
    if not content["complete"]:
        parts.append("**The run was interrupted: these are the samples it had.**\n")
    parts += report.sections(content).values()
    return "\n".join(parts)


def _report_of(content: dict[str, Any]) -> ModuleType:
    """The report of a results file's benchmark. Raises InputError for a benchmark that there is none of."""
    name = content.get("benchmark")
    if name not in REPORTS:
        raise InputError(f"the results are of {name!r}, which has no report; there are {', '.join(REPORTS)}.")
    return REPORTS[name]


def render(path: Path) -> list[Path]:
    """Write the Markdown page and the plots of a results file beside it; returns what was written."""
    from benchmarks.plots import write

    content = load_result(path)
    page = path.with_suffix(".md")
    page.write_text(markdown(content))
    written = [page]
    for name, draw in _report_of(content).FIGURES.items() if content.get("samples", True) else ():
        target = path.with_name(f"{path.stem}-{name}.svg")
        write(draw(content), target, digest(content))
        written.append(target)
    return written


def quote(text: str, document: Path, results: Path) -> str:
    """A document's text with everything it quotes made anew from the results folder.

    SECTION is a table's name, or `plot-` and a plot's. Below a table stand the machine and the day of its figures, for
    not all are of one. What has not been measured yet is said to be so.
    """

    def fresh(match: re.Match[str]) -> str:
        opening, name, section, end = match.groups()
        path = results / f"{name}.json"
        if not path.exists():
            return f"{opening}*Not measured yet: `python -m benchmarks {name}`.*\n{end}"
        content = load_result(path)
        report = _report_of(content)
        plots = {f"plot-{plot}": draw for plot, draw in report.FIGURES.items()}
        if section in plots:
            plot = path.with_name(f"{path.stem}-{section.removeprefix('plot-')}.svg")
            where = Path(os.path.relpath(plot.resolve(), document.resolve().parent)).as_posix()
            return f"{opening}![{(plots[section].__doc__ or '').splitlines()[0]}]({where})\n{end}"
        sections = report.sections(content)
        if section not in sections:
            raise InputError(f"{name} has no section {section!r}; it has {', '.join([*sections, *plots])}.")
        if not sections[section]:
            return f"{opening}{end}"
        return f"{opening}{sections[section]}\n*{measured_on(content)}.*\n{end}"

    return _QUOTE.sub(fresh, text)


def requote(document: Path, results: Path) -> list[Path]:
    """Write a document again with everything it quotes made anew; returns what was written."""
    document.write_text(quote(document.read_text(), document, results))
    return [document]
