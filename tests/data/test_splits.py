"""No group crosses, no case moves when others come, and explicit splits are held to their word."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.data import SPLITS, Case, Dataset, assign_splits
from edgekd.errors import InputError, UsageError

# Cases that keep every split filled, whatever else is added; see test_filler_reaches_all_splits.
FILLER = [("filler" + str(index), None) for index in range(60)]


def _build(rows: Sequence[tuple[str, str | None]], splits: Sequence[str | None] | None = None) -> Dataset:
    named = splits if splits is not None else [None] * len(rows)
    path = Path("x.png")
    cases = tuple(
        Case(name, path, (path,), group, split) for (name, group), split in zip(rows, named, strict=True)
    )
    return Dataset(Path(), "csv", cases)


def _locate(dataset: Dataset, salt: str = "edgekd") -> dict[str, str]:
    parts = assign_splits(dataset, salt=salt)
    return {case.name: split for split, cases in parts.items() for case in cases}


def test_filler_reaches_all_splits() -> None:
    assert set(_locate(_build(FILLER)).values()) == set(SPLITS)


rows_strategy = st.lists(
    st.tuples(st.text(min_size=1, max_size=8), st.none() | st.sampled_from("abcdefghij")),
    unique_by=lambda row: row[0],
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(rows_strategy)
def test_every_case_is_placed_once_and_no_group_crosses(rows: list[tuple[str, str | None]]) -> None:
    dataset = _build(FILLER + rows)
    parts = assign_splits(dataset)
    placed = [case.name for cases in parts.values() for case in cases]
    assert sorted(placed) == sorted(case.name for case in dataset.cases)
    for group in "abcdefghij":
        assert sum(any(case.group == group for case in cases) for cases in parts.values()) <= 1


@settings(deadline=None, max_examples=60)
@given(rows_strategy, st.integers(0, 40), st.randoms(use_true_random=False))
def test_adding_and_shuffling_cases_moves_none(rows, kept: int, shuffle) -> None:
    before = _locate(_build(FILLER + rows[:kept]))
    grown = FILLER + rows
    shuffle.shuffle(grown)
    after = _locate(_build(grown))
    assert {name: after[name] for name in before} == before


def test_shares_come_near_the_fractions_and_follow_the_salt() -> None:
    dataset = _build([(f"case{index}", None) for index in range(4000)])
    parts = assign_splits(dataset, fractions=(0.6, 0.3, 0.1))
    shares = [len(parts[split]) / 4000 for split in SPLITS]
    # Three standard deviations of a share of 4000 independent cases are at most 0.024.
    assert shares == pytest.approx([0.6, 0.3, 0.1], abs=0.025)
    assert _locate(dataset) != _locate(dataset, salt="another")


def test_the_place_of_a_group_is_fixed_for_ever() -> None:
    # Values of the first version: a change would mix training and test cases of everyone's old runs.
    places = ["val", "train", "train", "train", "train", "train", "train", "test"]
    where = _locate(_build([(f"p{index}", None) for index in range(len(places))]))
    assert [where[f"p{index}"] for index in range(len(places))] == places


def test_named_splits_win_over_the_hash() -> None:
    rows = [(f"c{index}", None) for index in range(6)]
    names = ["test", "val", "train", "test", "val", "train"]
    assert list(_locate(_build(rows, names)).items()) == sorted(
        zip([name for name, _ in rows], names, strict=True), key=lambda item: SPLITS.index(item[1])
    )


def test_unknown_split_names_case_and_choices() -> None:
    with pytest.raises(InputError, match=r"c1 names an unknown split: received 'valid'.*train, val, test"):
        assign_splits(_build([("c0", None), ("c1", None)], ["train", "valid"]))


def test_split_given_for_some_cases_only_is_refused() -> None:
    with pytest.raises(InputError, match="c1 names no split"):
        assign_splits(_build([("c0", None), ("c1", None)], ["train", None]))


def test_group_across_named_splits_is_refused() -> None:
    rows = [("c0", "p"), ("c1", "p"), ("c2", "q"), ("c3", "r")]
    with pytest.raises(InputError, match="the group p is in several splits: received test and train"):
        assign_splits(_build(rows, ["train", "test", "val", "test"]))


def test_empty_split_tells_the_counts_and_the_next_step() -> None:
    with pytest.raises(InputError, match=r"no case falls into .*salt"):
        assign_splits(_build([("only", None)]))
    with pytest.raises(InputError, match=r"no case falls into val: received 1 in train, 0 in val, 1 in test"):
        assign_splits(_build([("a", None), ("b", None)], ["train", "test"]))


def test_an_empty_split_is_taken_where_it_is_allowed() -> None:
    parts = assign_splits(_build([("p1", None)]), allow_empty=True)
    assert {split: len(cases) for split, cases in parts.items()} == {"train": 1, "val": 0, "test": 0}


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.7, 0.3, 0.0), (0.7, 0.2, 0.2), (1.2, -0.1, -0.1)])
def test_fractions_that_divide_nothing_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="fractions"):
        assign_splits(_build(FILLER), fractions=fractions)
