"""Out-of-bootstrap splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from taut.errors import ArgumentError, DataError


@dataclass(frozen=True)
class Split:
    """Indices of samples; the three sets share no sample, though each may hold one several times.

    Attributes:
        train: shape (n,), int64.
        validation: shape (n_validation,), int64.
        test: shape (n_test,), int64.
        out_of_bag: share of the pool that is not in `train`.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    out_of_bag: float


def out_of_bootstrap(
    labels: Sequence[int] | np.ndarray,
    generator: np.random.Generator,
    *,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
    duplicates: Sequence[int] | np.ndarray | None = None,
) -> Split:
    """Draw a training set with replacement, and validation and test sets with replacement from what it left out.

    Stratified: every class is drawn by itself, in its share of the pool. What is out of the bag is first divided in
    two, so that validation and test share no sample either. Source: Accounting for Variance in Machine Learning
    Benchmarks (MLSys 2021), appendix B.

    Args:
        labels: shape (n,), the class of every sample of the pool; all equal for no stratification.
        generator: of the source `data_split`.
        train: samples to draw for training; by default n, which leaves 36.8 % of the pool out of the bag.
        validation: samples to draw for validation; by default as many as its part of the out-of-bag holds.
        test: likewise for the test.
        duplicates: shape (n,), equal keys for samples of equal content; they never fall on two sides.

    Raises:
        ArgumentError: if a size is not positive.
        DataError: if the labels do not form a list, or a class leaves too few samples out of the bag.
    """
    classes = np.asarray(labels)
    if classes.ndim != 1 or len(classes) == 0:
        raise DataError(f"labels have shape {classes.shape}", expected="one class for every sample, shape (n,)")
    keys = np.arange(len(classes)) if duplicates is None else np.asarray(duplicates)
    if keys.shape != classes.shape:
        raise DataError(f"duplicates have shape {keys.shape}", expected=f"one key for every sample, {classes.shape}")
    for name, size in (("train", train), ("validation", validation), ("test", test)):
        if size is not None and size < 1:
            raise ArgumentError(name, size, expected="at least 1 sample")
    names, counts = np.unique(classes, return_counts=True)
    wanted = [None if size is None else _shares(size, counts) for size in (len(classes), validation, test)]
    wanted[0] = _shares(train or len(classes), counts)
    members = [np.flatnonzero(classes == name) for name in names]
    bags = [generator.choice(pool, size, replace=True) for pool, size in zip(members, wanted[0], strict=True)]
    drawn = np.concatenate(bags)
    # Over all classes at once: equal content may carry two labels.
    outside = ~np.isin(keys, keys[drawn])
    left_keys = generator.permutation(np.unique(keys[outside]))
    share = 0.5 if validation is None or test is None else validation / (validation + test)
    first = np.isin(keys, left_keys[: round(share * len(left_keys))])
    parts = []
    for which, side in ((1, outside & first), (2, outside & ~first)):
        sizes = wanted[which]
        chosen = []
        for index, pool in enumerate(members):
            left = pool[side[pool]]
            size = len(left) if sizes is None else sizes[index]
            if len(left) == 0 and size:
                raise DataError(
                    f"class {names[index]!r} with {len(pool)} samples leaves none out of the bag",
                    fix="draw fewer samples for training, or merge rare classes",
                )
            chosen.append(generator.choice(left, size, replace=True) if size else left[:0])
        parts.append(np.concatenate(chosen))
        if len(parts[-1]) == 0:
            raise DataError(f"a pool of {len(classes)} samples leaves none out of the bag", fix="give a larger pool")
    return Split(drawn, parts[0], parts[1], 1 - len(np.unique(drawn)) / len(classes))


def _shares(total: int, counts: np.ndarray) -> list[int]:
    """`total` divided in proportion to `counts`, by largest remainder."""
    exact = total * counts / counts.sum()
    sizes = np.floor(exact).astype(int)
    for index in np.argsort(sizes - exact, kind="stable")[: total - sizes.sum()]:
        sizes[index] += 1
    return [int(size) for size in sizes]
