"""Encoders on the Hugging Face hub: `hf://owner/name[/path/of/a/file][@revision]`, by huggingface_hub and its cache.

Only files are fetched; no code of a repository runs. Free of torch.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cxrdist.errors import FailedError, InputError

SCHEME = "hf://"
WEIGHTS = ("model.safetensors", "encoder.safetensors", "pytorch_model.bin")
"""Names under which a repository is expected to keep its weights, the first one that it has is taken."""
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)((?:/[\w.-]+)*)(?:@([\w./-]+))?")


def fetched(init: str) -> Path:
    """The local file of weights that an address stands for, with the repository's settings beside it.

    What the cache holds (HF_HOME, HF_HUB_CACHE) is not fetched again; HF_HUB_OFFLINE=1 asks no server at all.

    Raises:
        InputError: no such repository, revision or file.
        FailedError: not in the cache, and the hub cannot be reached.
    """
    found = _ADDRESS.fullmatch(init)
    if found is None or ".." in init:
        raise InputError(f"init {init}: must be hf://owner/name, hf://owner/name/file or hf://owner/name@revision")
    repository, path, revision = found[1], found[2].lstrip("/"), found[3]
    for settings in ("config.json", "preprocessor_config.json"):
        beside = f"{path.rpartition('/')[0]}/{settings}".lstrip("/")
        _file(init, repository, beside, revision, needed=False)
    names = (path,) if path else WEIGHTS
    for name in names:
        if (held := _file(init, repository, name, revision, needed=name == names[-1])) is not None:
            return held
    raise AssertionError("the last name is needed")


def display_name(path: Path) -> str | None:
    """owner/name of a file in the hub's cache; None for any other."""
    found = re.search(r"models--([\w.-]+?)--([\w.-]+)/snapshots/", path.as_posix())
    return f"{found[1]}/{found[2]}" if found else None


def _file(init: str, repository: str, name: str, revision: str | None, *, needed: bool) -> Path | None:
    """A file of a repository, fetched unless the cache has it; None where there is none and none is needed."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        with _quiet():
            return Path(hf_hub_download(repository, name, revision=revision))
    except LocalEntryNotFoundError:
        if not needed:
            return None
        raise FailedError(_elsewhere(init, repository, name, revision)) from None
    except EntryNotFoundError:
        if not needed:
            return None
        wanted = " or ".join(WEIGHTS) if name in WEIGHTS else name
        raise InputError(
            f"init {init}: the repository has no {wanted}; name its file: hf://{repository}/FILE"
        ) from None
    except RevisionNotFoundError:
        raise InputError(f"init {init}: the repository has no revision {revision}") from None
    except RepositoryNotFoundError:
        raise InputError(
            f"init {init}: no such repository, or it is not open to you; where its terms must be agreed to, do that and"
            " set HF_TOKEN"
        ) from None
    except HFValidationError as error:
        raise InputError(f"init {init}: {' '.join(str(error).split())[:200]}") from None
    except (HfHubHTTPError, OSError) as error:
        raise FailedError(
            f"init {init} could not be fetched ({' '.join(str(error).split())[:120]}); {_by_hand(repository, name)}"
        ) from None


def _elsewhere(init: str, repository: str, name: str, revision: str | None) -> str:
    """Where no server answers: how the cache gets the file."""
    from huggingface_hub import constants

    branch = f" --revision {revision}" if revision else ""
    return (
        f"init {init}: {name} is not in the cache {constants.HF_HUB_CACHE} and the hub cannot be reached; where there"
        f" is a network run `hf download {repository}{branch}` and copy models--{repository.replace('/', '--')}"
        f" into that cache, or {_by_hand(repository, name)}"
    )


def _by_hand(repository: str, name: str) -> str:
    return (
        f"put {name} of {repository}, with its config.json and preprocessor_config.json where it has them, into a"
        f" folder and give --init FOLDER/{name.rpartition('/')[2]}"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the hub's progress bars and its lines about retries: one error says it all."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    log: Any = logging.getLogger("huggingface_hub")
    level, shown = log.level, not are_progress_bars_disabled()
    log.setLevel(logging.CRITICAL)
    if shown and os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS") is None:
        disable_progress_bars()
    try:
        yield
    finally:
        log.setLevel(level)
        if shown and os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS") is None:
            enable_progress_bars()
