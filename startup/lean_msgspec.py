"""msgspec without `typing_extensions`, of which it only takes names that Python's own `typing` has by now.

Entry points import it before anything that uses msgspec. Whoever imports `typing_extensions` later gets it.
"""

import sys
from types import ModuleType
from typing import cast

_NOT_TO_BE_HAD = cast(ModuleType, None)
"""Python's import takes this entry for a module that does not exist, and msgspec then asks `typing`."""

if "typing_extensions" not in sys.modules:
    sys.modules["typing_extensions"] = _NOT_TO_BE_HAD
    try:
        import msgspec  # noqa: F401
    finally:
        del sys.modules["typing_extensions"]
