"""`cxrdist shard phantom`: drawn X-rays -> their published layout -> the converter of that layout -> a shard set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shards.convert.config import ChexpertConfig, ConvertConfig, NihConfig, check_settings
from shards.convert.drawn import as_drawn
from shards.convert.engine import WORK, convert, drop_work, open_work
from shards.convert.registry import plan
from shards.errors import InputError
from shards.format import CARD, Card
from shards.phantom import PhantomConfig, write_chexpert, write_nih
from shards.read.card import read_card


def convert_phantom(config: PhantomConfig, *, say: Callable[[str], None] = print) -> Card | None:
    """Draw the images and make the shard set in config.out; or, with layout_only, the published layout alone.

    The images are drawn into the set's work folder and go when the set is complete. After a kill the same command
    goes on where it stopped.

    Returns:
        the card; None with layout_only.

    Raises:
        InputError: an unknown style, a number out of range, or config.out holds something else.
    """
    if config.style not in ("nih", "chexpert"):
        raise InputError(f"--style {config.style!r}; allowed are nih, chexpert")
    out = Path(config.out)
    if config.layout_only:
        count = _draw(config, out)
        say(f"{out}: {count} drawn X-rays in the layout of {config.style}")
        return None
    origin = {"phantom": config.recorded()["phantom"]}
    if (out / CARD).exists():
        card = read_card(out)
        check_settings(card.config, config.recorded(), out, whole=False)
        drop_work(out)
        say(f"{out} is complete already: {card.n_samples} samples")
        return card
    open_work(out)
    layout = out / WORK / "published"
    _draw(config, layout)
    settings = _settings(config, layout)
    drawn = as_drawn(plan(settings), layout, config.style, origin)
    return convert(drawn, settings, say=say)


def _draw(config: PhantomConfig, folder: Path) -> int:
    write = write_nih if config.style == "nih" else write_chexpert
    return write(folder, n_patients=config.n_patients, seed=config.seed, size=config.size, workers=config.workers)


def _settings(config: PhantomConfig, layout: Path) -> ConvertConfig:
    # 0 workers means "in this process" to the drawing code, as 1 does to the writer.
    workers = 1 if config.workers == 0 else config.workers
    common = {"src": str(layout), "out": config.out, "size": config.size, "workers": workers}
    if config.style == "nih":
        return NihConfig(**common)
    # A drawn CheXpert has no third part, so its valid part is the test set and val is cut from train.
    return ChexpertConfig(**common, valid_as="test", val_fraction=0.1)
