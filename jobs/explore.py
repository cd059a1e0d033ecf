"""`cxrdist explore`: one HTML page to browse an embedding of a shard set."""

from __future__ import annotations

import html
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cxrdist.inference.options import LookConfig

HELP = (
    "Write one self-contained HTML page. Of fine-tuned runs: every tested image with its scores, heat map, thresholds "
    "and the ROC, runs side by side. Of an encoder: a map of its embeddings with the image under the pointer."
)
POSITIONALS = ("runs",)


@dataclass(frozen=True, kw_only=True)
class Config(LookConfig):
    """Which networks, over which images, by which map; `out` is an HTML file, None = RUN/explore.html."""

    method: Literal["pca", "tsne", "umap"] = "pca"
    """How features become a map; umap needs the extra `explore`."""
    limit: Annotated[int | None, "[4, 10^6]"] = None
    """Most images on the page, drawn at random; None = 1000 of tested runs (10 to 25 kB each), 2000 of a map alone
    (2 kB each)."""
    seed: Annotated[int, "[0, 2^32)"] = 0
    """Of the draw, and of tsne and umap."""


def run(config: Config) -> int:
    """Write the page."""
    out, count = write(config)
    size = out.stat().st_size / 1e6
    print(f"{out}: {count} images, {size:.1f} MB; open it in a browser, it needs no network", file=sys.stderr)
    return 0


def write(config: Config) -> tuple[Path, int]:
    """Write the page and return its place and how many images are on it.

    Raises:
        InputError: see `cxrdist.inference.explorer.explore_tested` and `cxrdist.inference.explore.explore`.
    """
    from cxrdist.errors import InputError
    from cxrdist.inference import explorer, tested_run
    from cxrdist.inference import network as networks
    from cxrdist.inference.explore import explore, need
    from cxrdist.inference.options import out_of, shards_of

    need(config.method)
    found = [networks.load(path, config.device) for path in config.runs]
    shards, out = shards_of(config), out_of(config, "explore.html")
    options: dict[str, Any] = {"method": config.method, "seed": config.seed}
    if all(one.classifier is not None and Path(path).is_dir() for one, path in zip(found, config.runs, strict=True)):
        names = tested_run.names_of(config.runs)
        if len(found) > 1 or config.split != "train":
            trio = zip(config.runs, names, found, strict=True)
            runs = [tested_run.read(path, name, one, shards) for path, name, one in trio]
            return out, explorer.explore_tested(runs, shards, out, limit=config.limit, **options)
    if len(found) > 1:
        raise InputError("several at once: only fine-tuned runs that were tested; look at an encoder by itself")
    one = found[0]
    labels = networks.learnt_labels(config.run, one.classifier) if one.classifier is not None else []
    return out, explore(one, shards, out, labels=labels, limit=config.limit or 2000, **options)


@dataclass(frozen=True)
class Page:
    """A page that a notebook shows in a frame; it travels inside the notebook, so no server and no file is needed."""

    path: Path
    """The HTML file."""
    height: int
    """Of the frame, in pixels."""

    def _repr_html_(self) -> str:
        inside = html.escape(self.path.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{inside}" style="width:100%;height:{self.height}px;border:0"></iframe>'


def show(*runs: str, height: int = 860, **options: Any) -> Page:
    """Write the page of one run or several and show it in a notebook: `jobs.explore.show("runs/ft")`.

    Args:
        runs: fine-tuned runs (or one encoder), as on the command line.
        height: of the frame, in pixels.
        options: fields of `Config`, such as limit=300.

    Raises:
        InputError: as the command.
    """
    path, _ = write(Config(runs=[str(run) for run in runs], **options))
    return Page(path, height)
