"""Multilayer perceptron and transformer stack."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from mtm_jax.models import networks, transformer

TOKENS = jax.random.normal(jax.random.key(0), (2, 5, 8))
VISIBLE = jnp.array([[True, False, True, True, False], [False, True, True, False, True]])


def make_stack(dtype=jnp.float32, layers=2):
    return transformer.Stack(layers, width=8, heads=2, hidden=16, dropout=0.5, dtype=dtype)


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda k: make_stack().init(k, TOKENS, None, True))(jax.random.key(1))


@pytest.fixture(scope="module")
def apply(params):
    return jax.jit(
        lambda tokens, visible: make_stack().apply(params, tokens, visible[:, None], True)
    )


def test_mlp_is_affine_layers_with_activations_between_them():
    x = jax.random.normal(jax.random.key(0), (7, 3))
    mlp = networks.MLP([4, 2], activation=jnp.tanh)
    params = mlp.init(jax.random.key(1), x)
    first, last = params["params"]["layer_0"], params["params"]["layer_1"]
    hidden = np.tanh(x @ first["kernel"] + first["bias"])
    expected = hidden @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(mlp.apply(params, x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)], ids=str)
def test_matmul_has_the_gradients_of_jax(batch):
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel, out = map(jax.random.normal, keys, [(*batch, 5), (5, 2), (*batch, 2)])
    found = jax.vjp(networks.matmul, x, kernel)
    expected = jax.vjp(jnp.matmul, x, kernel)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    for a, b in zip(found[1](out), expected[1](out), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_kernels_start_within_one_over_the_root_of_their_inputs():
    kernel = np.asarray(networks.fan_in_uniform(jax.random.key(0), (25, 400)))
    assert 0.195 < np.abs(kernel).max() <= 0.2


def test_packed_attention_starts_as_wide_as_its_stacked_matrix():
    x = jnp.zeros((2, 24))
    attention = transformer.Attention(width=24, heads=2, dropout=0.0, dtype=jnp.float32)
    params = attention.init(jax.random.key(0), x, None, True)["params"]
    bound = np.sqrt(6 / (24 + 72))  # Xavier, of a (24, 72) matrix
    largest = np.abs(params["qkv"]["kernel"]).max()
    assert 0.97 * bound < largest <= bound


def test_gelu_is_the_exact_one():
    x = jnp.linspace(-4, 4, 33)
    expected = x * 0.5 * (1 + special.erf(np.asarray(x, np.float64) / np.sqrt(2)))
    np.testing.assert_allclose(networks.gelu(x), expected, rtol=1e-5, atol=1e-6)


def test_visible_tokens_do_not_depend_on_hidden_ones(apply):
    def visible_sum(tokens):
        return jnp.where(VISIBLE[..., None], apply(tokens, VISIBLE), 0.0).sum()

    slope = jax.grad(lambda t: jnp.sin(visible_sum(t)))(TOKENS)
    np.testing.assert_array_equal(slope[~VISIBLE], 0.0)
    assert (jnp.abs(slope[VISIBLE]).max(-1) > 0).all()


def test_hiding_tokens_equals_leaving_them_out(apply, params):
    kept = TOKENS[0][VISIBLE[0]]
    expected = make_stack().apply(params, kept, None, True)
    found = apply(TOKENS, VISIBLE)[0][VISIBLE[0]]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_row_without_visible_tokens_is_finite_with_its_gradient(apply):
    value, slope = jax.value_and_grad(lambda t: apply(t, VISIBLE & False).sum())(TOKENS)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


def test_a_stack_does_not_know_the_order_of_its_tokens(apply):
    order = jnp.array([3, 0, 4, 1, 2])
    everything = jnp.ones_like(VISIBLE)
    shuffled = apply(TOKENS[:, order], everything)
    expected = apply(TOKENS, everything)[:, order]
    np.testing.assert_allclose(shuffled, expected, rtol=1e-4, atol=1e-5)


def test_layers_of_one_stack_start_different(params):
    first, second = (params["params"][f"layer_{i}"] for i in range(2))
    for path, leaf in jax.tree_util.tree_leaves_with_path(first):
        if path[-1].key == "kernel":
            other = functools.reduce(lambda tree, p: tree[p.key], path, second)
            assert (leaf != other).mean() > 0.99, path


def test_a_bfloat16_stack_ends_in_float32_with_unit_variance(params):
    out = make_stack(jnp.bfloat16).apply(params, TOKENS, VISIBLE[:, None], True)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out.std(-1), 1.0, rtol=1e-2)


def test_bfloat16_attention_tells_large_logits_apart():
    x = jnp.array([[32.0, 2.0, 0.0, 0.0], [32.0, 2.5, 0.0, 0.0]])  # exact in bfloat16
    eye, zeros = np.eye(4, dtype=np.float32), np.zeros
    qkv = {"kernel": np.tile(eye, 3), "bias": zeros(12, np.float32)}
    params = {"params": {"qkv": qkv, "out": {"kernel": eye, "bias": zeros(4, np.float32)}}}
    attention = transformer.Attention(width=4, heads=1, dropout=0.0, dtype=jnp.bfloat16)
    out = attention.apply(params, x, None, True)
    second = special.expit(0.5)  # weight of the second key: the logits are 514 and 514.5
    np.testing.assert_allclose(np.float32(out[0, 1]), 2.0 + 0.5 * second, atol=0.01)
