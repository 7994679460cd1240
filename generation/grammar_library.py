"""llguidance, imported in a third of the time: its compiled module without what its package does beside.

The package reads its own version through `importlib.metadata`, which imports forty modules for it.
"""

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

PACKAGE, COMPILED = "llguidance", "_lib"


def _imported() -> ModuleType:
    """The compiled module, or the package itself where that is imported already or has no such module."""
    spec = None if PACKAGE in sys.modules else find_spec(PACKAGE)
    if spec is not None and spec.submodule_search_locations is not None:
        package = sys.modules[PACKAGE] = ModuleType(PACKAGE)
        package.__path__ = spec.submodule_search_locations
        try:
            return importlib.import_module(f"{PACKAGE}.{COMPILED}")
        except ImportError:
            pass
        finally:
            del sys.modules[PACKAGE]  # whoever imports the package gets all of it
    return importlib.import_module(PACKAGE)


if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer, regex_to_lark
else:
    _found = _imported()
    LLMatcher, LLParserLimits, LLTokenizer = _found.LLMatcher, _found.LLParserLimits, _found.LLTokenizer
    regex_to_lark = _found.regex_to_lark

__all__ = ["LLMatcher", "LLParserLimits", "LLTokenizer", "regex_to_lark"]
