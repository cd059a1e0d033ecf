"""A sweep's spec -> its cells: the product of the axes, narrowed by include and exclude, each cell a checked trial."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cxrdist import pending
from cxrdist.core.initialisation import describe
from cxrdist.core.shard_sets import absolute
from cxrdist.errors import InputError
from cxrdist.finetune import identity
from cxrdist.finetune.config import FinetuneConfig, check, words
from cxrdist.finetune.parse import flat, from_plain, get, replaced
from cxrdist.finetune.unused import check_used_somewhere
from cxrdist.sweep import search
from cxrdist.sweep.axes import COLUMNS, NOTHING, VARIANT, AxisValue, axes_of
from cxrdist.sweep.config import SweepConfig
from cxrdist.sweep.folder import SweepCell, SweepFolder


def expand(config: SweepConfig) -> list[SweepCell]:
    """Every cell of the sweep, in the axes' order (the last axis runs fastest), with its folder's name.

    Raises:
        InputError: see `axes_of`; a rule of include or exclude that names no axis; no cell left; cells that are the
            same trial; a trial that cannot be (see `identity.resolve`).
    """
    axes = axes_of(config)
    include, exclude = _rules(config.include, "include", axes), _rules(config.exclude, "exclude", axes)
    base = _one_network(_base(config, axes), axes)
    draws = search.draws(config.search, base)
    ledger = SweepFolder(Path(config.out))
    points = [
        (values | drawn, options | drawn)
        for values, options in _combinations(base, axes, include, exclude)
        for drawn in draws
    ]
    found = [_cell(config, ledger, axes, base, values, options) for values, options in points]
    check_used_somewhere([(options, cell.config) for (_, options), cell in zip(points, found, strict=True)])
    return _unique(found)


def _combinations(
    base: FinetuneConfig,
    axes: Mapping[str, list[AxisValue]],
    include: list[dict[str, list[Any]]],
    exclude: list[dict[str, list[Any]]],
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The axes' values and the options they set, of every cell that the rules keep; the last axis runs fastest.

    Raises:
        InputError: a value that cannot be, naming its axis; no cell is left.
    """
    checked = {name: [_checked(base, name, choice) for choice in choices] for name, choices in axes.items()}
    found = []
    for combination in itertools.product(*checked.values()):
        values = {name: choice.name for name, choice in zip(checked, combination, strict=True)}
        if _kept(values, include, exclude):
            found.append((values, {key: item for choice in combination for key, item in choice.options.items()}))
    if not found:
        raise InputError("the grid is empty: [include] and [exclude] leave no cell of the axes")
    return found


def check_settings(config: SweepConfig) -> None:
    """Check what can be checked while shard sets and encoders are yet to be made: keys, types, ranges, what is there.

    Raises:
        InputError: as `expand`, for all that no missing file decides.
    """
    axes = axes_of(config)
    include, exclude = _rules(config.include, "include", axes), _rules(config.exclude, "exclude", axes)
    base = _base(config, axes)
    draws = search.draws(config.search, base)
    trials = []
    for values, options in _combinations(base, axes, include, exclude):
        for drawn in draws:
            trials.append((options | drawn, replaced(base, options | drawn)))
            with _naming(values | drawn):
                pending.check_trial(trials[-1][1])
    check_used_somewhere(trials)


def _base(config: SweepConfig, axes: Mapping[str, list[AxisValue]]) -> FinetuneConfig:
    """What all cells share, parsed; options that only the axes give are filled with their first value."""
    first = {key: value for choices in axes.values() for key, value in choices[0].options.items()}
    shared = flat(config.finetune)
    for name in ("shards", "init", "label_fraction", "mode", "seed"):
        if getattr(config, name) is not None:
            shared.pop(name, None)
    for name in ("out", "cache", "backbones", "threads", "variant", "stage"):
        if name in shared:
            own = " (the sweep's own option)" if name in ("cache", "stage") else ""
            raise InputError(f"[finetune] {name}: the sweep sets this for its cells; leave it out{own}")
    if "shards" not in first and "shards" not in shared:
        raise InputError("no shard set: give --shards, [finetune] shards or an axis")
    return from_plain(shared | first | {"out": config.out}, "the sweep's spec")


