"""Tokens: raw values to model inputs and back."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtm_jax import distributions, tokens
from mtm_jax.types import ModalitySpec

VALUES = hnp.arrays(np.float32, (7, 3), elements=st.floats(-1e3, 1e3, width=32))
RAW = np.random.default_rng(0).normal([3.0, -20.0], [0.5, 40.0], (50, 2)).astype(np.float32)


def one_hot_centre(bins, index, dims):
    return np.eye(bins, dtype=np.float32)[np.full(dims, index)]


def test_compute_stats_measures_each_dimension():
    stats = tokens.compute_stats(jnp.asarray(RAW))
    for name in ("mean", "std", "min", "max"):
        expected = getattr(RAW.astype(np.float64), name)(axis=0)
        np.testing.assert_allclose(getattr(stats, name), expected, rtol=1e-5)


def test_encoded_data_have_zero_mean_and_unit_variance():
    encoded = tokens.encode(tokens.compute_stats(jnp.asarray(RAW)), RAW)
    np.testing.assert_allclose(encoded.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(encoded.std(0), 1.0, rtol=1e-5)


@hypothesis.given(values=VALUES)
def test_decode_inverts_encode(values):
    stats = tokens.compute_stats(jnp.asarray(values))
    again = tokens.decode(stats, tokens.encode(stats, values))
    np.testing.assert_allclose(again, values, rtol=1e-5, atol=1e-3)


def test_identity_stats_change_nothing():
    stats = tokens.identity_stats(2)
    np.testing.assert_array_equal(tokens.encode(stats, RAW), RAW)
    np.testing.assert_array_equal(tokens.decode(stats, RAW), RAW)


def test_a_constant_dimension_is_centred_and_not_amplified():
    stats = tokens.compute_stats(jnp.full((9, 1), 5.0))
    np.testing.assert_array_equal(tokens.encode(stats, jnp.array([5.0])), [0.0])
    np.testing.assert_allclose(tokens.encode(stats, jnp.array([5.5])), [0.5])
    np.testing.assert_array_equal(tokens.decode(stats, jnp.array([0.0])), [5.0])


@pytest.mark.parametrize("unit", [1e-25, 1e-6, 1e-3, 1.0, 1e6])
def test_values_of_any_unit_are_normalised(unit):
    """What is small everywhere is small in its unit alone; it must not vanish at the input."""
    raw = (unit * RAW.astype(np.float64)).astype(np.float32)
    stats = jax.tree.map(jnp.float32, tokens.compute_stats(raw.astype(np.float64)))
    encoded = tokens.encode(stats, raw)
    np.testing.assert_allclose(encoded.std(0), 1.0, rtol=1e-4)
    np.testing.assert_allclose(tokens.decode(stats, encoded), raw, rtol=1e-4, atol=1e-5 * unit)
    bins = tokens.encode_bins(stats, raw, 16).argmax(-1)
    assert len(np.unique(bins[:, 0])) > 8


@pytest.mark.parametrize(
    ("centre", "spread", "scaled"),
    [(1.0, 2e-4, True), (1.0, 5e-5, False), (0.5, 9e-5, True), (100.0, 5e-5, False)],
)
def test_what_varies_little_for_its_size_is_only_centred(centre, spread, scaled):
    values = jnp.float32(centre) + jnp.array([[-spread], [spread]])
    stats = tokens.compute_stats(values)
    assert (tokens.scale(stats)[0] != 1.0) == scaled


@hypothesis.given(values=VALUES, bins=st.sampled_from([2, 16]))
def test_bins_round_trip_within_half_a_bin(values, bins):
    stats = tokens.compute_stats(jnp.asarray(values))
    error = np.abs(tokens.decode_bins(stats, tokens.encode_bins(stats, values, bins)) - values)
    spread = np.asarray(stats.max - stats.min)
    size = np.maximum(np.abs(stats.min), np.abs(stats.max))
    constant = spread < np.minimum(tokens.MIN_SCALE, tokens.MIN_SCALE * size) + 1e-30
    half_a_bin = np.where(constant, spread, spread / bins / 2)
    assert (error <= half_a_bin + 1e-6 * np.abs(values).max()).all()


@hypothesis.given(values=VALUES)
def test_every_value_becomes_one_bin_per_dimension(values):
    encoded = tokens.encode_bins(tokens.compute_stats(jnp.asarray(values)), values, 5)
    assert encoded.shape == (7, 3, 5)
    np.testing.assert_array_equal(np.sort(encoded, -1), np.broadcast_to([0, 0, 0, 0, 1], (7, 3, 5)))


def test_bins_cover_the_range_evenly():
    stats = tokens.Stats(*(jnp.array([v]) for v in (0.0, 1.0, -2.0, 2.0)))
    encoded = tokens.encode_bins(stats, jnp.array([[-2.0], [-1.01], [-0.99], [0.0], [1.99]]), 4)
    np.testing.assert_array_equal(encoded.argmax(-1)[:, 0], [0, 0, 1, 2, 3])
    np.testing.assert_allclose(tokens.decode_bins(stats, encoded)[1:4, 0], [-1.5, -0.5, 0.5])


@pytest.mark.parametrize("far", [2.0, 1e30, np.inf])
def test_values_out_of_range_fall_into_the_first_or_last_bin(far):
    stats = tokens.identity_stats(1)
    encoded = tokens.encode_bins(stats, jnp.array([[-far], [far]]), 8)
    np.testing.assert_array_equal(encoded.argmax(-1), [[0], [7]])


def test_a_constant_dimension_survives_binning():
    stats = tokens.compute_stats(jnp.full((9, 2), -7.25))
    encoded = tokens.encode_bins(stats, jnp.full(2, -7.25), 32)
    np.testing.assert_array_equal(tokens.decode_bins(stats, encoded), [-7.25, -7.25])


def test_decoded_bins_stay_between_the_extremes():
    stats = tokens.compute_stats(jnp.asarray(RAW))
    low = tokens.decode_bins(stats, one_hot_centre(3, 0, 2))
    high = tokens.decode_bins(stats, one_hot_centre(3, 2, 2))
    assert (stats.min < low).all()
    assert (low < high).all()
    assert (high < stats.max).all()


def test_each_modality_is_encoded_as_its_head_needs():
    specs = (
        ModalitySpec("states", 2),
        ModalitySpec("returns", 8, 1, "categorical"),
        ModalitySpec("actions", 2, head="tanh_normal"),
    )
    stats = {
        "states": tokens.compute_stats(jnp.asarray(RAW)),
        "returns": tokens.identity_stats(1),
        "actions": tokens.compute_stats(jnp.asarray(RAW)),
    }
    actions = jnp.array([[1.0, -0.25]])
    values = {"states": RAW[:1], "returns": jnp.zeros((1, 1)), "actions": actions}
    encoded = tokens.encode_modalities(specs, stats, values)
    assert {m: x.shape for m, x in encoded.items()} == {
        "states": (1, 2),
        "returns": (1, 1, 8),
        "actions": (1, 2),
    }
    expected = np.array([[distributions.ACTION_LIMIT, -0.25]], np.float32)
    np.testing.assert_array_equal(encoded["actions"], expected)
    np.testing.assert_array_equal(encoded["states"], tokens.encode(stats["states"], RAW[:1]))
    predictions = dict(encoded) | {
        "actions": distributions.TanhNormal(jnp.arctanh(encoded["actions"]), jnp.zeros((1, 2)))
    }
    for spec in specs:
        decoded = tokens.decode_prediction(spec, stats[spec.name], predictions[spec.name])
        np.testing.assert_allclose(decoded, values[spec.name], rtol=1e-4, atol=1 / 8)
