"""What online finetuning remembers, on the device: episodes for the model, steps for a critic.

Both are rings of a stated capacity: once full, a new episode takes the place of the oldest. They
are arrays of fixed shapes, so that a program which samples from them compiles once.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mtm_jax import returns
from mtm_jax.errors import UserError
from mtm_jax.training import dataset


class Episode(NamedTuple):
    """A finished episode, padded to the time limit H; what lies beyond `length` has no meaning."""

    obs: np.ndarray  # [H, S] raw
    actions: np.ndarray  # [H, A] in [-1, 1]
    rewards: np.ndarray  # [H]
    final_obs: np.ndarray  # [S], after the last step
    length: int  # steps, from 1 to H
    terminal: bool  # the environment itself ended it; False where the time was up or it was cut


class Episodes(flax.struct.PyTreeNode):
    """Episodes in C places, of which windows are drawn."""

    values: dict[str, Array]  # modality -> [C, H, D], raw; actions in [-1, 1]
    lengths: Array  # [C] int32; 0: the place is empty
    totals: Array  # [C], undiscounted returns of the episodes
    place: Array  # [] int32, of the next episode


class Steps(flax.struct.PyTreeNode):
    """Transitions in N places; a timeout is one whose next state is known."""

    transitions: dataset.Transitions  # arrays [N, ...]
    count: Array  # [] int32, places in use
    place: Array  # [] int32, of the next step


def empty_episodes(capacity: int, limit: int, obs_dim: int, action_dim: int) -> Episodes:
    """Make room for C episodes of at most H steps.

    Raises:
        UserError: the capacity is less than one episode.
    """
    if capacity < 1:
        raise UserError(f"the buffer holds {capacity} episodes; give at least 1")
    widths = {"states": obs_dim, "returns": 1, "actions": action_dim, "rewards": 1}
    return Episodes(
        values={m: jnp.zeros((capacity, limit, d)) for m, d in widths.items()},
        lengths=jnp.zeros(capacity, jnp.int32),
        totals=jnp.zeros(capacity),
        place=jnp.zeros((), jnp.int32),
    )


def empty_steps(capacity: int, limit: int, obs_dim: int, action_dim: int) -> Steps:
    """Make room for N steps.

    Raises:
        UserError: an episode of `limit` steps would not fit.
    """
    if capacity < limit:
        raise UserError(
            f"the buffer holds {capacity} steps, and an episode has up to {limit}; "
            "give at least as many"
        )
    # Each array by itself: two names of one could not both be given away.
    transitions = dataset.Transitions(
        obs=jnp.zeros((capacity, obs_dim)),
        actions=jnp.zeros((capacity, action_dim)),
        rewards=jnp.zeros(capacity),
        next_obs=jnp.zeros((capacity, obs_dim)),
        terminals=jnp.zeros(capacity),
    )
    return Steps(transitions, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def best_episodes(data: dataset.Dataset, capacity: int, limit: int) -> Episodes:
    """Keep the episodes of a data set with the highest returns, the lowest of them as the oldest.

    Args:
        data: every episode of which has actions and rewards.
        capacity: C.
        limit: H, the time limit of the environment.

    Raises:
        UserError: the capacity is less than one episode, or episodes lack a modality.
    """
    if data.available:
        raise UserError(
            f"some episodes have no {', '.join(data.available)}; online finetuning needs data in "
            "which every episode has actions and rewards"
        )
    values = {m: np.asarray(v) for m, v in data.values.items()}
    ends = np.asarray(data.last_rows) + 1
    starts = np.concatenate([[0], ends[:-1]])
    totals = np.add.reduceat(values["rewards"][:, 0].astype(np.float64), starts)
    chosen = np.argsort(totals, kind="stable")[-capacity:] if capacity > 0 else []
    dims = (values[m].shape[1] for m in ("states", "actions"))
    found = jax.tree.map(np.array, empty_episodes(capacity, limit, *dims))
    for place, episode in enumerate(chosen):
        length = ends[episode] - starts[episode]
        for m, kept in found.values.items():
            kept[place, :length] = values[m][starts[episode] : ends[episode]]
        found.lengths[place], found.totals[place] = length, totals[episode]
    found = found.replace(place=np.int32(len(chosen) % capacity))
    return jax.tree.map(jnp.asarray, found)


def add_episode(buffer: Episodes, episode: Episode) -> Episodes:
    """Put an episode into the next place; jittable."""
    limit = buffer.values["rewards"].shape[1]
    rewards = jnp.where(jnp.arange(limit) < episode.length, episode.rewards, 0.0)
    new = {
        "states": episode.obs,
        "returns": returns.average_return_to_go(rewards, limit)[:, None],
        "actions": episode.actions,
        "rewards": rewards[:, None],
    }
    at = buffer.place
    return buffer.replace(
        values={m: v.at[at].set(new[m]) for m, v in buffer.values.items()},
        lengths=buffer.lengths.at[at].set(episode.length),
        totals=buffer.totals.at[at].set(rewards.sum()),
        place=(at + 1) % buffer.lengths.shape[0],
    )


def add_steps(buffer: Steps, episode: Episode) -> Steps:
    """Put the steps of an episode into the next places; jittable."""
    capacity, limit = buffer.transitions.rewards.shape[0], episode.rewards.shape[0]
    step = jnp.arange(limit)
    last = step == episode.length - 1
    following = jnp.concatenate([episode.obs[1:], episode.final_obs[None]])
    new = dataset.Transitions(
        obs=episode.obs,
        actions=episode.actions,
        rewards=episode.rewards,
        next_obs=jnp.where(last[:, None], episode.final_obs, following),
        terminals=(last & episode.terminal).astype(jnp.float32),
    )
    # Places beyond the ring are dropped.
    at = jnp.where(step < episode.length, (buffer.place + step) % capacity, capacity)
    put = lambda old, x: old.at[at].set(x, mode="drop")  # noqa: E731
    return Steps(
        transitions=jax.tree.map(put, buffer.transitions, new),
        count=jnp.minimum(buffer.count + episode.length, capacity),
        place=(buffer.place + episode.length) % capacity,
    )


def sample_windows(key: Array, buffer: Episodes, batch_size: int, window: int) -> dataset.Windows:
    """Draw windows uniformly over all that the buffer holds, like `dataset.sample_windows`.

    An episode shorter than the window is one window, whose remaining slots are not valid.

    Args:
        key: random key.
        buffer: with at least one episode.
        batch_size: B.
        window: T.
    """
    lengths = buffer.lengths
    counts = jnp.where(lengths > 0, jnp.maximum(lengths - window + 1, 1), 0)
    ends = jnp.cumsum(counts)
    drawn = jax.random.randint(key, (batch_size,), 0, ends[-1])
    episode = jnp.searchsorted(ends, drawn, side="right")
    first = drawn - (ends[episode] - counts[episode])
    slots, steps = jnp.arange(window), jnp.minimum(lengths[episode], window)[:, None]
    rows = first[:, None] + jnp.minimum(slots, steps - 1)
    values = {m: v[episode[:, None], rows] for m, v in buffer.values.items()}
    return dataset.Windows(values=values, valid=slots < steps, available={})


def sample_transitions(
    key: Array, offline: dataset.Dataset, online: Steps, batch_size: int, online_after: int
) -> dataset.Transitions:
    """Draw transitions, half of them online ones once there are `online_after` of these.

    Args:
        key: random key.
        offline: the data of pretraining.
        online: what has been collected since.
        batch_size: B.
        online_after: steps.
    """
    offline_key, online_key = jax.random.split(key)
    old = dataset.sample_transitions(offline_key, offline, batch_size)
    index = jax.random.randint(online_key, (batch_size,), 0, jnp.maximum(online.count, 1))
    new = jax.tree.map(lambda x: x[index], online.transitions)
    taken = (jnp.arange(batch_size) < batch_size // 2) & (online.count >= online_after)

    def choose(one: Array, other: Array) -> Array:
        return jnp.where(taken.reshape(-1, *[1] * (one.ndim - 1)), one, other)

    return jax.tree.map(choose, new, old)


def summary(buffer: Episodes) -> tuple[float, float]:
    """Give the highest and the mean return of the episodes that the buffer holds."""
    kept = np.asarray(buffer.totals, np.float64)[np.asarray(buffer.lengths) > 0]
    return float(kept.max()), float(kept.mean())
