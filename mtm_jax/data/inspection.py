"""What is in a data set: counts, ranges, endings, and what deserves a second look."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np

from mtm_jax.envs import registry
from mtm_jax.types import MODALITIES, DataInfo, Trajectories

SHORT = 8  # steps; the window of the models
_AT_BOUND = 1e-6  # of the range between the bounds


@dataclasses.dataclass(frozen=True)
class Spread:
    """How numbers are distributed."""

    low: float
    quarter: float
    median: float
    three_quarters: float
    high: float
    mean: float


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What is in a data set.

    Attributes:
        info: where it comes from.
        arrays: name -> (shape, type) of each array.
        steps, episodes: how many.
        lengths: steps per episode.
        terminal: episodes that the environment ended.
        timed_out: other episodes that reach the time limit.
        cut: episodes that end before, in the middle.
        returns: undiscounted, per episode; None where no episode has them.
        scores: the same as D4RL's normalised score; None also without a simulator.
        rewards: per step; None where no episode has them.
        actions: their values; None where no episode has them.
        at_bounds: share of action values that lie at a bound, 0 to 1.
        observations: their values; None where no episode has them.
        constant_observations, constant_actions: dimensions that never change.
        modalities: modality -> share of the episodes that have it, 0 to 1.
        train: episodes of the training split that the data bring; None where there is none.
        duplicates: episodes that repeat an earlier one exactly.
        short: episodes of fewer than `SHORT` steps.
        unknown_finals: episodes without the observation after their last step.
        repeated_finals: episodes in which it repeats the last one.
    """

    info: DataInfo
    arrays: Mapping[str, tuple[tuple[int, ...], str]]
    steps: int
    episodes: int
    lengths: Spread
    terminal: int
    timed_out: int
    cut: int
    returns: Spread | None
    scores: Spread | None
    rewards: Spread | None
    actions: tuple[float, float] | None
    at_bounds: float
    observations: tuple[float, float] | None
    constant_observations: tuple[int, ...]
    constant_actions: tuple[int, ...]
    modalities: Mapping[str, float]
    train: int | None
    duplicates: int
    short: int
    unknown_finals: int
    repeated_finals: int


def inspect(trajectories: Trajectories) -> Inspection:
    """Look through checked trajectories; values of modalities that are not there do not count."""
    data, info = trajectories, trajectories.info
    actions, observations = _there(data, "actions"), _there(data, "states")
    last = np.cumsum(data.lengths) - 1
    terminal = data.terminals[last]  # [episodes]
    repeated = (data.final_observations == data.observations[last]).all(axis=-1)
    timed_out = ~terminal & (data.lengths >= info.max_episode_steps)
    achieved, spec = returns(data), reference(info)
    return Inspection(
        info=info,
        arrays=_arrays(data),
        steps=len(data.rewards),
        episodes=len(data.lengths),
        lengths=spread(data.lengths),
        terminal=int(terminal.sum()),
        timed_out=int(timed_out.sum()),
        cut=int((~terminal & ~timed_out).sum()),
        returns=spread(achieved),
        scores=None if spec is None else spread(registry.normalized_score(spec, achieved)),
        rewards=spread(_there(data, "rewards")),
        actions=_range(actions),
        at_bounds=_share_at_bounds(actions, info),
        observations=_range(observations),
        constant_observations=_constant(observations),
        constant_actions=_constant(actions),
        modalities={m: float(_has(data, m).mean()) for m in MODALITIES},
        train=None if data.train is None else int(data.train.sum()),
        duplicates=_duplicates(data),
        short=int((data.lengths < SHORT).sum()),
        unknown_finals=int(np.isnan(data.final_observations).all(axis=-1).sum()),
        repeated_finals=int(repeated.sum()),
    )


