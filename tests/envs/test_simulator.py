"""A simulator whose state was carried to another one goes on as if nothing had happened."""

import numpy as np
import pytest

from mtm_jax.envs import make, registry, simulator
from mtm_jax.errors import UserError


def walk(env, rng, steps):
    """Random actions, with a reset now and then."""
    found = []
    for step in range(steps):
        action = rng.uniform(-1.0, 1.0, env.action_space.shape).astype(np.float32)
        obs, reward, terminal, _, _ = env.step(action)
        if terminal or step % 40 == 39:
            obs, _ = env.reset()
        found.append(np.append(obs, reward))
    return np.stack(found)


@pytest.mark.parametrize("name", ["hopper", "walker2d", "halfcheetah", "walker_run"])
def test_a_carried_state_continues_to_the_last_bit(name):
    spec = registry.ENVS[name]
    first, other = (make.make(spec.builtin_id).unwrapped for _ in range(2))
    first.reset(seed=3)
    walk(first, np.random.default_rng(0), 67)
    other.reset(seed=9)
    walk(other, np.random.default_rng(1), 11)
    other.reset()
    simulator.set_physics_state(other, simulator.physics_state(first))
    simulator.set_generator_state(other.np_random, simulator.generator_state(first.np_random))
    one, two = (walk(env, np.random.default_rng(2), 90) for env in (first, other))
    np.testing.assert_array_equal(one, two)


def test_a_carried_generator_continues_within_a_word():
    first, other = np.random.default_rng(0), np.random.default_rng(1)
    first.standard_normal(5, np.float32)
    first.integers(2**32, dtype=np.uint32)  # half of a word is left
    simulator.set_generator_state(other, simulator.generator_state(first))
    for draw in (lambda r: r.integers(2**32, size=5, dtype=np.uint32), lambda r: r.normal(size=3)):
        np.testing.assert_array_equal(draw(first), draw(other))


def test_another_simulator_is_refused():
    import gymnasium

    with pytest.raises(UserError, match="the state of CartPoleEnv cannot be saved"):
        simulator.physics_state(gymnasium.make("CartPole-v1"))
