"""Out-of-bootstrap splits: with replacement, stratified, and never the same sample on two sides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.errors import ArgumentError, DataError
from taut.stats import Split, Streams, out_of_bootstrap


def sides(split: Split, keys: np.ndarray) -> list[set[int]]:
    return [set(keys[part].tolist()) for part in (split.train, split.validation, split.test)]


@given(st.integers(0, 2**32), st.integers(2, 5), st.integers(30, 60))
def test_no_sample_is_on_two_sides(seed: int, classes: int, per_class: int) -> None:
    labels = np.repeat(np.arange(classes), per_class)
    split = out_of_bootstrap(labels, np.random.default_rng(seed))
    train, validation, test = sides(split, np.arange(len(labels)))
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert len(split.train) == len(labels)


@given(st.integers(0, 2**32))
def test_samples_of_equal_content_stay_on_one_side(seed: int) -> None:
    labels = np.zeros(200, dtype=int)
    keys = np.arange(200) // 2  # every content twice
    train, validation, test = sides(out_of_bootstrap(labels, np.random.default_rng(seed), duplicates=keys), keys)
    assert not (train & validation or train & test or validation & test)


def test_the_out_of_bag_share_is_one_over_e() -> None:
    labels = np.zeros(1000, dtype=int)
    shares = [
        out_of_bootstrap(labels, Streams({"data_split": seed}).generator("data_split")).out_of_bag
        for seed in range(100)
    ]
    # The share of one split has a standard deviation of about 0.01.
    assert np.mean(shares) == pytest.approx(np.exp(-1), abs=0.004)
    assert np.std(shares) < 0.02


def test_sizes_per_class_as_in_the_paper() -> None:
    # CIFAR at a hundredth: a pool of 60 for every class, of which 40, 10 and 10 are drawn.
    labels = np.tile(np.arange(10), 60)
    split = out_of_bootstrap(labels, np.random.default_rng(0), train=400, validation=100, test=100)
    for part, size in ((split.train, 40), (split.validation, 10), (split.test, 10)):
        assert np.bincount(labels[part]).tolist() == [size] * 10


def test_sizes_follow_the_shares_of_unequal_classes() -> None:
    labels = np.repeat([0, 1], [75, 25])
    split = out_of_bootstrap(labels, np.random.default_rng(0), train=10)
    assert sorted(np.bincount(labels[split.train]).tolist()) in ([2, 8], [3, 7])


def test_training_samples_are_drawn_with_replacement() -> None:
    split = out_of_bootstrap(np.zeros(100, dtype=int), np.random.default_rng(0))
    assert len(set(split.train.tolist())) < 80


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_sizes_below_one_are_refused(name: str) -> None:
    sizes: dict[str, Any] = {name: 0}
    with pytest.raises(ArgumentError, match=name):
        out_of_bootstrap(np.zeros(10), np.random.default_rng(0), **sizes)


def test_pools_that_cannot_be_split_are_refused() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(DataError, match="shape"):
        out_of_bootstrap(np.zeros((3, 2)), generator)
    with pytest.raises(DataError, match="duplicates"):
        out_of_bootstrap(np.zeros(3), generator, duplicates=[1, 2])
    with pytest.raises(DataError, match="out of the bag"):
        out_of_bootstrap(np.zeros(1), generator)
    with pytest.raises(DataError, match=r"class .* out of the bag"):
        out_of_bootstrap(np.repeat([0, 1], [50, 1]), generator, validation=51, test=51)
