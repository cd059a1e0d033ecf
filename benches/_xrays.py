"""X-rays for the reading benches as a 256-pixel shard set: real NIH ones where at hand, drawn ones elsewhere."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from shards.convert.config import ConvertConfig
from shards.convert.engine import convert
from shards.convert.opener import Stamp, file_stamp
from shards.convert.plan import build
from shards.convert.sample import Sample
from shards.format import Card

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Repeated:
    """Opener: source number i is file i modulo their number, so that few files make a large set."""

    paths: tuple[Path, ...]

    def __call__(self, source: str) -> bytes:
        return self.paths[int(source) % len(self.paths)].read_bytes()

    def prepare(self, work: Path) -> None:
        """Nothing to prepare."""

    def stamp(self, source: str) -> Stamp:
        """The stamp of the file."""
        return file_stamp(self.paths[int(source) % len(self.paths)])


def sources(scratch: Path) -> tuple[str, tuple[Path, ...]]:
    """What the images are, and 1024-pixel PNGs of them."""
    shared = Path(os.environ.get("CXRDIST_SHARED", ROOT.parent / "shared")) / "data" / "nih"
    if found := sorted(shared.glob("images_*/images/*.png")):
        return "real NIH ChestX-ray14 images", tuple(found)
    from shards.phantom import write_nih

    write_nih(scratch / "phantom", n_patients=20, size=1024)
    return "drawn X-rays", tuple(sorted((scratch / "phantom").glob("images_*/images/*.png")))


def shard_set(scratch: Path, n: int, shard_size: int = 500) -> tuple[str, Path, Card]:
    """Convert n samples to 256-pixel JPEGs of quality 95, all in train; gives what they are, the folder, the card."""
    kind, paths = sources(scratch)
    samples = (Sample(source=str(i), key=f"{i:06d}", split="train") for i in range(n))
    plan = build(samples, name="bench", labels=("pneumonia",), split_scheme="bench", opener=Repeated(paths))
    out = scratch / f"set{n}"
    card = convert(plan, ConvertConfig(src="", out=str(out), shard_size=shard_size), say=lambda line: None)
    assert card is not None
    return f"{len(paths)} {kind}, repeated", out, card
