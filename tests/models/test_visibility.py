"""What a hidden token can do to the masked trajectory model: nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax import masks
from mtm_jax.config import ModelConfig
from mtm_jax.models import trajectory_model as model
from mtm_jax.types import ModalitySpec

BATCH, WINDOW = 4, 3
SPECS = (
    ModalitySpec("states", 3),
    ModalitySpec("returns", 4, 1, "categorical"),
    ModalitySpec("actions", 2, head="tanh_normal"),
    ModalitySpec("rewards", 1),
)
NAMES = [m.name for m in SPECS]


@pytest.fixture(scope="module")
def network():
    return model.make_model(ModelConfig(SPECS, window=WINDOW, width=8, heads=2))


@pytest.fixture(scope="module")
def params(network):
    """Parameters of which none is zero, mask tokens and modality embeddings included."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    return jax.tree.map(lambda s: random.normal(0.0, 0.4, s.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def apply(network):
    return jax.jit(network.apply)


@pytest.fixture(scope="module")
def tokens():
    random = np.random.default_rng(1)
    shapes = {m.name: (m.features,) for m in SPECS} | {"returns": (1, 4)}
    return {m: random.normal(size=(BATCH, WINDOW, *s)).astype("f") for m, s in shapes.items()}


@pytest.fixture(scope="module")
def visible():
    """One mask per sample: planning prompts, everything, and only the first state."""
    chosen = [masks.prompt("rcbc", 1, WINDOW), masks.prompt("fd", 1, WINDOW)]
    chosen.append({m: np.ones(WINDOW, bool) for m in NAMES})
    chosen.append(masks.prompt("bc", 0, WINDOW))
    return {m: np.stack([c[m] for c in chosen]) for m in NAMES}


@pytest.fixture(scope="module")
def differentiate(network):
    """A generic function of every output, with its gradients in parameters and inputs."""

    def total(params, tokens, visible):
        leaves = jax.tree.leaves(network.apply(params, tokens, visible))
        return sum(jnp.sin(3.0 * leaf).sum() for leaf in leaves)

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1)))


@pytest.fixture(scope="module")
def slopes(differentiate, params, tokens, visible):
    return differentiate(params, tokens, visible)[1][1]


def on_tokens(mask, like):
    """Broadcast [B, T] to the shape of a modality's tokens."""
    return np.broadcast_to(np.reshape(mask, mask.shape + (1,) * (like.ndim - 2)), like.shape)


def assert_same(found, expected, **tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_have_exactly_zero_gradient_in_hidden_inputs(slopes, visible, name):
    shown = on_tokens(visible[name], slopes[name])
    np.testing.assert_array_equal(slopes[name][~shown], 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_depend_on_every_visible_input(slopes, visible, name):
    shown = on_tokens(visible[name], slopes[name])
    assert (slopes[name][shown] != 0.0).all()


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_values_of_hidden_inputs_change_nothing(apply, params, tokens, visible, poison):
    poisoned = {m: np.where(on_tokens(visible[m], x), x, poison) for m, x in tokens.items()}
    assert any(not np.isfinite(x).all() for x in poisoned.values()) or poison == 1e30
    clean = apply(params, tokens, visible)
    assert_same(apply(params, poisoned, visible), clean, rtol=0, atol=0)


def test_poisoned_hidden_inputs_change_no_parameter_gradient(
    differentiate, params, tokens, visible
):
    poisoned = {m: np.where(on_tokens(visible[m], x), x, np.nan) for m, x in tokens.items()}
    clean = differentiate(params, tokens, visible)[1][0]
    assert_same(differentiate(params, poisoned, visible)[1][0], clean, rtol=0, atol=0)


def test_a_sample_without_visible_tokens_is_finite_in_value_and_gradient(
    differentiate, params, tokens, visible
):
    blind = {m: v & (np.arange(BATCH) != 1)[:, None] for m, v in visible.items()}
    value, (by_params, by_tokens) = differentiate(params, tokens, blind)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(by_params))
    for name in NAMES:
        np.testing.assert_array_equal(by_tokens[name][1], 0.0)
        assert np.isfinite(by_tokens[name]).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_modality_that_is_nowhere_visible_does_not_enter_the_encoder(
    differentiate, params, tokens, visible, name
):
    without = visible | {name: np.zeros_like(visible[name])}
    _, (slopes, _) = differentiate(params, tokens, without)
    for leaf in jax.tree.leaves(slopes[f"encoder_embed_{name}"]):
        np.testing.assert_array_equal(leaf, 0.0)
    np.testing.assert_array_equal(slopes[f"encoder_modality_{name}"], 0.0)
    assert (np.abs(slopes[f"mask_token_{name}"]) > 0).all()


def test_all_samples_without_visible_tokens_predict_the_same(apply, params, tokens, visible):
    blind = {m: np.zeros_like(v) for m, v in visible.items()}
    for leaf in jax.tree.leaves(apply(params, tokens, blind)):
        np.testing.assert_allclose(leaf, np.broadcast_to(leaf[:1], leaf.shape), rtol=1e-5)


def test_masks_in_one_batch_equal_each_sample_alone(apply, params, tokens, visible):
    together = apply(params, tokens, visible)
    for one in (slice(b, b + 1) for b in range(BATCH)):
        alone = apply(
            params, {m: x[one] for m, x in tokens.items()}, {m: v[one] for m, v in visible.items()}
        )
        expected = jax.tree.map(lambda leaf, one=one: leaf[one], together)
        assert_same(alone, expected, rtol=1e-5, atol=1e-5)


def test_one_mask_serves_a_whole_batch(apply, params, tokens, visible):
    shared = {m: v[0] for m, v in visible.items()}
    repeated = {m: np.broadcast_to(v, (BATCH, WINDOW)) for m, v in shared.items()}
    expected = apply(params, tokens, repeated)
    assert_same(apply(params, tokens, shared), expected, rtol=1e-5, atol=1e-5)


def test_hidden_tokens_are_predicted_from_their_mask_token_and_slot(apply, params, tokens, visible):
    before = apply(params, tokens, visible)
    moved = params | {"mask_token_rewards": params["mask_token_rewards"] + 1.0}
    after = apply(moved, tokens, visible)
    full = 2  # the sample in which everything is visible has no mask token
    changed = np.abs(after["rewards"] - before["rewards"]).max((1, 2))
    np.testing.assert_array_equal(changed > 0, np.arange(BATCH) != full)
    rewards = before["rewards"][3]
    assert len(np.unique(rewards)) == WINDOW


def test_encodings_of_visible_tokens_do_not_depend_on_hidden_ones(network, params, tokens, visible):
    poisoned = {m: np.where(on_tokens(visible[m], x), x, np.nan) for m, x in tokens.items()}
    encode = jax.jit(network.encode)
    clean, found = encode(params, tokens, visible), encode(params, poisoned, visible)
    for name in NAMES:
        np.testing.assert_array_equal(found[name][visible[name]], clean[name][visible[name]])
