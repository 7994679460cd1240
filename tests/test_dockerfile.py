"""Each stage of the Dockerfile holds the modules that its commands import: seen here, in seconds, before Docker is."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.dockerfile import ROOT, Stage, lay_out, stages

DOCKERFILE = (ROOT / "Dockerfile").read_text()
CODE = ("build", "var/task")
"""Where stages keep code: `PYTHONPATH` in the commands that build the image, and in the image."""

NO_CODE = "models|prompts|requirements|image/|--from=build /opt/"
"""How lines go on that copy no module of ours."""


@cache
def imported(source: str) -> set[str]:
    """Every module of ours that a file's source imports, at its top or in a function."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if is_module(ROOT, name)}


def is_module(folder: Path, name: str) -> bool:
    path = folder / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def started(stage: Stage) -> set[str]:
    """Modules of ours that the stage's commands run or import."""
    named = re.findall(r"""-m[", ]+([\w.]+)|import (\w+)|(\w+)\.lambda_handler""", " ".join(stage.commands))
    return {name for names in named for name in names if name and is_module(ROOT, name)}


def lacking(dockerfile: str, name: str, root: Path) -> set[str]:
    """Modules that code in the stage imports, or a command of the stage starts, and that the stage does not hold."""
    all_stages = stages(dockerfile)
    lay_out(all_stages, name, root)
    folders = [root / folder for folder in CODE if (root / folder).is_dir()]
    lacks = {
        module
        for folder in folders
        for file in folder.rglob("*.py")
        for module in imported(file.read_text())
        if not is_module(folder, module)
    }
    return lacks | {module for module in started(all_stages[name]) if not any(is_module(f, module) for f in folders)}


@pytest.mark.parametrize("name", ["source", "packages", "build", "image"])
def test_a_stage_holds_every_module_that_its_code_imports(name: str, tmp_path: Path) -> None:
    assert lacking(DOCKERFILE, name, tmp_path) == set()


@pytest.mark.parametrize("line", re.findall(rf"^COPY (?!{NO_CODE}).*", DOCKERFILE, flags=re.MULTILINE))
def test_a_line_that_copies_code_is_missed_when_it_goes(line: str, tmp_path: Path) -> None:
    without = DOCKERFILE.replace(f"{line}\n", "")
    assert any(lacking(without, name, tmp_path / name) for name in ("source", "build", "image"))


def run(folder: Path, *command: str, **environment: str) -> str:
    """What Python prints in a folder that nothing but the virtual environment's packages is importable beside."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_stage_checks_the_model_with_nothing_but_python(tmp_path: Path) -> None:
    lay_out(stages(DOCKERFILE), "source", tmp_path)
    run(tmp_path / "build", "-S", "-m", "image.prepare_model", "models/demo", str(tmp_path / "out"), "--check")


def test_the_compiler_can_be_imported_in_the_build_stage(tmp_path: Path) -> None:
    lay_out(stages(DOCKERFILE), "build", tmp_path)
    folder = tmp_path / "build"
    modules = [f"compiler.{file.stem}" for file in (folder / "compiler").glob("*.py")]
    run(folder, "-c", f"import image.prepare_model, {', '.join(modules)}")


def test_the_function_and_the_server_can_be_imported_in_the_image(tmp_path: Path) -> None:
    lay_out(stages(DOCKERFILE), "image", tmp_path)
    run(tmp_path / "var" / "task", "-c", "import handler, app", MODEL_DIR=str(ROOT / "models" / "demo"))


def test_the_image_gets_no_source_of_the_kernels() -> None:
    assert "rm -rf /var/task/engines/native" in " ".join(stages(DOCKERFILE)["build"].commands)


def test_the_image_s_locale_has_no_tables_and_python_s_texts_are_utf_8() -> None:
    (locale,) = re.findall(r"^\s+LC_ALL=(\S+)", DOCKERFILE, re.MULTILINE)
    code = (
        "import locale, sys; print(locale.setlocale(locale.LC_CTYPE), sys.stdout.encoding, sys.getfilesystemencoding())"
    )
    environment = {"PATH": os.environ["PATH"], "LANG": "en_US.UTF-8", "LC_ALL": locale}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["C", "utf-8", "utf-8"]
