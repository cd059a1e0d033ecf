"""What a caption and the notes below a table say, from the rows themselves."""

from __future__ import annotations

from collections.abc import Sequence

from results import levels
from results.cells import checks, comparable
from results.cells.cell import Cell
from results.cells.display import FEW_MARK, METRIC_TITLES, SINGLE_SEED_MARK, show
from results.cells.select import constant
from results.cells.significance import ALPHA, ONE_SEED, Verdict
from results.configs import config_of
from results.metric_names import COUNTS, THRESHOLD_METRICS
from results.schema import MACRO, Row
from results.stats import effects
from results.stats.metrics import fixed_threshold
from results.wording import count, listing


def caption_of(title: str, rows: Sequence[Row], shown: Sequence[str], cells: Sequence[Cell], scope: str = "") -> str:
    """Title, what was held fixed, data and policies, what means go over, and what the intervals are.

    Args:
        title: with {metric} to be filled in.
        rows: the results.
        shown: axes that the table or figure shows.
        cells: what it prints.
        scope: which runs share the labels of their means, where not all do: row, column or panel.
    """
    sentences = [title.format(metric=metric_title(rows)) + "."]
    fixed = constant(rows, shown)
    words = [
        f"{show(axis, fixed[axis])}{suffix}"
        for axis, suffix in (
            ("arch", ""),
            ("init", " initialisation"),
            ("mode", " fine-tuning"),
            ("label_fraction", " of the labels"),
        )
        if fixed.get(axis) is not None
    ]
    if "label" in fixed and fixed["label"] != MACRO:
        words.insert(0, show("label", fixed["label"]))
    if fixed.get("train_dataset") is not None:
        words.append(f"trained on {fixed['train_dataset']}")
    if words:
        sentences.append("All cells: " + ", ".join(words) + ".")
    sentences += [
        data_sentence(rows),
        comparable.sentence(rows, scope),
        threshold_sentence(rows),
        interval_sentence(cells),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def metric_title(rows: Sequence[Row]) -> str:
    """The metric of the rows as a title says it: `Macro AUROC`, `AUROC of pneumonia`, `AUROC`, or `Metrics`."""
    metrics = sorted({row["metric"] for row in rows})
    metric: str = METRIC_TITLES.get(str(metrics[0]), str(metrics[0])) if len(metrics) == 1 else "Metrics"
    if {row["label"] for row in rows} != {MACRO}:
        return metric
    alone = comparable.only_label(rows)
    if alone is not None:
        return f"{metric} of {show('label', alone).lower()}"
    return f"Macro {metric}" if metric.isupper() or metric[1:2].isdigit() else f"Macro {metric.lower()}"


def labelled_title(name: str, rows: Sequence[Row]) -> str:
    """What a table over labels is of: `Calibration of pneumonia`, or `Calibration, means over labels`."""
    labels = {row["label"] for row in rows}
    alone = comparable.only_label(rows) if labels == {MACRO} else str(next(iter(labels)))
    return f"{name}, means over labels" if alone is None else f"{name} of {show('label', alone).lower()}"


def threshold_sentence(rows: Sequence[Row]) -> str:
    """By which rule thresholds were chosen, where a metric depends on them."""
    held = [row for row in rows if row["metric"] in (*THRESHOLD_METRICS, *COUNTS)]
    rules = {row["threshold_rule"] or (config_of(row) or {}).get("threshold") for row in held}
    if not held:
        return ""
    known = sorted(rule for rule in rules if rule is not None)
    fixed = [rule for rule in known if fixed_threshold(rule) is not None]
    named = [rule_title(rule) for rule in known if rule not in fixed]
    if None in rules:
        named.append("a rule that is not recorded")
    sentences = [f"Thresholds chosen on validation {levels.unit(held)}: {listing(named)}."] if named else []
    return " ".join([*sentences, *([f"Thresholds fixed at {listing(fixed)}."] if fixed else [])])


def rule_title(rule: str) -> str:
    """A threshold rule in words, e.g. `the highest one with a sensitivity of at least 0.9`."""
    if fixed_threshold(rule) is not None:
        return f"fixed at {rule}"
    name, _, number = rule.partition("=")
    title = METRIC_TITLES.get({"sensitivity": "recall"}.get(name, name), name)
    title = title if title.isupper() or title[1:2].isdigit() else title.lower()
    end = "lowest" if name == "specificity" else "highest"
    return f"the {end} one with a {title} of at least {number}" if number else f"highest {title}"


def data_sentence(rows: Sequence[Row]) -> str:
    """Test sets with their split schemes and label policies, and whether studies were scored."""
    found = sorted(
        {
            (str(r["test_dataset"]), str(r["split_scheme"]), str(r["label_policy"]), levels.of(r))
            for r in rows
            if r["test_dataset"]
        }
    )
    words = [
        f"{dataset} ({'split ' + split if split != 'None' else 'split not recorded'}, "
        f"{'label policy ' + policy if policy != 'None' else 'label policy not recorded'}{levels.phrase(level)})"
        for dataset, split, policy, level in found
    ]
    if not words:
        return ""
    return f"Test set{'' if len(words) == 1 else 's'}: {listing(words)}."


def interval_sentence(cells: Sequence[Cell]) -> str:
    """What stands in the brackets, and over how many seeds."""
    cells = [cell for cell in cells if cell.value is not None and cell.text is None]
    kinds = {cell.interval for cell in cells if cell.interval}
    counts = sorted({cell.n for cell in cells})
    seeds = (f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}") if counts else ""
    both = f"Mean over seeds ({seeds}) with its 95 % interval, which covers both test patients and seeds"
    alone = "95 % interval over test patients, for this trained model, which does not include the spread over seeds"
    if kinds == {"both"}:
        return f"{both}."
    if kinds == {"patients"}:
        return f"One seed; {alone}."
    if kinds:
        return f"{both}; {SINGLE_SEED_MARK} one seed, {alone}."
    return f"Mean over seeds ({seeds}), no interval." if counts and counts[-1] > 1 else "One seed, no interval."


def notes_of(
    rows: Sequence[Row],
    grid: Sequence[Sequence[Cell | None]],
    verdict: Verdict | None,
    compare: str,
    *,
    by: Sequence[str] = (),
    shown: Sequence[str] = (),
) -> tuple[str, ...]:
    """How bold was decided, gaps, labels left out of means, what runs differ in beyond what is shown.

    Args:
        rows: the results.
        grid: the table's cells.
        verdict: what the tests said; None where none were asked for.
        compare: row or column, along which cells are compared.
        by: axes that tell comparisons apart (see `comparable.with_common_labels`).
        shown: axes that the table shows.
    """
    notes = [verdict_note(verdict, compare)] if verdict is not None else ["No tests were asked for; nothing is bold."]
    cells = [cell for line in grid for cell in line]
    if missing := sum(cell is None for cell in cells):
        notes.append(f"\u2013: no finished run ({count(missing, 'cell')}).")
    held = [cell for cell in cells if cell is not None]
    if any(cell.value is None for cell in held):
        lacking = sorted({name for row in rows for name in row.get(comparable.LACKING, ())})
        named = listing([show("label", name).lower() for name in lacking]) if lacking else ""
        more = f"; or a run has no value for all the labels asked for (lacking: {named})" if lacking else ""
        notes.append(
            f"undefined: the test set lacks a class, nothing was predicted positive, or the label was not learnt{more}."
        )
    if few := sum(cell.few for cell in held):
        notes.append(f"{FEW_MARK}: no interval and no test ({count(few, 'cell')}): {effects.TOO_FEW}.")
    if any(cell.value is not None and cell.rows and cell.rows[0]["metric"] == "ece" for cell in held):
        notes.append("ECE has no interval and no test: it is too large on average, the more so the fewer the images.")
    if partial := sum(0 < cell.n < len(cell.rows) for cell in held):
        verb = "averages" if partial == 1 else "average"
        notes.append(f"{count(partial, 'cell')} {verb} only the seeds for which the value is defined.")
    notes += macro_notes(rows, by)
    notes += setting_notes(rows, [cell.rows for cell in held], shown)
    hashes: dict[tuple[object, ...], set[object]] = {}
    for row in rows:
        if row["fraction_hash"] is not None:
            key = (row["train_dataset"], row["label_fraction"], row["seed"])
            hashes.setdefault(key, set()).add(row["fraction_hash"])
    if any(len(values) > 1 for values in hashes.values()):
        notes.append("Caution: runs of one seed and label fraction did not see the same labelled images.")
    return tuple(notes)


def setting_notes(rows: Sequence[Row], groups: Sequence[Sequence[Row]], shown: Sequence[str]) -> list[str]:
    """In which settings runs differ inside cells (because it was asked for), between them, or may differ."""
    found = (checks.mixture_note(groups), checks.beyond(rows, shown), checks.unknown_note(rows))
    return [note for note in found if note]


def macro_notes(rows: Sequence[Row], by: Sequence[str] = ()) -> list[str]:
    """Over how many labels a macro mean goes; `by` as in `comparable.with_common_labels`."""
    macro = [row for row in rows if row["label"] == MACRO and row["n_labels"] is not None]
    if not macro:
        return []
    notes = []
    if comparable.differ(macro, by):
        notes.append(
            "Caution: on one test set the means go over different labels, and no label is known to be in all of them;"
            " such cells are not comparable."
        )
    if comparable.only_label(macro) is not None:
        return notes
    sizes = sorted({row["n_labels"] for row in macro if row["n_labels"]})
    if not sizes:
        return notes
    left = max((row["n_labels_undefined"] or 0 for row in macro if row.get(comparable.LEFT_OUT) is None), default=0)
    text = f"Macro: mean over {count(sizes[0], 'label') if len(sizes) == 1 else f'{sizes[0]} to {sizes[-1]} labels'}"
    return [*notes, text + (f"; up to {left} without both classes or undefined are left out." if left else ".")]


def verdict_note(verdict: Verdict, compare: str) -> str:
    """How bold was decided."""
    others = [reason for reason in verdict.untested if reason != ONE_SEED]
    reasons = f" Not tested: {listing(others)}." if others else ""
    if ONE_SEED in verdict.untested:
        reasons = f" {_ONE_SEED}{reasons}"
    if not verdict.tested:
        return f"Nothing is bold.{reasons or ' Nothing to compare.'}"
    how = f"{listing(list(verdict.methods))}, Holm-corrected over {count(verdict.tested, 'comparison')}, p < {ALPHA:g}"
    where = "row" if compare == "row" else "column on one test set"
    if verdict.best:
        return f"Bold: significantly better than every other cell in its {where} ({how}).{reasons}"
    return f"Nothing is bold: no value is significantly better than all others in its {where} ({how}).{reasons}"


_ONE_SEED = (
    "Cells of one seed are not tested: the comparison would be of two trained models, not of two ways to train; run two"
    " seeds or more."
)
