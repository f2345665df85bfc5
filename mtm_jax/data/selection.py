"""Choose episodes of a data set: splits for validation, and views that lack a modality."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from mtm_jax.errors import UserError
from mtm_jax.types import Trajectories


def split_episodes(
    trajectories: Trajectories, fraction: float, seed: int
) -> tuple[Trajectories, Trajectories]:
    """Split by episode into training and validation parts, shuffled with the seed.

    A split that the data set itself brings is used as it is.

    Args:
        trajectories: all episodes.
        fraction: of the episodes, for training; at least one episode goes to each part.
        seed: of the shuffle, not negative.

    Raises:
        UserError: there are fewer than two episodes, or the fraction is not between 0 and 1.
    """
    if not 0.0 < fraction < 1.0:
        raise UserError(f"the training fraction is {fraction}; it must lie between 0 and 1")
    episodes = len(trajectories.lengths)
    if episodes < 2:
        raise UserError(
            f"data set {trajectories.info.name} has {episodes} episode; a training and a "
            "validation part need at least 2"
        )
    if trajectories.train is not None and 0 < trajectories.train.sum() < episodes:
        parts = np.flatnonzero(trajectories.train), np.flatnonzero(~trajectories.train)
        return tuple(select_episodes(trajectories, part) for part in parts)
    order = np.random.default_rng(seed).permutation(episodes)
    count = min(max(round(fraction * episodes), 1), episodes - 1)
    train, valid = np.sort(order[:count]), np.sort(order[count:])
    return select_episodes(trajectories, train), select_episodes(trajectories, valid)


def keep_modality(
    trajectories: Trajectories, modality: str, fraction: float, seed: int
) -> Trajectories:
    """Keep a modality in a random fraction of the episodes and drop it elsewhere.

    This is the heteromodal view of MTM section 4.3: few episodes with actions, many without.

    Args:
        trajectories: all episodes.
        modality: "actions", or "rewards" (which takes the returns with it).
        fraction: of the episodes that have it, at least one of them.
        seed: of the choice; a smaller fraction keeps a part of what a larger one keeps.

    Raises:
        UserError: another modality, a fraction that is not in (0, 1], or no episode has it.
    """
    if modality not in ("actions", "rewards"):
        raise UserError(f"{modality!r} cannot be dropped; choose actions or rewards")
    if not 0.0 < fraction <= 1.0:
        raise UserError(f"the fraction with {modality} is {fraction}; it must lie in (0, 1]")
    everywhere = np.ones(len(trajectories.lengths), bool)
    has = np.flatnonzero(trajectories.available.get(modality, everywhere))
    if len(has) == 0:
        raise UserError(f"no episode of data set {trajectories.info.name} has {modality}")
    kept = np.zeros_like(everywhere)
    kept[np.random.default_rng(seed).permutation(has)[: max(round(fraction * len(has)), 1)]] = True
    rows = np.repeat(kept, trajectories.lengths)
    values = getattr(trajectories, modality)
    shown = np.where(rows if values.ndim == 1 else rows[:, None], values, np.float32(0.0))
    names = ("rewards", "returns") if modality == "rewards" else ("actions",)
    available = dict(trajectories.available) | dict.fromkeys(names, kept)
    return dataclasses.replace(trajectories, **{modality: shown}, available=available)


def select_episodes(trajectories: Trajectories, index: np.ndarray) -> Trajectories:
    """Keep the episodes at `index`, in that order."""
    starts, lengths = trajectories.starts[index], trajectories.lengths[index]
    rows = np.concatenate([np.arange(s, s + n) for s, n in zip(starts, lengths, strict=True)])
    available: Mapping[str, np.ndarray] = {
        m: has[index] for m, has in trajectories.available.items()
    }
    return dataclasses.replace(
        trajectories,
        observations=trajectories.observations[rows],
        actions=trajectories.actions[rows],
        rewards=trajectories.rewards[rows],
        terminals=trajectories.terminals[rows],
        lengths=lengths,
        final_observations=trajectories.final_observations[index],
        available=available,
        train=None if trajectories.train is None else trajectories.train[index],
    )