def _one_network(base: FinetuneConfig, axes: Mapping[str, list[AxisValue]]) -> FinetuneConfig:
    """Scratch beside encoders trains the encoders' network at their size, or the comparison would be of networks.

    Raises:
        InputError: the encoders differ and the spec does not say which arch or image_size is meant.
    """
    inits = {choice.options["init"] for choice in axes.get("init", []) if "init" in choice.options} or {base.init}
    starts = [describe(init) for init in sorted(inits)]
    for key in ("arch", "image_size"):
        named = get(base, key) is not None or any(key in c.options for choices in axes.values() for c in choices)
        known = {getattr(start, key) for start in starts} - {None}
        if named or not known:
            continue
        if len(known) > 1 and len(starts) > len([s for s in starts if s.file]):
            raise InputError(f"the encoders differ in {key} ({sorted(known)}); say {key} under [finetune] for scratch")
        if len(known) == 1:
            base = replaced(base, {key: known.pop()})
    return base


def _checked(base: FinetuneConfig, axis: str, choice: AxisValue) -> AxisValue:
    """The choice with its values parsed, checked one by one so that the error names the axis."""
    from results.identity import plain

    if not choice.options:
        return choice
    where = f"[[{VARIANT}]] {choice.name}" if axis == VARIANT else f"axes.{axis}"
    parsed = from_plain(flat(plain(base)) | choice.options, where)
    return AxisValue(choice.name, {key: get(parsed, key) for key in choice.options})


def _rules(given: Any, word: str, axes: Mapping[str, list[AxisValue]]) -> list[dict[str, list[Any]]]:
    rules = [given] if isinstance(given, Mapping) else list(given)
    out = []
    for rule in rules:
        if not rule:
            continue
        for axis, values in rule.items():
            if axis not in axes:
                raise InputError(f"[{word}] {axis}: no such axis; the axes are {', '.join(axes)}")
            known = [choice.name for choice in axes[axis]]
            strange = [value for value in _many(values) if value not in known]
            if strange:
                raise InputError(f"[{word}] {axis} = {strange[0]!r}: not a value of that axis ({known})")
        out.append({axis: _many(values) for axis, values in rule.items()})
    return out


def _many(values: Any) -> list[Any]:
    return list(values) if isinstance(values, (list, tuple)) else [values]


def _kept(values: Mapping[str, Any], include: list[dict[str, list[Any]]], exclude: list[dict[str, list[Any]]]) -> bool:
    def agrees(rule: dict[str, list[Any]]) -> bool:
        return all(values[axis] in allowed for axis, allowed in rule.items())

    return (not include or any(map(agrees, include))) and not any(map(agrees, exclude))


def _cell(
    config: SweepConfig,
    ledger: SweepFolder,
    axes: Mapping[str, list[AxisValue]],
    base: FinetuneConfig,
    values: dict[str, Any],
    options: dict[str, Any],
) -> SweepCell:
    trial = replaced(base, options)
    if config.cross_evaluate:
        sets = {item for choice in axes.get("shards", []) for item in choice.options.values()}
        others = sorted({*(words(trial.eval_shards) or []), *sets} - {trial.shards})
        trial = replace(trial, eval_shards=others)
    shown = {key: value for key, value in values.items() if key not in COLUMNS and value != NOTHING}
    variant = " ".join(str(value) if key == VARIANT else f"{key}={value}" for key, value in shown.items())
    trial = check(
        replace(
            trial,
            variant=variant or None,
            cache=str(ledger.cache.resolve()) if config.cache is None else absolute(config.cache),
            backbones=str(ledger.backbones.resolve()) if trial.mode == "linear" and not config.whole_models else None,
            stage=config.stage,
            threads=config.cpus_per_trial,
            device=trial.device if config.device == "auto" else config.device,
        )
    )
    with _naming(values):
        trial = identity.resolve(trial)
    return _placed(values, trial, ledger)


@contextlib.contextmanager
def _naming(values: Mapping[str, Any]) -> Iterator[None]:
    """Say which cell an error is about."""
    try:
        yield
    except InputError as error:
        named = " ".join(f"{key}={value}" for key, value in values.items())
        raise InputError(f"cell {named}: {error}") from error


def _placed(values: dict[str, Any], trial: FinetuneConfig, ledger: SweepFolder) -> SweepCell:
    name = identity.trial_signature(trial)
    return SweepCell(values=values, config=replace(trial, out=str(ledger.cell_folder(name).resolve())), signature=name)


def _unique(found: list[SweepCell]) -> list[SweepCell]:
    seen: dict[str, SweepCell] = {}
    for cell in found:
        if cell.signature in seen:
            raise InputError(
                f"two cells are the same trial: {seen[cell.signature].name} and {cell.name};"
                " their axes' values mean the same (one encoder under two names?)"
            )
        seen[cell.signature] = cell
    return found
