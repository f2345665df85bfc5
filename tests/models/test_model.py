"""The masked trajectory model: shapes, parameters, numerics. What masks do: test_visibility.py."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax import distributions, tokens
from mtm_jax.config import ModelConfig
from mtm_jax.errors import UserError
from mtm_jax.models import positions
from mtm_jax.models import trajectory_model as model
from mtm_jax.training import losses
from mtm_jax.types import ModalitySpec

CONTINUOUS = (
    ModalitySpec("states", 3),
    ModalitySpec("returns", 1),
    ModalitySpec("actions", 2, head="tanh_normal"),
    ModalitySpec("rewards", 1),
)
BINNED = (ModalitySpec("states", 6, 3, "categorical"), ModalitySpec("actions", 6, 2, "categorical"))


def small(modalities, **changes):
    settings = {"window": 3, "width": 8, "heads": 2, "dropout": 0.5} | changes
    return ModelConfig(modalities, **settings)


def inputs(batch=()):
    random = np.random.default_rng(1)
    return {
        m.name: random.uniform(-0.9, 0.9, (*batch, 3, m.features)).astype("f") for m in CONTINUOUS
    }


def everything(batch=()):
    return {m.name: np.ones((*batch, 3), bool) for m in CONTINUOUS}


def random_params(network):
    """Parameters of which none is zero."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    return jax.tree.map(lambda s: random.normal(0.0, 0.3, s.shape).astype(np.float32), shapes)


def count(config):
    shapes = jax.eval_shape(model.make_model(config).init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.fixture(scope="module")
def network():
    return model.make_model(small(CONTINUOUS))


@pytest.fixture(scope="module")
def params(network):
    return random_params(network)


@pytest.fixture(scope="module")
def apply(network):
    return jax.jit(network.apply)


@pytest.mark.parametrize(
    ("states", "actions", "mtm", "m3pc"),
    [(11, 3, 11_059_727, 11_326_995), (17, 6, 11_068_952, 11_337_759)],
    ids=["hopper", "walker2d"],
)
def test_parameter_counts_equal_the_releases(states, actions, mtm, m3pc):
    without_rewards = (
        ModalitySpec("states", states),
        ModalitySpec("returns", 1),
        ModalitySpec("actions", actions),
    )
    policy = ModalitySpec("actions", actions, head="tanh_normal")
    full = (*without_rewards[:2], policy, ModalitySpec("rewards", 1))
    assert count(ModelConfig(without_rewards)) == mtm
    assert count(ModelConfig(full)) == m3pc


def test_orthogonal_positions_share_nothing():
    found = positions.orthogonal_positions(8, 16)
    np.testing.assert_allclose(found @ found.T, 8 * np.eye(8), atol=1e-5)


def test_positions_that_cannot_be_orthogonal_are_refused():
    with pytest.raises(UserError, match="window of 9 slots cannot have orthogonal positions"):
        small(CONTINUOUS, window=9, positions="orthogonal")
    with pytest.raises(UserError, match="positions are 'learnt'; choose"):
        small(CONTINUOUS, positions="learnt")


def test_positions_are_half_of_a_sine_and_a_cosine_with_falling_rates():
    found = positions.sinusoidal_positions(5, 6)
    rates = [1.0, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3)]
    for t in range(5):
        angles = np.multiply(rates, t)
        expected = np.concatenate([np.sin(angles), np.cos(angles)]) / 2
        np.testing.assert_allclose(found[t], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", [(), (2, 2)], ids=str)
def test_leading_axes_are_arbitrary_and_change_nothing(apply, params, batch):
    samples = math.prod(batch)
    flat = apply(params, inputs((4,)), everything((4,)))
    shaped = {m: x[:samples].reshape(*batch, *x.shape[1:]) for m, x in inputs((4,)).items()}
    found = apply(params, shaped, everything(batch))
    assert found.keys() == flat.keys()
    for leaf, whole in zip(jax.tree.leaves(found), jax.tree.leaves(flat), strict=True):
        expected = whole[:samples].reshape(*batch, *whole.shape[1:])
        assert leaf.shape == expected.shape
        np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-5)


def test_outputs_have_the_shapes_of_their_heads(apply, params):
    out = apply(params, inputs((4,)), everything((4,)))
    assert isinstance(out["actions"], distributions.TanhNormal)
    shapes = {m: jax.tree.leaves(x)[0].shape for m, x in out.items()}
    assert shapes == {m.name: (4, 3, m.features) for m in CONTINUOUS}


def test_log_std_stays_in_its_bounds(apply, params):
    log_std = apply(params, inputs((4,)), everything((4,)))["actions"].log_std
    assert (log_std > distributions.LOG_STD_MIN).all()
    assert (log_std < distributions.LOG_STD_MAX).all()


def test_dropout_acts_only_with_a_key(apply, params):
    still = apply(params, inputs(), everything())["states"]
    np.testing.assert_array_equal(still, apply(params, inputs(), everything())["states"])
    first, second = (
        apply(params, inputs(), everything(), jax.random.key(seed))["states"] for seed in range(2)
    )
    assert (first != still).any()
    assert (first != second).any()


def test_encode_gives_one_vector_per_token(network, params):
    encoded = jax.eval_shape(network.encode, params, inputs((2,)), everything((2,)))
    assert {m: x.shape for m, x in encoded.items()} == {m.name: (2, 3, 1, 8) for m in CONTINUOUS}


def test_bfloat16_compute_stays_close_and_keeps_parameters_and_outputs_in_float32(params, apply):
    network = model.make_model(small(CONTINUOUS, compute_dtype="bfloat16"))
    shapes = jax.eval_shape(network.init, jax.random.key(1))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    exact = apply(params, inputs((4,)), everything((4,)))
    rough = jax.jit(network.apply)(params, inputs((4,)), everything((4,)))
    for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(rough), strict=True):
        assert b.dtype == jnp.float32
        assert (a != b).any()  # it did compute in less
        assert jnp.abs(a - b).max() < 0.05 * jnp.abs(a).max()


def test_binned_modalities_predict_logits_for_every_dimension():
    stats = tokens.identity_stats(3), tokens.identity_stats(2)
    states = tokens.encode_bins(stats[0], inputs((4,))["states"], 6)
    actions = tokens.encode_bins(stats[1], inputs((4,))["actions"], 6)
    network = model.make_model(small(BINNED, encoder_layers=1))
    values = {"states": states, "actions": actions}
    visible = {m: np.arange(3) < 1 for m in values}

    def loss(params):
        out = network.apply(params, values, visible)
        return sum(losses.cross_entropy(out[m], values[m]).mean() for m in values), out

    slope, out = jax.jit(jax.grad(loss, has_aux=True))(random_params(network))
    assert {m: x.shape for m, x in out.items()} == {"states": (4, 3, 3, 6), "actions": (4, 3, 2, 6)}
    # Each dimension of a step is told from the others by its own embedding.
    for name in ("decoder_modality_states", "encoder_modality_states"):
        assert len(np.unique(slope[name][:, 0])) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modalities": CONTINUOUS[::-1]}, "in that order"),
        ({"modalities": (ModalitySpec("images", 3),)}, "images"),
        ({"width": 9}, "9.*2 heads"),
        ({"window": 0}, "window is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_an_impossible_model_is_refused_with_its_numbers(changes, message):
    with pytest.raises(UserError, match=message):
        small(**({"modalities": CONTINUOUS} | changes))
