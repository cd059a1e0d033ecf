"""The model card of an exported network: data, licence, metrics with intervals, limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from results import schema, used_datasets
from results.errors import InputError
from results.run import Run

LIMITS = (
    "Research use only: neither made nor tested for clinical decisions.",
    "A network gives a probability for anything, also for images that are no chest X-rays.",
    "Numbers hold for the test set named; other hospitals, devices and patients give others.",
)


def model_card(run: Run | None, name: str, labels: Sequence[str], preprocessing: str) -> str:
    """Markdown with the front matter that the Hugging Face hub reads.

    Args:
        run: whose results and data are told; None for a model file by itself.
        name: title.
        labels: what is classified; empty for an encoder.
        preprocessing: what is done to an image first.
    """
    front = ["---", "library_name: timm", "tags: [image-classification, chest-x-ray]"]
    lines = [*front, "---", "", f"# {name}", "", _what(labels), "", f"Input: {preprocessing}.", ""]
    lines += ["```python", "import timm", 'model = timm.create_model("local-dir:FOLDER", pretrained=True)', "```", ""]
    if run is not None:
        lines += [*_data(run), *_metrics(run, labels)]
    lines += ["## Limits", "", *(f"- {limit}" for limit in LIMITS), ""]
    return "\n".join(lines)


def _what(labels: Sequence[str]) -> str:
    if not labels:
        return "An encoder of chest X-rays, pretrained without labels by cxrdist."
    return f"Classifies chest X-rays by {', '.join(labels)} (independent probabilities: sigmoid of each logit)."


def _data(run: Run) -> list[str]:
    lines = ["## Data", ""]
    for facts in used_datasets.of_info(run.read_info()).values():
        words = [str(facts.get("name", "unnamed")), str(facts.get("source") or "")]
        licence = facts.get("licence") or "not recorded"
        lines.append(f"- {': '.join(word for word in words if word)}. Licence: {licence}.")
        if facts.get("citation"):
            lines += ["", "```bibtex", str(facts["citation"]), "```", ""]
    return [*lines, ""]


def _metrics(run: Run, labels: Sequence[str]) -> list[str]:
    if not run.metrics.is_file():
        return []
    try:
        rows = schema.read_metrics(run.metrics).to_pylist()
    except InputError:
        return []
    lines = ["## Metrics", "", "| test set | label | metric | value | 95 % interval | positives | negatives |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        if row["metric"] in ("auroc", "auprc", "recall", "specificity") and row["label"] in labels:
            lines.append(_row(row))
    return [*lines, "", "Recall and specificity at the threshold chosen on validation.", ""]


def _row(row: dict[str, Any]) -> str:
    value = "undefined" if row["value"] is None else f"{row['value']:.3f}"
    between = "" if row["ci_low"] is None else f"{row['ci_low']:.3f} to {row['ci_high']:.3f}"
    words = [row["test_dataset"], row["label"], row["metric"], value, between, row["n_pos"], row["n_neg"]]
    return "| " + " | ".join(map(str, words)) + " |"
