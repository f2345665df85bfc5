"""Trajectories on the device: flat arrays, their windows and transitions, jittable sampling."""

from __future__ import annotations

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mtm_jax import distributions, tokens
from mtm_jax.errors import UserError
from mtm_jax.types import MODALITIES, Trajectories


class Dataset(flax.struct.PyTreeNode):
    """One split of a data set on the device; N steps, W windows, n transitions.

    A window is T consecutive steps of one episode. An episode shorter than T is one window, whose
    remaining slots are not valid.
    A transition is a step with its action and reward whose next state is known or not needed.
    """

    values: dict[str, Array]  # modality -> [N, D], raw; actions rescaled to [-1, 1]
    terminals: Array  # [N] bool, real endings only
    available: dict[str, Array]  # modality -> [N] bool, named only if some episode lacks it
    window_starts: Array  # [W] int32, row of a window's first step
    window_steps: Array  # [W] int32, valid steps of a window, at most T
    transitions: Array  # [n] int32, a step's row, or -1 - e for the last step of episode e
    last_rows: Array  # [episodes] int32, row of an episode's last step
    final_states: Array  # [episodes, S] raw, after the last step; the last state where unknown


class Windows(NamedTuple):
    """A batch of windows."""

    values: dict[str, Array]  # modality -> [B, T, D], raw
    valid: Array  # [B, T] bool, False on slots beyond a short episode
    available: dict[str, Array]  # modality -> [B] bool, as in Dataset


class Transitions(flax.struct.PyTreeNode):
    """Transitions end to end; n of them."""

    obs: Array  # [n, S]
    actions: Array  # [n, A] in [-1, 1]
    rewards: Array  # [n]
    next_obs: Array  # [n, S]
    terminals: Array  # [n], 1.0 where the environment itself ended the episode


def make_dataset(
    trajectories: Trajectories, window: int, repeats: np.ndarray | None = None
) -> Dataset:
    """Put trajectories on the device and index their windows.

    The windows of an episode are listed, and so drawn, as often as `repeats` says, [episodes] int.

    Raises:
        UserError: no episode is as long as the window, or one is longer than the time limit.
    """
    lengths, limit = trajectories.lengths, trajectories.info.max_episode_steps
    if lengths.max() < window:
        raise UserError(
            f"data set {trajectories.info.name}: the longest of its {len(lengths)} episodes has "
            f"{lengths.max()} steps, which is less than the window of {window}; "
            f"choose a window of at most {lengths.max()}"
        )
    if lengths.max() > limit:
        raise UserError(
            f"data set {trajectories.info.name}: an episode has {lengths.max()} steps, more than "
            f"the limit of {limit} steps of {trajectories.info.env_id or trajectories.info.name}; "
            "name the right environment"
        )
    starts, steps = _index_windows(trajectories, window, repeats)
    ends = trajectories.starts + lengths - 1
    return Dataset(
        values={m: jnp.asarray(v) for m, v in _raw_values(trajectories).items()},
        terminals=jnp.asarray(trajectories.terminals),
        available={
            m: jnp.asarray(np.repeat(has, lengths))
            for m, has in trajectories.available.items()
            if not has.all()
        },
        window_starts=jnp.asarray(starts, jnp.int32),
        window_steps=jnp.asarray(steps, jnp.int32),
        transitions=jnp.asarray(_index_transitions(trajectories), jnp.int32),
        last_rows=jnp.asarray(ends, jnp.int32),
        final_states=jnp.asarray(_final_states(trajectories)),
    )


