"""Record an episode of a planner: what its model predicted, and what the simulator did instead."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import gymnasium
import jax
import numpy as np

from mtm_jax import tokens
from mtm_jax.agents.actor import Actor
from mtm_jax.envs import make, registry, simulator
from mtm_jax.errors import UserError
from mtm_jax.io import progress
from mtm_jax.planning import forward

# Environment -> dimensions of its observation with a plain meaning, as gymnasium documents them.
DIMENSIONS = {
    "hopper": {"height (m)": 0, "torso angle (rad)": 1, "forward velocity (m/s)": 5},
    "walker2d": {"height (m)": 0, "torso angle (rad)": 1, "forward velocity (m/s)": 8},
    # Its height is relative to the initial one.
    "halfcheetah": {"height (m)": 0, "torso angle (rad)": 1, "forward velocity (m/s)": 8},
}

FORECASTS_FILE = "imagination.jsonl"  # of a run, with a row of `forecasts`


class Recording(NamedTuple):
    """An episode of t steps and k plans of h steps each, in raw units.

    A plan is the candidate of the largest weight. Its entry n belongs to step start + n of the
    episode; its first state is the current one. `imagined` is what the model predicts for it,
    `real` what its actions did in a second simulator, open loop. Where the robot fell, entries
    from lengths[k] on hold the state that it fell into, and rewards of zero.
    """

    env_id: str
    observations: np.ndarray  # [t, S], that each step starts from
    rewards: np.ndarray  # [t]
    qpos: np.ndarray  # [t, nq], the simulator's positions at the observations
    starts: np.ndarray  # [k] int, the step of the episode at which each plan was made
    imagined_states: np.ndarray  # [k, h, S]
    imagined_rewards: np.ndarray  # [k, h]
    imagined_values: np.ndarray  # [k, h], in units of the return
    real_states: np.ndarray  # [k, h, S]
    real_rewards: np.ndarray  # [k, h]
    real_qpos: np.ndarray  # [k, h, nq]
    lengths: np.ndarray  # [k] int, steps that could be executed, 1 to h
    scale: np.ndarray  # [S], standard deviations of the training data


class Execution(NamedTuple):
    """What the actions of a plan did; see `Recording`."""

    states: np.ndarray  # [h, S]
    rewards: np.ndarray  # [h]
    qpos: np.ndarray  # [h, nq]
    length: int


class Errors(NamedTuple):
    """Root mean squared errors over plans and dimensions, in the data's standard deviations."""

    imagined: np.ndarray  # [h], of the states that were imagined
    unchanged: np.ndarray  # [h], of predicting that nothing changes


def record(actor: Actor, steps: int, seed: int, every: int, horizon: int) -> Recording:
    """Let a planner act for an episode; keep every `every`-th plan and execute it open loop.

    Args:
        actor: plans with a run whose environment is one of `DIMENSIONS`.
        steps: the episode is stopped after that many.
        seed: of the episode.
        every: steps between recorded plans.
        horizon: h, steps of a plan to keep.

    Raises:
        UserError: the environment cannot be put into a given state, a number is out of range, or
            planning goes wrong.
    """
    env_id = actor.agent.info.env_id
    dimensions(env_id)
    if steps < 1 or every < 1:
        raise UserError(
            f"a recording of {steps} steps with a plan every {every} was asked for; "
            "both must be at least 1"
        )
    with (
        contextlib.closing(make.make(env_id)) as env,
        contextlib.closing(make.make(env_id)) as double,
    ):
        double.reset(seed=seed)
        rows, plans = _episode(actor, env, double, steps, seed, every, horizon)
    observations, rewards, qpos = (np.stack(x) for x in zip(*rows, strict=True))
    starts, imagined, real = zip(*plans, strict=True)
    states, imagined_rewards, values = (np.stack(x) for x in zip(*imagined, strict=True))
    executed = Execution(*(np.stack(x) for x in zip(*real, strict=True)))
    return Recording(
        env_id=env_id,
        observations=observations,
        rewards=rewards,
        qpos=qpos,
        starts=np.array(starts),
        imagined_states=states,
        imagined_rewards=imagined_rewards,
        imagined_values=values,
        real_states=executed.states,
        real_rewards=executed.rewards,
        real_qpos=executed.qpos,
        lengths=executed.length,
        scale=np.asarray(tokens.scale(actor.agent.stats["states"])),
    )


