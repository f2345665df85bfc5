"""What every training program shares: many steps in one compiled call, with its state donated."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

Metrics = dict[str, Array]  # "group/name" -> scalar
StepFn = Callable[[Any, Any], tuple[Any, Metrics]]


class Trainer(NamedTuple):
    """A training program.

    init(key) -> state, a frozen pytree of arrays with a `step` field.
    run(state, data, length) -> (state, metrics): `length` steps, metrics averaged over them.
        The state is donated; `length` is static, one compilation per value.
    """

    init: Callable[[Array], Any]
    run: Callable[[Any, Any, int], tuple[Any, Metrics]]


def make_trainer(init: Callable[[Array], Any], step: StepFn) -> Trainer:
    """Wrap `step(state, data) -> (state, metrics)` into a compiled scan."""

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def run(state: Any, data: Any, length: int) -> tuple[Any, Metrics]:
        state, metrics = jax.lax.scan(lambda s, _: step(s, data), state, None, length=length)
        return state, jax.tree.map(jnp.mean, metrics)

    return Trainer(jax.jit(lambda key: _strongly_typed(init(key))), run)


def _strongly_typed(state: Any) -> Any:
    """Forget weak types, which `run` would not return: its second call would compile again."""

    def convert(x: Array) -> Array:
        is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return x if is_key else jax.lax.convert_element_type(x, x.dtype)

    return jax.tree.map(convert, state)
