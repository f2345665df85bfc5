"""Evaluation of pretrained runs: episodes, rows of results, tables and figures."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import config_dict

from experiments.runtime import cli, plans, runs
from mtm_jax.agents import acting, goal_reaching, pretrained
from mtm_jax.data import info as data_info
from mtm_jax.envs import registry, rollout
from mtm_jax.errors import UserError
from mtm_jax.io import progress, results
from mtm_jax.planning import roles
from mtm_jax.plots import scores
from mtm_jax.types import DataInfo


def check(settings: config_dict.ConfigDict) -> None:
    """Refuse settings of an evaluation before anything is computed.

    Raises:
        UserError: there is no method, one is unknown, or a number is out of range.
    """
    unknown = [method for method in settings.methods if method not in roles.POLICIES]
    if unknown or not settings.methods:
        raise UserError(
            f"eval.methods are {tuple(settings.methods)}; choose among {', '.join(roles.POLICIES)}"
        )
    check_numbers(settings)


def check_numbers(settings: config_dict.ConfigDict) -> None:
    """Refuse an evaluation with a number out of range.

    Raises:
        UserError: it names the number.
    """
    pretrained.check_fraction(settings.target_fraction)
    if settings.episodes < 1 or settings.seed < 0:
        raise UserError(
            f"eval.episodes is {settings.episodes} and eval.seed is {settings.seed}; "
            "give at least 1 episode and a seed that is not negative"
        )


def evaluate_runs(
    folders: Sequence[pathlib.Path],
    agents: Sequence[pretrained.Pretrained],
    settings: config_dict.ConfigDict,
    experiment: str,
    measured: Mapping[str, float] | None = None,
    prompt: Mapping[str, Any] | None = None,
) -> list[dict]:
    """Evaluate every method, append the rows, print the table and draw the figures.

    Where the environment says when its task is done, the metrics also have success_rate (in how
    many episodes it was, after any step) and final_success_rate (after the last step).

    Args:
        folders: of the runs.
        agents: their models, of one data set; they act side by side in the same episodes.
        settings: methods, episodes, seed and target_fraction.
        experiment: the program that asks.
        measured: what else goes into the metrics of each row.
        prompt: fields of a `PromptConfig`, how the models act.

    Raises:
        UserError: the environment of the data has no simulator, or a model cannot act so.
    """
    first = agents[0]
    check_simulator(first, folders[0])
    configs = [runs.read_pretraining(folder) for folder in folders]
    methods = feasible(settings.methods, first.returns)
    if len(methods) < len(settings.methods):
        cli.say(f"{first.info.name} has no rewards, so rcbc has no return to ask for: left out")
    rows = []
    for method in methods:
        how = plans.prompt_of_method(method, prompt or {})
        target = {"target_fraction": settings.target_fraction, "seed": settings.seed}
        actor = acting.make_group(agents, method, prompt=how, **target)
        further = plans.describe_prompt(how)
        episodes = play(first.info, method, actor, settings, len(agents))
        parts = zip(folders, agents, configs, rollout.split(episodes, len(agents)), strict=True)
        for folder, agent, config, part in parts:
            rows.append(make_row(agent, method, part, settings, experiment, config, further))
            rows[-1]["metrics"] |= measured or {}
            results.write_result(folder, rows[-1])
    say_rows(rows)
    for folder in folders:
        scores.episodes(folder)
    return rows


def say_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table of results, rates of success, and the score of the data."""
    results.print_results(rows)
    for row in rows:
        say_successes(row)
    for row in rows[:1]:
        if "dataset_mean_score" in row["metrics"]:
            mean, best = (row["metrics"][f"dataset_{k}_score"] for k in ("mean", "best"))
            cli.say(f"the data set's own score: mean {mean:.1f}, best {best:.1f}")


def check_simulator(agent: pretrained.Pretrained, folder: pathlib.Path) -> None:
    """Refuse a run whose environment is not known.

    Raises:
        UserError: the environment of the data has no simulator.
    """
    if not agent.info.env_id:
        raise UserError(
            f"{folder} was trained on {agent.info.name}, for which there is no simulator, so it "
            "cannot be evaluated; its losses on held-out data are in metrics.jsonl"
        )


