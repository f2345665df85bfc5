"""Evaluate one checkpoint as every kind of policy: BC, RCBC (BTM), M3PC-M and M3PC-Q.

    python -m experiments.m3pc_offline --config=configs/m3pc_offline.py:hopper-medium
    python -m experiments.m3pc_offline --config.run=RUN --config.m3pc_q.xi=10
    python -m experiments.m3pc_offline --config.run=RUN --config.world=OTHER_RUN

Every method plays the same episodes, side by side. Adds a row per method to the run's
results.jsonl, and draws figures/methods.png, figures/imagination.png and videos/imagination.gif.
M3PC-Q needs a critic: `make critic`.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from typing import Any

from ml_collections import config_dict

from experiments.runtime import cli, evaluation, runs
from experiments.training import named_run
from mtm_jax.agents import imagination, planner
from mtm_jax.agents import pretrained as agent_lib
from mtm_jax.config import PlanConfig
from mtm_jax.envs import registry, rollout
from mtm_jax.errors import UserError
from mtm_jax.io import results
from mtm_jax.planning import roles
from mtm_jax.plots import imagination_figures, score_figures, video

METHODS = (*roles.POLICIES, *planner.GUIDANCE)


def main(config: config_dict.ConfigDict) -> None:
    """Check everything, then evaluate method after method."""
    check(config)
    folder = named_run.find(config, "m3pc_offline")
    agent, run = agent_lib.load(folder), runs.read_config(folder)
    evaluation.check_simulator(agent, folder)
    world = agent_lib.load(config.world) if config.world else None
    actors = {method: make_actor(agent, method, config, world) for method in config.eval.methods}
    rows = []
    for method, actor in actors.items():
        started, plan = time.monotonic(), plan_of(method, config)
        further = plan_settings(plan, config.world, agent) if plan else {}
        rows.append(
            evaluation.evaluate_actor(
                agent, method, actor, config.eval, "m3pc_offline", run, further
            )
        )
        rows[-1]["metrics"]["seconds"] = time.monotonic() - started
        results.write_result(folder, rows[-1])
    evaluation.say_rows(rows)
    scores = score_figures.collect(rows)
    score_figures.bars(scores, folder / "figures" / "methods.png")
    imagine(agent, folder, config, world)
    cli.say(f"results are in {folder}")


def imagine(
    agent: agent_lib.Agent,
    folder: pathlib.Path,
    config: config_dict.ConfigDict,
    world: agent_lib.Agent | None,
) -> None:
    """Draw what the plans of the last planning method expect beside what they lead to."""
    planned = [method for method in config.eval.methods if method in planner.GUIDANCE]
    known = registry.spec_of_id(agent.info.env_id).name in imagination.DIMENSIONS
    if not (config.imagined_steps and planned and known):
        return
    plan = plan_of(planned[-1], config)
    decider = planner.Decider(agent, plan, config.eval.target_fraction, world=world)
    recording = imagination.record(decider, config.imagined_steps, config.eval.seed, every=2)
    imagination_figures.rollouts(recording, folder / "figures" / "imagination.png")
    video.imagination_film(recording, folder / "videos" / "imagination.gif")


def check(config: config_dict.ConfigDict) -> None:
    """Refuse settings before anything is loaded.

    Raises:
        UserError: a method is unknown, or a number is out of range.
    """
    unknown = [method for method in config.eval.methods if method not in METHODS]
    if unknown or not config.eval.methods:
        raise UserError(
            f"eval.methods are {tuple(config.eval.methods)}; choose among {', '.join(METHODS)}"
        )
    evaluation.check_numbers(config.eval)
    if config.imagined_steps < 0:
        raise UserError(f"imagined_steps is {config.imagined_steps}; give a number from 0 on")
    for method in planner.GUIDANCE:
        plan_of(method, config)


def plan_of(method: str, config: config_dict.ConfigDict) -> PlanConfig | None:
    """Collect the settings of a method's plans; None where it does not plan."""
    if method not in planner.GUIDANCE:
        return None
    return planner.plan_config(method, **config.plan, **config[method])


def plan_settings(plan: PlanConfig, world: str, agent: agent_lib.Agent) -> dict[str, Any]:
    """Say in a row of results how a method planned, and by which critic."""
    critic = agent.critic if plan.guidance == "critic" else None
    return {
        "plan": dataclasses.asdict(planner.with_discount(plan, agent)),
        "action": "expectation",
        **({"critic": dataclasses.asdict(critic.config) | {"step": critic.step}} if critic else {}),
        **({"world": pathlib.Path(world).name} if world else {}),
    }


def make_actor(
    agent: agent_lib.Agent,
    method: str,
    config: config_dict.ConfigDict,
    world: agent_lib.Agent | None = None,
) -> rollout.Actor:
    """Make what acts by a method."""
    fraction, plan = config.eval.target_fraction, plan_of(method, config)
    if plan is None:
        return agent.actor(method, fraction)
    return planner.actor(agent, plan, fraction, config.eval.seed, world)


if __name__ == "__main__":
    cli.run(main)
