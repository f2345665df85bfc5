"""Runs that are trained in one program: seeds, and values of settings that may differ.

    python -m experiments.pretrain --config=configs/pretrain.py:hopper-medium --config.seeds=5
    python -m experiments.pretrain ... --config.sweep.learning_rate="(1e-3,3e-3)"

Each has the folder and the configuration that it has alone, and can be continued alone.
"""

from __future__ import annotations

import itertools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import config_dict

from experiments.training import build, nonfinite
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint
from mtm_jax.training import sharding
from mtm_jax.training import trainer as training

T = TypeVar("T")

# Keys of a configuration that say what is trained together; no run has them.
KEYS = ("seeds", "sweep")
MAX_SEEDS = 1000
# Key of `sweep` -> the key of a run that it varies.
SWEPT = {"learning_rate": "optim.learning_rate", "entropy_target": "loss.entropy_target"}


def members(config: config_dict.ConfigDict) -> list[config_dict.ConfigDict]:
    """List the configurations of the runs, each as that of a run alone, its folder in `out`.

    Raises:
        UserError: there is none, or two are the same.
    """
    if not 1 <= config.seeds <= MAX_SEEDS:
        raise UserError(f"seeds is {config.seeds}; give a number from 1 to {MAX_SEEDS}")
    values = {key: tuple(config.sweep[key]) for key in SWEPT if config.sweep[key]}
    for key, found in values.items():
        if not all(type(value) in (int, float) and math.isfinite(value) for value in found):
            raise UserError(f"sweep.{key} is {found}; give finite numbers, such as (1e-3,3e-3)")
    twice = [key for key, found in values.items() if len(set(found)) < len(found)]
    if twice:
        raise UserError(f"sweep.{twice[0]} is {values[twice[0]]}; give every value once")
    seeds = range(config.seed, config.seed + config.seeds)
    points = itertools.product(seeds, *values.values())
    found = [
        _member(config, seed, dict(zip(values, point, strict=True))) for seed, *point in points
    ]
    if len(found) > 1:
        for one in found:
            one.out = str(_folder(config, one, values))
    return found


def _member(
    config: config_dict.ConfigDict, seed: int, point: Mapping[str, float]
) -> config_dict.ConfigDict:
    one = config.copy_and_resolve_references()
    with one.unlocked():
        for key in KEYS:
            del one[key]
    one.seed = seed
    one.update_from_flattened_dict({SWEPT[key]: float(v) for key, v in point.items()})
    return one


def _folder(
    config: config_dict.ConfigDict, one: config_dict.ConfigDict, swept: Sequence[str]
) -> pathlib.Path:
    """Name the folder of one run: below `out`, or where it goes alone."""
    flat = {key: one[SWEPT[key].split(".")[0]][SWEPT[key].split(".")[1]] for key in swept}
    label = "".join(f"-{key}{value:g}" for key, value in flat.items())
    if config.out:
        return pathlib.Path(config.out) / f"seed{one.seed}{label}"
    alone = build.default_out(one)
    return alone.with_name(alone.name + label)


def common_step(every: Sequence[checkpoint.Checkpoints]) -> int | None:
    """Find the newest step that all runs have a checkpoint of; None where it is each one's newest.

    A process that is killed while it saves leaves some a checkpoint ahead of the others.
    """
    steps = [[0, *checkpoints.steps()] for checkpoints in every]
    if len({found[-1] for found in steps}) == 1:
        return None
    return max(set.intersection(*map(set, steps)))


def go_back(every: Sequence[checkpoint.Checkpoints], step: int | None) -> None:
    """Set aside what is saved after the `common_step`, lest it pass for what is trained now."""
    for checkpoints in every:
        if step is not None:
            checkpoints.go_back(step)


class Together:
    """A trainer of one run or of several: the same calls, a list with an entry for each run."""

    def __init__(
        self,
        trainer: training.Trainer,
        guards: Sequence[nonfinite.Guard],
        validate: Callable | None = None,
        mesh: Mesh | None = None,
    ):
        """Bundle what is compiled.

        Args:
            trainer: of all; for several, what `training.make_group_trainer` builds.
            guards: of each alone.
            validate: (params, data, key) -> metrics, of one.
            mesh: that the trainer runs on.
        """
        self._trainer, self._guards, self._mesh = trainer, guards, mesh
        self.alone = len(guards) == 1
        self._validate = validate
        if validate is not None and not self.alone:
            self._validate = jax.jit(jax.vmap(validate, in_axes=(0, None, None)))
        self._copy = jax.jit(lambda state: jax.tree.map(jnp.copy, state))

    def join(self, states: Sequence[Any]) -> Any:
        """Make the state of all.

        Raises:
            UserError: they are of different steps.
        """
        steps = [int(state.step) for state in states]
        if len(set(steps)) > 1:
            raise UserError(
                f"the runs would go on from different steps, {steps}, after damaged checkpoints; "
                "continue each by itself first"
            )
        return states[0] if self.alone else training.stack(states)

    def part(self, tree: T, k: int) -> T:
        """Take the part of one run."""
        return tree if self.alone else training.member(tree, k)

    def run(self, state: Any, data: Any, length: int) -> tuple[Any, list[dict[str, float]]]:
        """Call the trainer; see `nonfinite.Guard.run`."""
        if self.alone:
            state, row = self._guards[0].run(state, data, length)
            return state, [row]
        before = self._copy(state)
        state, metrics = self._trainer.run(state, data, length)
        rows = self._rows(sharding.local(metrics, self._mesh))
        before, data = (sharding.local(tree, self._mesh) for tree in (before, data))
        for k, (guard, row) in enumerate(zip(self._guards, rows, strict=True)):
            guard.inspect(self.part(before, k), data, length, row)
        return state, rows

    def validate(self, params: Any, data: Any, key: jax.Array) -> list[dict[str, float]]:
        """Measure every run."""
        return self._rows(self._validate(params, data, key))

    def measured(self, params: Any, data: Any, key: jax.Array) -> list[str]:
        """Name what `validate` measures, without computing it."""
        return list(jax.eval_shape(self._validate, params, data, key))

    def _rows(self, metrics: Mapping[str, jax.Array]) -> list[dict[str, float]]:
        found = jax.device_get(metrics)
        return [
            {name: float(self.part(value, k)) for name, value in found.items()}
            for k in range(len(self._guards))
        ]
