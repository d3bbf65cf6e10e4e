"""Which sample goes where: splits, long tails and subsets, decided by hashes of the sample ids.

Every choice ranks the samples of a class by a hash of (seed, id), so it depends on neither the order of the
rows nor a random generator, and the same source gives the same data set on every machine. [ours]
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from assay.data.dataset import SPLITS

SHARES: Mapping[str, int] = {"train": 10, "validation": 1, "calibration": 1, "test": 2}
"""Default proportions: 71 / 7 / 7 / 14 percent, and 50,000 / 5,000 / 5,000 of the 60,000 of MNIST's kin."""

DROPPED = "dropped"
_HELD_OUT = ("test", "calibration", "validation")
_OPEN = ("train", "")


def hash_fractions(ids: Sequence[str], seed: int) -> np.ndarray:
    """Return a float64 in [0, 1) for each id: the first 8 bytes of sha256 over seed and id.

    Example:
        >>> hash_fractions(["a", "b"], seed=0).round(3).tolist()
        [0.372, 0.659]
    """
    digests = b"".join(hashlib.sha256(f"{seed}\0{sample_id}".encode()).digest()[:8] for sample_id in ids)
    return np.frombuffer(digests, ">u8").astype(np.float64) / 2.0**64


def ranks_in_class(ids: Sequence[str], labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each sample's rank by hash within its class, and the size of its class; both int64 [N]."""
    order = np.lexsort((hash_fractions(ids, seed), labels))
    _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order)) - np.repeat(first, counts)
    sizes = np.empty(len(order), np.int64)
    sizes[order] = np.repeat(counts, counts)
    return ranks, sizes


def assign_splits(
    ids: Sequence[str],
    labels: np.ndarray,
    official: np.ndarray,
    *,
    copies: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    seed: int = 0,
    shares: Mapping[str, int] = SHARES,
) -> np.ndarray:
    """Return the split of each sample, as strings [N].

    A split that the source names in ``official`` stays as it is; the samples of its train split, and those
    that it leaves open (``""``), are divided among train and the splits that the source lacks, in proportion
    to ``shares`` and stratified by class: each class gives every split its share to within one sample.

    ``copies`` and ``groups`` (int64 [N]) number the samples that are one image, and those that must stay
    together when they are divided, such as one person's. Of copies that the source put into different
    splits, only those in the most held-out split are kept; the others become `DROPPED`.

    Example:
        >>> ids = [f"{i}" for i in range(1400)]
        >>> split = assign_splits(ids, np.zeros(1400, int), np.array([""] * 1400))
        >>> [int((split == name).sum()) for name in SPLITS]
        [1000, 100, 100, 200]
    """
    rows = np.arange(len(ids))
    copies, groups = rows if copies is None else copies, rows if groups is None else groups
    splits = np.array(official, dtype="<U11")
    present = set(splits) & set(_HELD_OUT)
    for rank, split in enumerate(_HELD_OUT):
        has_copy = np.isin(copies, copies[splits == split])
        splits[has_copy & np.isin(splits, [*_HELD_OUT[rank + 1 :], *_OPEN])] = DROPPED
    open_rows = np.flatnonzero(np.isin(splits, _OPEN))
    open_rows = open_rows[np.argsort(np.asarray(ids)[open_rows])]  # so that the order of the rows is no matter
    wanted = {split: shares[split] for split in SPLITS if split not in present and shares.get(split)}
    if not len(open_rows) or not wanted:
        return splits
    # One representative for each group: its first row. The others follow it.
    _, first, member_of = np.unique(groups[open_rows], return_index=True, return_inverse=True)
    heads = open_rows[first]
    splits[open_rows] = _divide([ids[head] for head in heads], labels[heads], wanted, seed)[member_of]
    return splits


def _divide(ids: Sequence[str], labels: np.ndarray, shares: Mapping[str, int], seed: int) -> np.ndarray:
    """Systematic sampling: ranks in the class, shifted by a hash of the class, against cumulated shares."""
    ranks, sizes = ranks_in_class(ids, labels, seed)
    classes, class_of = np.unique(labels, return_inverse=True)
    shift = hash_fractions([f"class {label}" for label in classes], seed)[class_of]
    ends = np.cumsum(list(shares.values())) / sum(shares.values())
    return np.array(list(shares))[np.searchsorted(ends[:-1], (ranks + shift) / sizes, side="right")]


def long_tail(
    ids: Sequence[str], labels: np.ndarray, imbalance_ratio: float, num_classes: int, seed: int = 0
) -> np.ndarray:
    """Return which samples to keep (bool [N]) so that class sizes fall exponentially.

    Class k of K keeps n_max * ratio^(-k / (K - 1)) samples, at least one, where n_max is the size of the
    largest class: class 0 is the head, and the ratio of the largest class to the smallest is
    ``imbalance_ratio``. Source: Cui et al., CVPR 2019, section 5.1.

    Example:
        >>> labels = np.repeat(np.arange(3), 100)
        >>> keep = long_tail([str(i) for i in range(300)], labels, imbalance_ratio=100, num_classes=3)
        >>> np.bincount(labels[keep]).tolist()
        [100, 10, 1]
    """
    ranks, sizes = ranks_in_class(ids, labels, seed)
    exponent = labels / max(1, num_classes - 1)
    limits = np.round(sizes.max(initial=0) * float(imbalance_ratio) ** -exponent)
    return ranks < np.maximum(1, limits)


def take(ids: Sequence[str], labels: np.ndarray, limit: int, seed: int = 0) -> np.ndarray:
    """Return which ``limit`` samples to keep (bool [N]), every class in proportion.

    Example:
        >>> keep = take([str(i) for i in range(100)], np.repeat([0, 1], [80, 20]), limit=10)
        >>> int(keep[:80].sum()), int(keep[80:].sum())
        (8, 2)
    """
    ranks, sizes = ranks_in_class(ids, labels, seed)
    keep = np.zeros(len(labels), bool)
    keep[np.lexsort((hash_fractions(ids, seed), (ranks + 0.5) / sizes))[:limit]] = True
    return keep


def group_rows(*keys: Sequence[str]) -> np.ndarray:
    """Return a group number for each row (int64 [N]): rows that share any non-empty key are one group.

    Example:
        >>> group_rows(["x", "x", "y", "z"], ["", "p", "p", ""]).tolist()
        [0, 0, 0, 1]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(keys[0])
    rows, columns, offset = [], [], count
    for key in keys:
        values = np.asarray(key, np.str_)
        filled = np.flatnonzero(values != "")
        distinct, number = np.unique(values[filled], return_inverse=True)
        rows.append(filled)
        columns.append(offset + number)
        offset += len(distinct)
    row, column = np.concatenate(rows), np.concatenate(columns)
    graph = coo_array((np.ones(len(row), bool), (row, column)), shape=(offset, offset))
    return connected_components(graph, directed=False)[1][:count].astype(np.int64)
