"""Stops a training whose numbers are no longer finite, and says since which step and where.

    guarded = nonfinite.GuardedProgram([nonfinite.Guard(training, folder)])
    states, rows = guarded.run(states, data, length)

The step is found by repeating the steps of one compiled call from a copy of its first state.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.runtime import cli
from mtm_jax.data import archives
from mtm_jax.errors import UserError
from mtm_jax.io import trees
from mtm_jax.training import program, sharding

FOLDER = "debug"  # of a run: states before steps that went wrong
SHOWN = 6

member = jax.jit(program.member)


class Examined(NamedTuple):
    """What a program says of the batch of a step."""

    text: str  # which of its elements are to blame
    arrays: Mapping[str, np.ndarray]  # the batch, by name


class Guard(NamedTuple):
    """How a run is stopped.

    Attributes:
        training: of the run.
        folder: where the state before a step that went wrong is stored.
        unit: what a step is called, in the plural.
        examine: takes the state before a step and the data, and looks at the batch.
        advice: ends the sentence that stops the run.
    """

    training: program.Training
    folder: pathlib.Path
    unit: str = "steps"
    examine: Callable[[Any, Any], Examined] | None = None
    advice: str = ""

    def stop(
        self, before: Any, data: Any, length: int, row: Mapping[str, float], mesh: Mesh | None
    ) -> UserError:
        """Find what went wrong in a call that began with the state `before`."""
        first = int(before.step)
        where = f"between {self.unit} {first} and {first + length}"
        cli.say(
            f"training went wrong {where}: {_list(_what(row))}; looking for the first such "
            f"{self.unit.removesuffix('s')}, which compiles a program for it"
        )
        found = program.make_locate(self.training, mesh)(before, data, length)
        if found.finite:  # repeated, it went well: a processor's fault, or another rounding
            return self._error(where, _what(row), "repeated one by one, the same went well")
        step = first + int(found.steps)
        what = bad_metrics(jax.device_get(found.metrics)) + bad_arrays(found.after)
        examined = self.examine(found.before, data) if self.examine else Examined("", {})
        path = self.folder / FOLDER / f"before_{step:08d}.npz"
        text = "; ".join(filter(None, (examined.text, _store(path, found.before, examined))))
        return self._error(f"in {self.unit.removesuffix('s')} {step}", what, text)

    def _error(self, where: str, what: list[str], text: str) -> UserError:
        advice = f"; {self.advice}" if self.advice else ""
        return UserError(f"training went wrong {where}: {_list(what)}; {text}{advice}")


class GuardedProgram:
    """The program of a group of runs, which looks at what it returns."""

    def __init__(self, guards: Sequence[Guard], mesh: Mesh | None = None):
        """Build the program, which compiles when it is first called.

        Args:
            guards: one for each run.
            mesh: that the program runs on.
        """
        self._program = program.make_group_program([g.training for g in guards], mesh)
        self._guards, self._mesh = guards, mesh
        self._copy = jax.jit(lambda states: jax.tree.map(jnp.copy, states))

    def run(self, states: Any, data: Any, length: int) -> tuple[Any, list[dict[str, float]]]:
        """Call the program; the metrics come back as finite numbers, a row for each run.

        Raises:
            UserError: something is not finite; it names the step and what it is.
        """
        before = self._copy(states)  # the states themselves are donated
        states, metrics = self._program.run(states, data, length)
        rows = rows_of(sharding.local(metrics, self._mesh))
        for k, row in enumerate(rows):
            if not row.pop(program.FINITE) or bad_metrics(row):
                raise self._stop(k, before, data, length, row)
        return states, rows

    def shapes(self, data: Any) -> tuple[Any, dict[str, Any]]:
        """Give the shapes of states and metrics, without computing or compiling anything."""
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), len(self._guards)))
        states = jax.eval_shape(self._program.init, keys)
        return jax.eval_shape(lambda s, d: self._program.run(s, d, 1), states, data)

    def _stop(self, k: int, before: Any, data: Any, length: int, row: Mapping) -> UserError:
        mesh = self._mesh
        if len(self._guards) > 1:  # a run of several is searched on one device
            before, data, mesh = sharding.local(before, mesh), sharding.local(data, mesh), None
        return self._guards[k].stop(member(before, k), data, length, row, mesh)


def rows_of(metrics: Mapping[str, jax.Array]) -> list[dict[str, float]]:
    """Turn metrics [M] into a row of numbers for each run."""
    found = jax.device_get(metrics)
    runs = len(next(iter(found.values())))
    return [{name: float(values[k]) for name, values in found.items()} for k in range(runs)]


def _what(row: Mapping[str, float]) -> list[str]:
    return bad_metrics(row) or ["the state is not finite"]


def _list(what: Sequence[str]) -> str:
    more = f" and {len(what) - SHOWN} more" if len(what) > SHOWN else ""
    return ", ".join(what[:SHOWN]) + more


def _store(path: pathlib.Path, state: Any, examined: Examined) -> str:
    """Store the state before a step, if the disk takes it; say where."""
    if jax.process_index() == 0:
        try:
            write(path, state, examined.arrays)
        except OSError as error:
            return f"the state before could not be stored ({error})"
    return f"the state before is in {path}"


def check(step: int, length: int, rows: Sequence[Mapping[str, float]]) -> None:
    """Refuse metrics that are not finite.

    Raises:
        UserError: it names them and the steps.
    """
    for row in rows:
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


def examine_rows(batch: Any) -> Examined:
    """Say which rows of a batch, a dataclass of arrays, are not finite."""
    arrays = {f.name: np.asarray(getattr(batch, f.name)) for f in dataclasses.fields(batch)}
    return Examined(bad_rows(arrays), arrays)


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
