"""What a run starts from: scratch, ImageNet weights or an encoder file, described by its header. Free of torch."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrdist.core import pixel_scale
from cxrdist.core.shard_sets import card
from cxrdist.errors import InputError
from results.run import Run

KMEANS_PATCHES = "kmeans-patches"
"""The initialisation that is learnt from the trial's own train images (`cxrdist.core.kmeans_patches`)."""
NAMED_INITS = ("scratch", "imagenet", KMEANS_PATCHES)
PATCH_FEATURES = "patch_features"
"""The architecture of `KMEANS_PATCHES`."""
SMALL_CNN = "small_cnn"
"""The architecture that is not timm's (`cxrdist.core.small_cnn`)."""


@dataclass(frozen=True, kw_only=True)
class Initialisation:
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
    method: str | None = None
    """Self-supervised method it was trained by; None when it saw no X-rays, or which is not known."""
    pixel: tuple[float, float] | None = None
    """Mean and deviation of the pixels in [0, 1] that the file says its network expects."""
    stem: str | None = None
    """Its first layers, standard or small; None when it does not say."""

    def facts(self) -> dict[str, Any]:
        """What a run records of it, for its results and to know it again."""
        file = None if self.file is None else str(self.file)
        facts = {"name": self.name, "file": file, "sha256": self.sha256, "signature": self.signature}
        return facts | {"method": self.method, "dataset": self.dataset, "dataset_hash": self.dataset_hash}


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


def describe(init: str) -> Initialisation:
    """Describe an initialisation from its file's header; cached until the file changes.

    Raises:
        InputError: nothing there, or the header cannot be read.
    """
    if init in NAMED_INITS:
        # Its activations are of grey values in [0, 1]: each patch is normalised by itself.
        pixel = (0.0, 1.0) if init == KMEANS_PATCHES else None
        return Initialisation(
            name=init, file=None, sha256=None, arch=None, image_size=None, dataset=None, signature=None, pixel=pixel
        )
    path = encoder_file(init)
    facts = path.stat()
    return _read(path.resolve(), facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(maxsize=256)
def _read(path: Path, _mtime: int, _size: int) -> Initialisation:
    header = safetensors_metadata(path) if path.suffix == ".safetensors" else {}
    size = header.get("image_size", header.get("size", ""))
    dataset = header.get("dataset") or _pretrained_on(path.parent)
    method = header.get("method") or "simclr"
    return Initialisation(
        name=f"{method}:{dataset}" if dataset else path.stem if path.stem != "encoder" else path.parent.name,
        file=path,
        sha256=file_sha256(path),
        arch=header.get("arch") or None,
        image_size=int(size) if size.isdecimal() and len(size) < 9 else None,
        dataset=dataset,
        signature=header.get("signature") or None,
        dataset_hash=header.get("shards_sha256") or None,
        method=method if dataset else None,
        pixel=_pixel(header),
        stem=header.get("stem") or None,
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
        InputError: the file is not a safetensors file, or is cut off.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {str(key): str(value) for key, value in (file.metadata() or {}).items()}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise InputError(
            f"{path} is not a safetensors file, or is damaged ({error}); restore it, or make it again"
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


def check_start(config: Any, start: Initialisation) -> None:
    """Refuse a trial that its initialisation cannot serve.

    Args:
        config: its configuration.
        start: what its `init` is.

    Raises:
        InputError: weights of another architecture, image size or stem, or for which nothing says what pixels they
            expect; nothing to train in this mode.
    """
    if start.arch and config.arch not in (None, start.arch):
        raise InputError(
            f"init {config.init} holds a {start.arch}, this trial asks for arch {config.arch}; leave arch out or "
            "pretrain one"
        )
    if start.image_size and config.image_size not in (None, start.image_size):
        raise InputError(
            f"init {config.init} was trained at {start.image_size} pixels, this trial asks for image_size "
            f"{config.image_size}; leave image_size out or pretrain at that size"
        )
    if config.init == KMEANS_PATCHES:
        if config.mode != "linear":
            raise InputError(f"init {KMEANS_PATCHES} has no layers to train in mode {config.mode}; take --mode linear")
    elif config.arch == SMALL_CNN and config.init != "scratch":
        raise InputError(f"{SMALL_CNN} starts from scratch only, not from init {config.init}")
    check_weights(config, start)


def check_weights(config: Any, start: Initialisation) -> None:
    """Refuse weights that a run cannot start from, in pretraining and fine-tuning alike.

    Args:
        config: a configuration with `init`, `stem`, `init_mean` and `init_std`.
        start: what its `init` is.

    Raises:
        InputError: the stem is another, or nothing says what pixels the weights expect.
    """
    if start.stem and config.stem not in ("auto", start.stem):
        raise InputError(
            f"init {config.init} has the {start.stem} stem, this run asks for {config.stem}; leave it auto"
        )
    pixel_scale.check(config, start)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_another(run: Run, init: str) -> None:
    """Refuse an encoder that is not the one the run was made with.

    Raises:
        InputError: naming both hashes.
    """
    held = (run.read_info().get("init") or {}).get("sha256")
    found = describe(init)
    if held is not None and held != found.sha256:
        raise InputError(
            f"{found.file or init} is another encoder than {run.path} was made with: hash {found.sha256}, not {held};"
            " put that one back, or train in a new --out"
        )
