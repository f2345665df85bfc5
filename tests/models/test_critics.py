"""Value networks and actor heads."""

import jax
import jax.numpy as jnp
import numpy as np

from mtm_jax.models import critics

OBS = jax.random.normal(jax.random.key(1), (6, 4))
ACTIONS = jax.random.uniform(jax.random.key(2), (6, 2), minval=-1.0)


def test_members_are_independent_functions_of_state_and_action():
    critic = critics.Q((8, 8), members=3)
    variables = critic.init(jax.random.key(0), OBS, ACTIONS)
    values = critic.apply(variables, OBS, ACTIONS)
    assert values.shape == (3, 6)
    assert np.abs(np.diff(values, axis=0)).min() > 0.0
    for changed in (
        critic.apply(variables, OBS + 1, ACTIONS),
        critic.apply(variables, OBS, -ACTIONS),
    ):
        assert (changed != values).all()
    one = critic.apply(variables, OBS[2], ACTIONS[2])
    np.testing.assert_allclose(one, values[:, 2], rtol=1e-5, atol=1e-6)


def test_normalised_layers_forget_the_scale_of_their_inputs():
    critic = critics.V((8, 8), normalised=True)
    variables = critic.init(jax.random.key(0), OBS)
    mlp = variables["params"]["mlp"]
    assert {f"norm_{i}" for i in (0, 1)} == {name for name in mlp if name.startswith("norm")}
    mlp["layer_0"]["bias"] = jnp.zeros(8)
    small, large = (critic.apply(variables, scale * OBS) for scale in (1.0, 100.0))
    np.testing.assert_allclose(small, large, atol=1e-3)


def test_a_member_learns_alone():
    critic = critics.Q((8,), members=2)
    params = critic.init(jax.random.key(0), OBS, ACTIONS)["params"]
    grads = jax.grad(lambda p: critic.apply({"params": p}, OBS, ACTIONS)[0].sum())(params)
    assert max(jnp.abs(g).max() for g in jax.tree.leaves(grads["member_0"])) > 0
    assert max(jnp.abs(g).max() for g in jax.tree.leaves(grads["member_1"])) == 0


def test_the_actor_depends_on_the_state_and_its_spread_is_bounded():
    actor = critics.TanhNormalActor(2, (8, 8))
    variables = actor.init(jax.random.key(0), OBS)
    dist = actor.apply(variables, 1e3 * OBS)
    assert dist.loc.shape == dist.log_std.shape == (6, 2)
    assert jnp.abs(jnp.diff(dist.loc, axis=0)).min() > 0
    assert (dist.log_std >= -5.0).all() and (dist.log_std <= 2.0).all()


def test_a_state_value_is_one_number_per_state():
    critic = critics.V((8, 8))
    variables = critic.init(jax.random.key(0), OBS)
    values = critic.apply(variables, OBS)
    assert values.shape == (6,) and np.ptp(values) > 0
    assert critic.apply(variables, OBS[2]).shape == ()


def test_the_spread_of_a_normal_actor_is_no_matter_of_the_state_and_bounded():
    actor = critics.NormalActor(2, (8, 8))
    variables = actor.init(jax.random.key(0), OBS)
    mean, std = actor.apply(variables, 1e3 * OBS)
    assert mean.shape == (6, 2) and (jnp.abs(mean) <= 1).all()
    np.testing.assert_array_equal(std, [1.0, 1.0])
    params = variables["params"] | {"log_std": jnp.array([-50.0, 50.0])}
    np.testing.assert_allclose(actor.apply({"params": params}, OBS)[1], np.exp([-20.0, 2.0]))
