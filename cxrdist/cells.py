"""What a trial is and where it lives: identity by content, the cell folder of a sweep, and the ledger on disk.

    OUT/sweep.json            the spec as resolved last, and every cell it asks for
    OUT/cells/SIGNATURE/      one run folder a cell; done when its done.json exists
    OUT/failures/SIGNATURE.json   what went wrong, a line per attempt; gone once the cell is done
    OUT/logs/                 what trials and Ray printed
    OUT/cache/                decoded images and features that trials share
    OUT/backbones/            frozen networks that the heads of linear cells stand on

Free of torch and ray, so that a complete sweep answers at once.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cxrdist import pixel_scale
from cxrdist.config import METHOD
from cxrdist.errors import InputError
from cxrdist.finetune_config import IGNORED_BY_SIGNATURE, FinetuneConfig, plain, weight_decay, words
from cxrdist.places import absolute
from cxrdist.places import card as card
from results import atomic
from results.run import Run, signature

NAMED_INITS = ("scratch", "imagenet")
DEFAULT_ARCH = "resnet18"


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a trial starts from, read without torch."""

    name: str
    """scratch, imagenet, or a display name such as simclr:nih."""
    file: Path | None
    """The encoder file; None for scratch and imagenet."""
    sha256: str | None
    """Of the file's bytes."""
    arch: str | None
    """timm name the file says it holds; None when it does not say."""
    image_size: int | None
    """Side in pixels it was trained at; None when it does not say."""
    dataset: str | None
    """Name of the shard set it was trained on, if any."""
    signature: str | None
    """Signature of the run that made it."""
    dataset_hash: str | None = None
    """Hash of that shard set (`Card.sha256`)."""
    pixel: tuple[float, float] | None = None
    """Mean and deviation of the pixels in [0, 1] that the file says its network expects."""

    def facts(self) -> dict[str, Any]:
        """What a run records of it, for its results and to know it again."""
        file = None if self.file is None else str(self.file)
        facts = {"name": self.name, "file": file, "sha256": self.sha256, "signature": self.signature}
        return facts | {"dataset": self.dataset, "dataset_hash": self.dataset_hash}


def encoder_file(init: str) -> Path:
    """The encoder file that `init` means: the file itself, or encoder.safetensors of a run.

    Raises:
        InputError: nothing there, or the run has not finished an encoder.
    """
    path = Path(init)
    if path.is_file():
        return path
    if path.is_dir():
        encoder = Run(path).encoder
        if encoder.is_file():
            return encoder
        raise InputError(f"init {init}: the folder has no {encoder.name}; finish that pretraining first")
    raise InputError(f"init {init}: no such file or run; also known: {', '.join(NAMED_INITS)}")


