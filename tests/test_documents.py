"""The documents say what the code does: the settings, files, commands, metrics and log lines they name exist."""

import json
import re
import subprocess
from pathlib import Path

from msgspec.structs import fields

from settings import Settings
from tests.test_template import PARAMETERS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LOADER = (ROOT / "model_loader.py").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"
VENV_PYTHON = ".venv/bin/python"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readme_lists_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", README, flags=re.MULTILINE))
    default = Settings()
    expected = {field.name.upper(): getattr(default, field.name) for field in fields(Settings)}
    shown = {name: f"`{str(value).lower()}`" if value not in ("", ()) else "none" for name, value in expected.items()}
    shown |= {"MODEL_DIR": "`models/demo`", "MODEL_NAME": "the directory's name"}
    assert {name: rows.get(name) for name in shown} == shown


def test_the_committed_results_are_of_the_commands_of_make_bench() -> None:
    listed = subprocess.run(
        ["make", "-n", "bench", "BENCH_BEFORE=before"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    listed = re.sub(r"\\\n\s*", "", listed).replace(f"{VENV_PYTHON} ", "python ")
    commands = {file.stem: json.loads(file.read_bytes())["command"] for file in RESULTS.glob("*.json")}
    assert len(commands) > 25
    missing = {name: command for name, command in commands.items() if _plain(command) not in _plain(listed)}
    assert not missing


def _plain(command: str) -> str:
    """A command without quotes, with the names of compiled models instead of where they lay."""
    command = re.sub(r"build/benchmarks/artifacts/\w+/([\w.-]+)-(int8|int4|none)\b", r"\1:\2", command)
    return command.replace("build/benchmarks/trained/", "").replace('"', "")


def parameter_rows() -> list[str]:
    """A table's rows about the template's parameters."""
    rows = []
    for name, parameter in PARAMETERS.items():
        values = [f"`{value}`" for value in parameter.get("AllowedValues", [])]
        if "MinValue" in parameter:
            values = [f"{parameter['MinValue']} to {parameter['MaxValue']}"]
        default = parameter["Default"]
        shown = "none" if default == "" else f"`{default}`"
        rows.append(f"| `{name}` | {shown} | {', '.join(values) or 'text'} | {parameter['Description']} |")
    return rows


def test_the_page_on_parameters_says_what_the_template_says() -> None:
    page = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.startswith("| `")] == parameter_rows()


def test_links_inside_the_repository_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_make_targets_in_the_readme_exist() -> None:
    makefiles = [ROOT / "Makefile", *(ROOT / "make").glob("*.mk")]
    targets = set(re.findall(r"^([a-z-]+):", "\n".join(file.read_text() for file in makefiles), flags=re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= targets


MEASURED_BY_HAND = "a measurement; its code is run by tests with less of it"
NEEDS_AWS = "needs an AWS account"
RUN_BY = {
    r"(MODEL_DIR=\S+ )?make run": "tests/test_run_demo.py",
    r"make compare": "tests/test_compare_engines.py",
    r"make test$": ".ci/run",
    r"make test-(slow|attack|clients)": ".ci/run",
    r"make (image|invoke|start-api|start-lambda)": ".ci/container",
    r"docker run --read-only": "tests/containers.py",
    r"docker run --publish": "tests/test_container_image.py",
    r"docker build": "tests/test_container_image.py",
    r"sam (build|local)": ".ci/container",
    r"sam (deploy|delete)": NEEDS_AWS,
    r"aws (s3|lambda|ec2)": NEEDS_AWS,
    r"curl --aws-sigv4": NEEDS_AWS,
    r"curl (-N )?http://127": "tests/test_server_document.py",
    r"(\.venv/bin/)?python -m compiler": "tests/test_compiler_command.py",
    r"python -m benchmarks break-even": "tests/test_break_even_command.py",
    r"python -m benchmarks fidelity": "tests/test_benchmarks_fidelity.py",
    r"python -m benchmarks memory": "tests/test_benchmarks_memory.py",
    r"python -m benchmarks remote": "tests/test_benchmarks_remote.py",
    r"python -m benchmarks report": "tests/test_benchmarks_report.py",
    r"(\.venv/bin/)?python -m tools.invoke": "tests/test_invoke_tool.py",
    r"python -m tools.batch --state-machine": "tests/test_batch_execution.py",
    r"python -m tools.batch requests": "tests/test_batch_files.py",
    r"python -m benchmarks distributed-map": "tests/test_benchmarks_distributed_map.py",
    r"python -m tools.cost": "prints list prices times the figures it is given",
    r"(make gateway|python -m tools.gateway)": "tests/test_entry_points.py",
    r"(make bench|python -m benchmarks)": MEASURED_BY_HAND,
    r"(WORKERS=4 )?(make serve|python -m server)": "tests/test_server_process.py",
    r"uvicorn app:app": "tests/test_entry_points.py",
}
"""The documents' commands, and for each the file that has it run, in the tests or in CI, or why none does."""
COMMAND = r"(?:[A-Z_]+=\S+ )?(?:make|sam|aws|docker|curl|uvicorn|(?:\.venv/bin/)?python -m) \S.*"


def commands(text: str) -> set[str]:
    """What a document tells its reader to run: lines of its code blocks, and words between backquotes."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return {part for part in [*lines, *re.findall(r"`([^`\n]+)`", prose)] if re.fullmatch(COMMAND, part)}


def test_every_command_of_the_documents_is_run_by_a_test_or_says_why_not() -> None:
    found = {command for document in DOCUMENTS for command in commands(document.read_text(encoding="utf-8"))}
    assert [command for command in sorted(found) if not any(re.match(known, command) for known in RUN_BY)] == []
    assert [known for known in RUN_BY if not any(re.match(known, command) for command in found)] == []
    assert [where for where in RUN_BY.values() if " " not in where and not (ROOT / where).is_file()] == []


def test_documents_that_the_code_names_exist() -> None:
    sources = [path for path in sorted(ROOT.glob("[a-z]*/**/*.py")) if path.relative_to(ROOT).parts[0] != "build"]
    for source in [*sorted(ROOT.glob("*.py")), *sources]:
        for name in re.findall(r"\bdocs/[\w.-]+\.(?:md|svg)\b", source.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file() or source == Path(__file__), f"{source} names {name}"


def test_the_page_on_operations_has_every_metric_and_log_line() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    sources = [ROOT / "handler.py", *sorted((ROOT / "aws").glob("*.py"))]
    code = "\n".join(file.read_text(encoding="utf-8") for file in sources)
    names = set(re.findall(r"add_metric\(\s*\"(\w+)\"", code)) | set(re.findall(r"logger\.\w+\(\"([^\"]+)\"", code))
    names |= {f"cold_start_{phase}" for phase in re.findall(r'_timed\(phases, "(\w+)"', LOADER)}
    assert len(names) > 10
    assert {name for name in names if f"`{name}`" not in page} == set()
