"""Follow a motion: episodes of one method, and the row of results."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import config_dict

from experiments.runtime import cli, evaluation, runs
from mtm_jax.agents import acting, goal_reaching, pretrained
from mtm_jax.agents.actor import Actor
from mtm_jax.config import GoalConfig
from mtm_jax.data import goal_files
from mtm_jax.envs import make, registry, rollout
from mtm_jax.envs.goals import tasks, waypoints
from mtm_jax.errors import UserError
from mtm_jax.io import progress


def motion_of(agent: pretrained.Pretrained, config: config_dict.ConfigDict) -> np.ndarray:
    """Compute the motion of the task, or of the user's goals, [steps + 1, S].

    Raises:
        UserError: the run is of another environment, or a setting of the motion is out of range.
    """
    task = tasks.find(config.task)
    ours = registry.split_name(task.data)[0].name
    if ours != registry.spec_of_id(agent.info.env_id).name:
        raise UserError(
            f"{config.task} is a task of {ours}, and the run was trained on {agent.info.name}; "
            f"give a run of {task.data}"
        )
    if config.goals:
        return own_goals(agent, config).motion(config.steps)
    return tasks.reference(task, agent.info.env_id, config.steps, **config.motion)


def goals_of(
    agent: pretrained.Pretrained, motion: np.ndarray, config: config_dict.ConfigDict
) -> waypoints.Goals:
    """Make the goals of the motion, or read those of the user."""
    if config.goals:
        return own_goals(agent, config)
    env = registry.spec_of_id(agent.info.env_id).name
    return tasks.goals(motion, config.spacing, tuple(config.given), env)


def own_goals(agent: pretrained.Pretrained, config: config_dict.ConfigDict) -> waypoints.Goals:
    """Read the user's goals.

    Raises:
        UserError: they have another width, or leave the joint free that is measured.
    """
    goals = goal_files.load(config.goals, registry.spec_of_id(agent.info.env_id).name)
    goal_reaching.check(agent, goals, GoalConfig(**config.aim))
    task = tasks.find(config.task)
    if not goals.given[:, task.dimension].all():
        raise UserError(
            f"{config.goals} leaves dimension {task.dimension} free, the {task.label} that "
            f"{config.task} is measured by; give it in every goal"
        )
    return goals


def follow(
    agent: pretrained.Pretrained,
    method: str,
    motion: np.ndarray,
    goals: waypoints.Goals,
    config: config_dict.ConfigDict,
    folder: pathlib.Path,
) -> tuple[dict, np.ndarray]:
    """Run the episodes of one method.

    Returns:
        The row of results, and the observations [L, E, S].
    """
    recorder, started = rollout.Recorder(actor(agent, method, goals, config)), time.monotonic()
    with progress.progress(config.steps, f"{method} episodes") as bar:
        episodes = rollout.rollout(
            *(agent.info.env_id, recorder, config.eval.episodes, config.eval.seed, config.steps),
            on_step=lambda step, alive: bar.update(step),
            options=make.without_falls(agent.info.env_id),
        )
    found = recorder.observations()
    tracking = tasks.track(tasks.find(config.task), found, motion[: len(found)])
    run, further = runs.read_config(folder), settings(config, goals)
    row = evaluation.make_row(
        agent, method, episodes, config.eval, "m3pc_goal", run, further=further
    )
    row["metrics"] |= metrics(tracking) | {"seconds": time.monotonic() - started}
    return row, found


def actor(
    agent: pretrained.Pretrained,
    method: str,
    goals: waypoints.Goals,
    config: config_dict.ConfigDict,
) -> Actor:
    """Make what acts; behaviour cloning, which knows no goals, is there for comparison."""
    if method not in goal_reaching.METHODS:
        return acting.make_actor(agent, method)
    return acting.make_actor(agent, method, goals=goals, aim=GoalConfig(**config.aim))


def settings(config: config_dict.ConfigDict, goals: waypoints.Goals) -> dict[str, Any]:
    """Say for a row of results what was to be done."""
    return {
        "task": config.task,
        "motion": dict(config.motion),
        "steps": config.steps,
        "goals": pathlib.Path(config.goals).name if config.goals else "",
        "spacing": goals.spacing,
        "given": np.flatnonzero(goals.given.any(0)).tolist(),
        "aim": dataclasses.asdict(GoalConfig(**config.aim)),
    }


def metrics(tracking: tasks.Tracking) -> dict[str, float]:
    """Collect the numbers of a row of results, over episodes."""
    return {
        "tracking_error": float(tracking.errors.mean()),
        "tracking_error_std": float(tracking.errors.std()),
        "judged_error": float(tracking.judged.mean()),
        "success_rate": float(tracking.successes.mean()),
    }


def say(row: Mapping[str, Any]) -> None:
    """Print one line about a row of results."""
    found, count = row["metrics"], len(row["returns"])
    cli.say(
        f"{row['method']:<10} tracking error {found['tracking_error']:.3f} rad, "
        f"success {found['success_rate']:.0%} of {count} episodes"
    )
