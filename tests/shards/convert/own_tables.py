"""A user's own table beside its images, and the configuration that converts it."""

from __future__ import annotations

from pathlib import Path

from shards.convert.config import CsvConfig


def write_table(root: Path, lines: list[str], files: dict[str, bytes]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def config(root: Path, **changes) -> CsvConfig:
    settings = {"src": str(root), "out": str(root.parent / "out"), "table": "table.csv", "size": 32, "workers": 1}
    return CsvConfig(**(settings | changes))