def dimensions(env_id: str) -> dict[str, int]:
    """Look up the dimensions to show, name -> index into the observation.

    Raises:
        UserError: plans of this environment cannot be shown.
    """
    name = registry.spec_of_id(env_id).name
    if name not in DIMENSIONS:
        raise UserError(
            f"imagined rollouts of {name} cannot be shown, only those of {', '.join(DIMENSIONS)}, "
            "whose observations tell the simulator's state"
        )
    return DIMENSIONS[name]


def _episode(
    actor: Actor,
    env: gymnasium.Env,
    double: gymnasium.Env,
    steps: int,
    seed: int,
    every: int,
    horizon: int,
) -> tuple[list, list]:
    """Return (observation, reward, qpos) of steps and (start, imagined, Execution) of plans."""
    agent, rows, plans = actor.agent, [], []
    obs, _ = env.reset(seed=seed)
    memory = actor.start(np.float32(obs)[None])
    with progress.progress(steps, "recording plans") as bar:
        for step in range(steps):
            if step % every == 0:
                planned, *imagined = best_plan(actor.explain(memory), horizon)
                simulator.set_physics_state(double, simulator.physics_state(env))
                plans.append((step, imagined, execute(double, obs, agent.to_environment(planned))))
            actions = actor.decide(memory)
            rows.append([obs, 0.0, env.unwrapped.data.qpos.copy()])
            obs, reward, terminated, truncated, _ = env.step(agent.to_environment(actions[0]))
            rows[-1][1] = reward
            bar.update(step + 1)
            if terminated or truncated:
                break
            memory = actor.observe(memory, actions, np.float32([reward]), np.float32(obs)[None])
    return rows, plans


def best_plan(plans: forward.Plan, horizon: int) -> tuple[np.ndarray, ...]:
    """Find the candidate of the largest weight.

    Args:
        plans: of one environment, with a leading axis 1.
        horizon: h, steps to keep; at the start of an episode there are more.

    Returns:
        Its actions [h, A] in [-1, 1], imagined states [h, S], rewards [h] and values [h].
    """
    plan = jax.tree.map(lambda x: np.asarray(x[0]), plans)
    best = int(np.argmax(plan.weights))
    parts = plan.candidates, plan.rollout.states, plan.rollout.rewards, plan.values
    return tuple(part[best, :horizon] for part in parts)


def execute(env: gymnasium.Env, obs: np.ndarray, actions: np.ndarray) -> Execution:
    """Execute actions, [h, A] in the environment's units, until the robot falls.

    Args:
        env: in the state to begin from.
        obs: what it shows there, [S].
        actions: open loop.
    """
    env, terminated = env.unwrapped, False
    states, rewards, qpos = [], np.zeros(len(actions)), []
    length = 0
    for n, action in enumerate(actions):
        states.append(obs)
        qpos.append(env.data.qpos.copy())
        if not terminated:
            obs, rewards[n], terminated, _, _ = env.step(action)
            length = n + 1
    return Execution(np.stack(states), rewards, np.stack(qpos), length)


def errors(recording: Recording) -> Errors:
    """Compare imagined states with real ones, step by step of the horizon.

    Plans count until the robot fell; steps that no plan reached are left out.
    """
    steps = np.arange(int(recording.lengths.max()))
    reached = steps < recording.lengths[:, None]
    real = recording.real_states[:, : len(steps)]

    def rms(guess: np.ndarray) -> np.ndarray:
        squares = np.square((guess - real) / recording.scale).mean(-1)
        return np.sqrt((squares * reached).sum(0) / reached.sum(0))

    return Errors(rms(recording.imagined_states[:, : len(steps)]), rms(real[:, :1]))


def forecasts(recording: Recording, steps: int) -> dict:
    """Collect what the plans of an episode predicted and what followed, as plain numbers.

    Args:
        recording: of k plans and t steps.
        steps: those that were asked for; a shorter episode ended by itself.

    Returns:
        starts [k]; values [k], predicted at these steps; rewards [t] of the episode; ended;
        imagined [k] and real [k], sums of the rewards of the plans.
    """
    return {
        "starts": recording.starts.tolist(),
        "values": recording.imagined_values[:, 0].tolist(),
        "rewards": recording.rewards.tolist(),
        "ended": len(recording.rewards) < steps,
        "imagined": recording.imagined_rewards.sum(-1).tolist(),
        "real": recording.real_rewards.sum(-1).tolist(),
    }
