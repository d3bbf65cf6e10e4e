import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data.splitting import (
    DROPPED,
    SHARES,
    SPLITS,
    assign_splits,
    group_rows,
    hash_fractions,
    long_tail,
    take,
)


def sample(count: int, classes: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    return [f"id{k}" for k in range(count)], np.random.default_rng(seed).integers(0, classes, count)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 400), st.integers(1, 6), st.integers(0, 5))
def test_every_class_gives_each_split_its_share_to_within_one(count, classes, seed):
    ids, labels = sample(count, classes, seed)
    splits = assign_splits(ids, labels, np.full(count, ""), seed=seed)
    for label in np.unique(labels):
        members = splits[labels == label]
        for split in SPLITS:
            expected = len(members) * SHARES[split] / sum(SHARES.values())
            assert abs((members == split).sum() - expected) < 1 + 1e-9


def test_the_order_of_the_rows_is_no_matter_and_the_seed_is():
    ids, labels = sample(500, 4)
    order = np.random.default_rng(1).permutation(500)
    splits = assign_splits(ids, labels, np.full(500, ""))
    shuffled = assign_splits([ids[k] for k in order], labels[order], np.full(500, ""))
    assert np.array_equal(shuffled, splits[order])
    assert not np.array_equal(assign_splits(ids, labels, np.full(500, ""), seed=1), splits)


def test_an_official_test_split_stays_and_sixty_thousand_become_fifty_five_and_five():
    ids, labels = [str(k) for k in range(70_000)], np.arange(70_000) % 10
    official = np.array(["train"] * 60_000 + ["test"] * 10_000)
    splits = assign_splits(ids, labels, official)
    assert {name: int((splits == name).sum()) for name in SPLITS} == {
        "train": 50_000,
        "validation": 5_000,
        "calibration": 5_000,
        "test": 10_000,
    }
    assert (splits[60_000:] == "test").all()


def test_four_official_splits_are_left_alone():
    official = np.array([*SPLITS, *SPLITS])
    assert np.array_equal(assign_splits(list("abcdefgh"), np.zeros(8, int), official), official)


def test_copies_across_official_splits_keep_only_the_most_held_out():
    official = np.array(["train", "test", "validation", "train", "test", "calibration"])
    copies = np.array([0, 0, 0, 1, 2, 3])
    splits = assign_splits(list("abcdef"), np.zeros(6, int), official, copies=copies)
    assert splits.tolist() == [DROPPED, "test", DROPPED, "train", "test", "calibration"]


def test_groups_are_never_divided():
    ids, labels = sample(300, 3)
    groups = np.random.default_rng(2).integers(0, 40, 300)
    splits = assign_splits(ids, labels, np.full(300, ""), groups=groups)
    assert all(len(set(splits[groups == group])) == 1 for group in np.unique(groups))
    assert set(splits) == set(SPLITS)


@pytest.mark.parametrize("ratio", [1, 10, 100])
def test_the_long_tail_follows_the_exponential_profile(ratio):
    labels = np.repeat(np.arange(10), 500)
    keep = long_tail([str(k) for k in range(5000)], labels, ratio, 10)
    expected = 500 * ratio ** (-np.arange(10) / 9)
    assert np.abs(np.bincount(labels[keep]) - expected).max() <= 0.5
    assert np.array_equal(keep, long_tail([str(k) for k in range(5000)], labels, ratio, 10))


def test_the_long_tail_never_empties_a_class_or_keeps_more_than_there_is():
    labels = np.array([0] * 20 + [1] * 3 + [2] * 2)
    counts = np.bincount(labels[long_tail([str(k) for k in range(25)], labels, 1000, 3)])
    assert counts.tolist() == [20, 1, 1]


@given(st.integers(1, 60), st.integers(1, 80))
@settings(max_examples=25, deadline=None)
def test_taking_keeps_the_limit_and_the_proportions(limit, count):
    ids, labels = sample(count, 3)
    keep = take(ids, labels, limit)
    assert keep.sum() == min(limit, count)
    for label in range(3):
        assert abs((labels[keep] == label).sum() - min(limit, count) * (labels == label).mean()) <= 1.5


def test_hash_fractions_are_uniform():
    fractions = hash_fractions([str(k) for k in range(20_000)], seed=3)
    histogram = np.histogram(fractions, bins=10, range=(0, 1))[0]
    assert ((histogram - 2000) ** 2 / 2000).sum() < 30  # chi-squared, 9 degrees of freedom: p < 0.001


def test_grouping_joins_chains_and_ignores_empty_keys():
    #        0    1    2    3    4
    digest = ["a", "a", "b", "c", "d"]
    person = ["", "p", "p", "", ""]
    groups = group_rows(digest, person)
    assert groups[0] == groups[1] == groups[2]
    assert len({groups[0], groups[3], groups[4]}) == 3
