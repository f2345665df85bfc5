"""Compare TD3 on raw states with TD3 on features of a model pretrained without rewards.

    python -m experiments.representation --config.quick=True
    python -m experiments.representation

Pretrains, trains every task and kind of features that is not trained yet, all seeds in one program,
and writes into the folder curves.png, with 95% intervals over seeds, and representation.jsonl. The
table says after how many updates each seed reaches 90% of what raw states reach in the end. The
same command continues what was interrupted.
"""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

import numpy as np
import rich.console
import rich.table
from ml_collections import config_dict

from configs import representation as page
from experiments import pretrain, td3
from experiments.runtime import cli
from mtm_jax.envs import walker_tasks
from mtm_jax.errors import UserError
from mtm_jax.io import metrics, records
from mtm_jax.plots import curves

LEVEL = 0.9  # of the return that raw states reach in the end
END = 0.2  # last part of a curve, whose mean is what it reaches

Curve = dict[int, list[float]]  # updates -> mean return of each seed


class Reached(NamedTuple):
    """How fast one kind of features learns a task."""

    task: str
    features: str
    level: float  # return to reach
    updates: list[int | None]  # until each seed does; None where it does not
    end: float  # return in the end, mean over seeds


def main(config: config_dict.ConfigDict) -> None:
    """Check everything, do what remains, print the table, draw the figure."""
    complete(config)
    check(config)
    if not config.report:
        pretrain.train(pretraining(config))
        for task in config.tasks:
            for features in config.features:
                cli.say(f"TD3, {task}, {features}")
                td3.main(training(config, task, features))
    show(config)


def complete(config: config_dict.ConfigDict) -> None:
    """Fill in what `quick` decides, and the folder."""
    if config.quick:
        config.update(page.QUICK)
    config.out = config.out or f"runs/representation{'-quick' * config.quick}"


def check(config: config_dict.ConfigDict) -> None:
    """Refuse settings before anything is trained.

    Raises:
        UserError: a task or a kind of features is unknown, or a number is out of range.
    """
    for key, known in (("tasks", walker_tasks.TASKS), ("features", tuple(page.FEATURES))):
        unknown = [name for name in config[key] if name not in known]
        if unknown or not config[key]:
            raise UserError(f"{key} are {config[key]}; choose among {', '.join(known)}")
    if "raw" not in config.features:
        raise UserError(f"features are {config.features}; name raw, which the others are held to")
    for key in ("data_steps", "pretraining_steps", "seeds"):
        if config[key] is not None and config[key] < 1:
            raise UserError(f"{key} is {config[key]}; it must be at least 1")
    for task in config.tasks:
        for features in config.features:
            td3.check(training(config, task, features))
    pretrain.check(pretraining(config))


