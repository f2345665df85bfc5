"""Asking for some hidden tokens gives what a whole pass predicts for them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import noisy_params

from mtm_jax import masks
from mtm_jax.config import ModelConfig
from mtm_jax.models.pruned import Placed
from mtm_jax.models.trajectory_model import make_model
from mtm_jax.types import ModalitySpec

WINDOW, S, A = 6, 5, 2
FEATURES = {"states": S, "returns": 1, "actions": A, "rewards": 1}


@functools.cache
def build(layers=(2, 1), without=(), dtype="float32"):
    specs = tuple(
        ModalitySpec(m, d, head="tanh_normal" if m == "actions" else "continuous")
        for m, d in FEATURES.items()
        if m not in without
    )
    sizes = {"window": WINDOW, "width": 16, "heads": 2, "dropout": 0.3, "compute_dtype": dtype}
    sizes["positions"] = "orthogonal"  # so that a token in a wrong slot shows
    depths = dict(zip(("encoder_layers", "decoder_layers"), layers, strict=True))
    model = make_model(ModelConfig(specs, **sizes, **depths))
    return model, noisy_params(model)


def draw(count, seed=0):
    """Tokens of `count` candidates that share everything but their actions."""
    rng = np.random.default_rng(seed)
    values = {m: rng.normal(size=(WINDOW, d)).astype(np.float32) for m, d in FEATURES.items()}
    return values, rng.uniform(-0.9, 0.9, (count, WINDOW, A)).astype(np.float32)


@functools.cache
def compiled_pass(model):
    """A pass over candidates that differ in their actions from slot i on."""

    @jax.jit
    def apply(params, values, actions, visible, past):
        def one(own):
            tokens = values | {"actions": jnp.where(past, values["actions"], own)}
            return model.apply(params, tokens, visible)

        return jax.vmap(one)(actions)

    return apply


def whole(model, params, values, actions, prompt, i):
    """Every token of every candidate by `apply`."""
    names = [m.name for m in model.config.modalities]
    visible = {m: v for m, v in masks.prompt(prompt, i, WINDOW).items() if m in names}
    past = (np.arange(WINDOW) < i)[:, None]
    return compiled_pass(model)(params, {m: values[m] for m in names}, actions, visible, past)


def ask_dynamics(model, params, values, actions, i):
    """The same by `query`, with all slots placed and those that are absent said to be."""
    slots = jnp.arange(WINDOW)
    shared = {
        "states": Placed(jnp.asarray(values["states"]), slots, slots <= i),
        "actions": Placed(jnp.asarray(values["actions"]), slots, slots < i),
    }
    own = {"actions": Placed(jnp.asarray(actions), slots, slots >= i)}
    names = [m.name for m in model.config.modalities]
    asked = {m: slots for m in ("states", "rewards", "returns") if m in names}
    return model.query(params, shared, own, asked)


@functools.cache
def compiled_dynamics(model):
    return jax.jit(functools.partial(ask_dynamics, model))


@pytest.mark.parametrize(
    ("layers", "without"),
    [
        ((2, 1), ()),
        pytest.param((1, 1), ("rewards",), marks=pytest.mark.slow),
        pytest.param((3, 2), ("rewards",), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_forward_dynamics_are_those_of_a_whole_pass(layers, without):
    model, params = build(layers, without)
    values, actions = draw(3)
    ask = compiled_dynamics(model)
    ask(params, values, actions, 0)
    programs = ask._cache_size()
    for i in range(WINDOW):
        found, expected = (
            ask(params, values, actions, i),
            whole(model, params, values, actions, "fd", i),
        )
        hidden = slice(i + 1, None)
        np.testing.assert_allclose(
            found["states"][:, hidden], expected["states"][:, hidden], rtol=2e-5, atol=2e-5
        )
        for m in found.keys() - {"states"}:
            np.testing.assert_allclose(found[m], expected[m], rtol=2e-5, atol=2e-5)
    assert ask._cache_size() == programs


@pytest.mark.parametrize(
    "i",
    [
        i if i in (0, 4, WINDOW - 1) else pytest.param(i, marks=pytest.mark.slow)
        for i in range(WINDOW)
    ],
)
def test_proposals_are_those_of_a_whole_pass(i):
    model, params = build()
    values, actions = draw(1)
    slots = jnp.arange(WINDOW)
    shared = {
        "states": Placed(jnp.asarray(values["states"]), slots, slots <= i),
        "returns": Placed(jnp.asarray(values["returns"]), slots, slots >= 0),
        "actions": Placed(jnp.asarray(values["actions"]), slots, slots < i),
    }
    ask = jax.jit(lambda shared: model.query(params, shared, None, {"actions": slots[i:]}))
    found = ask(shared)["actions"]
    expected = whole(model, params, values, actions, "rcbc", i)["actions"]
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f, e[0, i:], rtol=2e-5, atol=2e-5)


@pytest.mark.slow
def test_environments_side_by_side_change_nothing():
    model, params = build()
    inputs = [draw(3, seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *inputs)
    slots = jnp.array([1, 4])
    side_by_side = jax.jit(jax.vmap(functools.partial(ask_dynamics, model, params)))
    found = side_by_side(*stacked, slots)
    for e, (values, actions) in enumerate(inputs):
        expected = compiled_dynamics(model)(params, values, actions, slots[e])
        for m in expected:
            np.testing.assert_allclose(found[m][e], expected[m], rtol=2e-5, atol=2e-5)


def test_absent_tokens_have_no_influence_at_all():
    model, params = build()
    values, actions = draw(3)
    ask = compiled_dynamics(model)
    expected = ask(params, values, actions, 2)
    values["states"][3:], values["actions"][2:], actions[:, :2] = np.nan, np.nan, np.nan
    for m, found in ask(params, values, actions, 2).items():
        np.testing.assert_array_equal(found, expected[m])


@pytest.mark.slow
def test_bfloat16_stays_close_to_a_whole_pass():
    model, params = build(dtype="bfloat16")
    values, actions = draw(3)
    found = compiled_dynamics(model)(params, values, actions, 2)
    expected = whole(model, params, values, actions, "fd", 2)
    assert found["rewards"].dtype == jnp.float32
    np.testing.assert_allclose(found["rewards"], expected["rewards"], rtol=0.1, atol=0.05)
