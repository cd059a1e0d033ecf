"""The two Parquet layouts: predictions (one row per image and label) and metrics (one row per number).

Both carry a name and a version in their file metadata, and are checked when written and when read.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from results import parquet
from results.errors import InputError
from results.levels import IMAGE

VERSION = 4
"""Version of both layouts. A reader refuses a newer one, and gives the columns that an older one lacks as null."""

MACRO = "macro"
"""The `label` of a mean over labels."""

Row = dict[str, Any]
"""A row of results: column -> value."""

_NAME_KEY, _VERSION_KEY = b"cxrdist.schema", b"cxrdist.schema_version"


def _schema(name: str, fields: Iterable[tuple[str, pa.DataType]]) -> pa.Schema:
    return pa.schema(
        [pa.field(column, kind) for column, kind in fields],
        metadata={_NAME_KEY: name.encode(), _VERSION_KEY: str(VERSION).encode()},
    )


CONFIG = pa.dictionary(pa.int32(), pa.string())
"""Kind of the column `config`: long texts, of which each is stored once."""

PREDICTIONS = _schema(
    "predictions",
    [
        ("run", pa.string()),  # the run's folder or name
        ("dataset", pa.string()),  # the shard set's name
        ("split", pa.string()),  # train, val or test
        ("key", pa.string()),  # the sample's key in the shard set
        ("patient_id", pa.string()),  # what the intervals are clustered by
        ("label", pa.string()),  # canonical label name
        ("y_true", pa.int8()),  # 1, 0, or null where the label policy leaves the sample out
        ("y_score", pa.float32()),  # probability in [0, 1]
        # since version 3: what the index says of the sample; null where it does not say it
        ("study_id", pa.string()),  # examination that the image belongs to
        ("view", pa.string()),  # PA, AP or LATERAL
        ("sex", pa.string()),  # M or F
        ("age", pa.float32()),  # years
    ],
)

METRICS = _schema(
    "metrics",
    [
        ("run", pa.string()),
        ("signature", pa.string()),  # identity of the run
        ("job", pa.string()),  # finetune, evaluate, pretrain
        ("arch", pa.string()),
        ("init", pa.string()),  # scratch, imagenet, or a display name such as simclr:nih
        ("init_signature", pa.string()),  # signature of the run that made the initialisation, or null
        ("mode", pa.string()),  # linear, full, last_n, two_stage
        ("pretrain_dataset", pa.string()),  # null when the initialisation saw no X-rays
        ("train_dataset", pa.string()),
        ("test_dataset", pa.string()),
        ("split_scheme", pa.string()),  # of the test set
        ("label_policy", pa.string()),  # how uncertain labels and blanks were taken, e.g. ones/zeros
        ("label_fraction", pa.float64()),  # of the training patients whose labels were used, 0 to 1
        ("n_labelled", pa.int64()),  # labelled training images
        ("fraction_hash", pa.string()),  # SHA-256 of the fraction's manifest
        ("seed", pa.int64()),
        ("label", pa.string()),  # canonical name, or macro
        ("metric", pa.string()),
        ("value", pa.float64()),  # null when undefined
        ("ci_low", pa.float64()),  # 95 % interval over patients
        ("ci_high", pa.float64()),
        ("n_pos", pa.int64()),  # test images
        ("n_neg", pa.int64()),
        ("threshold", pa.float64()),  # chosen on val; positive means score >= threshold
        ("gpu_seconds", pa.float64()),  # of the whole run
        ("wall_seconds", pa.float64()),
        ("git_commit", pa.string()),
        ("created_at", pa.timestamp("us", tz="UTC")),
        # beyond the contract
        ("n_patients", pa.int64()),  # test patients, the units of the interval
        ("n_labels", pa.int64()),  # labels that the value averages
        ("n_labels_undefined", pa.int64()),  # labels left out because the value is undefined for them
        ("n_parameters", pa.int64()),  # of the whole model, encoder and head
        ("variant", pa.string()),  # what differs from the full recipe, e.g. augment.blur=false; null for the recipe
        # since version 2: what the names above stand for, by content, and how validation was used
        ("init_hash", pa.string()),  # SHA-256 of the encoder file; null for scratch and imagenet
        ("pretrain_dataset_hash", pa.string()),  # SHA-256 of a shard set's card, which covers all its files
        ("train_dataset_hash", pa.string()),
        ("test_dataset_hash", pa.string()),
        ("n_val", pa.int64()),  # validation images that the choice of weights and thresholds used; 0: none
        ("val_fraction", pa.float64()),  # of the validation patients: label_fraction where val was cut with it, else 1
        ("threshold_rule", pa.string()),  # how thresholds were chosen on val, e.g. balanced_accuracy
        ("config", CONFIG),  # what determines the result, seed left out, as JSON of dotted names (results.configs)
        # since version 3
        ("level", pa.string()),  # what is scored: image, study or study_max (results.levels)
        # since version 4
        ("method", pa.string()),  # by which the initialisation learnt from X-rays (simclr, vicreg); null: it did not
    ],
)

ADDED = {
    2: (
        "init_hash",
        "pretrain_dataset_hash",
        "train_dataset_hash",
        "test_dataset_hash",
        "n_val",
        "val_fraction",
        "threshold_rule",
        "config",
    ),
    3: ("study_id", "view", "sex", "age", "level"),
    4: ("method",),
}
"""Version -> columns that came with it; a file of an older version may lack them."""

OF_SAMPLES = ("study_id", "view", "sex", "age")
"""Columns of PREDICTIONS that describe the sample; predictions may come without them, then they are null."""

CONTEXT = tuple(
    name
    for name in METRICS.names
    if name
    not in {
        "label",
        "metric",
        "value",
        "ci_low",
        "ci_high",
        "n_pos",
        "n_neg",
        "threshold",
        "n_patients",
        "n_labels",
        "n_labels_undefined",
        "level",
    }
)
"""Columns of METRICS that describe the run and not the number; the caller of the scoring knows them."""


def conform(data: pa.Table | Mapping[str, Any], schema: pa.Schema, where: str = "the table") -> pa.Table:
    """The columns of `schema`, in its order and types.

    Raises:
        InputError: a column is missing, unknown, or holds values of another kind.
    """
    if not isinstance(data, pa.Table):
        data = pa.table({name: data[name] for name in data})
    data = _with_nulls(data, schema, OF_SAMPLES)
    missing = [name for name in schema.names if name not in data.column_names]
    unknown = [name for name in data.column_names if name not in schema.names]
    if missing or unknown:
        kind = (schema.metadata or {}).get(_NAME_KEY, b"").decode()
        raise InputError(
            f"{where} does not have the columns of {kind}: "
            + "; ".join(
                f"{word} {', '.join(names)}" for word, names in (("missing", missing), ("unknown", unknown)) if names
            )
        )
    try:
        return data.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{where}: {error}") from error


def check_predictions(table: pa.Table, where: str = "the predictions") -> None:
    """Refuse scores that are not probabilities and truths that are neither 0, 1 nor null.

    Raises:
        InputError: naming the count and an example.
    """
    score, truth = table["y_score"], table["y_true"]
    bad = pc.fill_null(pc.invert(pc.and_(pc.greater_equal(score, 0.0), pc.less_equal(score, 1.0))), True)
    bad = pc.or_(bad, pc.fill_null(pc.is_nan(score), True))
    if count := pc.sum(bad).as_py():
        row = table.filter(bad).slice(0, 1).to_pylist()[0]
        raise InputError(
            f"{where}: {count} of {len(table)} scores are not probabilities in [0, 1], first {row['y_score']} for key"
            f" {row['key']}, label {row['label']}; a run whose loss became NaN must be run again with a lower rate"
        )
    odd = pc.fill_null(pc.invert(pc.is_in(truth, pa.array([0, 1], pa.int8()))), False)
    odd = pc.and_(odd, pc.is_valid(truth))
    if count := pc.sum(odd).as_py():
        raise InputError(f"{where}: {count} values of y_true are not 0, 1 or null; apply the label policy first")


def write_predictions(path: str | Path, data: pa.Table | Mapping[str, Any]) -> None:
    """Write predictions.parquet; `data` is a table or columns by name.

    Raises:
        InputError: wrong columns, scores outside [0, 1] or NaN, or the file cannot be written.
    """
    table = conform(data, PREDICTIONS, str(path))
    check_predictions(table, str(path))
    parquet.write(Path(path), table)


def write_metrics(path: str | Path, rows: Iterable[Mapping[str, Any]] | pa.Table) -> None:
    """Write metrics.parquet; `rows` come from `results.stats.scoring.metric_rows`, or are a table of METRICS.

    Raises:
        InputError: wrong columns, or the file cannot be written.
    """
    table = _with_nulls(rows, METRICS, ("level",)) if isinstance(rows, pa.Table) else metrics_table(rows)
    parquet.write(Path(path), _with_level(conform(table, METRICS, str(path))))


def metrics_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as a METRICS table; a name that METRICS does not have is refused, an absent one is null (level: image)."""
    rows = list(rows)
    unknown = sorted({name for row in rows for name in row} - set(METRICS.names))
    if unknown:
        raise InputError(f"unknown metric column {', '.join(unknown)}; known: {', '.join(METRICS.names)}")
    return _with_level(pa.Table.from_pylist(rows, schema=METRICS))


