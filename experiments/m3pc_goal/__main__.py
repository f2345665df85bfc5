"""Reach goals that the data never showed, by backward M3PC and by a single mask.

    python -m experiments.m3pc_goal --config=configs/m3pc_goal.py:hopper-wiggle
    python -m experiments.m3pc_goal --config=configs/m3pc_goal.py:walker-split --config.run=RUN

A task is a motion, made from the kinematics of the robot; both methods follow it in the same
episodes, which do not end where the robot is unhealthy. Everything is in RUN/goals/TASK:
results.jsonl with a row per method, tracking.png (the joint that counts against the motion),
visited.png (states over those of the data), filmstrip.png and episode.gif.

Then both methods, behaviour cloning and the recorded actions start from states of held-out episodes
and head for the state that was recorded k steps later: RUN/goals/reached.jsonl and reached.png say
how far from it they end, and which part of the model errs.
"""

from __future__ import annotations

import pathlib

import numpy as np
from ml_collections import config_dict

from experiments.m3pc_goal import following, reaching
from experiments.runtime import cli, evaluation, runs
from experiments.training import build, named_run
from mtm_jax.agents import goal_reaching, pretrained
from mtm_jax.config import GoalConfig
from mtm_jax.envs.goals import tasks
from mtm_jax.errors import UserError
from mtm_jax.io import records, results
from mtm_jax.plots import goal_video
from mtm_jax.plots import goals as goal_plots


def main(config: config_dict.ConfigDict) -> None:
    """Follow the task's motion by every method, draw it, then measure the parts."""
    check(config)
    folder = find_run(config)
    agent = pretrained.load(folder, weights=config.weights)
    evaluation.check_simulator(agent, folder)
    out = folder / "goals" / config.task
    motion = following.motion_of(agent, config)
    goals = following.goals_of(agent, motion, config)
    episodes = {}
    for method in config.eval.methods:
        row, episodes[method] = following.follow(agent, method, motion, goals, config, folder)
        out.mkdir(parents=True, exist_ok=True)
        results.write_result(out, row)
        following.say(row)
    data = build.load_data(config_dict.ConfigDict(runs.read_pretraining(folder)))
    draw(agent, episodes, motion, goals.steps, data, config, out)
    if config.reach.windows:
        reach(agent, data, config, folder / "goals")
    cli.say(f"figures and results are in {folder / 'goals'}")


def find_run(config: config_dict.ConfigDict) -> pathlib.Path:
    """Find the run; one that is named may be of other data of the task's environment.

    Raises:
        UserError: there is none.
    """
    asked = config.copy_and_resolve_references()
    asked.env = "" if config.run else config.env
    return named_run.find(asked, "m3pc_goal")


def check(config: config_dict.ConfigDict) -> None:
    """Refuse settings before anything is loaded.

    Raises:
        UserError: a method or a setting is unknown, or a number is out of range.
    """
    tasks.find(config.task)
    methods, known = tuple(config.eval.methods), (*goal_reaching.METHODS, "bc")
    if not methods or any(method not in known for method in methods):
        raise UserError(f"eval.methods are {methods}; choose among {', '.join(known)}")
    for key, least in (("eval.episodes", 1), ("steps", 2), ("spacing", 1), ("eval.seed", 0)):
        found = config.eval[key[5:]] if key.startswith("eval.") else config[key]
        if found < least:
            raise UserError(f"{key} is {found}; give at least {least}")
    if config.reach.windows < 0 or not all(k >= 1 for k in config.reach.distances):
        raise UserError(
            f"reach.windows is {config.reach.windows} and reach.distances are "
            f"{tuple(config.reach.distances)}; give numbers of windows and of steps from 1 on"
        )
    GoalConfig(**config.aim)


def draw(
    agent: pretrained.Pretrained,
    episodes: dict[str, np.ndarray],
    motion: np.ndarray,
    steps: np.ndarray,
    data: build.Data,
    config: config_dict.ConfigDict,
    out: pathlib.Path,
) -> None:
    """Draw what the episodes look like."""
    task, seen = tasks.find(config.task), np.asarray(data.train.values["states"])
    shown = motion[: len(next(iter(episodes.values())))]
    joint = task.dimension, task.label
    goal_plots.tracking(episodes, shown, steps, *joint, out / "tracking.png")
    goal_plots.visited(episodes, shown, seen, out / "visited.png")
    first = {method: found[:, 0] for method, found in episodes.items()}
    goal_video.filmstrip(first, shown, agent.info.env_id, out / "filmstrip.png")
    if config.video:
        goal_video.video(first, shown, agent.info.env_id, out / "episode.gif")


def reach(
    agent: pretrained.Pretrained,
    data: build.Data,
    config: config_dict.ConfigDict,
    out: pathlib.Path,
) -> None:
    """Measure how far from recorded states each way of acting ends."""
    rows = reaching.measure(agent, data.valid, config.reach, GoalConfig(**config.aim))
    model = {"dataset": agent.info.name, "step": agent.step, "weights": agent.weights}
    for row in rows:
        records.append(out / reaching.FILE, row | model | {"aim": dict(config.aim)})
    reaching.show(rows)
    errors = {way: {row["distance"]: row["reached"][way] for row in rows} for way in reaching.WAYS}
    goal_plots.reached(errors, out / "reached.png")


if __name__ == "__main__":
    cli.run(main)
