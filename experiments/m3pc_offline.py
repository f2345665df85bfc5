"""Evaluate one checkpoint as every kind of policy: BC, RCBC (BTM), M3PC-M, M3PC-Q and others.

    python -m experiments.m3pc_offline --config=configs/m3pc_offline.py:hopper-medium
    python -m experiments.m3pc_offline --config.run=RUN --config.m3pc_q.xi=10
    python -m experiments.m3pc_offline --config.run=RUN --config.world=OTHER_RUN

Every method plays the same episodes, side by side. Adds a row per method to the run's
results.jsonl, writes what plans predicted and what followed to imagination.jsonl, and draws
figures/methods.png, figures/imagination.png and videos/imagination.gif.
m3pc_q and m3pc_v need a critic: `make critic`.
"""

from __future__ import annotations

import pathlib
import time

from ml_collections import config_dict

from experiments.runtime import cli, evaluation, plans, runs
from experiments.training import named_run
from mtm_jax.agents import imagination, planner, pretrained
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.io import records, results
from mtm_jax.planning import roles
from mtm_jax.plots import rollouts, scores, video


def main(config: config_dict.ConfigDict) -> None:
    """Check everything, then evaluate method after method."""
    check(config)
    folder = named_run.find(config, "m3pc_offline")
    agent = pretrained.load(folder, weights=config.weights)
    run = runs.read_config(folder)
    evaluation.check_simulator(agent, folder)
    world = pretrained.load(config.world) if config.world else None
    chosen = {method: plans.of_method(method, config) for method in config.eval.methods}
    prompts = {m: plans.prompt_of_method(m, config.prompt) for m in config.eval.methods}
    actors = {
        m: plans.actor(agent, m, plan, config.eval, world, prompts[m]) for m, plan in chosen.items()
    }
    rows = []
    for method, actor in actors.items():
        started, plan = time.monotonic(), chosen[method]
        further = (
            plans.describe(plan, config.world, agent)
            if plan
            else plans.describe_prompt(prompts[method])
        )
        rows.append(
            evaluation.evaluate_actor(
                agent, method, actor, config.eval, "m3pc_offline", run, further
            )
        )
        rows[-1]["metrics"]["seconds"] = time.monotonic() - started
        results.write_result(folder, rows[-1])
    evaluation.say_rows(rows)
    scores.bars(scores.collect(rows), folder / "figures" / "methods.png")
    imagine(agent, folder, config, world)
    cli.say(f"results are in {folder}")


def imagine(
    agent: pretrained.Pretrained,
    folder: pathlib.Path,
    config: config_dict.ConfigDict,
    world: pretrained.Pretrained | None,
) -> None:
    """Draw what the plans of the last guided method expect beside what they lead to."""
    guided = [method for method, by in planner.GUIDANCE.items() if by != "none"]
    planned = [method for method in config.eval.methods if method in guided]
    known = registry.spec_of_id(agent.info.env_id).name in imagination.DIMENSIONS
    if not (config.imagined_steps and planned and known):
        return
    plan = plans.of_method(planned[-1], config)
    actor = plans.actor(agent, planned[-1], plan, config.eval, world)
    recording = imagination.record(
        actor, config.imagined_steps, config.eval.seed, every=2, horizon=plan.horizon
    )
    # Predicted returns have no discount; a critic's values have that of its training.
    discount = 1.0 if plan.guidance == "returns" else agent.critic.config.discount
    row = {"method": planned[-1], "step": agent.step, "discount": discount}
    row |= imagination.forecasts(recording, config.imagined_steps)
    records.rewrite(folder / imagination.FORECASTS_FILE, [row])
    rollouts.draw(recording, folder / "figures" / "imagination.png")
    video.draw(recording, folder / "videos" / "imagination.gif")


def check(config: config_dict.ConfigDict) -> None:
    """Refuse settings before anything is loaded.

    Raises:
        UserError: a method is unknown, or a number is out of range.
    """
    methods, known = tuple(config.eval.methods), (*roles.POLICIES, *planner.GUIDANCE)
    if not methods or any(method not in known for method in methods):
        raise UserError(f"eval.methods are {methods}; choose among {', '.join(known)}")
    evaluation.check_numbers(config.eval)
    if config.imagined_steps < 0:
        raise UserError(f"imagined_steps is {config.imagined_steps}; give a number from 0 on")
    for method in known:
        plans.of_method(method, config)
        plans.prompt_of_method(method, config.prompt)


if __name__ == "__main__":
    cli.run(main)
