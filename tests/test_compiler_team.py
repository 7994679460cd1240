"""The engine's threads (engines/native/team.cpp, loops.cpp), under the thread sanitizer."""

import subprocess
from pathlib import Path

import pytest

from compiler.codegen import LOOPS_OF_OUR_OWN, NATIVE

DRIVER = Path(__file__).parent / "native" / "team.cpp"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("team") / "team"
    command = ["g++", "-std=c++20", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=thread", "-fopenmp"]
    sources = [DRIVER, NATIVE / "team.cpp", NATIVE / "loops.cpp"]
    subprocess.run([*command, *map(str, sources), *LOOPS_OF_OUR_OWN, "-o", str(program)], check=True)
    return program


def test_every_task_and_iteration_is_done_once_and_teams_share_the_workers_without_a_data_race(driver: Path) -> None:
    done = subprocess.run([str(driver)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
