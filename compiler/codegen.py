"""Rewritten graph -> C++ -> a shared library per instruction-set level.

Inductor writes plain scalar C++ here (no vectors of its own), so the same source serves every level and the C++
compiler vectorises it for exactly the level asked for: the build machine's own CPU never decides. Knows nothing of
weights' values.
"""

import functools
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from compiler import ops
from compiler.errors import CompileError, UnsupportedModelError
from compiler.pack import BLOCK
from engines.base import PAGE_TOKENS
from engines.cpu_levels import levels_here, machine_of
from engines.native_library import ABI
from generation import tokenizer_file

NATIVE = Path(__file__).parent.parent / "engines" / "native"

LEVEL_FLAGS = {
    "x86-64-v3": ["-march=x86-64-v3", "-mtune=generic"],
    "x86-64-v4": ["-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=512", "-mtune=generic"],
    "aarch64": ["-march=armv8.2-a+fp16+dotprod"],
}

FLAGS = [
    "-std=c++20", "-O3", "-DNDEBUG", "-fPIC", "-pthread", "-fvisibility=hidden", "-fno-gnu-unique", "-w",
    "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
]  # fmt: skip
MACROS = [
    f"-D{name}={value}"
    for name, value in {
        "ENGINE_ABI": ABI,
        "PAGE_TOKENS": PAGE_TOKENS,
        "PACKED_BLOCK": BLOCK,
        **{f"PACKED_{kind.name}": int(kind) for kind in ops.Kind},
    }.items()
]
"""Numbers that Python and engines/native both need, for the C++ compiler."""

# For generated code only. Sums may be reassociated, so that they vectorise (the kernels must not have that: they round
# by adding and subtracting), and partial redundancy elimination keeps off, which otherwise spoils the loops of norms.
# What OpenMP's loops call is in engine.so (loops.cpp), so that libgomp, which -fopenmp links behind it, is not needed.
_GENERATED = ["-fopenmp", "-fno-signed-zeros", "-fassociative-math", "-fno-tree-pre"]
LOOPS_OF_OUR_OWN = [f"-Wl,--wrap={name}" for name in ("GOMP_parallel", "omp_get_num_threads", "omp_get_thread_num")]

_OWN_MEMORY = r"[ \t]*std::unique_ptr<[^\n]*\n[ \t]*[^\n]*\.get\(\);\n"
"""Inductor's memory for one thread (`LocalBufferContext`): the owner, and on the next line a pointer."""
_LACKING = ("Killed", "No space left on device", "out of memory", "Cannot allocate memory")
"""What g++ says of the machine and not of the code."""
_KERNELS = ("runtime", "team", "loops", "linear", "attention", "sampling", "engine")


@dataclass(frozen=True)
class Source:
    """The generated C++ of one graph. `constants`: its constants' names in the code -> their names in the graph."""

    path: Path
    constants: dict[str, str]


def generate(program: torch.export.ExportedProgram, directory: Path) -> Source:
    """Lower one graph to C++ with AOTInductor; `directory` receives the source."""
    options: dict[str, Any] = {
        "aot_inductor.package": True,
        "aot_inductor.package_cpp_only": True,
        "aot_inductor.package_constants_in_so": False,
        "aot_inductor.custom_ops_to_c_shims": ops.C_SHIMS,
        "aot_inductor.output_path": str(directory),
        "aot_inductor.precompile_headers": False,  # for a compilation by Inductor itself, which never happens
        "cpp.simdlen": 1,
        # Every outer loop is marked for OpenMP, however short: which ones are shared out is decided as they run.
        "cpp.threads": 2,
        "cpp.min_chunk_size": 1,
        # Compute what several kernels read (rotary embeddings) once instead of in each of them.
        "realize_reads_threshold": 0,
    }
    with torch.no_grad():
        files: Any = torch._inductor.aot_compile(
            program.module(check_guards=False), *program.example_inputs, options=options
        )
    (wrapper,) = (Path(f) for f in files if str(f).endswith(".wrapper.cpp"))
    text = _loops_apart(wrapper.read_text())
    wrapper.write_text(text)
    names = dict(re.findall(r'constants_info_\[(\d+)\]\.name = "([^"]*)"', text))
    originals = dict(re.findall(r'constants_info_\[(\d+)\]\.original_fqn = "([^"]*)"', text))
    return Source(wrapper, {name: originals[index] for index, name in names.items()})


