"""Choose episodes of a data set: splits for validation, and views that lack a modality."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping

import numpy as np

from mtm_jax.errors import UserError
from mtm_jax.types import Trajectories

_LOG = logging.getLogger("mtm_jax")


def split_episodes(
    trajectories: Trajectories, fraction: float, seed: int, window: int
) -> tuple[Trajectories, Trajectories]:
    """Split by episode into training and validation parts, shuffled with the seed.

    A split that the data set itself brings is used as it is. A single episode is split in time.

    Args:
        trajectories: all episodes.
        fraction: of the episodes, for training; at least one episode goes to each part.
        seed: of the shuffle, not negative.
        window: T, steps between the parts of a single episode, so that they share none.

    Raises:
        UserError: there is a single episode of less than three windows, or the fraction is not
            between 0 and 1.
    """
    if not 0.0 < fraction < 1.0:
        raise UserError(f"the training fraction is {fraction}; it must lie between 0 and 1")
    episodes = len(trajectories.lengths)
    if episodes == 1:
        return _split_in_time(trajectories, fraction, window)
    if trajectories.train is not None and 0 < trajectories.train.sum() < episodes:
        parts = np.flatnonzero(trajectories.train), np.flatnonzero(~trajectories.train)
        return tuple(select_episodes(trajectories, part) for part in parts)
    order = np.random.default_rng(seed).permutation(episodes)
    count = min(max(round(fraction * episodes), 1), episodes - 1)
    train, valid = np.sort(order[:count]), np.sort(order[count:])
    return select_episodes(trajectories, train), select_episodes(trajectories, valid)


def _split_in_time(
    trajectories: Trajectories, fraction: float, window: int
) -> tuple[Trajectories, Trajectories]:
    """Split one episode into an earlier and a later one, with a window between them."""
    name, steps = trajectories.info.name, int(trajectories.lengths[0])
    if steps < 3 * window:
        raise UserError(
            f"data set {name} has 1 episode of {steps} steps; training, validation and the gap "
            f"between them need a window of {window} steps each, {3 * window} in all; add an "
            "episode, or choose a smaller model.window"
        )
    left = round(fraction * (steps - window))
    train = min(max(left, window), steps - 2 * window)
    _LOG.warning(
        "%s: its only episode is split in time: steps 0 to %d are for training and %d to %d for "
        "validation",
        *(name, train - 1, train + window, steps - 1),
    )
    following = trajectories.observations[train][None]
    return (
        _take_rows(trajectories, slice(0, train), following),
        _take_rows(trajectories, slice(train + window, steps), trajectories.final_observations),
    )


def _take_rows(trajectories: Trajectories, rows: slice, following: np.ndarray) -> Trajectories:
    """Make an episode of rows of a single one; `following` [1, S] comes after the last of them."""
    return dataclasses.replace(
        trajectories,
        observations=trajectories.observations[rows],
        actions=trajectories.actions[rows],
        rewards=trajectories.rewards[rows],
        terminals=trajectories.terminals[rows],
        lengths=np.array([rows.stop - rows.start]),
        final_observations=following,
    )


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


def keep_episodes(trajectories: Trajectories, fraction: float, seed: int) -> Trajectories:
    """Keep a random fraction of the episodes: those that `keep_modality` would keep actions in.

    Args:
        trajectories: all episodes.
        fraction: of the episodes, to the nearest whole number of them.
        seed: of the choice; a smaller fraction keeps a part of what a larger one keeps.

    Raises:
        UserError: the fraction is not in (0, 1], or leaves no episode.
    """
    if not 0.0 < fraction <= 1.0:
        raise UserError(f"the fraction of the episodes is {fraction}; it must lie in (0, 1]")
    episodes = len(trajectories.lengths)
    count = round(fraction * episodes)
    if count < 1:
        raise UserError(
            f"data set {trajectories.info.name}: a fraction of {fraction:g} leaves none of its "
            f"{episodes} episodes; choose at least {1 / episodes:.2g}"
        )
    order = np.random.default_rng(seed).permutation(episodes)
    return select_episodes(trajectories, np.sort(order[:count]))


def repeats(trajectories: Trajectories, modality: str, share: float) -> np.ndarray | None:
    """Say how often to list each episode, so that a share of all steps has a modality: [episodes].

    Whole numbers come as close as they can; None where the data have the share already, or cannot
    have it because the modality is everywhere.

    Args:
        trajectories: all episodes.
        modality: that some episodes lack.
        share: of the steps, that should have it, in [0, 1).

    Raises:
        UserError: the share is not in [0, 1), or no episode has the modality.
    """
    if not 0.0 <= share < 1.0:
        raise UserError(f"the share of steps with {modality} is {share}; it must lie in [0, 1)")
    has = trajectories.available.get(modality)
    if has is None or has.all():
        return None
    own, other = (int(trajectories.lengths[part].sum()) for part in (has, ~has))
    if own == 0:
        raise UserError(f"no episode of data set {trajectories.info.name} has {modality}")
    times = round(share / (1.0 - share) * other / own)
    return np.where(has, times, 1) if times > 1 else None


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
