"""Modules that a cold start imports and the first request does not use: they are loaded when something of them is.

Libraries import them at their top for what they do rarely: JMESPath in Powertools, IP addresses in `urllib.parse`. It
works for what is imported once: Python loads such a module when a second library imports it. Entry points import this
before anything else. A name that no library imports any more does no harm.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

DEFERRED = frozenset(
    {
        "aws_lambda_powertools.utilities.jmespath_utils",
        "ipaddress",
        "msgspec._json_schema",
        "msgspec.inspect",
        "msgspec.msgpack",
        "msgspec.toml",
        "msgspec.yaml",
        "textwrap",
    }
)


class _Deferring:
    """Finds the modules of DEFERRED where they are, and has them loaded late."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in DEFERRED:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


if not any(isinstance(finder, _Deferring) for finder in sys.meta_path):
    sys.meta_path.insert(0, _Deferring())
