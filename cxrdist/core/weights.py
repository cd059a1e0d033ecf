"""Files of weights: safetensors that carry the hash of their tensors, written whole or not at all, believed only whole.

The hash stands in the file's metadata and in done.json of the run that made it, so that a flipped bit, a file that was
overwritten with zeros and one that was exchanged are errors and not other scores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from cxrdist.core.initialisation import safetensors_metadata
from cxrdist.errors import FailedError, InputError
from results.run import Run
from shards import atomic
from shards.errors import FailedError as NoRoomError

KEY = "weights_sha256"
"""Name of the hash in a file's metadata and in done.json."""


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, types, shapes and values; the same weights have the same one, in whatever file."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(memoryview(value.reshape(-1).view(torch.uint8).numpy()))  # pyright: ignore[reportArgumentType]
    return found.hexdigest()


def write(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """Write tensors and metadata, complete or not at all, and return the tensors' hash.

    Equal contents give equal bytes, so that an encoder file written again keeps its hash.

    Raises:
        FailedError: no room, or the folder cannot be written to.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    digest = fingerprint(plain)

    def fill(temporary: Path) -> None:
        safetensors.torch.save_file(plain, temporary, {**metadata, KEY: digest})
        _sort_metadata(temporary)

    try:
        atomic.write_with(path, fill)
    except (OSError, NoRoomError, safetensors.SafetensorError) as error:
        raise FailedError(f"{path} could not be written: {error}") from None
    return digest


def _sort_metadata(path: Path) -> None:
    """Put a file's metadata into alphabetical order, in place; safetensors writes them in a random one.

    The file is the length of its header (8 bytes, little endian), the header in JSON padded with spaces, the tensors,
    whose places are counted from the end of the header: https://github.com/huggingface/safetensors#format.
    """
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(length)
        assert len(text) == length, "the same JSON in another order has the same length"
        file.seek(8)
        file.write(text)


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        InputError: it is damaged, is not what its run's done.json or its own metadata say, or holds numbers that are
            not finite.
    """
    metadata = safetensors_metadata(path)
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} is damaged or not a safetensors file: {error}") from None
    wanted = {"its metadata": metadata.get(KEY), "done.json beside it": _of_run(path)}
    if any(wanted.values()):
        found = fingerprint(tensors)
        for where, digest in wanted.items():
            if digest not in (None, found):
                raise InputError(
                    f"{path} was changed or damaged: the sha256 of its weights is {found[:12]}..., {where} says "
                    f"{str(digest)[:12]}...; restore the file, or train the run again in a new folder"
                )
    refuse_not_finite(tensors, path)
    return tensors, metadata


def _of_run(path: Path) -> str | None:
    """The hash that the run which made this file recorded; None where there is no such run, or it is older."""
    run = Run(path.parent)
    if not run.is_done or path.name not in (run.encoder.name, run.model.name):
        return None
    found = run.read_done().get(KEY)
    return None if found is None else str(found)


def refuse_not_finite(tensors: Mapping[str, torch.Tensor], where: Any) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        InputError: naming the first such tensor.
    """
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise InputError(f"{where} holds NaN or infinity in {name}; every score would be undefined")
