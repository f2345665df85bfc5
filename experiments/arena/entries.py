"""The entries of an arena: recipes and ways of acting as configurations of other programs."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import config_dict

from configs import arena as page
from experiments.runtime import cli, runs
from mtm_jax.errors import UserError
from mtm_jax.io import records

INDEX = "arena.json"  # in the folder of an arena: what its recipes are


class Acting(NamedTuple):
    """A way of acting."""

    name: str
    method: str
    config: config_dict.ConfigDict  # of experiments.m3pc_offline
    against: str  # acting that it is compared with; empty: none


def pretraining(config: config_dict.ConfigDict, recipe: str, name: str) -> config_dict.ConfigDict:
    """Build the configuration of experiments.pretrain for a recipe on a data set.

    Raises:
        UserError: there is no such recipe or data set, or the recipe names an unknown key.
    """
    if recipe not in page.RECIPES:
        raise UserError(f"unknown recipe {recipe!r}; choose among {', '.join(page.RECIPES)}")
    given = {
        **page.RECIPES[recipe],
        "model.compute_dtype": config.compute_dtype,
        "source": config.source,
        "seed": config.seed,
        "seeds": config.seeds,
        "out": str(runs_folder(config, recipe, name)),
    }
    given |= {} if config.steps is None else {"steps": config.steps}
    file = f"configs/pretrain.py:{name},preset={config.preset}"
    parsed = _parse(file, given, f"recipe {recipe}")
    if config.seeds == 1:  # several are named so by themselves
        parsed.out = str(pathlib.Path(parsed.out) / f"seed{config.seed}")
    return parsed


def acting(config: config_dict.ConfigDict, name: str) -> Acting:
    """Build a way of acting.

    Raises:
        UserError: there is none of this name, or it names an unknown key.
    """
    if name not in page.ACTINGS:
        raise UserError(f"unknown acting {name!r}; choose among {', '.join(page.ACTINGS)}")
    method, given, against = page.ACTINGS[name]
    given = {
        "plan.candidates": config.candidates,
        "eval.episodes": config.episodes,
        "eval.seed": config.eval_seed,
        **given,
    }
    return Acting(name, method, _parse("configs/m3pc_offline.py", given, f"acting {name}"), against)


def _parse(file: str, given: Mapping[str, Any], what: str) -> config_dict.ConfigDict:
    arguments = [f"--config={file}", *(f"--config.{k}={v}" for k, v in given.items())]
    try:
        return cli.parse(arguments, file)
    except UserError as error:
        raise UserError(f"{what}: {error}") from error


def runs_folder(config: config_dict.ConfigDict, recipe: str, name: str) -> pathlib.Path:
    """Name the folder of the runs of a recipe on a data set, one for each seed."""
    return pathlib.Path(config.out) / recipe / name


def seed_folders(config: config_dict.ConfigDict, recipe: str, name: str) -> list[pathlib.Path]:
    """Name the run folders of all seeds."""
    seeds = range(config.seed, config.seed + config.seeds)
    return [runs_folder(config, recipe, name) / f"seed{seed}" for seed in seeds]


def settle(config: config_dict.ConfigDict) -> None:
    """Write down what the recipes of an arena are, or hold them to what is written.

    Raises:
        UserError: the folder holds something else, or another recipe under one of the names.
    """
    folder = pathlib.Path(config.out)
    path = folder / INDEX
    if folder.exists() and any(folder.iterdir()) and not path.exists():
        raise UserError(
            f"{folder} is not empty and holds no arena ({INDEX} is missing); choose another folder "
            "with --config.out"
        )
    known = read_index(path)
    stated = {r: records.plain(page.RECIPES[r]) for r in config.recipes}
    shared = {k: config[k] for k in ("preset", "source", "compute_dtype", "steps", "critic_steps")}
    for key, value in shared.items():
        if known.get(key, value) != value:
            raise UserError(
                f"{folder} holds an arena with {key} {known[key]!r}, and {value!r} was asked for; "
                "choose another folder with --config.out"
            )
    for recipe, changes in stated.items():
        differ = runs.differences(known.get("recipes", {}).get(recipe, changes), changes)
        if differ:
            raise UserError(
                f"{folder} holds another recipe {recipe}: {'; '.join(differ.values())}; rename it "
                "or choose another folder with --config.out"
            )
    folder.mkdir(parents=True, exist_ok=True)
    index = shared | {"recipes": known.get("recipes", {}) | stated}
    if index != known:
        runs.write_text(path, json.dumps(index, indent=2) + "\n")


def read_index(path: pathlib.Path) -> dict[str, Any]:
    """Read what the recipes of an arena are; empty where there is none yet.

    Raises:
        UserError: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
        if isinstance(found, dict) and isinstance(found.get("recipes"), dict):
            return found
        raise ValueError("it lists no recipes")
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); restore it") from error


def rows(config: config_dict.ConfigDict, recipes: Sequence[str]) -> list[dict]:
    """Read all rows of results of some recipes."""
    found = []
    for recipe in recipes:
        for name in config.names:
            path = runs_folder(config, recipe, name) / "results.jsonl"
            found += records.read_jsonl(path) if path.exists() else []
    return found
