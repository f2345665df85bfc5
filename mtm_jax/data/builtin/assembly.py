"""Joins collected shards and data sets end to end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mtm_jax.data.builtin import shard
from mtm_jax.types import DataInfo, Trajectories


def take(shards: Sequence[shard.Episodes], quotas: Sequence[int]) -> shard.Episodes:
    """Join shards into one recording of exactly `sum(quotas)` steps.

    Each shard gives whole episodes until the quotas so far are met; what the last of them exceeds
    is taken off the next shard's share. Only the very last episode is cut.
    """
    kept, total = [], 0
    for episodes, goal in zip(shards, np.cumsum(quotas), strict=True):
        ends = np.cumsum(episodes.lengths)
        count = int(np.searchsorted(ends, goal - total)) + 1 if goal > total else 0
        rows = int(ends[count - 1]) if count else 0
        kept.append(_head(episodes, count, rows))
        total += rows
    whole = shard.Episodes(*(np.concatenate(arrays) for arrays in zip(*kept, strict=True)))
    return _cut(whole, total - sum(quotas))


def _head(episodes: shard.Episodes, count: int, rows: int) -> shard.Episodes:
    per_episode = {"lengths", "final_observations"}
    return shard.Episodes(
        **{
            name: array[: count if name in per_episode else rows]
            for name, array in episodes._asdict().items()
        }
    )


def _cut(episodes: shard.Episodes, surplus: int) -> shard.Episodes:
    """Take the last `surplus` steps, fewer than the last episode has, off that episode."""
    if surplus == 0:
        return episodes
    rows = len(episodes.rewards) - surplus
    shorter = _head(episodes, len(episodes.lengths), rows)
    lengths, finals = shorter.lengths.copy(), shorter.final_observations.copy()
    lengths[-1] -= surplus
    finals[-1] = episodes.observations[rows]
    return shorter._replace(lengths=lengths, final_observations=finals)


def concatenate(parts: Sequence[Trajectories], info: DataInfo) -> Trajectories:
    """Join data sets of the same dimensions, all of whose episodes have every modality."""
    names = shard.Episodes._fields
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return dataclasses.replace(parts[0], **arrays, info=info)
