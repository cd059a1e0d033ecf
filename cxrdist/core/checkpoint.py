"""Checkpoints: folders that are complete or absent, checked by hash, opened without running code from them.

CHECKPOINTS/step-00000500/state.pt (tensors, numbers, strings) and meta.json (step, signature, size and SHA-256 of
state.pt, written last). The folder is made under a temporary name and renamed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch

from cxrdist.errors import FailedError
from shards.format import file_sha256

FORMAT_VERSION = 1
_NAME = re.compile(r"step-(\d{8,})")
_TEMPORARY = ".tmp-"
_OLD = ".old-"


class CheckpointWarning(UserWarning):
    """A checkpoint was skipped, or could not be written."""


def folder(root: Path, step: int) -> Path:
    """Folder of the checkpoint made after `step` steps."""
    return root / f"step-{step:08d}"


def steps(root: Path) -> list[int]:
    """Steps that have a checkpoint folder, lowest first; the folders may still turn out damaged."""
    if not root.is_dir():
        return []
    return sorted(int(m.group(1)) for entry in root.iterdir() if (m := _NAME.fullmatch(entry.name)))


def save(root: Path, step: int, state: dict[str, Any], meta: dict[str, Any]) -> Path:
    """Write a checkpoint, complete or not at all.

    Args:
        root: RUN/checkpoints.
        step: optimiser steps done.
        state: nested dicts and lists of tensors, numbers and strings.
        meta: plain JSON facts; `signature` says which run it belongs to.

    Returns:
        Its folder.

    Raises:
        FailedError: it could not be written (disk full, quota, permission). Earlier checkpoints are untouched.
    """
    final = folder(root, step)
    temporary = root / f"{_TEMPORARY}{final.name}-{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        clear_leftovers(root)
        temporary.mkdir()
        with open(temporary / "state.pt", "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        facts = {"format_version": FORMAT_VERSION, "step": step} | meta
        facts |= {"size": (temporary / "state.pt").stat().st_size, "sha256": file_sha256(temporary / "state.pt")}
        with open(temporary / "meta.json", "w", encoding="utf-8") as file:
            json.dump(facts, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(temporary)
        if final.exists():  # only a damaged or foreign one can be in the way: a good one would have been resumed from
            os.rename(final, root / f"{_OLD}{final.name}-{os.getpid()}")
        os.rename(temporary, final)
        _sync_folder(root)
        clear_leftovers(root)
    except (OSError, RuntimeError) as error:  # torch.save turns a failed write into a RuntimeError
        shutil.rmtree(temporary, ignore_errors=True)
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FailedError(f"checkpoint {final} could not be written: {cause}") from None
    return final


def load(path: Path, signature: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """State and meta of one checkpoint folder.

    Raises:
        FailedError: it is torn, truncated, altered or another run's; the message says which.
    """
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
        if not isinstance(meta, dict) or meta.get("format_version") != FORMAT_VERSION:
            raise FailedError(f"checkpoint {path} has another format")
        if meta.get("signature") != signature:
            raise FailedError(f"checkpoint {path} belongs to another run ({meta.get('signature')}, not {signature})")
        state_file = path / "state.pt"
        size = state_file.stat().st_size
        if size != meta["size"]:
            raise FailedError(f"checkpoint {path} is cut off: {size} of {meta['size']} bytes")
        if file_sha256(state_file) != meta["sha256"]:
            raise FailedError(f"checkpoint {path} is damaged: its hash does not match")
        return torch.load(state_file, map_location="cpu", weights_only=True), meta
    except FailedError:
        raise
    except Exception as error:  # whatever a damaged file provokes in json and torch, it is the same to us
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        cause = "its content is not what a checkpoint holds" if "weights_only" in str(error) else first[:200]
        raise FailedError(f"checkpoint {path} cannot be read: {cause}") from None


def load_latest(root: Path, signature: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The newest usable checkpoint, or None; every newer one that cannot be used is skipped with a warning."""
    for step in reversed(steps(root)):
        try:
            return load(folder(root, step), signature)
        except FailedError as error:
            warnings.warn(f"{error}; trying an earlier one", CheckpointWarning, stacklevel=2)
    return None


def prune(root: Path, keep: int, best: int | None = None) -> None:
    """Delete all but the `keep` newest checkpoints and the one of step `best`."""
    for step in steps(root)[:-keep]:
        if step != best:
            doomed = root / f"{_OLD}{folder(root, step).name}-{os.getpid()}"
            with contextlib.suppress(OSError):  # renamed first: a kill in between leaves no half checkpoint by its name
                os.rename(folder(root, step), doomed)
                shutil.rmtree(doomed)


def clear_leftovers(root: Path) -> None:
    """Delete what a killed process left unfinished. Only the one writer of a run calls this."""
    for entry in root.iterdir():
        if entry.name.startswith((_TEMPORARY, _OLD)):
            shutil.rmtree(entry, ignore_errors=True)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
