"""Settings that make no sense are refused with their values."""

import dataclasses

import pytest

from mtm_jax import config
from mtm_jax.errors import UserError
from mtm_jax.types import ModalitySpec

MODEL = config.ModelConfig((ModalitySpec("states", 3), ModalitySpec("actions", 2)))
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("settings", "key", "value"),
    [
        *((MODEL, key, 0) for key in ("heads", "width", "encoder_layers", "decoder_layers")),
        *((MODEL, key, 0) for key in ("ffn_multiplier", "window")),
        (MODEL, "heads", -2),
        (MODEL, "width", -64),
        (MODEL, "encoder_layers", -1),
        (MODEL, "dropout", 1.0),
        (MODEL, "dropout", NAN),
        (MODEL, "compute_dtype", "foo"),
        *((config.OptimConfig(), "learning_rate", value) for value in (0.0, -1.0, NAN, INF)),
        *((config.OptimConfig(), "weight_decay", value) for value in (-0.1, NAN, INF)),
        *((config.OptimConfig(), "clip_norm", value) for value in (-0.1, NAN, INF)),
        *((config.OptimConfig(), "b1", value) for value in (-0.1, 1.0, NAN)),
        *((config.OptimConfig(), "b2", value) for value in (-0.1, 1.0, NAN)),
        *((config.OptimConfig(), "average", value) for value in (-0.1, 1.0, NAN)),
        (config.OptimConfig(), "schedule", "linear"),
        *((config.PretrainConfig(MODEL), "state_noise", value) for value in (-0.1, NAN, INF)),
        (config.PretrainConfig(MODEL), "prng", "philox"),
        *((config.LossConfig(), "entropy_target", value) for value in (NAN, -INF)),
        *((config.LossConfig(), "initial_sigma", value) for value in (0.0, NAN, INF)),
        *((config.LossConfig(), "sigma_learning_rate", value) for value in (0.0, -1.0, NAN, INF)),
        (config.LossConfig(), "entropy_samples", 0),
        (config.LossConfig(), "entropy_reduction", "mean"),
        *((config.CriticConfig(), "least_of", value) for value in (-1, 3)),
        *((config.PromptConfig(), "guidance", value) for value in (NAN, INF)),
        *((config.PromptConfig(), "temperature", value) for value in (0.0, -1.0, INF)),
        *((config.PromptConfig(), key, "foo") for key in ("action", "returns_shown")),
        (config.PromptConfig(), "compute_dtype", "float16"),
        *((config.GoalConfig(), key, -1) for key in ("ahead", "reach", "inpainting")),
        (config.GoalConfig(ahead=3, reach=3), "reach", 2),
        *((config.GoalConfig(), key, "foo") for key in ("path", "compute_dtype")),
    ],
)
def test_a_senseless_value_is_refused(settings, key, value):
    with pytest.raises(UserError, match=rf"{key} is {value!r}( steps)?; (it must be|choose)"):
        dataclasses.replace(settings, **{key: value})


@pytest.mark.parametrize("key", ["features", "tokens_per_step"])
def test_a_modality_without_content_is_refused(key):
    states = dataclasses.replace(ModalitySpec("states", 3), **{key: 0})
    with pytest.raises(UserError, match=f"{key} of states is 0; it must be at least 1"):
        config.ModelConfig((states,))


@pytest.mark.parametrize(("width", "heads"), [(6, 4), (3, 3)])
def test_a_width_that_the_heads_cannot_share_is_refused(width, heads):
    with pytest.raises(UserError, match=f"width {width} must be even and .* the {heads} heads"):
        dataclasses.replace(MODEL, width=width, heads=heads)


def test_the_smallest_settings_are_accepted():
    dataclasses.replace(
        MODEL, width=2, heads=1, encoder_layers=1, decoder_layers=1, ffn_multiplier=1, window=1
    )
    config.OptimConfig(weight_decay=0.0, clip_norm=0.0, b1=0.0, b2=0.0)
    config.LossConfig(entropy_target=0.0)


def test_noise_on_categorical_states_is_refused():
    states = ModalitySpec("states", 5, 3, "categorical")
    model = config.ModelConfig((states,))
    config.PretrainConfig(model)
    with pytest.raises(UserError, match="noise is 0.1, .* of this model are categorical: choose 0"):
        config.PretrainConfig(model, state_noise=0.1)


def test_parts_that_do_not_divide_a_batch_are_refused():
    with pytest.raises(UserError, match="micro_batches is 3, .* divide the batch_size 32"):
        config.PretrainConfig(MODEL, batch_size=32, micro_batches=3)
    with pytest.raises(UserError, match="micro_batches is 0; it must be at least 1"):
        config.PretrainConfig(MODEL, batch_size=32, micro_batches=0)
