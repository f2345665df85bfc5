"""Samples one shard of episodes with a stored actor; runs in worker processes, without jax.

`python -m mtm_jax.data.builtin.shard` answers tasks: one JSON line each on stdin; on stdout any
number of `{"steps": n}` lines, then `{"bytes": n}` and that many bytes of an npz file.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from mtm_jax.envs import make

if TYPE_CHECKING:  # it starts the simulator, which listing data sets does without
    from mtm_jax.envs import simulations

SLOTS = 32  # environments that share one forward pass
_REPORT_EVERY = 50  # rounds of all slots


class Task(NamedTuple):
    """One shard: episodes of one actor, at least `steps` steps of them."""

    actor: str  # path of the actor's npz file
    env_id: str
    max_episode_steps: int
    steps: int
    seed: int
    spawn_key: tuple[int, ...]  # makes the shard's random numbers independent of all others
    noise: float = 1.0  # factor of the actor's standard deviation; 0 acts by its mode


class Episodes(NamedTuple):
    """Whole episodes end to end, n steps in all."""

    observations: np.ndarray  # [n, S] float32
    actions: np.ndarray  # [n, A] float32
    rewards: np.ndarray  # [n] float32
    terminals: np.ndarray  # [n] bool
    lengths: np.ndarray  # [episodes] int64
    final_observations: np.ndarray  # [episodes, S] float32


Pool = dict[str, "simulations.Simulations"]  # by environment id
Layers = tuple[tuple[np.ndarray, np.ndarray], ...]  # (kernel, bias) of each layer


def load_actor(path: str | os.PathLike) -> Layers:
    """Read the three layers of an actor, [S, 256], [256, 256] and [256, 2A] with their biases.

    In float64: processors round sums differently, and a simulation amplifies any difference. An
    action that is rounded to float32 afterwards is the same on all of them.
    """
    with np.load(path, allow_pickle=False) as file:
        names = [(f"layer_{k}/kernel", f"layer_{k}/bias") for k in range(3)]
        return tuple((np.float64(file[kernel]), np.float64(file[bias])) for kernel, bias in names)


def act(layers: Layers, obs: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Sample `tanh(loc + exp(log_std) noise)`.

    Args:
        layers: the actor, in the precision to compute in.
        obs: [E, S] float32.
        noise: standard normal draws, [E, A] float32; zeros give the mode.

    Returns:
        [E, A] float32 in [-1, 1].
    """
    hidden = obs.astype(layers[0][0].dtype)
    for kernel, bias in layers[:-1]:
        hidden = hidden @ kernel
        hidden += bias
        np.maximum(hidden, 0.0, out=hidden)
    kernel, bias = layers[-1]
    loc, raw = np.split(hidden @ kernel + bias, 2, axis=-1)
    log_std = -5.0 + 3.5 * (np.tanh(raw) + 1.0)
    return np.tanh(loc + np.exp(log_std) * noise).astype(np.float32)


class _Episode:
    """An episode that is running or done."""

    def __init__(self, number: int, first: np.ndarray, limit: int, action_dim: int):
        self.number = number  # of its environment
        self.done = self.terminal = False
        self.length = 0
        self.observations = np.empty((limit + 1, len(first)), np.float32)
        self.actions = np.empty((limit, action_dim), np.float32)
        self.rewards = np.empty(limit, np.float32)
        self.observations[0] = first

    def add(self, action: np.ndarray, obs: np.ndarray, reward: float, terminal: bool) -> None:
        self.actions[self.length] = action
        self.rewards[self.length] = reward
        self.length += 1
        self.observations[self.length] = obs
        self.terminal = bool(terminal)
        self.done = self.terminal or self.length == len(self.rewards)


