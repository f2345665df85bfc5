"""What every training program shares: many steps in one compiled call, with its state donated."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax.training import accumulation

Metrics = dict[str, Array]  # "group/name" -> scalar
StepFn = Callable[[Any, Any], tuple[Any, Metrics]]
GroupStepFn = Callable[[Any, Any, Any], tuple[Any, Metrics]]

# Among the metrics of `run`: 1 where the state it returns is finite, else 0.
FINITE = "state/finite"
GROUP = "group"  # name of the axis of trainings that share a program


class Located(NamedTuple):
    """Where a training went wrong, or how it stands where it did not."""

    before: Any  # state before the last step
    after: Any
    metrics: Metrics  # of the last step
    steps: Array  # done, []
    finite: Array  # whether state and metrics still are, []


class Trainer(NamedTuple):
    """A training program.

    init(key) -> state, a frozen pytree of arrays with a `step` field.
    run(state, data, length) -> (state, metrics): `length` steps, metrics averaged over them,
        and `FINITE`. The state is donated; `length` is static, one compilation per value.
    locate(state, data, limit) -> `Located`: up to `limit` steps, at least one, to the first after
        which something is not finite. Nothing is donated.
    """

    init: Callable[[Array], Any]
    run: Callable[[Any, Any, int], tuple[Any, Metrics]]
    locate: Callable[[Any, Any, int], Located]


def make_trainer(init: Callable[[Array], Any], step: StepFn) -> Trainer:
    """Wrap `step(state, data) -> (state, metrics)` into a compiled scan."""

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def run(state: Any, data: Any, length: int) -> tuple[Any, Metrics]:
        state, metrics = jax.lax.scan(lambda s, _: step(s, data), state, None, length=length)
        # Once per call is enough: what is not finite stays so, in the optimiser's moments.
        finite = all_finite(state).astype(jnp.float32)
        return state, jax.tree.map(jnp.mean, metrics) | {FINITE: finite}

    @jax.jit
    def locate(state: Any, data: Any, limit: int) -> Located:
        def advance(found: Located) -> Located:
            after, metrics = step(found.after, data)
            finite = all_finite((after, metrics))
            return Located(found.after, after, metrics, found.steps + 1, finite)

        after, metrics = step(state, data)
        first = Located(state, after, metrics, jnp.int32(1), all_finite((after, metrics)))
        return jax.lax.while_loop(lambda f: f.finite & (f.steps < limit), advance, first)

    return Trainer(jax.jit(lambda key: _strongly_typed(init(key))), run, locate)


def make_group_trainer(
    init: Callable[[Array], Any], step: GroupStepFn, members: Any, axis: str | None = None
) -> Trainer:
    """Wrap several trainings into one compiled scan: a state of each, stacked, and the same data.

    Args:
        init: as for `make_trainer`; takes the keys of all, [M].
        step: `step(state, data, member) -> (state, metrics)`, of one training; collectives over
            `GROUP` reach all.
        members: what they differ in, a pytree with a leading axis M on every leaf.
        axis: of a mesh over which the trainings are divided; collectives reach one device's.

    Returns:
        The program, whose metrics are [M]. `locate` is not for groups: its trainings stop each
        for itself.
    """

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def run(states: Any, data: Any, length: int) -> tuple[Any, Metrics]:
        together = jax.vmap(step, in_axes=(0, None, 0), axis_name=GROUP)
        here = accumulation.own_part(members, axis)
        states, metrics = jax.lax.scan(
            lambda s, _: together(s, data, here), states, None, length=length
        )
        finite = jax.vmap(all_finite)(states).astype(jnp.float32)
        return states, jax.tree.map(lambda x: x.mean(0), metrics) | {FINITE: finite}

    def locate(states: Any, data: Any, limit: int) -> Located:
        raise NotImplementedError("a group of trainings is not located; locate one of them")

    return Trainer(jax.jit(lambda keys: _strongly_typed(jax.vmap(init)(keys))), run, locate)


def stack(states: Sequence[Any]) -> Any:
    """Join the states of several trainings into that of a group."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def member(states: Any, k: int) -> Any:
    """Take one training's state out of a group's."""
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
