"""Modules that are loaded when something of them is used, and msgspec without typing_extensions."""

import subprocess
import sys

from settings import ROOT


def run(code: str) -> str:
    """What a fresh interpreter prints for `code`."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_deferred_module_is_loaded_when_it_is_used() -> None:
    code = """
import startup.deferred, sys
sys.modules.pop("ipaddress", None)
import ipaddress
print("IPv4Address" in object.__getattribute__(ipaddress, "__dict__"))
print(ipaddress.ip_address("127.0.0.1"))
"""
    assert run(code).split() == ["False", "127.0.0.1"]


def test_msgspec_does_without_typing_extensions_and_others_have_it() -> None:
    code = """
import startup.lean_msgspec, sys
print("typing_extensions" in sys.modules)
import typing_extensions
print(typing_extensions.__name__)
"""
    assert run(code).split() == ["False", "typing_extensions"]