def warnings(found: Inspection) -> list[str]:
    """Say what deserves a second look, a sentence each."""
    episodes = _counted(found.unknown_finals, "episode")
    checks = (
        (found.duplicates, f"{_counted(found.duplicates, 'episode')} equal to an earlier one"),
        (found.constant_observations, _never_change("observation", found.constant_observations)),
        (found.constant_actions, _never_change("action", found.constant_actions)),
        (
            found.rewards and found.steps > 1 and found.rewards.low == found.rewards.high,
            f"every reward is {found.rewards.low:g}" if found.rewards else "",
        ),
        (found.short, f"{_counted(found.short, 'episode')} of fewer than {SHORT} steps"),
        (
            found.unknown_finals,
            f"the observation after the last step is unknown in {episodes} of {found.episodes}",
        ),
        (
            found.repeated_finals,
            "the observation after the last step repeats the last one in "
            f"{_counted(found.repeated_finals, 'episode')} of {found.episodes}, as if unknown",
        ),
    )
    return [sentence for holds, sentence in checks if holds]


def reference(info: DataInfo) -> registry.EnvSpec | None:
    """Return the environment that gives scores; None where the data cannot be evaluated."""
    return next((s for s in registry.ENVS.values() if info.env_id in s.env_ids), None)


def returns(trajectories: Trajectories) -> np.ndarray:
    """Return the undiscounted returns of the episodes that have them, float64."""
    return trajectories.episode_returns[_has(trajectories, "returns")]


def spread(values: np.ndarray) -> Spread | None:
    """Summarise numbers; None where there are none."""
    values = np.asarray(values, np.float64)
    if values.size == 0:
        return None
    return Spread(*np.percentile(values, (0, 25, 50, 75, 100)).tolist(), float(values.mean()))


def _has(data: Trajectories, modality: str) -> np.ndarray:
    """Which episodes have a modality, [episodes] bool."""
    return data.available.get(modality, np.ones(len(data.lengths), bool))


def _there(data: Trajectories, modality: str) -> np.ndarray:
    """The rows of episodes that have a modality."""
    arrays = {"states": data.observations, "actions": data.actions, "rewards": data.rewards}
    has = _has(data, modality)
    array = arrays[modality]
    return array if has.all() else array[np.repeat(has, data.lengths)]


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("s" if count != 1 else "")


def _never_change(what: str, dimensions: tuple[int, ...]) -> str:
    noun, verb = ("dimension", "changes") if len(dimensions) == 1 else ("dimensions", "change")
    return f"{what} {noun} {', '.join(map(str, dimensions))} never {verb}"


def _arrays(data: Trajectories) -> dict[str, tuple[tuple[int, ...], str]]:
    values = {field.name: getattr(data, field.name) for field in dataclasses.fields(data)}
    return {
        name: (value.shape, str(value.dtype))
        for name, value in values.items()
        if isinstance(value, np.ndarray)
    }


def _range(values: np.ndarray) -> tuple[float, float] | None:
    return (float(values.min()), float(values.max())) if values.size else None


def _share_at_bounds(actions: np.ndarray, info: DataInfo) -> float:
    low, high = np.float32(info.action_low), np.float32(info.action_high)
    near = _AT_BOUND * (high - low)
    at_bound = (actions <= low + near) | (actions >= high - near)
    return float(at_bound.mean()) if actions.size else 0.0


def _constant(values: np.ndarray) -> tuple[int, ...]:
    """Dimensions with a single value; one step alone tells nothing."""
    if len(values) < 2:
        return ()
    return tuple(np.flatnonzero(values.min(axis=0) == values.max(axis=0)).tolist())


def _duplicates(data: Trajectories) -> int:
    seen = set()
    for start, length in zip(data.starts, data.lengths, strict=True):
        rows = slice(start, start + length)
        digest = hashlib.blake2b(np.ascontiguousarray(data.observations[rows]).data)
        digest.update(np.ascontiguousarray(data.actions[rows]).data)
        seen.add(digest.digest())
    return len(data.lengths) - len(seen)
