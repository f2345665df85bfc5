"""Measure what a planner has to choose by: do its predictions tell good actions from bad ones?

    python -m experiments.plan_signal --config.run=runs/pretrain/hopper-medium-m3pc-small-seed0

Two instruments; each way to plan gets one row of RUN/signal.jsonl.

Sensitivity, on held-out windows: how far predictions move when random actions replace the true
ones, compared with the error of the prediction.

Ranking, in the simulator: at states that the policy reaches, every candidate of a plan is executed,
followed by the policy. Do candidates of higher utility earn higher returns?
- `states_explained_N` (N steps ahead) and `rewards_explained` (their sum before the last step): the
  share of the differences between candidates that the model predicts; 1 is all of them, 0 no more
  than predicting the mean candidate.
- `rank_correlation`: Spearman's, between utilities and returns; zero where either is flat, which
  `flat_utilities` and `flat_returns` count.
- `gain`: return of a draw by the planner's weights minus that of the average candidate; `top_gain`
  the same for the candidate of the highest utility, `best_gain` for the best one in hindsight.
- `calibration_slope`: slope of returns against utilities within a moment, in raw units; at 1,
  utilities that differ by x mean returns that differ by x. `calibration_intercept` goes with it.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import rich.box
import rich.table
from ml_collections import config_dict

from experiments.plan_signal import ranking, sensitivity
from experiments.plan_signal import simulators as simulators_lib
from experiments.runtime import cli, runs
from experiments.training import build
from mtm_jax.agents import acting, planner, pretrained
from mtm_jax.config import PlanConfig
from mtm_jax.errors import UserError
from mtm_jax.io import records
from mtm_jax.training import dataset

SIGNAL_FILE = "signal.jsonl"


def main(config: config_dict.ConfigDict) -> None:
    """Measure every way to plan that the configuration names, and print a table."""
    if not config.run:
        raise UserError("no run was named; give --config.run=FOLDER")
    check(config)
    folder = pathlib.Path(config.run)
    agent = pretrained.load(folder)
    chosen, windows = ways(config, agent), held_out(folder, config)
    steps = config.first_step, config.last_step
    fraction = config.plan.target_fraction
    moments = simulators_lib.reach(agent, config.moments, *steps, config.seed, fraction)
    simulators = simulators_lib.Simulators(agent, config.candidates, config.seed, fraction)
    rows = []
    for name, settings in chosen.items():
        plan = plan_of(settings)
        actor = acting.make_actor(
            *(agent, settings["method"]),
            plan=plan,
            target_fraction=settings["target_fraction"],
            seed=config.seed,
        )
        simulators.ask(settings["target_fraction"])
        found = sensitivity.sensitivity(agent, windows, plan, config.seed)
        found |= ranking.ranking(actor, simulators, moments, config.steps_after)
        row = {"way": name, "step": agent.step, "seed": config.seed, "moments": len(moments)}
        rows.append(row | {"settings": settings, "metrics": found})
        records.append(folder / SIGNAL_FILE, rows[-1])
    show(rows)


def check(config: config_dict.ConfigDict) -> None:
    """Refuse numbers that are out of range, before anything is loaded.

    Raises:
        UserError: it names the number.
    """
    for key in ("windows", "candidates"):
        if config[key] < 1:
            raise UserError(f"{key} is {config[key]}; it must be at least 1")
    for key in ("seed", "steps_after"):
        if config[key] < 0:
            raise UserError(f"{key} is {config[key]}; it must not be negative")
    pretrained.check_fraction(config.plan.target_fraction)


def ways(config: config_dict.ConfigDict, agent: pretrained.Pretrained) -> dict[str, dict]:
    """List the settings of each way to plan, by name; without a critic, those that need none.

    Raises:
        UserError: a way is unknown, or was asked for and needs a critic that is not there, or has
            another history than the policy, whose windows it plans in.
    """
    unknown = sorted(set(config.only) - set(config.ways))
    if unknown:
        raise UserError(f"unknown ways {unknown}; choose among {', '.join(config.ways)}")
    plan, last = dict(config.plan), {"candidates": config.candidates}
    found = {name: plan | dict(config.ways[name]) | last for name in config.only or config.ways}
    guided = [
        name
        for name, settings in found.items()
        if planner.GUIDANCE[settings["method"]] in planner.VALUES
    ]
    if agent.critic is None:
        if config.only and guided:
            agent.require_critic()
        found = {name: settings for name, settings in found.items() if name not in guided}
    for name, settings in found.items():
        if settings["history"] != agent.history:
            raise UserError(
                f"way {name} plans with a history of {settings['history']} steps, and the policy "
                f"of this run acts with {agent.history}; give --config.plan.history={agent.history}"
            )
    return found


def plan_of(settings: Mapping) -> PlanConfig:
    """Build the plan of one way."""
    fields = {k: v for k, v in settings.items() if k not in ("method", "target_fraction")}
    return planner.plan_config(settings["method"], **fields)


def held_out(folder: pathlib.Path, config: config_dict.ConfigDict) -> dataset.Windows:
    """Draw windows from the split that the run was not trained on."""
    run = config_dict.ConfigDict(runs.read_pretraining(folder))
    data, window = build.load_data(run), run.model.window
    usable = np.flatnonzero(np.asarray(data.valid.window_steps) == window)
    if len(usable) == 0:
        raise UserError(
            f"no held-out episode of {config.run} is as long as the model's window of {window} "
            "steps, so there is nothing to measure on"
        )
    index = np.random.default_rng(config.seed).choice(usable, config.windows)
    return dataset.take_windows(data.valid, jnp.asarray(index), window)


def show(rows: list[dict]) -> None:
    """Print what was measured, a column for each way to plan."""
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    table.add_column("")
    for row in rows:
        table.add_column(row["way"], justify="right")
    for name in dict.fromkeys(name for row in rows for name in row["metrics"]):
        values = (row["metrics"].get(name, "") for row in rows)
        table.add_row(name, *(f"{v:.3f}" if isinstance(v, float) else str(v) for v in values))
    rich.print(table)


if __name__ == "__main__":
    cli.run(main)
