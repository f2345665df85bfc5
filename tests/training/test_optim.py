"""The optimiser of the trajectory model."""

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtm_jax.config import ModelConfig, OptimConfig
from mtm_jax.models import trajectory_model as model
from mtm_jax.training import optim
from mtm_jax.types import ModalitySpec

STATES = ModalitySpec("states", 3)
ACTIONS = ModalitySpec("actions", 2, head="tanh_normal")
CONFIG = ModelConfig((STATES, ACTIONS), window=2, width=4, heads=1, encoder_layers=1)


def flat(tree):
    return flax.traverse_util.flatten_dict(tree, sep="/")


def test_weight_decay_acts_on_the_kernels_of_linear_layers_only():
    params = jax.eval_shape(model.make_model(CONFIG).init, jax.random.key(0))
    decayed = {name for name, decay in flat(optim.decay_mask(params)).items() if decay}
    assert decayed == {name for name in flat(params) if name.endswith("/kernel")}
    assert all(flat(params)[name].ndim == 2 for name in decayed)
    others = flat(params).keys() - decayed
    assert {"mask_token_states", "encoder_modality_actions", "encoder/norm/scale"} <= others


def test_a_step_without_gradients_shrinks_matrices_and_nothing_else():
    ones = jnp.ones(2)
    params = {"layer": {"kernel": ones, "bias": ones}, "norm": {"scale": ones}, "token": ones}
    config = OptimConfig(learning_rate=0.1, warmup_steps=0, total_steps=10, weight_decay=0.5)
    optimizer = optim.make_optimizer(config)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    for name, update in flat(updates).items():
        expected = -0.1 * 0.5 if name.endswith("/kernel") else 0.0
        np.testing.assert_allclose(update, expected, rtol=1e-6, err_msg=name)


def test_arrays_are_updated_as_each_would_be_by_itself():
    params = jax.jit(model.make_model(CONFIG).init)(jax.random.key(0))
    grads = jax.tree.map(lambda x: jnp.sin(x + jnp.arange(x.size).reshape(x.shape)), params)
    config = OptimConfig(0.1, warmup_steps=0, total_steps=10, weight_decay=0.5, clip_norm=1.0)
    adamw = optax.adamw(optim.make_schedule(config), weight_decay=0.5, mask=optim.decay_mask)
    plain = optax.chain(optax.clip_by_global_norm(1.0), adamw)
    found, expected = (
        flat(jax.jit(o.update)(grads, o.init(params), params)[0])
        for o in (optim.make_optimizer(config), plain)
    )
    for name, update in found.items():
        np.testing.assert_allclose(update, expected[name], rtol=1e-5, err_msg=name)
    joined = optim.to_vectors(grads)
    np.testing.assert_allclose(optax.global_norm(joined), optax.global_norm(grads), rtol=1e-6)


def test_schedule_warms_up_linearly_and_falls_as_a_cosine_to_zero():
    config = OptimConfig(learning_rate=2.0, warmup_steps=40, total_steps=140)
    steps = jnp.array([0, 10, 40, 90, 115, 140, 200])
    expected = [0.0, 0.5, 2.0, 1.0, 1.0 - np.cos(np.pi / 4), 0.0, 0.0]
    np.testing.assert_allclose(
        jax.vmap(optim.make_schedule(config))(steps), expected, rtol=1e-5, atol=1e-6
    )


def test_default_schedule_peaks_at_forty_thousand_steps_and_ends_at_a_hundred_more():
    schedule = optim.make_schedule(OptimConfig())
    values = [float(schedule(s)) for s in (0, 20_000, 40_000, 90_000, 140_000)]
    np.testing.assert_allclose(values, [0.0, 5e-5, 1e-4, 5e-5, 0.0], rtol=1e-4, atol=1e-10)


def test_a_constant_schedule_stays_where_its_warm_up_ends():
    config = OptimConfig(2.0, warmup_steps=40, total_steps=140, schedule="constant")
    steps = jnp.array([0, 10, 40, 90, 140])
    found = jax.vmap(optim.make_schedule(config))(steps)
    np.testing.assert_allclose(found, [0.0, 0.5, 2.0, 2.0, 2.0], rtol=1e-6)


def test_schedule_without_warm_up_starts_at_its_peak():
    schedule = optim.make_schedule(OptimConfig(3e-4, warmup_steps=0, total_steps=10))
    np.testing.assert_allclose(schedule(0), 3e-4, rtol=1e-6)


def test_schedule_of_warm_up_alone_reaches_its_peak():
    schedule = optim.make_schedule(OptimConfig(3e-4, warmup_steps=10, total_steps=10))
    np.testing.assert_allclose([schedule(5), schedule(10)], [1.5e-4, 3e-4], rtol=1e-6)


def first_moment_norm(clip_norm):
    params = {"kernel": jnp.zeros(4)}
    optimizer = optim.make_optimizer(OptimConfig(clip_norm=clip_norm))
    _, state = optimizer.update({"kernel": jnp.full(4, 50.0)}, optimizer.init(params), params)
    adam = [s for s in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(s)][0]
    return float(optax.global_norm(adam.mu))


def is_adam(state):
    return isinstance(state, optax.ScaleByAdamState)


def test_clipping_bounds_the_gradient_norm_and_zero_means_none():
    np.testing.assert_allclose(first_moment_norm(clip_norm=2.0), 0.1 * 2.0, rtol=1e-5)
    np.testing.assert_allclose(first_moment_norm(clip_norm=0.0), 0.1 * 100.0, rtol=1e-5)