def read_start(init: str) -> Start:
    """Describe an initialisation from its file's header; cached until the file changes.

    Raises:
        InputError: nothing there, or the header cannot be read.
    """
    if init in NAMED_INITS:
        return Start(name=init, file=None, sha256=None, arch=None, image_size=None, dataset=None, signature=None)
    path = encoder_file(init)
    facts = path.stat()
    return _read_start(path.resolve(), facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(maxsize=256)
def _read_start(path: Path, _mtime: int, _size: int) -> Start:
    header = safetensors_metadata(path) if path.suffix == ".safetensors" else {}
    size = header.get("image_size", header.get("size", ""))
    dataset = header.get("dataset") or _pretrained_on(path.parent)
    method = header.get("method") or "simclr"
    return Start(
        name=f"{method}:{dataset}" if dataset else path.stem if path.stem != "encoder" else path.parent.name,
        file=path,
        sha256=file_sha256(path),
        arch=header.get("arch") or None,
        image_size=int(size) if size.isdecimal() and len(size) < 9 else None,
        dataset=dataset,
        signature=header.get("signature") or None,
        dataset_hash=header.get("shards_sha256") or None,
        pixel=_pixel(header),
    )


def _pixel(header: dict[str, str]) -> tuple[float, float] | None:
    try:
        return float(header["mean"]), float(header["std"])
    except (KeyError, ValueError):
        return None


def _pretrained_on(folder: Path) -> str | None:
    """Name of the shard set that the run in `folder` was trained on; None for a lone encoder file."""
    run = Run(folder)
    if not run.config.is_file():
        return None
    shards = run.read_config().get("shards")
    try:
        found = card(str(shards)) if shards else None
    except (InputError, ValueError):  # the shard set was moved away since
        found = None
    if found is not None and found.sha256 in run.shard_hashes().values():
        return found.name
    return Path(str(shards)).name if shards else None


def safetensors_metadata(path: Path) -> dict[str, str]:
    """The `__metadata__` of a safetensors file, read without its tensors and without torch.

    Raises:
        InputError: the file is no safetensors file, or is cut off.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {str(key): str(value) for key, value in (file.metadata() or {}).items()}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise InputError(
            f"{path} is not a safetensors file, or is damaged ({error}); make the encoder again"
        ) from error


def check_init(init: str, arch: str | None) -> None:
    """Open an initialisation as far as a login node can: its file, its header, its architecture; no tensor is read.

    Raises:
        InputError: nothing there, no file of weights, or weights of another architecture than `arch`.
    """
    if init in NAMED_INITS:
        return
    path = encoder_file(init)
    if path.suffix == ".safetensors":
        own = safetensors_metadata(path).get("arch")
        if arch is not None and own not in (None, arch):
            raise InputError(f"init {init} holds a {own}, this run asks for arch {arch}; they must be the same")
        return
    with open(path, "rb") as file:
        start = file.read(4)
    if not start.startswith((b"PK", b"\x80")):  # torch's zip files, and the pickles of its early versions
        raise InputError(f"init {init} is neither a .safetensors file nor one that torch.save wrote")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resolve(config: FinetuneConfig) -> FinetuneConfig:
    """Fill in what follows from the encoder and the shard set: arch, image_size, paths made absolute.

    Raises:
        InputError: the encoder is of another architecture or image size than the configuration asks for.
    """
    check_init(config.init, None)
    start = read_start(config.init)
    arch = config.arch or start.arch or DEFAULT_ARCH
    if start.arch and start.arch != arch:
        raise InputError(
            f"init {config.init} holds a {start.arch}, this trial asks for arch {arch}; leave arch out or pretrain one"
        )
    size = config.image_size or start.image_size or card(config.shards).image_size
    if start.image_size and start.image_size != size:
        raise InputError(
            f"init {config.init} was trained at {start.image_size} pixels, this trial asks for image_size {size};"
            " leave image_size out or pretrain at that size"
        )
    more = words(config.eval_shards)
    pixel_scale.check(config, start)
    for place in (config.shards, *(more or [])):
        need_studies(config.level, card(place).studies > 0, place)
    return replace(
        config,
        arch=arch,
        image_size=size,
        init=config.init if config.init in NAMED_INITS else os.path.abspath(config.init),
        shards=absolute(config.shards),
        eval_shards=[absolute(path) for path in more] if more else None,
        backbones=None if config.backbones is None else os.path.abspath(config.backbones),
        labels=words(config.labels),
        optim=replace(config.optim, weight_decay=weight_decay(config.optim)),
    )


def need_studies(level: str, known: bool, place: str | os.PathLike[str]) -> None:
    """Refuse to score a shard set by study that does not say which study an image is of.

    Args:
        level: see `FinetuneConfig.level`.
        known: whether the set says it.
        place: the set, for the error.

    Raises:
        InputError: it is to be scored by study and has none.
    """
    if level != "image" and not known:
        raise InputError(
            f"{place} does not say which study an image is of (no study_id in its index), so level = {level} is not"
            " possible; use --level image, or convert it again if its source says it"
        )


def trial_signature(config: FinetuneConfig) -> str:
    """Identity of a resolved trial: its options, with shard sets and the encoder by content instead of by path."""
    values = plain(config)
    values["shards"] = card(config.shards).sha256
    values["eval_shards"] = sorted(card(path).sha256 for path in words(config.eval_shards) or [])
    values["init"] = read_start(config.init).sha256 or config.init
    if config.mode != "linear":
        values["method"] = METHOD
    if config.level == "image":
        del values["level"]  # runs from before there was a choice keep their signature
    return signature(values, IGNORED_BY_SIGNATURE)


def trial_shards(config: FinetuneConfig) -> dict[str, str]:
    """Shard set path -> hash, of all that a trial reads."""
    paths = [config.shards, *(words(config.eval_shards) or [])]
    return {path: card(path).sha256 for path in paths}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One trial of a sweep."""

    values: dict[str, Any]
    """What the axes say here, dotted key -> value, as the spec spelled it."""
    config: FinetuneConfig
    """Resolved; `out` is the cell's folder."""
    signature: str
    """Names the folder."""

    @property
    def run(self) -> Run:
        """The cell's run folder."""
        return Run(self.config.out)

    @property
    def name(self) -> str:
        """The axes' values on one line."""
        return " ".join(f"{key}={_brief(value)}" for key, value in self.values.items()) or "the only cell"


def _brief(value: Any) -> str:
    text = str(value)
    return "/".join(Path(text).parts[-2:]) if "/" in text else text


@dataclass(frozen=True)
class Ledger:
    """The folder of a sweep; what is done and what failed is read from it and nothing else."""

    out: Path

    @property
    def spec(self) -> Path:
        """The resolved spec and its cells."""
        return self.out / "sweep.json"

    @property
    def cache(self) -> Path:
        """Decoded images and features."""
        return self.out / "cache"

    @property
    def backbones(self) -> Path:
        """Frozen networks."""
        return self.out / "backbones"

    @property
    def logs(self) -> Path:
        """What trials and Ray print."""
        return self.out / "logs"

    def cell_folder(self, name: str) -> Path:
        """The run folder of a signature."""
        return self.out / "cells" / name

    def log(self, name: str) -> Path:
        """The log of a cell."""
        return self.logs / f"{name}.log"

    def claim(self) -> None:
        """Make the folder, or accept one that a sweep made.

        Raises:
            InputError: it holds something else, or cannot be written.
        """
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out} is a file, not a folder; choose another --out")
        if self.out.is_dir() and not self.spec.is_file():
            ours = {"cache", "backbones", "logs", "cells", "submission", "sweep.lock"}
            foreign = [entry.name for entry in self.out.iterdir() if entry.name not in ours and entry.name[0] != "."]
            if foreign:
                raise InputError(f"{self.out} holds {foreign[0]} and is not a sweep; choose an empty or new --out")
        try:
            for folder in (self.out, self.logs, self.cache, self.out / "cells", self.out / "failures"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write in {self.out}: {error.strerror}; choose another --out") from error

    def missing(self, cells: Iterable[Cell]) -> list[Cell]:
        """Cells without done.json, in order."""
        return [cell for cell in cells if not cell.run.is_done]

    def attempts(self, name: str) -> list[dict[str, str]]:
        """Failed attempts of a cell: `when`, `kind`, `error` each; empty when none or done."""
        path = self.out / "failures" / f"{name}.json"
        try:
            return list(json.loads(path.read_text()))
        except (FileNotFoundError, ValueError):
            return []

    def fail(self, name: str, kind: str, error: str, when: str) -> None:
        """Record one more failed attempt of a cell."""
        record = [*self.attempts(name), {"when": when, "kind": kind, "error": error}]
        atomic.write_text(self.out / "failures" / f"{name}.json", json.dumps(record, indent=1))

    def forgive(self, name: str) -> None:
        """Forget the failed attempts of a cell (it is done, or the user asks again)."""
        (self.out / "failures" / f"{name}.json").unlink(missing_ok=True)

    def last_lines(self, name: str, count: int = 5) -> list[str]:
        """The end of what a cell printed; lines with dashes before them say when it began and ended."""
        try:
            lines = self.log(name).read_text(errors="replace").splitlines()
            return [line for line in lines if not line.startswith("--- ")][-count:]
        except FileNotFoundError:
            return []
