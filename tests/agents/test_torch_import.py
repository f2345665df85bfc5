"""Conversion of published checkpoints; that the numbers are right is in test_golden.py."""

import pathlib

import jax
import numpy as np
import pytest

from mtm_jax.agents import torch_import
from mtm_jax.errors import UserError
from mtm_jax.models import trajectory_model as model
from mtm_jax.types import ModalitySpec

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


@pytest.fixture(params=["m3pc", "mtm"])
def arrays(request):
    with np.load(GOLDEN / f"{request.param}_state_dict.npz") as stored:
        return dict(stored)


@pytest.fixture
def m3pc():
    with np.load(GOLDEN / "m3pc_state_dict.npz") as stored:
        return dict(stored)


def assert_equal_trees(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_configuration_is_read_from_names_and_shapes(m3pc):
    config, _ = torch_import.from_torch_state_dict(m3pc)
    assert config.modalities == (
        ModalitySpec("states", 11),
        ModalitySpec("returns", 1),
        ModalitySpec("actions", 3, head="tanh_normal"),
        ModalitySpec("rewards", 1),
    )
    assert (config.window, config.width, config.heads) == (8, 64, 4)
    assert (config.encoder_layers, config.decoder_layers, config.ffn_multiplier) == (2, 1, 4)


def test_every_parameter_is_filled_with_the_model_s_shape_in_float32(arrays):
    config, params = torch_import.from_torch_state_dict(arrays)
    expected = jax.eval_shape(model.make_model(config).init, jax.random.key(0))
    found = jax.eval_shape(lambda: params)
    assert found == expected


def test_no_number_is_lost_or_invented(arrays):
    _, params = torch_import.from_torch_state_dict(arrays)
    theirs = np.concatenate([a.ravel() for n, a in arrays.items() if n != "pos_embed"])
    ours = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
    np.testing.assert_array_equal(np.sort(ours), np.sort(theirs))


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module.model."])
def test_a_wrapper_s_prefix_is_tolerated(m3pc, prefix):
    prefixed = {prefix + name: array for name, array in m3pc.items()}
    found = torch_import.from_torch_state_dict(prefixed)
    expected = torch_import.from_torch_state_dict(m3pc)
    assert found[0] == expected[0]
    assert_equal_trees(found[1], expected[1])


def test_binned_modalities_are_recognised(m3pc):
    def zeros(*shape):
        return np.zeros(shape, np.float32)

    changed = m3pc | {
        "encoder_embed_dict.states.weight": zeros(64, 16),
        "encoder_per_dim_encoding.states": zeros(1, 1, 11, 64),
        "decoder_per_dim_encoding.states": zeros(1, 1, 11, 64),
        "output_head_dict.states.3.weight": zeros(16, 64),
        "output_head_dict.states.3.bias": zeros(16),
        "encoder_embed_dict.returns.weight": zeros(64, 32),
        "output_head_dict.returns.3.weight": zeros(32, 64),
        "output_head_dict.returns.3.bias": zeros(32),
    }
    config, params = torch_import.from_torch_state_dict(changed)
    assert config.modalities[0] == ModalitySpec("states", 16, 11, "categorical")
    assert config.modalities[1] == ModalitySpec("returns", 32, 1, "categorical")
    assert params["encoder_modality_states"].shape == (11, 64)


def test_the_window_is_asked_for_where_positions_are_not_stored(m3pc):
    del m3pc["pos_embed"]
    with pytest.raises(UserError, match="give the window"):
        torch_import.from_torch_state_dict(m3pc)
    assert torch_import.from_torch_state_dict(m3pc, window=5)[0].window == 5


def test_another_window_than_the_stored_one_is_refused(m3pc):
    with pytest.raises(UserError, match="window is 4.*8 steps"):
        torch_import.from_torch_state_dict(m3pc, window=4)


@pytest.mark.parametrize("heads", [3, 128])
def test_heads_that_do_not_divide_the_width_are_refused(m3pc, heads):
    with pytest.raises(UserError, match=f"64.*{heads} heads"):
        torch_import.from_torch_state_dict(m3pc, heads=heads)


@pytest.mark.parametrize(
    "name",
    [
        "encoder.layers.1.norm2.bias",
        "decoder_embed_dict.rewards.bias",
        "mask_token_dict.returns",
        "output_head_dict.actions.log_std.weight",
    ],
)
def test_a_missing_parameter_is_named_by_its_path_in_the_model(m3pc, name):
    path = {
        "encoder.layers.1.norm2.bias": "encoder/layer_1/norm2/bias",
        "decoder_embed_dict.rewards.bias": "decoder_embed_rewards/bias",
        "mask_token_dict.returns": "mask_token_returns",
        "output_head_dict.actions.log_std.weight": "head_actions/log_std/kernel",
    }[name]
    del m3pc[name]
    with pytest.raises(UserError, match=f"no array for {path}"):
        torch_import.from_torch_state_dict(m3pc)


@pytest.mark.parametrize(
    "name",
    [
        "extra.weight",
        "encoder.norm_weight",
        "encoder.layers.0.norm3.weight",
        "encoder.layers.0.self_attn.in_proj.bias",
        "output_head_dict.images.0.bias",
    ],
)
def test_an_array_without_a_place_is_named(m3pc, name):
    m3pc[name] = np.zeros(64, np.float32)
    with pytest.raises(UserError, match=f"no place in the model for {name}"):
        torch_import.from_torch_state_dict(m3pc)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("decoder_embed_dict.states.weight", (64, 32)),
        ("encoder.layers.0.linear2.weight", (64, 128)),
        ("mask_token_dict.states", (1, 2, 64)),
        ("output_head_dict.rewards.3.bias", (2,)),
        ("encoder.norm.weight", (64, 1)),
    ],
)
def test_a_wrong_shape_is_named_with_both_shapes(m3pc, name, shape):
    m3pc[name] = np.zeros(shape, np.float32)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        torch_import.from_torch_state_dict(m3pc)


@pytest.mark.parametrize("change", ["values", "width"])
def test_other_positions_than_the_fixed_sinusoid_are_refused(m3pc, change):
    positions = m3pc["pos_embed"]
    m3pc["pos_embed"] = positions * 2 if change == "values" else positions[..., :32]
    with pytest.raises(UserError, match="fixed sinusoid"):
        torch_import.from_torch_state_dict(m3pc)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "no parameters"),
        ({"layer1.weight": np.zeros((2, 2))}, r"modalities.*\[\]"),
        ({"encoder_embed_dict.images.weight": np.zeros((4, 2))}, "images"),
        ({"encoder_embed_dict.states.weight": np.zeros(4)}, "rank 2"),
        ({"encoder_embed_dict.states.weight": np.zeros((4, 2))}, "encoding.states is absent"),
    ],
)
def test_something_else_than_a_trajectory_model_is_refused(arrays, message):
    with pytest.raises(UserError, match=message):
        torch_import.from_torch_state_dict(arrays)
