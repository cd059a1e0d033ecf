"""Files of a submission: complete or absent, and only their owner can read them."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path


def write(path: Path, content: str) -> None:
    """Write a file that only the user can read, in one piece; jobs on other nodes may do so at the same time.

    Raises:
        OSError: as writing does; no file is left under another name.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.touch(mode=0o600)
        temporary.write_text(content)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
