"""Importing torch and its like in less time."""

from __future__ import annotations

import atexit
import contextlib
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def large_modules() -> Iterator[None]:
    """Import large modules inside: nothing is collected meanwhile, and what was made is never looked through again.

    torch, torchvision and timm make a million objects that all stay. Python's collector looks through all of them again
    and again as they grow in number, for an eighth of the time that the import takes, and later while a model trains.
    """
    if "torch" in sys.modules:  # what is there by now need not stay
        yield
        return
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # triton's bindings call what is not collected at the very end a leak, on stderr
        if was:
            gc.enable()