def read_predictions(path: str | Path, *, coded: bool = False) -> pa.Table:
    """Read a predictions file.

    Args:
        path: of the file.
        coded: give text as dictionaries where the file holds it so, in half the time.

    Raises:
        InputError: it is damaged, of a newer version, or something else.
    """
    table = read_any(Path(path), PREDICTIONS, coded=coded)
    check_predictions(table, str(path))
    return table


def read_metrics(path: str | Path) -> pa.Table:
    """Read a metrics file of one run.

    Raises:
        InputError: it is damaged, of a newer version, or something else.
    """
    return read_any(Path(path), METRICS)


def read_any(path: Path, *layouts: pa.Schema, coded: bool = False) -> pa.Table:
    """Read a file that has one of `layouts`, told by the name in its metadata.

    Returns:
        The table, with the metadata of its file.

    Raises:
        InputError: it is damaged, of a newer version, or something else.
    """
    names = {(layout.metadata or {})[_NAME_KEY]: layout for layout in layouts}
    table = parquet.read(path, _texts(layouts) if coded else ())
    metadata = table.schema.metadata or {}
    name = metadata.get(_NAME_KEY, b"")
    if name not in names and (known := _by_columns(table, layouts)) is not None:
        return known  # it went through pandas, which drops the note
    if name not in names:
        raise InputError(f"{path} is not a {' or '.join(sorted(word.decode() for word in names))} file of cxrdist")
    version = metadata.get(_VERSION_KEY, b"?").decode("ascii", "replace")
    if not version.isdecimal() or not version.isascii() or int(version) > VERSION:
        raise InputError(f"{path} has {name.decode()} version {version}, this cxrdist reads up to {VERSION}; update it")
    if (_decoded(table.schema) if coded else table.schema).equals(names[name], check_metadata=False):
        return table
    later = [column for since, columns in ADDED.items() if since > int(version) for column in columns]
    return _with_level(conform(_with_nulls(table, names[name], later), names[name], str(path)))


