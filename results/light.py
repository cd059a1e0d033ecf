"""Keep pyarrow from importing pandas in a process that will not use it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType


def without_pandas() -> None:
    """Let pyarrow believe that pandas is not installed; for short commands only, before any other use of pyarrow.

    pyarrow imports pandas the first time it converts a Python value, to recognise pandas objects. That takes longer
    than a whole table. It asks once per process; here the answer is no. Does nothing where pandas is loaded already.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    finder = _NotInstalled()
    sys.meta_path.insert(0, finder)
    try:
        pa.scalar(0)
    finally:
        sys.meta_path.remove(finder)


class _NotInstalled(MetaPathFinder):
    """An import finder that knows of no pandas."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Refuse pandas, leave everything else to the others."""
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is not wanted here", name="pandas")
