"""Levels on machines that lack them.

aarch64 is cross-compiled, and run by qemu as the Neoverse N1 of Graviton2. qemu refuses instructions that this core
lacks; with `MATRIX_CPU` it knows those of later ones. Arrays go through pipes, so the tests of kernels need not know.

Of x86-64-v4 and AMX, which qemu does not know, each instruction is a function here (native/emulated_v4.h).
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from compiler import codegen
from compiler.ops import Kind
from tests.kernels import Floats, Kernels, Pages

LEVEL = "aarch64"
CPU = "neoverse-n1"
MATRIX_CPU = "max"
"""Every extension that qemu knows, Arm's matrix multiplication (i8mm) among them."""
_EMULATOR = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "-cpu"]
_NATIVE = Path(__file__).parent / "native"


def require() -> None:
    """Skip the test that asks unless the cross compiler and the emulator are here."""
    for name in (codegen.compiler(LEVEL), _EMULATOR[0]):
        if not shutil.which(name):
            pytest.skip(f"{name} is missing (Debian: apt-get install g++-aarch64-linux-gnu qemu-user)")
    known = subprocess.run([_EMULATOR[0], "-cpu", "help"], capture_output=True, text=True, check=False).stdout
    if CPU not in known:
        pytest.skip(f"this qemu does not know {CPU}")


def build_driver(name: str, directory: Path, *libraries: Path) -> Path:
    """Compile tests/native/`name`.cpp for aarch64 into `directory`, linked against `libraries`."""
    driver = directory / name
    paths = [f"-Wl,-rpath,{library.parent}" for library in libraries]
    command = [
        codegen.compiler(LEVEL),
        "-std=c++20",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-O1",
        *codegen.MACROS,
        str(_NATIVE / f"{name}.cpp"),
    ]
    subprocess.run([*command, "-o", str(driver), *map(str, libraries), *paths], check=True)
    return driver


def run(driver: Path, arguments: Sequence[object], request: bytes, cpu: str = CPU) -> bytes:
    """What `driver` writes when it reads `request`; told to use matrix instructions on a CPU that has them."""
    command = [*_EMULATOR, cpu, str(driver), *map(str, arguments)]
    env = {**os.environ, "MATRIX": "1"} if cpu == MATRIX_CPU else None
    return subprocess.run(command, input=request, stdout=subprocess.PIPE, check=True, env=env).stdout


def build_v4(directory: Path) -> None:
    """Compile the kernels of x86-64-v4, with AMX, for a CPU with AVX2 alone, into `directory`/engine.so."""
    sources = [str(codegen.NATIVE / f"{name}.cpp") for name in ("runtime", "team", "loops", "linear", "attention")]
    command = [
        codegen.compiler("x86-64-v3"),
        *codegen.FLAGS,
        "-O1",
        "-Wno-psabi",
        *codegen.MACROS,
        *codegen.includes(),
        *codegen.LEVEL_FLAGS["x86-64-v3"],
        "-include",
        str(_NATIVE / "emulated_v4.h"),
        "-fvisibility=default",
        "-shared",
        *sources,
        "-o",
        str(directory / "engine.so"),
    ]
    subprocess.run(command, check=True)


class EmulatedKernels(Kernels):
    """engine.so of the aarch64 level, each call a process of its own."""

    def __init__(self, directory: Path, cpu: str = CPU) -> None:
        self._cpu = cpu
        codegen.build_runtime(LEVEL, directory)
        self._driver = build_driver("kernels", directory, directory / "engine.so")

    def linear(self, x: Floats, packed: npt.NDArray[np.uint8], bias: Floats | None, n: int, kind: Kind) -> Floats:
        tensors = (x, packed) if bias is None else (x, packed, bias)
        return _floats(self._call("linear", [n, int(kind)], tensors), (*x.shape[:-1], n))

    def embedding(self, ids: npt.NDArray[np.int64], packed: npt.NDArray[np.uint8], k: int, kind: Kind) -> Floats:
        return _floats(self._call("embedding", [k, int(kind)], [ids, packed]), (*ids.shape, k))

    def attention(
        self, q: Floats, k: Floats, v: Floats, pages: Pages, past: int, element: int, softcap: float, window: int
    ) -> Floats:
        scalars = [0, q.shape[-1] ** -0.5, softcap, window, past, element]
        found = self._call("attention", scalars, [q, k, v, np.ascontiguousarray(pages)])
        pages[:] = np.frombuffer(found[-pages.size :], np.uint8).reshape(pages.shape)
        return _floats(found[: -pages.size], (1, q.shape[2], q.shape[1], v.shape[3]))

    def _call(self, name: str, scalars: Sequence[object], tensors: Sequence[npt.NDArray[Any]]) -> bytes:
        numbers = {np.dtype(np.uint8): 0, np.dtype(np.int64): 4, np.dtype(np.float32): 6}
        parts = [np.array([numbers[t.dtype], t.ndim, *t.shape]).tobytes() + t.tobytes() for t in tensors]
        return run(self._driver, [name, *scalars], b"".join(parts), self._cpu)


def _floats(data: bytes, shape: tuple[int, ...]) -> Floats:
    return np.frombuffer(data, np.float32).reshape(shape)