def feasible(methods: Sequence[str], returns: pretrained.ReturnSummary) -> list[str]:
    """Leave out the methods that ask for a return where the data have none."""
    return [method for method in methods if method != "rcbc" or returns.best is not None]


def evaluate_actor(
    agent: pretrained.Pretrained,
    method: str,
    actor: rollout.Actor,
    settings: config_dict.ConfigDict,
    experiment: str,
    run: Mapping[str, Any],
    further: Mapping[str, Any] | None = None,
) -> dict:
    """Run one method's episodes and build its row of results.

    Args:
        agent: the model behind the method.
        method: its name in the row.
        actor: what acts.
        settings: episodes, seed and target_fraction.
        experiment: the program that asks.
        run: the configuration of the pretraining run.
        further: other settings of the row.
    """
    episodes = play(agent.info, method, actor, settings)
    return make_row(agent, method, episodes, settings, experiment, run, further)


def play(
    info: DataInfo,
    method: str,
    actor: rollout.Actor,
    settings: config_dict.ConfigDict,
    copies: int = 1,
) -> rollout.Episodes:
    """Run the episodes of an evaluation; see `rollout.rollout`."""
    limit = data_info.time_limit(info)
    with progress.progress(limit, f"{method} episodes") as bar:
        return rollout.rollout(
            *(info.env_id, actor, settings.episodes, settings.seed, limit),
            on_step=lambda step, alive: bar.update(step, f"{alive} running"),
            copies=copies,
        )


def make_row(
    agent: pretrained.Pretrained,
    method: str,
    episodes: rollout.Episodes,
    settings: config_dict.ConfigDict,
    experiment: str,
    run: Mapping[str, Any],
    further: Mapping[str, Any] | None = None,
) -> dict:
    """Build the row of results of one method's episodes; see `evaluate_actor`."""
    info, spec = agent.info, registry.spec_of_id(agent.info.env_id)
    asks = method not in ("bc", *goal_reaching.METHODS)
    target = agent.target_return(settings.target_fraction) if asks else None
    fraction = (
        {"target_fraction": settings.target_fraction} if "target_fraction" in settings else {}
    )
    return results.result(
        experiment=experiment,
        env_id=info.env_id,
        dataset=info.name,
        method=method,
        seed=run["seed"],
        step=agent.step,
        returns=episodes.returns,
        normalized_scores=registry.normalized_score(spec, episodes.returns),
        target_return=target,
        settings={
            "source": info.source,
            "preset": run["preset"],
            "variant": run["variant"],
            "masks": {name: w for name, w in run["masks"]["patterns"].items() if w},
            "entropy": _entropy(run),
            "history": agent.history,
            "eval_seed": settings.seed,
            **fraction,
            **({"weights": agent.weights} if agent.weights else {}),
            **(further or {}),
        },
        metrics=episode_metrics(agent, episodes),
    )


def _entropy(run: Mapping) -> str | None:
    """Name the bound on the actions' entropy that a run was trained with."""
    if run["variant"] == "mtm":
        return None
    loss = run["loss"]
    return loss["entropy_reduction"] if loss["entropy_constraint"] else "none"


def episode_metrics(agent: pretrained.Pretrained, episodes: rollout.Episodes) -> dict[str, float]:
    """Collect the data set's own scores, the length of episodes and rates of success."""
    spec = registry.spec_of_id(agent.info.env_id)
    known = {"mean": agent.returns.mean, "best": agent.returns.best}
    return {
        **{
            f"dataset_{name}_score": float(registry.normalized_score(spec, value))
            for name, value in known.items()
            if value is not None
        },
        "mean_length": float(np.mean(episodes.lengths)),
        **success_rates(episodes),
    }


def success_rates(episodes: rollout.Episodes) -> dict[str, float]:
    """Fractions of episodes whose task was done; none where the environment does not say."""
    if episodes.successes is None:
        return {}
    return {
        "success_rate": float(np.mean(episodes.successes)),
        "final_success_rate": float(np.mean(episodes.final_successes)),
    }


def say_successes(row: Mapping[str, Any]) -> None:
    """Print the rates of a row that has them."""
    if "success_rate" in row["metrics"]:
        ever, at_end = row["metrics"]["success_rate"], row["metrics"]["final_success_rate"]
        cli.say(
            f"{row['method']} did the task in {ever:.0%} of the episodes, {at_end:.0%} at the end"
        )
