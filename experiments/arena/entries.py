"""The entries of an arena: recipes and ways of acting as configurations of other programs.

A study (`experiments.mtm_study`) is an arena whose configuration names a study; its recipes and
ways of acting are those of `configs/mtm_study.py`, and every recipe has ways of acting of its own.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import config_dict

from configs import arena as arena_page
from configs import mtm_study as study_page
from experiments.runtime import cli, runs
from mtm_jax.errors import UserError
from mtm_jax.io import records

INDEX = "arena.json"  # in the folder of an arena: what its recipes are


# Settings that all runs of an arena share.
SHARED = ("preset", "variant", "source", "compute_dtype", "steps", "data_steps", "critic_steps")
RESULTS, ERRORS = "results.jsonl", "errors.jsonl"  # rows of episodes, and of held-out errors


def program_of(config: config_dict.ConfigDict) -> str:
    """Name the program of a configuration."""
    return "mtm_study" if "study" in config else "arena"


def page_of(config: config_dict.ConfigDict) -> Any:
    """Find the page that says what the recipes and ways of acting of a configuration are."""
    return study_page if "study" in config else arena_page


def actings(config: config_dict.ConfigDict, recipe: str) -> tuple[str, ...]:
    """Name the ways of acting that a recipe is evaluated in."""
    if "study" not in config:
        return tuple(config.actings)
    found = study_page.STUDIES[config.study].recipes[recipe]
    return tuple(name for name in found if not config.actings or name in config.actings)


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
    recipes = page_of(config).RECIPES
    if recipe not in recipes:
        raise UserError(f"unknown recipe {recipe!r}; choose among {', '.join(recipes)}")
    given = {
        **recipes[recipe],
        "model.compute_dtype": config.compute_dtype,
        "source": config.source,
        "seed": config.seed,
        "seeds": config.seeds,
        "out": str(runs_folder(config, recipe, name)),
    }
    given |= {} if config.steps is None else {"steps": config.steps}
    given |= {"data.steps": config.data_steps} if config.get("data_steps") else {}
    file = f"configs/pretrain.py:{name},preset={config.preset}"
    file += f",variant={config.variant}" if "variant" in config else ""
    parsed = _parse(file, given, f"recipe {recipe}")
    if config.seeds == 1:  # several are named so by themselves
        parsed.out = str(pathlib.Path(parsed.out) / f"seed{config.seed}")
    return parsed


def acting(config: config_dict.ConfigDict, name: str) -> Acting:
    """Build a way of acting.

    Raises:
        UserError: there is none of this name, or it names an unknown key.
    """
    known = page_of(config).ACTINGS
    if name not in known:
        raise UserError(f"unknown acting {name!r}; choose among {', '.join(known)}")
    method, given, against = known[name]
    given = {
        "plan.candidates": config.get("candidates", 1),
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
    stated = {r: records.plain(page_of(config).RECIPES[r]) for r in config.recipes}
    shared = {k: config[k] for k in SHARED if k in config}
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
    """Read all rows of results and of errors of some recipes."""
    found = []
    for recipe in recipes:
        for name in config.names:
            for file in (RESULTS, ERRORS):
                path = runs_folder(config, recipe, name) / file
                found += records.read_jsonl(path) if path.exists() else []
    return found
