"""A paragraph for a paper's section on methods, and the BibTeX of what was used: every fact from the runs' files.

What the files do not say is left out, or said to be not recorded; nothing is filled in from defaults. Facts come from
the collected rows (which hold each run's configuration), from run.json and done.json, and from the cards of the shard
sets as far as these lie where the runs read them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from results import configs, levels, used_datasets
from results.cells import config_keys
from results.cells.display import METHOD_TITLES, show
from results.report import references
from results.report.datasets import cards, read
from results.report.recorded import Citations, Settings
from results.run import Run
from results.schema import Row
from results.stats.metrics import fixed_threshold
from results.wording import count, listing


@dataclasses.dataclass(frozen=True)
class Methods:
    """The paragraph and its references."""

    text: str
    """Paragraphs with blank lines between."""
    bibtex: str
    """The entries that the text cites, in the order of their keys."""


def methods(results: pa.Table, runs: Mapping[str, Run], style: str = "markdown") -> Methods:
    """Write the paragraph.

    Args:
        results: collected rows.
        runs: the run folders that are still there, by path.
        style: one of `recorded.STYLES`.
    """
    cites = Citations(style)
    infos = [read(run.read_info) for run in runs.values()]
    columns = ["source", "job", "seed", "arch", "init", "mode", "method", "label_fraction", "label_policy"]
    columns += ["train_dataset", "test_dataset", "split_scheme", "threshold_rule", "level", configs.COLUMN]
    rows = results.select(columns).group_by(columns).aggregate([]).to_pylist()
    scored = [row for row in rows if row["job"] in ("finetune", "evaluate")]  # both say how the run was trained
    tuned = [row for row in scored if not _is_ensemble(row)]
    pretrained = [row for row in rows if row["job"] == "pretrain"]
    parts = [
        _data(results, runs, infos, cites),
        _pretraining(pretrained, runs, cites),
        _fine_tuning(tuned, cites),
        _ensembles([row for row in scored if _is_ensemble(row)]),
        _statistics(rows, results, cites),
        _programs(infos, rows, cites),
    ]
    return Methods(text="\n\n".join(part for part in parts if part) + "\n", bibtex=cites.bibtex())


def _data(results: pa.Table, runs: Mapping[str, Run], infos: Iterable[Mapping[str, Any]], cites: Citations) -> str:
    """One sentence or two a shard set: source, sizes after exclusions, split, shared patients."""
    places = sorted({pair for run in runs.values() for pair in read(run.shard_hashes).items()})
    found, _ = cards(places)
    known = {content: used_datasets.facts_of(card) for content, (_, card) in found.items()}
    for info in infos:
        known |= {content: facts for content, facts in used_datasets.of_info(info).items() if content not in known}
    sentences = []
    for content, facts in sorted(known.items(), key=lambda item: item[1].get("name", "")):
        card = found[content][1] if content in found else None
        name = facts.get("name", "a dataset without a name")
        cite = cites.entries(facts.get("citation", ""))
        sentences.append(_sizes(f"{name}{cite}", card))
    policies = sorted({str(value) for value in results["label_policy"].to_pylist() if value})
    for policy in policies:
        uncertain, _, blanks = policy.partition("/")
        if uncertain in _POLICY and blanks in _POLICY:
            more = "" if len(policies) == 1 else f" ({policy})"
            sentences.append(
                f"Uncertain labels {_POLICY[uncertain]}, and findings that a report does not mention"
                f" {_POLICY[blanks]}{more}."
            )
        else:
            sentences.append(f"Label policy (uncertain/not mentioned): {policy}.")
    return " ".join(sentences)


_POLICY = {"ones": "were counted as positive", "zeros": "were counted as negative", "ignore": "were left out"}


def _sizes(name: str, card: Mapping[str, Any] | None) -> str:
    if card is None:
        return f"We used {name}, whose sizes are not recorded where its shard set was read."
    counts = card.get("counts") or {}
    words = [
        f"{counts[split]['n']:,} images of {counts[split]['patients']:,} patients for {purpose}"
        for split, purpose in (("train", "training"), ("val", "validation"), ("test", "testing"))
        if counts.get(split, {}).get("n")
    ]
    text = f"We used {name}" + (f": {listing(words)}" if words else "")
    text += f" (split {card['split_scheme']})" if card.get("split_scheme") else ""
    rejected, shared = card.get("n_rejects"), card.get("shared_patients")
    text += f", after {count(rejected, 'file')} had been excluded" if rejected else ""
    text += "."
    if card.get("patients_known") is False:
        return f"{text} Patients are not known in it, so that each image counts as its own patient."
    if shared:
        text += f" Patients in two splits: {listing([f'{n} ({pair})' for pair, n in sorted(shared.items())])}."
    elif shared is not None:
        text += " No patient is in two splits."
    return text


def _pretraining(rows: Sequence[Row], runs: Mapping[str, Run], cites: Citations) -> str:
    """How encoders learnt without labels, one sentence a method."""
    sentences = []
    for method in sorted({row["method"] or "simclr" for row in rows}):
        chosen = [row for row in rows if (row["method"] or "simclr") == method]
        held = Settings(chosen)
        archs = sorted({str(row["arch"]) for row in chosen if row["arch"]})
        dones = [read(Run(run).read_done) for run in _folders(chosen, runs)]
        sets = sorted({str(done["dataset"]) for done in dones if done.get("dataset")})
        cite = cites.of(method if method in references.ENTRIES else None)
        words = [
            f"on {listing(sets)}" if sets else "",
            _length(held),
            held.say("with {} images per step", "global_batch"),
            held.say("at {} pixels", "image_size"),
            _optimiser(held, cites),
            held.say("temperature {}", "temperature") if method == "simclr" else "",
            held.say("augmentation preset {}", "augment.preset"),
        ]
        architecture = " and ".join(f"{arch}{cites.of(references.family(arch))}" for arch in archs)
        number = f" ({count(len(chosen), 'run')})" if len(chosen) > 1 else ""
        sentences.append(
            f"Encoders{f' ({architecture})' if architecture else ''} were pretrained without labels by"
            f" {METHOD_TITLES.get(method, method)}{cite}{number} {', '.join(word for word in words if word)}.".replace(
                " ,", ","
            )
        )
    return " ".join(sentences)


def _folders(rows: Sequence[Row], runs: Mapping[str, Run]) -> list[str]:
    """The run folders of rows that are still there."""
    sources = {str(row["source"]) for row in rows}
    return [path for path in runs if any(source.startswith(f"{path}/") for source in sources)]


def _length(held: Settings) -> str:
    """How long pretraining went: steps where a run counts them, else epochs."""
    words = {
        f"{config_keys.spell(config[key])} {key}"
        for config in held.held
        if (key := "steps" if config.get("steps") is not None else "epochs") in config
    }
    return f"for {listing(sorted(words, key=lambda word: (len(word), word)))}" if words else ""


def _optimiser(held: Settings, cites: Citations) -> str:
    names = [str(name) for name in held.values("optim.name")]
    if not names:
        return ""
    written = " and ".join(
        f"{_OPTIMISERS.get(name, name)}{cites.of(name if name in references.ENTRIES else None)}" for name in names
    )
    more = [
        held.say("learning rate {}", "optim.lr"),
        held.say("weight decay {}", "optim.weight_decay"),
        held.say("{} schedule", "optim.schedule"),
    ]
    inside = ", ".join(word for word in more if word)
    return f"with {written}" + (f" ({inside})" if inside else "")


_OPTIMISERS = {"lars": "LARS", "adamw": "AdamW", "adam": "Adam", "sgd": "SGD with momentum"}

_MODES = {
    "linear": "the head alone on frozen features",
    "full": "all layers",
    "last_n": "the last stages and the head",
    "two_stage": "first the head, then all layers",
}


def _fine_tuning(rows: Sequence[Row], cites: Citations) -> str:
    """From what and on how many labels classifiers were trained."""
    if not rows:
        return ""
    held = Settings(rows)
    inits = sorted({str(row["init"]) for row in rows if row["init"]}, key=lambda name: (name != "scratch", name))
    named = [
        "random weights"
        if name == "scratch"
        else f"ImageNet weights{cites.of('imagenet')}"
        if name == "imagenet"
        else name
        for name in inits
    ]
    archs = sorted({str(row["arch"]) for row in rows if row["arch"]})
    sets = sorted({str(row["train_dataset"]) for row in rows if row["train_dataset"]})
    fractions = sorted({row["label_fraction"] for row in rows if row["label_fraction"] is not None})
    modes = sorted({str(row["mode"]) for row in rows if row["mode"]}, key=list(_MODES).index)
    architecture = " and ".join(f"{arch}{cites.of(references.family(arch))}" for arch in archs)
    sentences = [
        f"Classifiers{f' ({architecture})' if architecture else ''} were trained"
        + (f" on {listing(sets)}" if sets else "")
        + (f" from {listing(named)}" if named else "")
        + (f", updating {listing([_MODES.get(mode, mode) for mode in modes])}" if modes else "")
        + "."
    ]
    if fractions and fractions != [1.0]:
        shares = [show("label_fraction", fraction) for fraction in fractions]
        sentences.append(
            f"Of the labels {listing(shares)} were used, drawn by patient, each share within the larger ones."
        )
    trained = Settings([row for row in rows if row["mode"] != "linear"])
    least = trained.say(" (or {} steps where that is more)", "min_steps") if trained.values("min_steps") != [0] else ""
    words = [
        held.say("at {} pixels", "image_size"),
        trained.say("for at most {} epochs", "epochs") + (least if trained.values("epochs") else ""),
        trained.say("with {} images per step", "global_batch"),
        _optimiser(trained, cites),
        trained.say("augmentation preset {}", "augment.preset"),
        held.say("class weights {}", "class_weights") if held.values("class_weights") != ["none"] else "",
    ]
    if any(words):
        sentences.append(f"Training ran {', '.join(word for word in words if word)}.")
    if trained.values("patience"):
        every = all(config.get("patience") is not None for config in trained.held)
        form = "ended after {} validations without a better AUROC."
        sentences.append(trained.say(f"{'It' if every else 'Some of it'} {form}", "patience"))
    if numbers := _seeds(rows):
        most = count(numbers[-1], "seed")
        sentences.append(
            f"Each configuration was trained with {most}."
            if len(numbers) == 1
            else f"Configurations were trained with {numbers[0]} to {most} each."
        )
    return " ".join(sentences)


def _is_ensemble(row: Row) -> bool:
    return "ensemble" in (configs.config_of(row) or {})


def _ensembles(rows: Sequence[Row]) -> str:
    """Which runs' predictions were averaged."""
    if not rows:
        return ""
    names = listing(sorted({str(row["init"]) for row in rows}))
    return f"Ensembles ({names}) predict the mean of the probabilities of their members, image by image."


