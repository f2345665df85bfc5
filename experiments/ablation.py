"""Vary one setting of the plans of one checkpoint, and see what it does to the score.

    python -m experiments.ablation --config.run=RUN --config.study=horizon
    python -m experiments.ablation --config.run=RUN --config.study=xi --config.choices="(1.0,10.0)"
    python -m experiments.ablation --config.run=RUN --config.world=OTHER_RUN

Every variant plays the same episodes. Adds a row per variant to the run's results.jsonl, its value
under settings.study, and draws figures/ablation_<study>.png. Studies with values of their own:
horizon, candidates, lambda_, xi, spread, discount, xi_unit, readout, current_state, convention.
Any other setting of plans needs --config.choices.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ml_collections import config_dict

from experiments.runtime import cli, evaluation, plans, runs
from experiments.training import named_run
from mtm_jax.agents import planner, pretrained
from mtm_jax.config import PlanConfig
from mtm_jax.errors import UserError
from mtm_jax.io import results
from mtm_jax.plots import scores

# Setting -> values: M3PC figures 7 to 9, and the choices that papers and code leave open.
STUDIES: dict[str, tuple] = {
    "horizon": (1, 2, 3, 4, 5, 6, 7, 8),
    "candidates": (1, 5, 25, 125, 625, 2500),
    "lambda_": (0.0, 0.3, 0.6, 0.9),
    "xi": (0.0, 0.3, 1.0, 3.0, 10.0),
    "spread": (0.5, 1.0, 1.5),
    "discount": (0.9, 0.99, 1.0),
    "xi_unit": ("std", "raw"),
    "readout": ("fd", "rp"),
    "current_state": ("true", "reconstructed"),
    "convention": ("equation3", "released"),
}


def main(config: config_dict.ConfigDict) -> None:
    """Check every variant, then evaluate one after the other."""
    variants = variants_of(config)
    folder = named_run.find(config, "ablation")
    agent = pretrained.load(folder, weights=config.weights)
    run = runs.read_config(folder)
    evaluation.check_simulator(agent, folder)
    world = pretrained.load(config.world) if config.world else None
    variants = [(m, value, fit(plan, agent)) for m, value, plan in variants]
    actors = [plans.actor(agent, m, plan, config.eval, world) for m, _, plan in variants]
    rows = []
    for (method, value, plan), actor in zip(variants, actors, strict=True):
        further = plans.describe(plan, config.world, agent)
        further["study"] = {"name": config.study, "value": value}
        cli.say(f"{method} with {config.study} {value}")
        rows.append(
            evaluation.evaluate_actor(agent, method, actor, config.eval, "ablation", run, further)
        )
        results.write_result(folder, rows[-1])
    results.print_results(rows)
    path = folder / "figures" / f"ablation_{config.study.strip('_')}.png"
    cli.say(f"figure: {scores.studies(rows, path)}")


def variants_of(config: config_dict.ConfigDict) -> list[tuple[str, Any, PlanConfig]]:
    """List the variants: method, value of the setting, plan.

    Raises:
        UserError: the setting or a value is none, or a method does not plan.
    """
    evaluation.check_numbers(config.eval)
    known = [field.name for field in dataclasses.fields(PlanConfig) if field.name != "guidance"]
    if config.study not in known:
        raise UserError(f"plans have no setting {config.study!r}; choose {', '.join(known)}")
    values = tuple(config.choices) or STUDIES.get(config.study, ())
    if not (values and config.methods):
        raise UserError(
            f"study {config.study!r} needs values and methods, and they are {values} and "
            f"{tuple(config.methods)}; give --config.choices and --config.methods"
        )
    return [(m, value, plan_with(config, m, value)) for m in config.methods for value in values]


def plan_with(config: config_dict.ConfigDict, method: str, value: Any) -> PlanConfig:
    """Build one variant's plan."""
    if method not in planner.GUIDANCE:
        raise UserError(f"{method!r} does not plan; choose {' or '.join(planner.GUIDANCE)}")
    _check_type(config.study, value)
    settings = plans.settings_of_method(method, config) | {config.study: value}
    if settings["current_state"] == "reconstructed":
        settings["pruned"] = False  # what is visible is not predicted where that is saved
    return planner.plan_config(method, **settings)


def _check_type(study: str, value: Any) -> None:
    """Refuse a value of another type than the setting's default; a whole number is a number."""
    default = getattr(PlanConfig(), study)
    number = default is None or isinstance(default, float)
    kinds = {int, float} if number else {type(default)}
    if type(value) not in kinds:
        raise UserError(
            f"{study} {value!r} is of type {type(value).__name__}; give values like {default!r} "
            "in --config.choices"
        )


def fit(plan: PlanConfig, agent: pretrained.Pretrained) -> PlanConfig:
    """Give up history where a longer horizon leaves no room for it in the window."""
    room = agent.model.config.window - plan.horizon
    return dataclasses.replace(plan, history=min(plan.history, room)) if room >= 0 else plan


if __name__ == "__main__":
    cli.run(main)
