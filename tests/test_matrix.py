"""Instructions that multiply matrices, AMX and i8mm: the bits of the products without them, used only where allowed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from compiler.ops import Kind
from compiler.pack import pack
from engines import cpu_levels
from tests import emulated
from tests.kernels import BEST, RUNNABLE, Kernels

_USED, _FORBIDDEN = 1, 2

needs_amx = pytest.mark.skipif(
    "amx_int8" not in cpu_levels.cpu_flags() or BEST != "x86-64-v4", reason="a CPU with AMX and AVX-512 is needed"
)
needs_avx2 = pytest.mark.skipif("x86-64-v3" not in RUNNABLE, reason="a CPU with AVX2 is needed")


@pytest.fixture(
    scope="module",
    params=[pytest.param("this CPU", marks=needs_amx), pytest.param("emulated", marks=[needs_avx2, pytest.mark.slow])],
)
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    if request.param == "emulated":
        directory = tmp_path_factory.mktemp("emulated")
        emulated.build_v4(directory)
    else:
        directory = request.getfixturevalue("llama_artifact") / BEST
    found = Kernels(directory)
    assert found.native.engine_use_matrix(1) == _USED
    return found


@pytest.mark.parametrize("kind", [Kind.INT8, Kind.INT4, Kind.INT6])
@pytest.mark.parametrize(("n", "k"), [(64, 64), (70, 96), (30, 608), (200, 200)])
def test_products_are_the_same_bits_with_and_without_amx(kernels: Kernels, kind: Kind, n: int, k: int) -> None:
    rng = np.random.default_rng(0)
    packed = pack(torch.from_numpy(rng.standard_normal((n, k), np.float32)), kind).numpy()
    for tokens in (31, 32, 33, 48, 63, 64, 97, 257, 300):
        x = 10 * rng.standard_normal((1, tokens, k), np.float32)
        for bias in (None, rng.standard_normal(n, np.float32)):
            found = []
            for wanted in (0, 1):
                kernels.native.engine_use_matrix(wanted)
                found.append(kernels.linear(x, packed, bias, n, kind))
            without, with_unit = found
            np.testing.assert_array_equal(without, with_unit)


@pytest.mark.slow
def test_products_are_the_same_bits_with_and_without_i8mm(tmp_path: Path) -> None:
    emulated.require()
    rng = np.random.default_rng(0)
    each = [emulated.EmulatedKernels(tmp_path, cpu) for cpu in (emulated.CPU, emulated.MATRIX_CPU)]
    for kind in (Kind.INT8, Kind.INT4, Kind.INT6):
        for tokens, n, k in ((16, 64, 64), (19, 70, 96), (50, 30, 608)):
            packed = pack(torch.from_numpy(rng.standard_normal((n, k), np.float32)), kind).numpy()
            x, bias = 10 * rng.standard_normal((1, tokens, k), np.float32), rng.standard_normal(n, np.float32)
            without, with_i8mm = (kernels.linear(x, packed, bias, n, kind) for kernels in each)
            np.testing.assert_array_equal(without, with_i8mm)


# Has the kernel refuse arch_prctl(ARCH_REQ_XCOMP_PERM, ...) with EPERM, as a sandbox would, then reads a prompt.
_FORBIDDING = """
import ctypes, logging, struct, sys
from array import array
from pathlib import Path

LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERROR, ARCH_PRCTL, REQUEST = 0x7FFF0000, 0x00050001, 158, 0x1023
program = b"".join(struct.pack("HBBI", *line) for line in [
    (LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 0, 3, ARCH_PRCTL), (LOAD, 0, 0, 16), (JUMP_IF_EQUAL, 0, 1, REQUEST),
    (RETURN, 0, 0, ERROR), (RETURN, 0, 0, ALLOW)])
held = ctypes.create_string_buffer(program)
libc = ctypes.CDLL(None, use_errno=True)
filter = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held))
if sys.argv[2] == "forbidden":
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, filter) == 0, ctypes.get_errno()  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER

from engines import compiled_engine
from engines.base import Step
logging.basicConfig(format="%(message)s", stream=sys.stderr)
engine = compiled_engine.load(Path(sys.argv[1]), threads=2)
(rows,) = engine.forward([Step(array("q", [1 + i % 50 for i in range(100)]), engine.new_cache(), last=3)])
print(ctypes.CDLL(str(Path(sys.argv[1], engine.level, "engine.so"))).engine_use_matrix(1), rows.tobytes().hex())
"""


@needs_amx
def test_a_system_that_forbids_amx_gets_the_same_answer_and_one_sentence(llama_artifact: Path) -> None:
    said, logits = {}, {}
    for how, use in (("allowed", _USED), ("forbidden", _FORBIDDEN)):
        command = [sys.executable, "-c", _FORBIDDING, str(llama_artifact), how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found, logits[how] = done.stdout.split()
        assert int(found) == use
        said[how] = done.stderr
    assert logits["allowed"] == logits["forbidden"]
    assert said["allowed"] == ""
    assert said["forbidden"].count("\n") == 1
    assert "the system does not let this process use the CPU's matrix unit" in said["forbidden"]
