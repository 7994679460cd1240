"""Modules from one file: the same modules as from their own, and never older ones."""

import json
import os
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

from image import bundle_modules
from settings import ROOT

SOURCES = {
    "made/__init__.py": "from made.inner import leaf\nVALUE = 1",
    "made/inner/__init__.py": "",
    "made/inner/leaf.py": "import inspect\ndef source(): return inspect.getsource(source)",
    "alone.py": "VALUE = 2\ndef fail(): raise RuntimeError('told')",
}
LOOK = """
import importlib, json, sys, traceback
sys.path[:0] = [sys.argv[1], sys.argv[3]]
from startup import bundle
bundle.install(sys.argv[2])
import alone, made
try:
    alone.fail()
except RuntimeError as error:
    line = traceback.extract_tb(error.__traceback__)[-1].line
names = ("alone", "made", "made.inner", "made.inner.leaf")
print(json.dumps({
    "loaders": [type(sys.modules[name].__loader__).__name__ for name in names],
    "attributes": [
        [getattr(sys.modules[name], attribute, None) for attribute in
         ("__name__", "__file__", "__cached__", "__package__", "__path__", "__doc__")] for name in names
    ],
    "values": [alone.VALUE, made.VALUE, made.leaf.source(), line],
}))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Modules, and their bundle beside them."""
    for name, text in SOURCES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    modules = {}
    for name in SOURCES:
        path, is_package = str(tmp_path / name), name.endswith("__init__.py")
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        modules[module] = (path, SourceFileLoader(module, path).get_code(module), is_package)
    bundle_modules.write(tmp_path / "modules.bin", modules)
    return tmp_path


def look(folder: Path, bundled: str = "modules.bin") -> dict[str, Any]:
    """What a fresh process sees of the modules."""
    command = [sys.executable, "-c", LOOK, str(folder), str(folder / bundled), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_bundled_modules_are_as_modules_always_are(folder: Path) -> None:
    bundled, plain = look(folder), look(folder, "none.bin")
    assert set(bundled.pop("loaders")) == {"BundledLoader"}
    assert set(plain.pop("loaders")) == {"SourceFileLoader"}
    assert bundled == plain


def test_a_module_that_was_changed_since_is_imported_from_its_file(folder: Path) -> None:
    (folder / "alone.py").write_text(SOURCES["alone.py"].replace("2", "33"))
    found = look(folder)
    assert found["values"][0] == 33
    assert found["loaders"] == ["SourceFileLoader", *["BundledLoader"] * 3]


def test_a_module_of_the_same_size_with_another_time_is_imported_from_its_file(folder: Path) -> None:
    (folder / "alone.py").write_text(SOURCES["alone.py"].replace("2", "3"))
    os.utime(folder / "alone.py", (1, 1))
    assert look(folder)["values"][0] == 3


@pytest.mark.parametrize("content", [b"", b"\0\0\0\0", b"another Python's"])
def test_a_bundle_of_another_python_is_not_used(folder: Path, content: bytes) -> None:
    (folder / "modules.bin").write_bytes(content)
    assert set(look(folder)["loaders"]) == {"SourceFileLoader"}


def test_extension_modules_are_found_where_they_were(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from image import bundle_modules
import msgspec._core as found
bundle_modules.write(Path(sys.argv[1]), {"msgspec._core": (found.__file__, None, False)})
"""
    path = tmp_path / "modules.bin"
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=True)
    code = """
import sys
from startup import bundle
bundle.install(sys.argv[1])
finder = sys.meta_path[0]
import msgspec
assert finder.find_spec("msgspec._core").origin == msgspec._core.__file__
assert msgspec.json.decode(b"[1]") == [1]
"""
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=True)


def test_installing_a_bundle_imports_nothing_that_python_has_not_imported_by_itself() -> None:
    """What is imported before the bundle is there comes from files of its own."""
    listing = "import json, sys; print(json.dumps(sorted(sys.modules)))"
    plain = subprocess.run(
        [sys.executable, "-c", f"import runpy; {listing}"], capture_output=True, text=True, check=True
    )
    code = f"import runpy, startup.bundle; {listing}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) - set(json.loads(plain.stdout)) == {"startup", "startup.bundle"}


START = """
import json, os, sys
from startup import bundle
bundle.install(sys.argv[1])
import aws.runtime
import handler
print(json.dumps({
    name: [type(module.__spec__.loader).__name__, module.__spec__.origin] for name, module in list(sys.modules.items())
    if getattr(module, "__spec__", None) is not None and module.__spec__.has_location
}))
"""


def test_a_start_imports_from_its_bundle_alone(llama_artifact: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "MODEL_DIR": str(llama_artifact)}
    path = tmp_path / "modules.bin"
    command = [sys.executable, "-m", "image.bundle_modules", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-c", START, str(path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    own = {name for name, (loader, origin) in loaded.items() if loader != "BundledLoader" and str(ROOT) in origin}
    assert {"handler", "api.service", "msgspec", "json"} <= loaded.keys()
    assert {name for name in own if ".venv" not in loaded[name][1]} == {"startup", "startup.bundle"}
