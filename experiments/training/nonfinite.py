"""Stops a training whose numbers are no longer finite, and says since which step and where.

    guard = nonfinite.Guard(trainer, folder, "steps")
    state, row = guard.run(state, data, length)

The step is found by repeating the steps of one compiled call from a copy of its first state.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtm_jax.data import archives
from mtm_jax.errors import UserError
from mtm_jax.io import trees
from mtm_jax.training import trainer as training

FOLDER = "debug"  # of a run: states before steps that went wrong
SHOWN = 6


class Examined(NamedTuple):
    """What a program says of the batch of a step."""

    text: str  # which of its elements are to blame
    arrays: Mapping[str, np.ndarray]  # the batch, by name


class Guard:
    """Runs a trainer and looks at what it returns."""

    def __init__(
        self,
        trainer: training.Trainer,
        folder: pathlib.Path,
        unit: str = "steps",
        examine: Callable[[Any, Any], Examined] | None = None,
        advice: str = "",
    ):
        """Guard a training.

        Args:
            trainer: the program.
            folder: where the state before a step that went wrong is stored.
            unit: what a step is called, in the plural.
            examine: takes the state before a step and the data, and looks at the batch.
            advice: ends the sentence that stops the run.
        """
        self._trainer, self._folder, self._unit = trainer, folder, unit
        self._examine, self._advice = examine, advice
        self._copy = jax.jit(lambda state: jax.tree.map(jnp.copy, state))

    def run(self, state: Any, data: Any, length: int) -> tuple[Any, dict[str, float]]:
        """Call `trainer.run`; the metrics come back as numbers, all of them finite.

        Raises:
            UserError: something is not finite; it names the step and what it is.
        """
        before = self._copy(state)  # the state itself is donated
        state, metrics = self._trainer.run(state, data, length)
        row = {name: float(value) for name, value in metrics.items()}
        self.inspect(before, data, length, row)
        return state, row

    def inspect(self, before: Any, data: Any, length: int, row: dict[str, float]) -> None:
        """Look at the metrics of a call that began with the state `before`; see `run`.

        `training.FINITE` is taken out of them.
        """
        finite = row.pop(training.FINITE)
        if not finite or bad_metrics(row):
            self._stop(before, data, length, row)

    def _stop(self, before: Any, data: Any, length: int, row: Mapping[str, float]) -> None:
        first = int(before.step)
        where = f"between {self._unit} {first} and {first + length}"
        found = self._trainer.locate(before, data, length)
        if found.finite:  # repeated, it went well: a processor's fault, or another rounding
            what = bad_metrics(row) or ["the state is not finite"]
            raise self._error(where, what, "repeated one by one, the same went well")
        step = first + int(found.steps)
        what = bad_metrics(jax.device_get(found.metrics)) + bad_arrays(found.after)
        examined = self._examine(found.before, data) if self._examine else Examined("", {})
        path = self._folder / FOLDER / f"before_{step:08d}.npz"
        stored = f"the state before is in {path}"
        if jax.process_index() == 0:
            try:
                write(path, found.before, examined.arrays)
            except OSError as error:
                stored = f"the state before could not be stored ({error})"
        text = "; ".join(part for part in (examined.text, stored) if part)
        raise self._error(f"in {self._unit.removesuffix('s')} {step}", what, text)

    def _error(self, where: str, what: list[str], text: str) -> UserError:
        more = f" and {len(what) - SHOWN} more" if len(what) > SHOWN else ""
        listed = ", ".join(what[:SHOWN]) + more
        advice = f"; {self._advice}" if self._advice else ""
        return UserError(f"training went wrong {where}: {listed}; {text}{advice}")


def check(step: int, length: int, row: Mapping[str, float]) -> None:
    """Refuse metrics that are not finite.

    Raises:
        UserError: it names them and the steps.
    """
    if bad := bad_metrics(row):
        raise UserError(
            f"training went wrong between steps {step - length} and {step}: {', '.join(bad)}; "
            "the last checkpoint is from before"
        )


def bad_metrics(row: Mapping[str, Any]) -> list[str]:
    """Name the metrics that are not finite, with their values."""
    return [f"{name} is {float(v)}" for name, v in row.items() if not np.isfinite(v)]


def bad_arrays(tree: Any) -> list[str]:
    """Name the arrays of a tree in which something is not finite, with how much."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            continue
        bad = int((~np.isfinite(np.asarray(leaf, np.float32))).sum())
        if bad:
            found.append(f"{trees.path_name(path)[1:]} has {bad} of {leaf.size} not finite")
    return found


def bad_rows(batch: Mapping[str, np.ndarray]) -> str:
    """Say in which rows of a batch something is not finite."""
    bad = [~np.isfinite(x).reshape(len(x), -1).all(axis=1) for x in batch.values()]
    found = np.flatnonzero(np.any(bad, axis=0))
    if len(found) == 0:
        return "its batch is finite"
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"rows {', '.join(map(str, found[:SHOWN]))}{more} of its batch are not finite"


def write(path: pathlib.Path, state: Any, batch: Mapping[str, np.ndarray]) -> None:
    """Store a state, as "state/...", and a batch, as "batch/..."."""
    leaves = jax.tree_util.tree_leaves_with_path(trees.to_host(state))
    arrays = {f"state{trees.path_name(where)}": leaf for where, leaf in leaves}
    arrays |= {f"batch/{name}": np.asarray(value) for name, value in batch.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: pathlib.Path, like: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """Read what `write` stored, the state into the structure of `like`.

    Raises:
        UserError: it cannot be read, or holds a state of another model.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (*archives.DAMAGE, AttributeError) as error:  # the last: a file of one array
        raise UserError(f"{path} cannot be read ({error}); give a file of {FOLDER}/") from error
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    names = [f"state{trees.path_name(where)}" for where, _ in leaves]
    shapes = {f"state{name}": shape for name, shape in trees.shapes(trees.to_host(like)).items()}
    wrong = [n for n in names if n not in arrays or arrays[n].shape != shapes[n]]
    if wrong:
        raise UserError(
            f"{path} belongs to another model: {len(wrong)} arrays differ, the first is "
            f"{wrong[0]}; use the configuration of its run"
        )
    parts = [
        trees.like_original(leaf, arrays[n]) for n, (_, leaf) in zip(names, leaves, strict=True)
    ]
    batch = {k.removeprefix("batch/"): v for k, v in arrays.items() if k.startswith("batch/")}
    return jax.tree.unflatten(structure, parts), batch
