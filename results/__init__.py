"""Run folders, Parquet layouts, statistics, paper tables, figures and the report. Needs neither torch nor a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from results.collect import load as load
    from results.errors import FailedError as FailedError
    from results.errors import InputError as InputError
    from results.run import Run as Run

_HOMES = {"load": "collect", "Run": "run", "InputError": "errors", "FailedError": "errors"}

__all__ = ["FailedError", "InputError", "Run", "load"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"results.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'results' has no attribute {name!r}")
