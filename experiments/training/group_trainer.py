"""Trains the runs of one program, of which a single run is the simplest case."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
from jax.sharding import Mesh

from experiments.runtime import cli, compilation
from experiments.training import nonfinite
from experiments.training.loop import Row
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint
from mtm_jax.training import program, sharding


class Run(Protocol):
    """What is stored of one run."""

    folder: pathlib.Path
    seed: int

    def hold(self) -> contextlib.AbstractContextManager:
        """Hold the folder against other processes."""

    def open_checkpoints(self) -> checkpoint.Checkpoints:
        """Open the checkpoints of the run, and return them."""

    def restore(self, fresh: Any, step: int | None) -> Any:
        """Continue from the checkpoint of a step, by default the newest."""

    def begin_log(self, step: int) -> None:
        """Drop the metrics after a step, which is repeated."""

    def log(self, step: int, row: Row) -> None:
        """Store metrics."""

    def save(self, state: Any, row: Row | None) -> None:
        """Write a checkpoint."""


class Validation(NamedTuple):
    """Measures models on held-out data."""

    measure: Callable[[Any, Any, jax.Array], dict]  # (params, data, key) -> metrics
    data: Any
    key: jax.Array
    weights: Callable[[Any], Any]  # state -> params


class GroupTrainer:
    """The trainer of several runs that share data and a program; see `loop.Trainer`."""

    def __init__(
        self,
        runs: Sequence[Run],
        guards: Sequence[nonfinite.Guard],
        data: Any,
        summary: Callable[[Sequence[Row]], str],
        validation: Validation | None = None,
        mesh: Mesh | None = None,
    ):
        """Build the program, which compiles when it is first called.

        Args:
            runs: where each is stored.
            guards: what each trains.
            data: of all, on every device.
            summary: for the progress bar.
            validation: of every run.
            mesh: that the program runs on.
        """
        self.step = 0
        self.runs, self._guards, self._data = runs, guards, data
        self._mesh, self._states, self._compiled = mesh, None, False
        self._program = nonfinite.GuardedProgram(guards, mesh)
        self._validation = validation
        if validation is not None:
            over_runs = program.over_runs(validation.measure, len(runs), (0, None, None))
            self._measure = jax.jit(over_runs)
        self.summary = summary

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the folders of all runs."""
        with contextlib.ExitStack() as held:
            for run in self.runs:
                held.enter_context(run.hold())
            yield

    def resume(self) -> None:
        """Continue every run from the newest step that all have a checkpoint of.

        Raises:
            UserError: a checkpoint is damaged or of another run, or they are of different steps.
        """
        states = sharding.main_first(self._restore)
        steps = [int(state.step) for state in states]
        if len(set(steps)) > 1:
            raise UserError(
                f"the runs would go on from different steps, {steps}, after damaged checkpoints; "
                "continue each by itself first"
            )
        self.step = steps[0]
        self._states = sharding.distribute(program.stack(states), self._mesh)
        for run in self.runs:
            run.begin_log(self.step)

    def _restore(self) -> list[Any]:
        checkpoints = [run.open_checkpoints() for run in self.runs]
        step = common_step(checkpoints)
        if step is not None:
            cli.say(f"not all runs were saved as far as the others: all go on from step {step}")
        init = program.make_program(self._guards[0].training).init
        states = [run.restore(init(jax.random.key(run.seed)), step) for run in self.runs]
        if step is not None:
            for found in checkpoints:
                found.go_back(step)  # what is saved later must not pass for what is trained now
        return states

    def run(self, length: int) -> list[Row]:
        """Call the program; see `nonfinite.GuardedProgram.run`."""
        with compilation.stopwatch() as watch:
            self._states, rows = self._program.run(self._states, self._data, length)
        if not self._compiled:
            cli.say(f"compiled in {watch.seconds:.1f} s")
        self._compiled = True
        self.step += length
        return rows

    def validate(self) -> list[Row]:
        """Measure every run, on one device."""
        held_out = self._validation
        params = sharding.local(held_out.weights(self._states), self._mesh)
        return nonfinite.rows_of(self._measure(params, held_out.data, held_out.key))

    def measured(self) -> list[str]:
        """Name all metrics, without computing or compiling anything."""
        states, found = self._program.shapes(self._data)
        if self._validation is not None:
            held_out = self._validation
            params = held_out.weights(states)
            found |= jax.eval_shape(self._measure, params, held_out.data, held_out.key)
        return sorted(found.keys() - {program.FINITE})

    def log(self, rows: Sequence[Row]) -> None:
        """Store the metrics of every run."""
        for run, row in zip(self.runs, rows, strict=True):
            run.log(self.step, row)

    def save(self, rows: Sequence[Row] | None) -> None:
        """Write a checkpoint of every run."""
        rows = rows or [None] * len(self.runs)
        for run, state, row in zip(self.runs, self.states(), rows, strict=True):
            run.save(state, row)

    def states(self) -> list[Any]:
        """Give the present state of every run."""
        here = sharding.local(self._states, self._mesh)
        return [nonfinite.member(here, k) for k in range(len(self.runs))]


def common_step(group: Sequence[checkpoint.Checkpoints]) -> int | None:
    """Find the newest step that all runs have a checkpoint of; None if that is each one's newest.

    A process that is killed while it saves leaves some a checkpoint ahead of the others.
    """
    steps = [[0, *checkpoints.steps()] for checkpoints in group]
    if len({found[-1] for found in steps}) == 1:
        return None
    return max(set.intersection(*map(set, steps)))
