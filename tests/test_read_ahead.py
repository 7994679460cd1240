"""Reading a model's files ahead: they get into the page cache while nobody has read them."""

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

from engines.cpu_levels import LEVEL_FLAGS, choose_level, cpu_flags, levels_here
from generation import vocabulary
from startup.read_ahead import read_ahead

PAGES = 64


def cached_pages(path: Path) -> int:
    """How many pages of a file are in memory, by mincore."""
    import ctypes

    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        vector = (ctypes.c_ubyte * PAGES)()
        libc = ctypes.CDLL(None)
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(PAGES * mmap.PAGESIZE), vector) == 0
        return sum(entry & 1 for entry in vector)


def test_files_of_a_directory_and_those_below_are_read_where_a_start_needs_them(tmp_path: Path) -> None:
    best = choose_level(levels_here(), cpu_flags())
    other = next(level for level in LEVEL_FLAGS if level != best)
    files = [
        tmp_path / name for name in ("weights.bin", f"{best}/model.so", f"prompts-{best}.bin", "nested/config.json")
    ]
    not_needed = [tmp_path / name for name in (f"{other}/model.so", f"prompts-{other}.bin", vocabulary.FILE)]
    for path in [*files, *not_needed]:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"w" * PAGES * mmap.PAGESIZE)
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    read_ahead(str(tmp_path))
    deadline = time.monotonic() + 20
    while (read := [cached_pages(path) for path in files]) != [PAGES] * len(files):
        assert time.monotonic() < deadline, read
        time.sleep(0.01)
    assert [cached_pages(path) for path in not_needed] == [0, 0, 0]


def test_what_is_no_directory_is_left_to_the_loader(tmp_path: Path) -> None:
    read_ahead(str(tmp_path / "nowhere"))
    read_ahead("s3://bucket/prefix")


def test_the_handler_asks_before_it_imports_anything_large(tmp_path: Path) -> None:
    code = """
import sys
from startup import read_ahead
LARGE = ("numpy", "tokenizers", "aws_lambda_powertools", "engines.compiled_engine", "api")
read_ahead.read_ahead = lambda directory: print(directory, [name for name in LARGE if name in sys.modules])
import handler
"""
    environment = {**os.environ, "MODEL_DIR": str(tmp_path / "nowhere"), "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[0] == f"{tmp_path / 'nowhere'} []", done.stderr
