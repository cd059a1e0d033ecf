"""What a user chooses about a table: wrong names and values are refused with the right ones."""

from __future__ import annotations

import pyarrow as pa
import pytest

from results.cells.options import Options, filters, words
from results.errors import InputError
from results.tables.registry import build
from results.tables.render import FORMATS, render


def test_wrong_names_and_values_are_refused_with_the_right_ones(results: pa.Table) -> None:
    for name, options, message in (
        ("diagram", Options(), "label-efficiency, transfer"),
        ("models", Options(metric="auc"), "the values are: .*auroc"),
        ("models", Options(where=("seed=7",)), "the values are: 0, 1, 2"),
        ("models", Options(where=("colour=red",)), "columns: run, signature"),
        ("models", Options(rows=("weight",)), "cannot be rows or columns"),
        ("models", Options(allow=("all",)), "there are splits, policies, levels, sets, configs, seeds"),
    ):
        with pytest.raises(InputError, match=message):
            build(name, results, options)
    with pytest.raises(InputError, match="there are markdown, latex, siunitx, csv, html"):
        render(build("cost", results), "docx")
    assert set(FORMATS) == {"markdown", "latex", "siunitx", "csv", "html"}


def test_filters_and_lists_of_words_are_split_as_a_shell_would() -> None:
    assert filters('mode=full init="simclr nih" seed=0,1') == ("mode=full", "init=simclr nih", "seed=0,1")
    assert words("label_fraction, mode") == ("label_fraction", "mode") and words(None) == ()
    with pytest.raises(InputError, match="No closing quotation"):
        filters('init="a')
