"""The compiled scan: one compilation, averaged metrics, and parts that add up to the whole."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtm_jax.training import program


class State(flax.struct.PyTreeNode):
    """A random walk."""

    total: jax.Array
    moments: optax.OptState
    key: jax.Array
    step: jax.Array


def make(traces):
    optimizer = optax.adam(0.1)

    def init(key):
        weak = jnp.log(jnp.asarray(0.1))  # weakly typed, as a Python number makes it
        return State(weak, optimizer.init(weak), key, jnp.zeros((), jnp.int32))

    def step(state, data):
        traces.append(None)
        noise = jax.random.normal(jax.random.fold_in(state.key, state.step))
        updates, moments = optimizer.update(state.total + noise - data, state.moments)
        total = optax.apply_updates(state.total, updates)
        state = state.replace(total=total, moments=moments, step=state.step + 1)
        return state, {"train/step": state.step.astype(jnp.float32)}

    return program.make_program(program.Training(init, step))


def same(a, b):
    raw = [jax.tree.leaves(s.replace(key=jax.random.key_data(s.key))) for s in (a, b)]
    return all(np.array_equal(x, y) for x, y in zip(*raw, strict=True))


def test_repeated_calls_compile_once():
    traces = []
    compiled = make(traces)
    state = compiled.init(jax.random.key(0))
    state, _ = compiled.run(state, jnp.float32(1.0), 4)
    after_one = len(traces)
    for target in (2.0, 3.0, 4.0):
        state, _ = compiled.run(state, jnp.float32(target), 4)
    assert len(traces) == after_one


def test_metrics_are_means_over_the_steps():
    compiled = make([])
    _, metrics = compiled.run(compiled.init(jax.random.key(0)), jnp.float32(1.0), 4)
    assert float(metrics["train/step"]) == 2.5


def test_two_halves_equal_the_whole():
    compiled, target = make([]), jnp.float32(1.0)
    whole, _ = compiled.run(compiled.init(jax.random.key(0)), target, 8)
    half, _ = compiled.run(compiled.init(jax.random.key(0)), target, 4)
    half, _ = compiled.run(half, target, 4)
    assert same(whole, half)
    other, _ = compiled.run(compiled.init(jax.random.key(1)), target, 8)
    assert not same(whole, other)


def test_the_state_is_donated_and_the_data_are_not():
    compiled, target = make([]), jnp.float32(1.0)
    state = compiled.init(jax.random.key(0))
    compiled.run(state, target, 4)
    assert state.total.is_deleted()
    assert not target.is_deleted()
