"""Compiled training programs: many steps in one call, of one run or of a group of runs.

A `Training` says what is trained, as pure functions. `make_program` compiles it for one run;
`make_group_program` compiles several runs that share the data, their states stacked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from mtm_jax.errors import UserError
from mtm_jax.training import sharding

Metrics = dict[str, Array]  # "group/name" -> scalar

# Among the metrics of `run`: 1 where the state it returns is finite, else 0.
FINITE = "state/finite"


class Training(NamedTuple):
    """What one run trains."""

    init: Callable[[Array], Any]  # key -> state, a frozen pytree of arrays with a `step` field
    step: Callable[..., tuple[Any, Metrics]]  # (state, data, *settings) -> (state, metrics)
    settings: tuple[float, ...] = ()  # in which the runs of a group may differ
    shared: Any = None  # the settings in which they may not


class Program(NamedTuple):
    """A compiled training of one run, or of M runs: then states and metrics have an axis [M, ...].

    init(key) -> state.
    run(state, data, length) -> (state, metrics): `length` steps, metrics averaged over them,
        and `FINITE`. The state is donated; `length` is static, one compilation per value.
    """

    init: Callable[[Array], Any]
    run: Callable[[Any, Any, int], tuple[Any, Metrics]]


class Located(NamedTuple):
    """The first step after which something is not finite, or else the last step."""

    before: Any  # state before that step
    after: Any
    metrics: Metrics  # of that step
    steps: Array  # done, that step included, []
    finite: Array  # whether state and metrics still are, []


def make_program(training: Training, mesh: Mesh | None = None) -> Program:
    """Compile the training of one run, whose batches are divided over a mesh."""
    return _compile(training.init, _step_of(training), all_finite, mesh, P())


def make_group_program(trainings: Sequence[Training], mesh: Mesh | None = None) -> Program:
    """Compile the trainings of several runs; `init` takes their keys, [M].

    Each run computes what its own program would, up to rounding; a single one exactly that.

    Args:
        trainings: one for each run.
        mesh: over which runs and batches are divided.

    Raises:
        UserError: the runs differ in more than `settings`.
    """
    first = trainings[0]
    for other in trainings[1:]:
        if other.shared != first.shared:
            raise UserError(
                "runs of one program may differ in what is swept only, and these differ in more: "
                f"{first.shared} and {other.shared}"
            )
    # Settings that all runs share stay constants of the program.
    columns = zip(*(training.settings for training in trainings), strict=True)
    settings = tuple(jnp.asarray(c) if len(set(c)) > 1 else c[0] for c in columns)
    axes = tuple(0 if jnp.ndim(setting) else None for setting in settings)
    runs = len(trainings)
    step = over_runs(first.step, runs, (0, None, *axes))
    return _compile(
        over_runs(first.init, runs, (0,)),
        lambda states, data: step(states, data, *settings),
        over_runs(all_finite, runs, (0,)),
        *(mesh, P(sharding.SEED)),
    )


def make_locate(training: Training, mesh: Mesh | None = None) -> Callable[[Any, Any, int], Located]:
    """Compile `locate(state, data, limit)` of one run, which donates nothing.

    It takes up to `limit` steps, at least one, and stops after the first non-finite one.
    """
    step = _step_of(training)

    def advance(found: Located, data: Any) -> Located:
        after, metrics = step(found.after, data)
        finite = all_finite((after, metrics))
        return Located(found.after, after, metrics, found.steps + 1, finite)

    def locate(state: Any, data: Any, limit: int) -> Located:
        after, metrics = step(state, data)
        first = Located(state, after, metrics, jnp.int32(1), all_finite((after, metrics)))
        goes_on = lambda found: found.finite & (found.steps < limit)  # noqa: E731
        return jax.lax.while_loop(goes_on, lambda found: advance(found, data), first)

    return sharding.jit(locate, mesh, P())


def _step_of(training: Training) -> Callable[[Any, Any], tuple[Any, Metrics]]:
    """Bind the settings of a step."""
    return lambda state, data: training.step(state, data, *training.settings)


def over_runs(function: Callable, runs: int, axes: tuple[int | None, ...]) -> Callable:
    """Vectorise a function of one run over a group.

    Args:
        function: takes and returns trees of arrays.
        runs: M.
        axes: for each argument 0, it is [M, ...], or None: all runs share it.
    """
    if runs > 1:
        return jax.vmap(function, axes, spmd_axis_name=sharding.SEED)

    def of_one(*args: Any) -> Any:
        own = [x if axis is None else member(x, 0) for x, axis in zip(args, axes, strict=True)]
        return stack([function(*own)])

    # Not vmap of one: XLA rounds its batched matmuls differently, while a run must end with the
    # same bits in every program; and there are models that its CPU backend fails to compile then.
    return of_one


def _compile(
    init: Callable, step: Callable, finite: Callable, mesh: Mesh | None, placement: P
) -> Program:
    """Compile `init`, and a scan of `step`; states and metrics lie on the mesh as `placement`."""

    def run(state: Any, data: Any, length: int) -> tuple[Any, Metrics]:
        state, metrics = jax.lax.scan(lambda s, _: step(s, data), state, None, length=length)
        # Once per call is enough: what is not finite stays so, in the optimiser's moments.
        ends_finite = finite(state).astype(jnp.float32)
        return state, jax.tree.map(lambda x: x.mean(0), metrics) | {FINITE: ends_finite}

    return Program(
        sharding.jit(lambda key: _strongly_typed(init(key)), mesh, placement),
        sharding.jit(run, mesh, placement, static_argnums=2, donate_argnums=0),
    )


def stack(states: Sequence[Any]) -> Any:
    """Join the states of several runs into that of a group."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def member(states: Any, k: int) -> Any:
    """Take the state of one run out of a group's."""
    return jax.tree.map(lambda leaf: leaf[k], states)


def all_finite(tree: Any) -> Array:
    """Whether all floating-point numbers of a tree are finite, []."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.array([jnp.isfinite(x).all() for x in leaves]))


def _strongly_typed(state: Any) -> Any:
    """Forget weak types, which `run` would not return: its second call would compile again."""

    def convert(x: Array) -> Array:
        is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return x if is_key else jax.lax.convert_element_type(x, x.dtype)

    return jax.tree.map(convert, state)
