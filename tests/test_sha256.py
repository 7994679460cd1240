"""SHA-256 without OpenSSL: the same digests, and nothing of OpenSSL in the process."""

import hashlib
import subprocess
import sys

import pytest

from engines.sha256 import sha256
from settings import ROOT


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 4096, 100_001])
def test_digests_are_hashlibs(size: int) -> None:
    content = bytes(i * i % 251 for i in range(size))
    assert sha256(content).hexdigest() == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(("missing", "loads_openssl"), [((), False), (("_sha2", "_sha256"), True)])
def test_hashlib_is_asked_only_where_python_has_no_code_of_its_own(
    missing: tuple[str, ...], loads_openssl: bool
) -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys({missing!r}))
from engines.sha256 import sha256
print(sha256(b"abc").hexdigest(), "_hashlib" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [hashlib.sha256(b"abc").hexdigest(), str(loads_openssl)]