def pretraining(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """Configure the model: states and actions of the explorer, which all tasks share."""
    name = f"walker_run-explore,variant=mtm,preset={config.preset}"
    keys = {"data.steps": config.data_steps, "steps": config.pretraining_steps}
    keys |= {"seed": config.seed, "data.rewards": False, "out": f"{config.out}/model"}
    return _parse("pretrain", name, keys)


def training(config: config_dict.ConfigDict, task: str, features: str) -> config_dict.ConfigDict:
    """Configure TD3 on one task."""
    keys = {
        "data.steps": config.data_steps,
        "steps": config.steps,
        "out": folder(config, task, features),
    }
    keys |= {"seed": config.seed, "seeds": config.seeds}
    keys |= {"eval.every": config.every, "eval.episodes_on_the_way": config.episodes}
    keys |= {"eval.episodes": config.episodes, "eval.seed": config.eval_seed}
    keys |= {f"features.{name}": value for name, value in page.FEATURES[features].items()}
    if features != "raw":
        keys["features.run"] = f"{config.out}/model"
    return _parse("td3", f"walker_{task}-explore,preset={config.preset}", keys)


def _parse(experiment: str, name: str, keys: dict[str, Any]) -> config_dict.ConfigDict:
    """Read a page with these keys; those that are None stay as the page has them."""
    file = f"configs/{experiment}.py"
    given = [f"--config.{key}={value}" for key, value in keys.items() if value is not None]
    return cli.parse([f"--config={file}:{name}", *given], file)


def folder(config: config_dict.ConfigDict, task: str, features: str) -> pathlib.Path:
    """Name the folder of all seeds of a training."""
    return pathlib.Path(config.out) / f"{task}-{features}"


def read_curve(config: config_dict.ConfigDict, task: str, features: str) -> Curve:
    """Read the evaluations that all seeds have so far."""
    seeds = range(config.seed, config.seed + config.seeds)
    where = folder(config, task, features)
    folders = [where / f"seed{seed}" for seed in seeds] if config.seeds > 1 else [where]
    paths = [path / metrics.METRICS_FILE for path in folders]
    rows = [records.read_jsonl(path) if path.exists() else [] for path in paths]
    found = [{row["step"]: row["eval/return"] for row in r if "eval/return" in row} for r in rows]
    steps = sorted(set.intersection(*(set(curve) for curve in found)))
    return {step: [curve[step] for curve in found] for step in steps}


def end_of(curve: Curve) -> float:
    """Average the last part of a curve over evaluations and seeds."""
    means = [float(np.mean(curve[step])) for step in sorted(curve)]
    return float(np.mean(means[-max(1, round(END * len(means))) :]))


def updates_to(curve: Curve, level: float) -> list[int | None]:
    """Find when each seed first returns at least `level`."""
    steps, seeds = sorted(curve), len(next(iter(curve.values())))
    return [next((s for s in steps if curve[s][k] >= level), None) for k in range(seeds)]


def compare(task: str, found: dict[str, Curve]) -> list[Reached]:
    """Hold every kind of features to raw states."""
    level = LEVEL * end_of(found["raw"])
    return [
        Reached(task, name, level, updates_to(curve, level), end_of(curve))
        for name, curve in found.items()
    ]


def show(config: config_dict.ConfigDict) -> None:
    """Print the table of what there is, draw and store it."""
    panels, rows = {}, []
    for task in config.tasks:
        read = {features: read_curve(config, task, features) for features in config.features}
        found = {name: curve for name, curve in read.items() if curve}
        if "raw" in found:
            rows += compare(task, found)
            panels[task] = {
                name: {step: [[value] for value in values] for step, values in curve.items()}
                for name, curve in found.items()
            }
    if not rows:
        cli.say(f"nothing has been evaluated in {config.out} yet")
        return
    rich.console.Console(width=120).print(table(rows))
    out = pathlib.Path(config.out)
    shared = {"seeds": config.seeds, "preset": config.preset, "episodes": config.episodes}
    records.rewrite(out / "representation.jsonl", [row._asdict() | shared for row in rows])
    labels = {"axis_label": "updates", "score_label": "return", "logarithmic": False}
    cli.say(f"figure: {curves.draw(panels, path=out / 'curves.png', **labels)}")


def table(rows: list[Reached]) -> rich.table.Table:
    """Tabulate updates to the level, and the speed relative to raw states."""
    found = rich.table.Table(
        "task", "features", "return in the end", "updates to the level", "raw / this"
    )
    raw = {row.task: _mean(row.updates) for row in rows if row.features == "raw"}
    for row in rows:
        own, base = _mean(row.updates), raw[row.task]
        ratio = "-" if own is None or base is None else f"{base / own:.2f}"
        reached = ", ".join("never" if n is None else str(n) for n in row.updates)
        found.add_row(
            row.task, row.features, f"{row.end:.1f}", f"{reached} ({row.level:.1f})", ratio
        )
    return found


def _mean(updates: list[int | None]) -> float | None:
    """Average over the seeds; None if one never gets there."""
    return None if None in updates else float(np.mean(updates))


if __name__ == "__main__":
    cli.run(main)
