"""Reach a state that was recorded k steps later, from the state of a held-out episode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.box
import rich.console
import rich.table
from jax import Array
from ml_collections import config_dict

from mtm_jax import tokens
from mtm_jax.agents import actor as actor_lib
from mtm_jax.agents import goal_reaching, pretrained, prompted
from mtm_jax.config import GoalConfig
from mtm_jax.envs import make, simulations
from mtm_jax.envs.goals import kinematics
from mtm_jax.errors import UserError
from mtm_jax.io import progress
from mtm_jax.planning import backward, roles
from mtm_jax.planning import context as context_lib
from mtm_jax.training import dataset

FILE = "reached.jsonl"
WAYS = ("recorded", *goal_reaching.METHODS, "bc")

infer_actions = jax.jit(
    jax.vmap(roles.inverse_dynamics, in_axes=(None, None, None, 0, 0, None)), static_argnums=0
)


def measure(
    agent: pretrained.Pretrained,
    held_out: dataset.Dataset,
    config: config_dict.ConfigDict,
    aim: GoalConfig,
) -> list[dict[str, Any]]:
    """Measure every distance k.

    Args:
        agent: the model.
        held_out: episodes that it was not trained on.
        config: windows, how many states to start from; distances; seed.
        aim: how to aim at goals.

    Returns:
        Rows with distance; reached, way of acting -> root mean squared error of the state after k
        steps, in standard deviations of the data; start, the same of the state that it began in;
        and of the first decision: path, of the inferred states between, and the errors of actions,
        action_id given the recorded path, action_path given the inferred one, action_mask by the
        single mask.
    """
    chosen = windows(agent, held_out, config)
    rows = []
    with progress.progress(len(config.distances), "reaching states", unit="distances") as bar:
        for count, k in enumerate(config.distances, start=1):
            rows.append({"distance": int(k), "windows": len(chosen["states"])})
            rows[-1] |= first_decision(agent, chosen, k, aim)
            rows[-1]["reached"] = {way: ends(agent, chosen, k, way, aim) for way in WAYS}
            bar.update(count)
    return rows


def windows(
    agent: pretrained.Pretrained, held_out: dataset.Dataset, config: config_dict.ConfigDict
) -> dict[str, np.ndarray]:
    """Draw windows that the simulator can be put into: modality -> [B, T, D].

    Raises:
        UserError: a distance does not fit into the window, or there are no such windows.
    """
    window = agent.model.config.window
    if max(config.distances) >= window:
        raise UserError(
            f"reach.distances are {tuple(config.distances)}, and a window of {window} reaches "
            f"{window - 1} steps; leave out what is farther"
        )
    usable = np.flatnonzero(np.asarray(held_out.window_steps) == window)
    draws = np.random.default_rng(config.seed).permutation(usable)[: 4 * config.windows]
    found = dataset.take_windows(held_out, jnp.asarray(draws), window).values
    found = {name: np.asarray(x) for name, x in found.items()}
    exact = kinematics.exact(found["states"], agent.info.env_id).all(1)
    exact = np.flatnonzero(exact)[: config.windows]
    if not len(exact):
        raise UserError("no held-out state can be put into the simulator; give reach.windows=0")
    return {name: x[exact] for name, x in found.items()}


def first_decision(
    agent: pretrained.Pretrained, values: dict[str, np.ndarray], k: int, aim: GoalConfig
) -> dict[str, float]:
    """Compare paths and actions of the first decision with the recorded ones."""
    contexts, goals, slot = begin(values, k)
    by = {m: decide(agent, contexts, goals, m, aim) for m in goal_reaching.METHODS}
    model = agent.model, agent.params, agent.stats
    inferred = infer_actions(*model, values["states"], values["actions"], slot)
    true, between = values["actions"][:, slot], slice(slot + 1, -1)
    scale = np.asarray(tokens.scale(agent.stats["states"]))
    path = (by["m3pc_goal"].path - values["states"])[:, between] / scale
    return {
        "start": rms((values["states"][:, slot] - values["states"][:, -1]) / scale),
        "path": rms(path) if k > 1 else 0.0,
        "action_id": rms(inferred - true),
        "action_path": rms(by["m3pc_goal"].action - true),
        "action_mask": rms(by["goal_mask"].action - true),
    }


def ends(
    agent: pretrained.Pretrained, values: dict[str, np.ndarray], k: int, way: str, aim: GoalConfig
) -> float:
    """Act for k steps in the simulator; return the error of the state that is reached."""
    contexts, goals, slot = begin(values, k)
    simulators = put(agent, values["states"][:, slot])
    everyone, history = list(range(len(values["states"]))), values["states"].shape[1] - 1
    act, obs = acting_by(agent, way, goals, values["actions"][:, slot:], aim), None
    for n in range(k):
        actions = np.asarray(act(contexts, n))
        obs, rewards, _ = simulators.step(everyone, agent.to_environment(actions))
        arguments = actions, np.float32(rewards), np.float32(obs)
        contexts = actor_lib.extend(contexts, *arguments, history=history)
    scale = np.asarray(tokens.scale(agent.stats["states"]))
    return rms((obs - values["states"][:, -1]) / scale)


def acting_by(
    agent: pretrained.Pretrained,
    way: str,
    goals: backward.Waypoints,
    recorded: np.ndarray,
    aim: GoalConfig,
) -> Callable[[context_lib.Context, int], Array | np.ndarray]:
    """Return what chooses the actions of a step, (contexts, n) -> [B, A] in [-1, 1]."""
    if way == "recorded":
        return lambda contexts, n: recorded[:, n]
    if way in goal_reaching.METHODS:
        return lambda contexts, n: decide(agent, contexts, goals, way, aim).action
    model = agent.model, agent.params, agent.stats
    return lambda contexts, n: prompted.choose(*model, contexts, jnp.zeros(()), None, prompt=way)


def begin(
    values: dict[str, np.ndarray], k: int
) -> tuple[context_lib.Context, backward.Waypoints, int]:
    """Lay windows so that the goal, k steps after the present, is last; return the present slot."""
    count, window, width = values["states"].shape
    slot = window - 1 - k
    each = jnp.full(count, slot, jnp.int32)
    modalities = (jnp.asarray(values[m]) for m in ("states", "actions", "rewards"))
    contexts = context_lib.Context(*modalities, each, jnp.zeros(count, jnp.int32))
    goals = backward.Waypoints(
        jnp.asarray(values["states"][:, -1:]),
        jnp.full((count, 1), k, jnp.int32),
        jnp.ones((count, 1, width), bool),
    )
    return contexts, goals, slot


def decide(
    agent: pretrained.Pretrained,
    contexts: context_lib.Context,
    goals: backward.Waypoints,
    method: str,
    aim: GoalConfig,
) -> backward.Decision:
    """Decide for every window, with a goal of its own."""
    model = agent.model, agent.params, agent.stats
    how = {"method": method, "config": aim, "complete": True}
    return goal_reaching.choose(*model, contexts, goals, **how)


def put(agent: pretrained.Pretrained, observations: np.ndarray) -> simulations.Simulations:
    """Put a simulator into each observed state, [B, S]."""
    env_id = agent.info.env_id
    options = make.without_falls(env_id)
    envs = [make.make(env_id, **options).unwrapped for _ in observations]
    for env, *state in zip(envs, *kinematics.split(observations, env_id), strict=True):
        env.reset(seed=0)
        env.set_state(*state)
    return simulations.simulate(envs)


def rms(x: Array | np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(np.asarray(x)))))


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print errors of the states that are reached, and of the parts of the first decision."""
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    parts = ("start", "path", "action_id", "action_path", "action_mask")
    for column in ("steps", *WAYS, *parts):
        table.add_column(column, justify="right")
    for row in rows:
        numbers = [*(row["reached"][way] for way in WAYS), *(row[part] for part in parts)]
        table.add_row(str(row["distance"]), *(f"{x:.3f}" for x in numbers))
    rich.console.Console(width=120).print(table)
