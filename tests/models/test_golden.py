"""The port gives the released models' numbers (see golden/README.md)."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax import distributions, masks, returns
from mtm_jax.agents import torch_import
from mtm_jax.config import LossConfig, MaskConfig, PretrainConfig
from mtm_jax.models import trajectory_model as model
from mtm_jax.training import losses, objective

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
CASES = {
    "m3pc": ("full_visible", "rcbc_idx4", "fd_idx4", "auto_0", "auto_1"),
    "mtm": ("full_visible", "rcbc_eval_hist3", "auto_0", "auto_1"),
}
VARIANT_AND_MASK = [(variant, mask) for variant, names in CASES.items() for mask in names]
FRACTIONS = MaskConfig().fractions
M3PC_WEIGHTS = dict(MaskConfig().modality_weights)
MTM_WEIGHTS = {"states": 0.2, "returns": 0.1, "actions": 0.7}


def read(name):
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def under(arrays, prefix):
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def assert_close(actual, expected, tolerance):
    """Hold the largest error to `tolerance` times the largest expected value."""
    expected = np.asarray(expected)
    assert np.size(actual) == np.size(expected)
    if expected.size:
        error = np.abs(np.asarray(actual).reshape(expected.shape) - expected).max()
        assert error <= tolerance * np.abs(expected).max(), error / np.abs(expected).max()


class Release:
    """One released model with everything that was recorded of it."""

    def __init__(self, variant):
        config, self.params = torch_import.from_torch_state_dict(read(f"{variant}_state_dict"))
        self.network = model.make_model(config)
        self.apply, self.encode = jax.jit(self.network.apply), jax.jit(self.network.encode)
        self.tokens = {m: x[:, :, 0] for m, x in read(f"{variant}_inputs").items()}
        self.masks = read(f"{variant}_masks")
        self.outputs = read(f"{variant}_outputs")
        self.losses = read(f"{variant}_losses")

    def visible(self, mask):
        batch = (5, 8)
        found = under(self.masks, f"{mask}/").items()
        return {m: np.broadcast_to(v.reshape(-1) > 0, batch) for m, v in found}

    def predict(self, mask):
        return self.apply(self.params, self.tokens, self.visible(mask))


@pytest.fixture(scope="module")
def releases():
    return {variant: Release(variant) for variant in CASES}


@pytest.mark.parametrize(("variant", "mask"), VARIANT_AND_MASK)
def test_predictions_equal_the_release(releases, variant, mask):
    release = releases[variant]
    predicted = release.predict(mask)
    if variant == "m3pc":
        dist = predicted.pop("actions")
        log_prob = distributions.log_prob(dist, release.tokens["actions"])
        predicted |= {
            "actions_loc": dist.loc,
            "actions_std": jnp.exp(dist.log_std),
            "actions_mean": distributions.mode(dist),
            "actions_logprob_of_input": log_prob,
        }
    expected = under(release.outputs, f"{mask}/")
    assert predicted.keys() == {name for name in expected if not name.startswith("enc_")}
    for name, value in predicted.items():
        assert_close(value, expected[name], 2e-5)


@pytest.mark.parametrize(("variant", "mask"), VARIANT_AND_MASK)
def test_encodings_of_visible_tokens_equal_the_release(releases, variant, mask):
    release = releases[variant]
    visible = release.visible(mask)
    encoded = release.encode(release.params, release.tokens, visible)
    for name, value in encoded.items():
        value = np.asarray(value)[:, visible[name][0], 0]
        assert_close(value, release.outputs[f"{mask}/enc_{name}"], 2e-5)


def batch_of(release, mask):
    """The recorded tokens under one mask; every step counts."""
    visible = {m: jnp.asarray(v) for m, v in release.visible(mask).items()}
    return objective.whole_batch(release.tokens, visible, jax.tree.map(jnp.ones_like, visible))


def reconstruction_loss(release, mask):
    """Training's loss over all heads but TanhNormal, with its parts under the files' names."""
    config = release.network.config
    plain = tuple(m for m in config.modalities if m.head != "tanh_normal")
    network = release.network._replace(config=dataclasses.replace(config, modalities=plain))
    outputs, sigma = release.predict(mask), jnp.zeros(())
    settings = PretrainConfig(network.config)
    total, parts = objective.loss(settings, network, outputs, batch_of(release, mask), sigma)
    return total, {f"loss_{m.name}": parts[f"train/{m.name}"] for m in plain}


def errors_of_hidden_and_visible(release, mask):
    """Errors of hidden tokens and of visible ones; the release sums over features."""
    predicted, batch, found = release.predict(mask), batch_of(release, mask), {}
    for name, prediction in predicted.items():
        if isinstance(prediction, distributions.TanhNormal):
            continue
        target = release.tokens[name]
        error = target.shape[-1] * losses.squared_error(prediction, target)
        found[f"masked_{name}"] = losses.masked_mean(error, batch.hidden(name))
        found[f"masked_c_{name}"] = losses.masked_mean(error, batch.visible[name])
    return found


def assert_losses(found, expected):
    """Compare everything recorded; the release has NaN where it averages over nothing."""
    for name, value in expected.items():
        if np.isfinite(value):
            np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)
        elif name.startswith("masked"):
            assert found[name] == 0.0


@pytest.mark.parametrize("mask", CASES["mtm"])
def test_mtm_losses_equal_the_release(releases, mask):
    release = releases["mtm"]
    total, parts = reconstruction_loss(release, mask)
    found = {"total": total} | parts | errors_of_hidden_and_visible(release, mask)
    expected = under(release.losses, f"{mask}/none/")
    assert found.keys() == expected.keys()
    assert_losses(found, expected)


@pytest.mark.parametrize("mask", CASES["m3pc"])
def test_m3pc_losses_equal_the_release(releases, mask):
    release, batch = releases["m3pc"], batch_of(releases["m3pc"], mask)
    reconstruction, parts = reconstruction_loss(release, mask)
    noise = jnp.asarray(release.losses["entropy_eps"][..., 0, :])
    of_actions, action_parts = objective.action_loss(
        PretrainConfig(release.network.config, loss=LossConfig(entropy_reduction="per_dimension")),
        release.predict(mask)["actions"],
        batch.replace(noise=jnp.moveaxis(noise, 1, 0)),
        "actions",
        sigma=release.losses["temperature"],
    )
    found = {"total": reconstruction + of_actions} | parts
    found |= errors_of_hidden_and_visible(release, mask)
    names = {"actions": "visible_actions", "nll": "nll", "entropy": "entropy"}
    found |= {f"loss_{name}": action_parts[f"train/{ours}"] for name, ours in names.items()}
    expected = under(release.losses, f"{mask}/")
    assert found.keys() == expected.keys()
    assert_losses(found, expected)


@pytest.mark.parametrize(
    ("recorded", "window", "weights"),
    [("mask_stats_m3pc", 8, M3PC_WEIGHTS), ("mask_stats_mtm", 4, MTM_WEIGHTS)],
)
def test_random_autoregressive_masks_are_distributed_as_the_release(recorded, window, weights):
    draws = 100_000
    keys = jax.random.split(jax.random.key(0), draws)
    draw = jax.vmap(lambda k: masks.random_autoregressive(k, window, FRACTIONS, weights))
    visible = {m: np.asarray(v) for m, v in jax.jit(draw)(keys).items()}
    expected = under(read(recorded), f"auto/L{window}/")
    counts = np.concatenate(list(visible.values()), axis=1).sum(1)
    found = {f"p_visible/{m}": v.mean(0) for m, v in visible.items()}
    bins = len(expected["hist_n_visible"])
    found["hist_n_visible"] = np.bincount(counts, minlength=bins) / draws
    assert found.keys() == expected.keys()
    for name, frequency in found.items():
        pooled = (frequency + expected[name]) / 2
        standard_error = np.sqrt(2 * pooled * (1 - pooled) / draws)  # of a difference of two
        assert (np.abs(frequency - expected[name]) <= 4 * standard_error).all(), name


utility = jax.jit(jax.vmap(returns.lambda_utility, in_axes=(0, 0, None, None)))


@pytest.mark.parametrize("value", ["critic", "rtg"])
def test_utilities_and_weights_of_candidates_equal_the_release(value):
    cases = under(read("tdlambda"), f"{value}/")
    for case in {name.split("/")[0] for name in cases}:
        recorded = under(cases, f"{case}/")
        _, lambda_, discount, xi = recorded["h_lambda_gamma_xi"]
        values = recorded["q"] if value == "critic" else 1000 * recorded["returns"]
        found = discount * utility(recorded["rewards"], values, discount, lambda_)
        assert_close(found, recorded["U"], 2e-5)
        # Weights of utilities near 2000 need more digits than float32 keeps.
        with jax.enable_x64(True):
            inputs = (jnp.array(x, float) for x in (recorded["rewards"], values))
            found = discount * utility(*inputs, discount, lambda_)
            assert_close(jax.nn.softmax(xi * found), recorded["p"], 2e-5)
