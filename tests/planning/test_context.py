"""The window of recent history holds the latest steps in the right slots."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax.planning import context

WINDOW = 5


def observation(n):
    return jnp.array([n, 10.0 + n])


def play(steps, history):
    """An episode whose step n is observed as n, acted as n / 100 and rewarded with n / 10."""
    ctx = context.begin(observation(0), 1, WINDOW)
    for n in range(steps):
        action, reward = jnp.array([n / 100]), jnp.float32(n / 10)
        ctx = context.extend(ctx, action, reward, observation(n + 1), history)
    return ctx


@pytest.mark.parametrize("history", [0, 1, 3, 4])
@pytest.mark.parametrize("steps", [0, 1, 3, 4, 9])
def test_the_latest_steps_are_in_their_slots(steps, history):
    ctx = play(steps, history)
    slot = min(steps, history)
    past = np.arange(steps - slot, steps)
    assert int(ctx.slot) == slot
    np.testing.assert_array_equal(ctx.states[: slot + 1, 0], [*past, steps])
    np.testing.assert_array_equal(ctx.states[: slot + 1, 1], 10.0 + np.array([*past, steps]))
    np.testing.assert_allclose(ctx.actions[:slot, 0], past / 100)
    np.testing.assert_allclose(ctx.rewards[:slot, 0], past / 10)


def test_an_episode_starts_in_slot_zero():
    ctx = context.begin(observation(7), 2, WINDOW)
    assert int(ctx.slot) == 0
    np.testing.assert_array_equal(ctx.states[0], observation(7))
    assert ctx.actions.shape == (WINDOW, 2)


def test_extending_a_batch_compiled_equals_extending_one_by_one():
    contexts = [play(steps, 3) for steps in (0, 2, 6)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *contexts)
    extend = functools.partial(context.extend, history=3)
    args = jnp.ones((3, 1)), jnp.arange(3.0), jnp.arange(6.0).reshape(3, 2)
    found = jax.jit(jax.vmap(extend))(batch, *args)
    for i, one in enumerate(contexts):
        expected = extend(one, *(a[i] for a in args))
        for several, single in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(several[i], single)


def test_the_target_stands_in_every_slot():
    ctx = play(2, 3)
    values = context.window_values(ctx, jnp.float32(2.5))
    np.testing.assert_array_equal(values["returns"], np.full((WINDOW, 1), 2.5))
    np.testing.assert_array_equal(values["states"], ctx.states)