def sample(
    task: Task,
    report: Callable[[int], None] = lambda steps: None,
    pool: Pool | None = None,
) -> Episodes:
    """Sample whole episodes until those kept hold `task.steps` steps.

    Episodes are kept in the order in which they were started, so that long ones have the same
    chance as short ones, whatever ends first. The result depends on the task alone.

    Args:
        task: what to sample.
        report: called now and then with the steps done.
        pool: environments by id, which are used again and added to.
    """
    layers = load_actor(task.actor)
    action_dim = len(layers[-1][1]) // 2
    rng = np.random.default_rng(np.random.SeedSequence(task.seed, spawn_key=task.spawn_key))
    envs = _environments(task.env_id, rng, {} if pool is None else pool)
    idle = list(range(len(envs.envs)))
    episodes: list[_Episode] = []
    running: list[_Episode] = []
    rounds, ended = 0, True
    while True:
        if ended:  # between two endings no more episodes can become needed
            for _ in range(min(len(idle), _episodes_to_start(episodes, task))):
                number = idle.pop()
                first, _ = envs.envs[number].reset()
                episodes.append(_Episode(number, first, task.max_episode_steps, action_dim))
                running.append(episodes[-1])
        if not running:
            return _join(episodes)
        obs = np.stack([episode.observations[episode.length] for episode in running])
        noise = rng.standard_normal((len(running), action_dim), np.float32)
        actions = act(layers, obs, np.float32(task.noise) * noise)
        stepped = envs.step([episode.number for episode in running], actions)
        for episode, *what in zip(running, actions, *stepped, strict=True):
            episode.add(*what)
        ended = any(episode.done for episode in running)
        if ended:
            idle += [episode.number for episode in running if episode.done]
            running = [episode for episode in running if not episode.done]
            for dropped in _surplus(episodes, task.steps):
                episodes.remove(dropped)
                if dropped in running:
                    running.remove(dropped)
                    idle.append(dropped.number)
        rounds += 1
        if rounds % _REPORT_EVERY == 0:
            report(min(sum(episode.length for episode in episodes), task.steps))


def _environments(env_id: str, rng: np.random.Generator, pool: Pool) -> simulations.Simulations:
    """Take bare environments (wrappers cost time) from the pool; they draw resets from `rng`."""
    from mtm_jax.envs import simulations

    if env_id not in pool:
        pool[env_id] = simulations.simulate([make.make(env_id).unwrapped for _ in range(SLOTS)])
    for env in pool[env_id].envs:
        env.np_random = rng
    return pool[env_id]


def _episodes_to_start(episodes: list[_Episode], task: Task) -> int:
    """How many more episodes the quota probably needs; a wrong guess only costs time."""
    done = sum(episode.done for episode in episodes)
    total = sum(episode.length for episode in episodes)
    # Steps per ending, which does not favour the short episodes that end first.
    typical = min(total / done, task.max_episode_steps) if done else task.max_episode_steps
    expected = sum(
        episode.length if episode.done else max(episode.length, typical) for episode in episodes
    )
    return int(np.ceil(max(task.steps - expected, 0.0) / typical))


def _surplus(episodes: list[_Episode], steps: int) -> list[_Episode]:
    """Episodes started after enough others; as lengths only grow, they can never be needed."""
    ends = np.cumsum([episode.length for episode in episodes])
    return episodes[int(np.searchsorted(ends, steps)) + 1 :]


def _join(episodes: list[_Episode]) -> Episodes:
    lengths = np.array([episode.length for episode in episodes])
    terminals = np.zeros(lengths.sum(), bool)
    terminals[np.cumsum(lengths) - 1] = [episode.terminal for episode in episodes]
    return Episodes(
        observations=np.concatenate([e.observations[: e.length] for e in episodes]),
        actions=np.concatenate([e.actions[: e.length] for e in episodes]),
        rewards=np.concatenate([e.rewards[: e.length] for e in episodes]),
        terminals=terminals,
        lengths=lengths,
        final_observations=np.stack([e.observations[e.length] for e in episodes]),
    )


def pack(episodes: Episodes) -> bytes:
    """Turn episodes into the bytes of an npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **episodes._asdict())
    return buffer.getvalue()


def unpack(data: bytes) -> Episodes:
    """Undo `pack`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return Episodes(**{name: file[name] for name in Episodes._fields})


def _serve(tasks: BinaryIO, answers: BinaryIO) -> None:
    def send(message: dict, payload: bytes = b"") -> None:
        answers.write(json.dumps(message).encode() + b"\n" + payload)
        answers.flush()

    pool: Pool = {}
    for line in tasks:
        task = Task(**json.loads(line))
        data = pack(sample(task, lambda steps: send({"steps": steps}), pool))
        send({"bytes": len(data)}, data)


def _main() -> None:
    # The pipe is ours alone: what libraries print to stdout goes to stderr instead.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main()
