"""Reading a model's files ahead: they get into the page cache while nobody has read them."""

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

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


def test_files_of_a_directory_and_those_below_are_read(tmp_path: Path) -> None:
    (tmp_path / "x86-64-v3").mkdir()
    files = [tmp_path / "weights.bin", tmp_path / "x86-64-v3" / "model.so"]
    for path in files:
        path.write_bytes(b"w" * PAGES * mmap.PAGESIZE)
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    read_ahead(str(tmp_path))
    deadline = time.monotonic() + 20
    while (read := [cached_pages(path) for path in files]) != [PAGES, PAGES]:
        assert time.monotonic() < deadline, read
        time.sleep(0.01)


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