def _seeds(rows: Sequence[Row]) -> list[int]:
    """How many seeds configurations have, rising."""
    found: dict[tuple[Any, ...], set[Any]] = {}
    for row in rows:
        if row["seed"] is not None:
            key = tuple(row[name] for name in _MODEL)
            found.setdefault(key, set()).add(row["seed"])
    return sorted({len(seeds) for seeds in found.values()})


def _statistics(rows: Sequence[Row], results: pa.Table, cites: Citations) -> str:
    """How numbers were made: what this package's tables do, with the choices that the runs record."""
    tested = [row for row in rows if row["test_dataset"]]
    if not tested:
        return ""
    unit = levels.unit(tested)
    sentences = []
    found = (row["threshold_rule"] or (configs.config_of(row) or {}).get("threshold") for row in tested)
    rules = {str(rule) for rule in found if rule is not None}
    fixed = sorted(rule for rule in rules if fixed_threshold(rule) is not None)
    if rules - set(fixed):
        sentences.append(f"Thresholds were chosen on validation {unit} ({listing(sorted(rules - set(fixed)))}).")
    if fixed:
        sentences.append(f"Thresholds were fixed at {listing(fixed)}.")
    several = len({row["seed"] for row in tested if row["seed"] is not None}) > 1
    sentences.append(
        f"Intervals are at 95 % and count patients, not {unit}, as independent: an AUROC's variance over patients is"
        f" DeLong's{cites.of('delong')} in its clustered form{cites.of('obuchowski')}"
        + (f", to which the spread over seeds is added as over readers{cites.of('readers')}" if several else "")
        + f"; intervals of metrics between 0 and 1 are Wilson's{cites.of('wilson')} at the effective number of {unit}."
    )
    if len({tuple(row[name] for name in _MODEL) for row in tested}) > 1:
        sentences.append(
            f"Models were compared on the same test {unit}, with p values corrected by Holm's method{cites.of('holm')}."
        )
    sets = sorted({str(row["test_dataset"]) for row in tested})
    return f"Tests were on {listing(sets)}. " + " ".join(sentences)


_MODEL = ("train_dataset", "arch", "init", "mode", "label_fraction", configs.COLUMN)
"""What tells models apart beside their seed."""


def _programs(infos: Sequence[Mapping[str, Any]], rows: Sequence[Row], cites: Citations) -> str:
    """Versions as the runs recorded them."""
    found: dict[str, set[str]] = {}
    for info in infos:
        for name, version in (info.get("versions") or {}).items():
            found.setdefault(str(name), set()).add(str(version))
    if not found:
        return ""
    words = []
    for name, versions in found.items():
        cite = cites.of(name if name in ("torch", "timm") else None)
        words.append(f"{_NAMES.get(name, name)} {listing(sorted(versions))}{cite}")
    commits = sorted({str(info["git_commit"]) for info in infos if info.get("git_commit")})
    text = f"Software: {listing(words)}"
    return text + (f"; commit {listing([commit[:12] for commit in commits])}." if commits else ".")


_NAMES = {"python": "Python", "torch": "PyTorch", "numpy": "NumPy", "ray": "Ray", "pyarrow": "PyArrow"}