def _index_windows(
    trajectories: Trajectories, window: int, repeats: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """First row and number of valid steps of every window, both [W]."""
    lengths = trajectories.lengths
    counts = np.maximum(lengths - window + 1, 1)
    episode = np.repeat(np.arange(len(lengths)), counts)
    offset = np.arange(len(episode)) - np.repeat(np.cumsum(counts) - counts, counts)
    if repeats is not None:
        listed = np.repeat(np.arange(len(episode)), repeats[episode])
        episode, offset = episode[listed], offset[listed]
    return trajectories.starts[episode] + offset, np.minimum(lengths[episode], window)


def _index_transitions(trajectories: Trajectories) -> np.ndarray:
    """Every step that is a transition, [n]; see `Dataset.transitions`."""
    ends = trajectories.starts + trajectories.lengths - 1
    index = np.arange(len(trajectories.rewards))
    index[ends] = -1 - np.arange(len(ends))
    usable = _has(trajectories, "actions") & _has(trajectories, "rewards")
    # After a terminal nothing is bootstrapped, so that its next state need not be known.
    usable[ends] &= _final_known(trajectories) | trajectories.terminals[ends]
    return index[usable]


def _final_known(trajectories: Trajectories) -> np.ndarray:
    return np.isfinite(trajectories.final_observations).all(axis=1)


def _final_states(trajectories: Trajectories) -> np.ndarray:
    last = trajectories.observations[trajectories.starts + trajectories.lengths - 1]
    known = _final_known(trajectories)[:, None]
    return np.where(known, trajectories.final_observations, last)


def _raw_values(trajectories: Trajectories) -> dict[str, np.ndarray]:
    return {
        "states": trajectories.observations,
        "returns": return_tokens(trajectories)[:, None],
        "actions": rescale_actions(trajectories),
        "rewards": trajectories.rewards[:, None],
    }


def return_tokens(trajectories: Trajectories) -> np.ndarray:
    """`returns.average_return_to_go` of every episode at once, [N] float32.

    Sums run in float64: a float32 running sum over 2 M rewards would lose the small ones.
    """
    lengths = trajectories.lengths
    ends = np.cumsum(lengths) - 1
    # The running sum must not carry what an episode lacks into the next one.
    rewards = np.where(_has(trajectories, "rewards"), trajectories.rewards, 0.0)
    total = np.cumsum(rewards, dtype=np.float64)
    to_go = np.repeat(total[ends], lengths) - total + rewards
    t = np.arange(len(total)) - np.repeat(trajectories.starts, lengths)
    return (to_go / (trajectories.info.max_episode_steps - t)).astype(np.float32)


def _has(trajectories: Trajectories, modality: str) -> np.ndarray:
    """Which steps have a modality, [N] bool."""
    everywhere = np.ones(len(trajectories.lengths), bool)
    return np.repeat(trajectories.available.get(modality, everywhere), trajectories.lengths)


def rescale_actions(trajectories: Trajectories) -> np.ndarray:
    """Map actions from the environment's bounds to [-1, 1], clipped inside, [N, A] float32."""
    low = np.asarray(trajectories.info.action_low, np.float32)
    high = np.asarray(trajectories.info.action_high, np.float32)
    unit = trajectories.actions - low
    unit *= 2.0  # in place: copies of millions of steps are what fills the memory
    unit /= high - low
    unit -= 1.0
    limit = np.float32(distributions.ACTION_LIMIT)
    return np.clip(unit, -limit, limit, out=unit)


def compute_stats(data: Dataset) -> dict[str, tokens.Stats]:
    """Measure every modality over the real steps that have it; identities where none has."""
    stats = {}
    for m in MODALITIES:
        values = np.asarray(data.values[m])
        has = np.asarray(data.available[m]) if m in data.available else slice(None)
        if not len(values[has, 0]):
            stats[m] = tokens.identity_stats(values.shape[1])
            continue
        # One column at a time: float64 copies of everything would fill the memory.
        columns = [
            tokens.compute_stats(values[has, d : d + 1].astype(np.float64))
            for d in range(values.shape[1])
        ]
        join = lambda *x: jnp.asarray(np.concatenate(x), jnp.float32)  # noqa: E731
        stats[m] = jax.tree.map(join, *columns)
    return stats


def sample_windows(key: Array, data: Dataset, batch_size: int, window: int) -> Windows:
    """Draw windows uniformly with replacement; jittable.

    Args:
        key: random key.
        data: the split to draw from, made for the same `window`.
        batch_size: B.
        window: T.
    """
    return take_windows(data, draw_windows(key, data, batch_size), window)


def draw_windows(key: Array, data: Dataset, batch_size: int) -> Array:
    """Draw which windows `sample_windows` takes, [B] int."""
    return jax.random.randint(key, (batch_size,), 0, data.window_starts.shape[0])


def take_windows(data: Dataset, index: Array, window: int) -> Windows:
    """Gather the windows at `index`, [B]. Slots beyond an episode repeat its last step."""
    slots = jnp.arange(window)
    steps = data.window_steps[index][:, None]  # [B, 1]
    rows = data.window_starts[index][:, None] + jnp.minimum(slots, steps - 1)  # [B, T]
    return Windows(
        values={m: v[rows] for m, v in data.values.items()},
        valid=slots < steps,
        available={m: has[rows[:, 0]] for m, has in data.available.items()},
    )


def sample_transitions(key: Array, data: Dataset, batch_size: int) -> Transitions:
    """Draw transitions uniformly with replacement; jittable.

    Values are raw; only the actions are in [-1, 1]. A timeout whose final observation is unknown
    and episodes without actions or rewards are never drawn.

    Args:
        key: random key.
        data: the split to draw from; it must have transitions.
        batch_size: B.
    """
    index = jax.random.randint(key, (batch_size,), 0, data.transitions.shape[0])
    return take_transitions(data, index)


def take_transitions(data: Dataset, index: Array) -> Transitions:
    """Gather the transitions at `index`, [B]."""
    code = data.transitions[index]
    is_last, episode = code < 0, jnp.maximum(-1 - code, 0)
    row = jnp.where(is_last, data.last_rows[episode], code)
    states = data.values["states"]
    following = states[jnp.minimum(row + 1, states.shape[0] - 1)]
    return Transitions(
        obs=states[row],
        actions=data.values["actions"][row],
        rewards=data.values["rewards"][row, 0],
        next_obs=jnp.where(is_last[:, None], data.final_states[episode], following),
        terminals=data.terminals[row].astype(jnp.float32),
    )
