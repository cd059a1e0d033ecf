from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards import InputError, labels
from shards.labels import NULL, canonical, resolve


def test_spellings_of_all_data_sets_meet_in_one_name() -> None:
    for spelling in ("Effusion", "Pleural Effusion", "pleural_effusion", " pleural-effusion ", "PLEURAL EFFUSION"):
        assert canonical(spelling) == "pleural_effusion"
    assert canonical("Infiltrate") == canonical("Infiltration") == "infiltration"
    assert canonical("Pleural_Thickening") == canonical("pleural") == "pleural_thickening"
    assert canonical("No Finding") == "no_finding"


def test_label_sets_have_the_published_lengths_and_shared_labels_are_in_both() -> None:
    assert len(labels.NIH) == 14
    assert len(labels.CHEXPERT) == 13
    assert len(labels.SHARED_NIH_CHEXPERT) == 7
    assert set(labels.SHARED_NIH_CHEXPERT) == set(labels.NIH) & set(labels.CHEXPERT)
    assert all(canonical(name) == name for name in labels.CANONICAL)


def test_unknown_label_is_refused_with_the_list_of_known_ones() -> None:
    with pytest.raises(InputError, match="unknown label 'Tonsillitis'.*atelectasis"):
        canonical("Tonsillitis")


VALUES = np.array([[1, 0], [-1, -1], [NULL, NULL]], dtype=np.int8)


@pytest.mark.parametrize(
    ("policy", "uncertain"), [("ones", [1.0, True]), ("zeros", [0.0, True]), ("ignore", [0.0, False])]
)
def test_uncertain_follows_the_policy_and_certain_values_never_change(policy: str, uncertain: list) -> None:
    y, mask = resolve(VALUES, policy)
    assert y.dtype == np.float32 and mask.dtype == bool
    assert y[0].tolist() == [1, 0] and mask[0].all()
    assert [y[1, 0], mask[1, 0]] == uncertain


def test_blanks_are_zeros_or_ignored() -> None:
    y, mask = resolve(VALUES, "ones", "zeros")
    assert y[2].tolist() == [0, 0] and mask[2].all()
    y, mask = resolve(VALUES, "ones", "ignore")
    assert y[2].tolist() == [0, 0] and not mask[2].any()


def test_policy_per_label_uses_its_default_for_the_others() -> None:
    y, mask = resolve(VALUES, {"Edema": "ones", "default": "zeros"}, labels=["edema", "fracture"])
    assert y[1].tolist() == [1, 0] and mask[1].all()
    y, mask = resolve(VALUES, {"edema": "ones"}, labels=["edema", "fracture"])
    assert mask[1].tolist() == [True, False]


@pytest.mark.parametrize(
    "bad",
    [
        {"policy": "maybe"},
        {"policy": {"edema": "maybe"}, "labels": ["edema", "mass"]},
        {"policy": {"hernia": "ones"}, "labels": ["edema", "mass"]},
        {"policy": {"edema": "ones"}},
        {"blanks": "ones"},
    ],
)
def test_wrong_policy_is_an_input_error(bad: dict) -> None:
    with pytest.raises(InputError):
        resolve(VALUES, **bad)


def test_a_stored_value_outside_the_contract_is_refused() -> None:
    with pytest.raises(InputError, match="value 3"):
        resolve(np.array([[3]], dtype=np.int8))


@given(st.lists(st.sampled_from([1, 0, -1, -128]), min_size=1, max_size=30), st.sampled_from(labels.POLICIES))
def test_targets_are_zero_or_one_and_masked_entries_are_zero_or_uncertain(values: list[int], policy: str) -> None:
    column = np.array(values, dtype=np.int8)[:, None]
    y, mask = resolve(column, policy, "ignore")
    assert set(np.unique(y)) <= {0.0, 1.0}
    assert (mask[:, 0] == ((column[:, 0] >= 0) | ((column[:, 0] == -1) & (policy != "ignore")))).all()


def test_choosing_labels_knows_sets_and_other_spellings() -> None:
    available = ("edema", "pleural_effusion", "tuberculosis")
    assert labels.choose(["Effusion", "tuberculosis"], available) == ("pleural_effusion", "tuberculosis")
    assert labels.choose(None, available) == available
    with pytest.raises(InputError, match="no label atelectasis.*it has edema"):
        labels.choose(["shared_nih_chexpert"], available)
