"""The report's section on data: whose they are, under which terms, and the cards of the shard sets that were read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from results import dataset_names, used_datasets
from results.cells.display import show
from results.errors import InputError
from results.report import page
from results.run import Run
from results.used_datasets import Facts
from results.wording import listing

Known = tuple[tuple[str, str], ...]
"""Facts of a dataset that can be compared."""

_UNUSED = "read by the runs; no number here is of it"

_ROLES = {"pretrain_dataset": "pretraining", "train_dataset": "training", "test_dataset": "test"}


def section(results: pa.Table, runs: Mapping[str, Run]) -> str:
    """The section's HTML: every published dataset once, then the shard sets.

    What is known of a dataset comes from run.json of the runs, for runs that did not note it from the card where the
    run read it; a dataset that the numbers name and of which neither is left is listed as such.

    Args:
        results: collected rows.
        runs: the run folders that are still there.
    """
    places = sorted({pair for run in runs.values() for pair in read(run.shard_hashes).items()})
    found, notes = cards(places)
    known = {content: used_datasets.facts_of(card) for content, (_, card) in found.items()}
    for run in runs.values():
        known |= used_datasets.of_info(read(run.read_info))
    parts = [_published(known, _uses(results)), *(_card(place, card) for place, card in found.values())]
    parts += [page.paragraph(text, "note") for text in notes]
    if not found and not notes:
        parts.append(page.paragraph("The runs do not say which shard sets they read."))
    return "\n".join(part for part in parts if part)


def cards(places: Iterable[tuple[str, str]]) -> tuple[dict[str, tuple[str, dict[str, Any]]], list[str]]:
    """Content -> a place and the card there; and what is to be said of places without."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    missing, others = [], []
    for place, content in places:
        try:
            data = Path(place, "dataset.json").read_bytes()
            if hashlib.sha256(data).hexdigest() != content:
                others.append(place)
            else:
                found.setdefault(content, (place, dict(json.loads(data))))
        except (OSError, ValueError, TypeError):
            missing.append(place)
    notes = []
    if missing:
        notes.append(f"No card found any more at {listing(sorted(set(missing)))}.")
    if others:
        notes.append(f"Another shard set than the runs read lies now at {listing(sorted(set(others)))}.")
    return found, notes


def _uses(results: pa.Table) -> dict[tuple[str, str | None], list[str]]:
    """(Name, hash) of each shard set that the numbers name -> what it was used for."""
    found: dict[tuple[str, str | None], list[str]] = {}
    for column, role in _ROLES.items():
        for name, content in sorted(dataset_names.pairs_of(results, column), key=str):
            if name is not None:
                found.setdefault((dataset_names.plain(name, content), content), []).append(role)
    return found


def _published(known: Mapping[str, Facts], uses: Mapping[tuple[str, str | None], list[str]]) -> str:
    """Terms and references, of two shard sets of one dataset once; and the names of which nothing is known."""
    roles: dict[tuple[tuple[str, str], ...], set[str]] = {
        tuple(sorted(facts.items())): set() for facts in known.values()
    }
    unknown = set()
    for (name, content), words in uses.items():
        same = [
            facts for held, facts in known.items() if content == held or (not content and facts.get("name") == name)
        ]
        for facts in same:
            roles[tuple(sorted(facts.items()))].update(words)
        if not same:
            unknown.add(name)
    parts = [_one(dict(facts), used) for facts, used in sorted(roles.items(), key=_by_name)]
    if unknown:
        text = f"Licence and citation of {listing(sorted(unknown))} are not recorded; look them up before you publish."
        parts.append(page.paragraph(text, "note"))
    return "\n".join(parts)


def _frozen(facts: Facts) -> Known:
    return tuple(sorted(facts.items()))


def _by_name(item: tuple[Known, set[str]]) -> tuple[str, Known]:
    return dict(item[0]).get("name", ""), item[0]


def _one(facts: Facts, roles: set[str]) -> str:
    """Terms and reference of one dataset."""
    home = facts.get("home", "")
    pairs = [
        ("Source", facts.get("source", "not recorded")),
        ("Used for", listing([role for role in _ROLES.values() if role in roles]) if roles else _UNUSED),
        ("Licence", facts.get("licence", "not recorded: not a published dataset, or converted before it was noted")),
    ]
    heading = page.heading(facts.get("name", "A dataset without a name"))
    table = page.facts([*pairs, *([("Home", page.Link(home))] if home else [])])
    cite = page.paragraph("To be cited as:") + page.code(facts["citation"]) if "citation" in facts else ""
    return heading + table + cite


def _card(place: str, card: dict[str, Any]) -> str:
    counts = card.get("counts") or {}
    splits = [name for name in ("train", "val", "test") if name in counts] or sorted(counts)
    shared = card.get("shared_patients") or {}
    pairs = [
        ("Split scheme", card.get("split_scheme", "not recorded")),
        ("Stored images", f"shortest side {card.get('image_size', '?')} pixels, {card.get('image_format', '?')}"),
        ("Samples, rejected", f"{card.get('n_samples', '?')}, {card.get('n_rejects', '?')}"),
        (
            "Patients in two splits",
            listing([f"{n} ({pair})" for pair, n in sorted(shared.items())]) if shared else "none",
        ),
        (
            "Patients known",
            _KNOWN[card.get("patients_known") is not False],
        ),
        ("SHA-256 of the index", card.get("index_sha256", "not recorded")),
        ("Folder", place),
    ]
    rows = []
    for label in card.get("labels", []):
        held = [(counts[split].get("labels") or {}).get(label, "?") for split in splits]
        rows.append((show("label", label), *(_label_count(one) for one in held)))
    sizes = [
        ("Images", *(counts[split].get("n", "?") for split in splits)),
        ("Patients", *(counts[split].get("patients", "?") for split in splits)),
    ]
    table = page.grid(("", *splits), [*sizes, *rows]) if splits else ""
    heading = page.heading(f"Shard set {card.get('name', place)}")
    return f"{heading}\n{page.facts(pairs)}\n" + page.details("Images, patients and positives per split", table)


_KNOWN = {True: "yes", False: "no, each image counts as a patient"}


def _label_count(held: Any) -> str:
    if not isinstance(held, dict):
        return str(held)
    text = str(held.get("positive", "?"))
    return text + (f" (+ {held['uncertain']} uncertain)" if held.get("uncertain") else "")


def read(reader: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a run says of itself; nothing where its file is gone or damaged."""
    try:
        return reader()
    except InputError:
        return {}
