"""A headless Chromium for tests of pages: what a page holds after a script has used it, and what it looks like."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
FLAGS += ("--disable-background-networking", "--disable-component-update", "--hide-scrollbars")


def browser() -> str:
    """The program; a test without one is skipped by name."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        pytest.skip("browser: no chromium here")
    return found


def _start(words: list[str], folder: Path, size: tuple[int, int]) -> subprocess.CompletedProcess[str]:
    common = [browser(), *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={size[0]},{size[1]}"]
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("DBUS")}
    done = subprocess.run([*common, *words], capture_output=True, timeout=180, env=quiet, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    return done


def used(page: Path, script: str, folder: Path, *, size: tuple[int, int] = (1400, 900)) -> Any:
    """What `script`, the body of an async function run in the opened page, returns (as JSON can hold it)."""
    wrapped = (
        "<script>(async () => { try { document.title = JSON.stringify(await (async () => {" + script + "})()); }"
        " catch (error) { document.title = JSON.stringify({ error: String(error.stack) }); } })();</script></body>"
    )
    text = page.read_text(encoding="utf-8")
    copy = folder / "used.html"
    copy.write_text("".join(text.rsplit("</body>", 1)[0]) + wrapped + text.rsplit("</body>", 1)[1], encoding="utf-8")
    tree = _start(["--virtual-time-budget=4000", "--dump-dom", copy.as_uri()], folder, size).stdout
    found = re.search(r"<title>(.*?)</title>", tree, re.DOTALL)
    assert found is not None, tree[:500]
    answer = json.loads(html.unescape(found[1]))
    assert not (isinstance(answer, dict) and "error" in answer), answer
    return answer


def photograph(page: Path, picture: Path, *, size: tuple[int, int] = (1400, 900)) -> None:
    """Write what a window of `size` shows as PNG."""
    words = ["--virtual-time-budget=4000", f"--screenshot={picture}", page.as_uri()]
    _start(words, picture.parent, size)