def _loops_apart(text: str) -> str:
    """Generated C++ with a parallel region for each of OpenMP's loops, which is what engines/native/loops.cpp can do.

    Inductor opens one region for several loops, with memory that each thread has for itself; here each turn of the loop
    has its own. Raises UnsupportedModelError where a loop keeps a sum for each thread: then it is one over all tokens,
    which a batch of several sequences must not have. And where threads would share what was meant for each.
    """
    text = re.sub(r"#pragma omp parallel num_threads\(\d+\)\n", "\n", text)
    text = text.replace("int tid = omp_get_thread_num();", "")
    text = text.replace("#pragma omp for", "#pragma omp parallel for")
    text = re.sub(
        rf"((?:{_OWN_MEMORY})+)([ \t]*#pragma omp parallel for\n[ \t]*for\([^\n]*\n[ \t]*\{{\n)", r"\2\1", text
    )
    if re.search(r"\btid\b", text):
        raise UnsupportedModelError("The graph has a sum over all tokens of a pass")
    if re.search(rf"{_OWN_MEMORY}\s*#pragma omp", text):
        raise UnsupportedModelError("The graph has a loop whose threads would share their memory")
    return text


def stamp(source: Source, text: str) -> None:
    """Have the library that `source` becomes hold `text`, for `engines.artifact` to find there."""
    with source.path.open("a") as file:
        file.write(f'\nextern "C" __attribute__((visibility("default"))) const char artifact_stamp[] = "{text}";\n')


def _run(command: list[str], refusal: type[CompileError] = CompileError) -> None:
    """Run g++. Raises `refusal` with its first complaint, UnsupportedModelError where operators lack a kernel."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        missing = sorted(
            set(re.findall(r"undefined (?:symbol|reference)[^\n]*?aoti_torch_(?:cpu_)?(\w+)", done.stderr))
        )
        if missing:
            raise UnsupportedModelError(f"The graph needs operators without a kernel here ({', '.join(missing)})")
        complaints = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        error = CompileError if any(words in done.stderr for words in _LACKING) else refusal
        raise error(f"{command[0]} failed: {next(iter(complaints), f'exit status {done.returncode}')}")


def includes() -> list[str]:
    """Where g++ finds the headers of torch and Python."""
    root = Path(torch.__file__).parent / "include"
    return [f"-I{root}", f"-I{root / 'torch/csrc/api/include'}", f"-I{sysconfig.get_paths()['include']}"]


def compiler(level: str) -> str:
    """The g++ that compiles for `level`: this machine's own, or the cross compiler by Debian's name."""
    return "g++" if level in levels_here() else f"{machine_of(level)}-linux-gnu-g++"


def require_compilers(levels: Sequence[str]) -> None:
    """CompileError unless the g++ that compiles for each of `levels` is installed."""
    for name in {compiler(level) for level in levels}:
        if shutil.which(name) is None:
            raise CompileError(f"{name} is not installed, and it compiles the model's code.")


@functools.cache
def _runtime(level: str) -> bytes:
    """engines/native compiled for `level`: the same for every model, so a process compiles it once.

    Its name for the linker is its place, so that a graph finds the kernels beside it, whatever else a process opened.
    """
    with tempfile.TemporaryDirectory() as work:
        library = Path(work) / "engine.so"
        _run([
            compiler(level), *FLAGS, *MACROS, *LEVEL_FLAGS[level], *includes(), "-fvisibility=default", "-shared",
            *(str(NATIVE / f"{name}.cpp") for name in _KERNELS),
            "-o", str(library), "-Wl,-soname,$ORIGIN/engine.so", "-ldl",
        ])  # fmt: skip
        return library.read_bytes()


@functools.cache
def build_tokenizer(level: str) -> bytes:
    """engines/native/tokenizer.cpp as a library of its own, for any CPU of the architecture that has `level`."""
    with tempfile.TemporaryDirectory() as work:
        library = Path(work) / "tokenizer.so"
        _run([
            compiler(level), "-std=c++20", "-O2", "-DNDEBUG", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique",
            *tokenizer_file.MACROS, "-shared", str(NATIVE / "tokenizer.cpp"), "-o", str(library),
        ])  # fmt: skip
        return library.read_bytes()


def build_runtime(level: str, directory: Path) -> None:
    """Compile engines/native into `directory`/engine.so."""
    (directory / "engine.so").write_bytes(_runtime(level))


def build_graph(source: Source, level: str, directory: Path) -> None:
    """Compile the generated source into `directory`/model.so, against the engine.so already there."""
    _run([
        compiler(level), *FLAGS, *_GENERATED, *LEVEL_FLAGS[level], *includes(), "-include", str(NATIVE / "vecmath.h"),
        "-DTORCH_INDUCTOR_CPP_WRAPPER", "-DSTANDALONE_TORCH_HEADER", "-DC10_USING_CUSTOM_GENERATED_MACROS",
        "-shared", str(source.path), "-o", str(directory / "model.so"), str(directory / "engine.so"),
        *LOOPS_OF_OUR_OWN, "-Wl,-z,defs", "-Wl,-z,noexecstack", "-Wl,--as-needed",
    ], UnsupportedModelError)  # fmt: skip
