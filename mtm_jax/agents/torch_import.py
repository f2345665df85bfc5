"""Published MTM and M3PC checkpoints: PyTorch names and layouts to our parameter tree."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from mtm_jax.config import ModelConfig
from mtm_jax.errors import UserError
from mtm_jax.models import positions
from mtm_jax.models import trajectory_model as model
from mtm_jax.types import MODALITIES, Head, ModalitySpec

Arrays = Mapping[str, np.ndarray]

# Wrappers put these in front of every name.
_PREFIXES = ("module.", "model.", "_orig_mod.")
_LAYER = r"(encoder|decoder)\.layers\.(\d+)\."
# Their module -> ours. Each has a weight and a bias.
_MODULES = (
    (r"(encoder|decoder)_embed_dict\.(\w+)", r"\1_embed_\2"),
    (_LAYER + r"self_attn\.in_proj", r"\1/layer_\2/attention/qkv"),
    (_LAYER + r"self_attn\.out_proj", r"\1/layer_\2/attention/out"),
    (_LAYER + r"linear1", r"\1/layer_\2/ffn_in"),
    (_LAYER + r"linear2", r"\1/layer_\2/ffn_out"),
    (_LAYER + r"norm([12])", r"\1/layer_\2/norm\3"),
    (r"(encoder|decoder)\.norm", r"\1/norm"),
    (r"output_head_dict\.(\w+)\.0", r"head_\1/norm"),
    (r"output_head_dict\.(\w+)\.1", r"head_\1/hidden"),
    (r"output_head_dict\.(\w+)\.3", r"head_\1/out"),
    (r"output_head_dict\.(\w+)\.mu", r"head_\1/loc"),
    (r"output_head_dict\.(\w+)\.log_std", r"head_\1/log_std"),
)
_LEAF = r"((?<!in_proj)\.|(?<=in_proj)_)(?P<leaf>weight|bias)"
# Their parameter [1, 1, ...] -> ours [...].
_EMBEDDINGS = (
    (r"mask_token_dict\.(\w+)", r"mask_token_\1"),
    (r"(encoder|decoder)_per_dim_encoding\.(\w+)", r"\1_modality_\2"),
)
_POSITIONS = "pos_embed"


def from_torch_state_dict(
    arrays: Arrays, heads: int = 4, window: int | None = None
) -> tuple[ModelConfig, dict]:
    """Convert a published checkpoint's parameters.

    Names and shapes tell everything but the number of attention heads.

    Args:
        arrays: PyTorch parameter name -> array; a wrapper's prefix is taken off.
        heads: attention heads; 4 in the released configurations.
        window: T, steps; read from `pos_embed` if that is among the arrays.

    Returns:
        The model's configuration and its parameters, ready for `make_model(config).apply`.

    Raises:
        UserError: an array has no place in the model, a parameter has no array, or shapes differ.
    """
    arrays = _without_prefix(arrays)
    config = _infer_config(arrays, heads, window)
    _check_positions(arrays, config)
    found = {}
    for name, array in arrays.items():
        if name != _POSITIONS:
            path, value = _convert(name, np.asarray(array, np.float32))
            found[path] = (name, value)
    _check_complete(found, _expected_shapes(config))
    flat = {path: jnp.asarray(value) for path, (_, value) in found.items()}
    return config, flax.traverse_util.unflatten_dict(flat, sep="/")


def _without_prefix(arrays: Arrays) -> Arrays:
    if not arrays:
        raise UserError("the checkpoint holds no parameters; give the file of a trained model")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in arrays):
            return _without_prefix({n.removeprefix(prefix): a for n, a in arrays.items()})
    return arrays


def _infer_config(arrays: Arrays, heads: int, window: int | None) -> ModelConfig:
    modalities = _matches(r"encoder_embed_dict\.(\w+)\.weight", arrays)
    unknown = [m for m in modalities if m not in MODALITIES]
    if unknown or not modalities:
        raise UserError(
            f"the checkpoint's modalities, read from encoder_embed_dict.*, are {modalities}; "
            f"mtm_jax knows {MODALITIES}. Give the state dict of an MTM or M3PC model"
        )
    width = _shape(arrays, f"encoder_embed_dict.{modalities[0]}.weight", 2)[0]
    return ModelConfig(
        modalities=tuple(_infer_modality(arrays, m) for m in MODALITIES if m in modalities),
        window=_infer_window(arrays, window),
        width=width,
        heads=heads,
        encoder_layers=len(_matches(r"encoder\.layers\.(\d+)\..*", arrays)),
        decoder_layers=len(_matches(r"decoder\.layers\.(\d+)\..*", arrays)),
        ffn_multiplier=_shape(arrays, "encoder.layers.0.linear1.weight", 2)[0] // width,
    )


def _infer_modality(arrays: Arrays, name: str) -> ModalitySpec:
    features = _shape(arrays, f"encoder_embed_dict.{name}.weight", 2)[1]
    tokens_per_step = _shape(arrays, f"encoder_per_dim_encoding.{name}", 4)[2]
    head: Head = "continuous"
    if f"output_head_dict.{name}.mu.weight" in arrays:
        head = "tanh_normal"
    elif tokens_per_step > 1 or (name in ("returns", "rewards") and features > 1):
        head = "categorical"  # a scalar that enters as several features is binned
    return ModalitySpec(name, features, tokens_per_step, head)


def _infer_window(arrays: Arrays, window: int | None) -> int:
    if _POSITIONS in arrays:
        found = _shape(arrays, _POSITIONS, 4)[1]
        if window not in (None, found):
            raise UserError(f"window is {window}, but the checkpoint's pos_embed has {found} steps")
        return found
    if window is None:
        raise UserError("the checkpoint has no pos_embed to read the window from; give the window")
    return window


def _matches(pattern: str, arrays: Arrays) -> list[str]:
    """Distinct first groups of the names that match, in order."""
    found = (re.fullmatch(pattern, name) for name in arrays)
    return list(dict.fromkeys(match[1] for match in found if match))


def _shape(arrays: Arrays, name: str, rank: int) -> tuple[int, ...]:
    if name not in arrays or np.ndim(arrays[name]) != rank:
        found = np.shape(arrays[name]) if name in arrays else "absent"
        raise UserError(
            f"parameter {name} is {found} in the checkpoint, expected an array of rank {rank}; "
            "give the state dict of an MTM or M3PC model"
        )
    return np.shape(arrays[name])


def _check_positions(arrays: Arrays, config: ModelConfig) -> None:
    """Our positions are fixed: a checkpoint trained with others is another model."""
    if _POSITIONS not in arrays:
        return
    ours = np.asarray(positions.sinusoidal_positions(config.window, config.width))[None, :, None]
    theirs = np.asarray(arrays[_POSITIONS])
    if theirs.shape != ours.shape or not np.allclose(theirs, ours, rtol=0, atol=1e-5):
        raise UserError(
            f"pos_embed {theirs.shape} is not the fixed sinusoid {ours.shape} of the released "
            "models; only checkpoints with that embedding can be imported"
        )


def _convert(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """Our path and layout of one parameter; a name that we do not know stays as it is."""
    for pattern, template in _EMBEDDINGS:
        if match := re.fullmatch(pattern, name):
            leading = array.shape[:2] == (1, 1)
            return match.expand(template), array[0, 0] if leading else array
    for pattern, template in _MODULES:
        if match := re.fullmatch(pattern + _LEAF, name):
            if match["leaf"] == "bias":
                return match.expand(template) + "/bias", array
            leaf = "kernel" if array.ndim == 2 else "scale"
            return f"{match.expand(template)}/{leaf}", array.T
    return name, array


def _expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    shapes = jax.eval_shape(model.make_model(config).init, jax.random.key(0))
    flat = flax.traverse_util.flatten_dict(shapes, sep="/")
    return {path: leaf.shape for path, leaf in flat.items()}


def _check_complete(
    found: Mapping[str, tuple[str, np.ndarray]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Hold every array to a parameter and every parameter to an array, of one shape."""
    problems = []
    if unused := [name for path, (name, _) in found.items() if path not in expected]:
        problems.append(f"no place in the model for {_some(unused)}")
    if missing := [path for path in expected if path not in found]:
        problems.append(f"no array for {_some(missing)}")
    for path in expected.keys() & found.keys():
        name, value = found[path]
        if value.shape != expected[path]:
            problems.append(f"{name} gives {path} shape {value.shape}, expected {expected[path]}")
    if problems:
        raise UserError(
            f"the checkpoint does not fit the model that its names describe: {_some(problems)}. "
            "Give the unchanged state dict of an MTM or M3PC model without latent_dim"
        )


def _some(items: Iterable[str]) -> str:
    """Name the first five of them, in order."""
    items = sorted(items)
    more = f" and {len(items) - 5} more" if len(items) > 5 else ""
    return ", ".join(items[:5]) + more