def _by_columns(table: pa.Table, layouts: Iterable[pa.Schema]) -> pa.Table | None:
    """The table as one of the layouts whose columns it has, all of them and no others; None where it is none.

    pandas keeps columns and values, but not the note of the layout, and writes an index of its own beside them.
    """
    columns = {name for name in table.column_names if not name.startswith("__index_level_")}
    layout = next((layout for layout in layouts if columns == set(layout.names)), None)
    return (
        None if layout is None else conform(table.select(layout.names), layout).replace_schema_metadata(layout.metadata)
    )


def _texts(layouts: Iterable[pa.Schema]) -> list[str]:
    """The columns of text of any of the layouts."""
    return sorted({field.name for layout in layouts for field in layout if pa.types.is_string(field.type)})


def _decoded(schema: pa.Schema) -> pa.Schema:
    """The schema of the same columns without dictionaries."""
    kinds = (field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in schema)
    return pa.schema([pa.field(name, kind) for name, kind in zip(schema.names, kinds, strict=True)])


def _with_nulls(table: pa.Table, layout: pa.Schema, columns: Iterable[str]) -> pa.Table:
    """A table with those of the columns that belong to its layout and are not there, null unless older files tell."""
    for name in columns:
        if name in layout.names and name not in table.column_names:
            values = _earlier_method(table) if name == "method" else pa.nulls(len(table), layout.field(name).type)
            table = table.append_column(layout.field(name), values)
    return table


def _earlier_method(table: pa.Table) -> pa.ChunkedArray:
    """The method of initialisations from before there was a choice: SimCLR for all that saw X-rays."""
    return pc.if_else(pc.is_valid(table["pretrain_dataset"]), pa.scalar("simclr"), pa.scalar(None, pa.string()))


def _with_level(table: pa.Table) -> pa.Table:
    """Metrics that do not say their level are of images: until version 3 there was no other."""
    if "level" not in table.column_names:
        return table
    silent = pc.and_(pc.is_null(table["level"]), pc.is_valid(table["label"]))
    filled = pc.if_else(silent, pa.scalar(IMAGE), table["level"])
    return table.set_column(table.column_names.index("level"), table.schema.field("level"), filled)
