"""Splits by group: a subject entity is in one split only, whatever relation asks about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from adapterprobe.errors import TooFewGroups

TRAINING_SPLITS = ("adapter-train", "probe-train", "select", "calibrate")


def shuffled(groups: Iterable[str], seed: int | Sequence[int], sides: Mapping[str, str] | None = None) -> list[str]:
    """Groups in a seeded order in which those of every side (true claims alone, false ones alone, both) are spread evenly,
    so that each stretch of it has its share of each."""
    names = sorted(set(groups))
    return _spread([names[i] for i in np.random.default_rng(seed).permutation(len(names))], sides or {})


def _spread(order: Sequence[str], sides: Mapping[str, str]) -> list[str]:
    """Groups of every side evenly over the whole, each side in its order."""
    kinds: dict[str, list[str]] = {}
    for group in order:
        kinds.setdefault(sides.get(group, ""), []).append(group)
    place = {group: (rank + 0.5) / len(kind) for kind in kinds.values() for rank, group in enumerate(kind)}
    return sorted(order, key=place.__getitem__)


def dealt_in_turn(
    groups: Iterable[str], count: int, seed: int | Sequence[int], owners: Mapping[str, str], sides: Mapping[str, str]
) -> list[str]:
    """So many of the groups, as many of every data set as it has: a small one is not drowned by large ones.

    Args:
        owners: the data set of each group. sides: see `shuffled`.
    """
    by_owner: dict[str, list[str]] = {}
    for group in shuffled(groups, seed, sides):
        by_owner.setdefault(owners[group], []).append(group)
    # Which one has its turn first is chance too: a cap in the middle of a round would else always leave out the same.
    order = shuffled(by_owner, [*([seed] if isinstance(seed, int) else seed), 1])
    turns = sorted((rank, order.index(owner), owner) for owner, mine in by_owner.items() for rank in range(len(mine)))
    return [by_owner[owner][rank] for rank, _, owner in turns[:count]]


def split_groups(
    groups: Sequence[str],
    shares: Mapping[str, float],
    reserved: Mapping[str, Sequence[str]],
    seed: int,
    minimum: int,
    sides: Mapping[str, str] | None = None,
) -> dict[str, list[str]]:
    """Deal groups out by chance, by share, to splits; those of the `reserved` pools go to none.

    Args:
        groups: keys of all groups.
        shares: split name to its share of what the pools leave; they sum to 1, and a share of nought gives an empty split.
        reserved: pool name to its groups (demonstrations are drawn from these).
        seed: the data seed; the same groups and seed always give the same splits.
        minimum: the fewest groups a split may have.
        sides: what answers a group has, where not every group has both, or what data set it is of: each split gets its share of each.

    Raises:
        TooFewGroups: the message says how many there are and how many would do.
    """
    order = shuffled(groups, seed, sides)
    dealt = {name: list(pool) for name, pool in reserved.items()}
    taken = {group for pool in reserved.values() for group in pool}
    # What pools have taken leaves gaps in some sides.
    rest = _spread([group for group in order if group not in taken], sides or {})
    edges = np.round(np.cumsum([0.0, *shares.values()]) * len(rest)).astype(int)
    for name, low, high in zip(shares, edges[:-1], edges[1:], strict=True):
        dealt[name] = rest[low:high]
    wanted = {name: share for name, share in shares.items() if share}
    smallest = min(wanted, key=lambda name: len(dealt[name]))
    if len(dealt[smallest]) < minimum:
        needed = len(taken) + int(np.ceil(minimum / min(wanted.values())))
        raise TooFewGroups(
            f"too few groups for the splits: got {len(order)}, of which '{smallest}' would have "
            f"{len(dealt[smallest])} (at least {minimum} expected); use a training set of about {needed} groups, "
            f"several relations (data.train=[a,b]), or lower data.min_groups"
        )
    return dealt
