"""Trees of arrays on their way to a file and back."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np


def digests(tree: Any) -> dict[str, str]:
    """SHA-256 of every array's bytes, by its path in the tree."""
    return {
        path_name(path): hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shape of every array, by its path in the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(path): tuple(leaf.shape) for path, leaf in leaves}


def kinds(tree: Any) -> dict[str, str]:
    """Type and shape of every array, by its path in the tree; equal bytes can differ in both."""
    return {
        path_name(path): f"{np.asarray(leaf).dtype} {list(np.shape(leaf))}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def path_name(path: tuple) -> str:
    """One name for a leaf, whether it sits in a dict, a list or a named tuple."""
    parts = []
    for entry in path:
        value = getattr(entry, "key", None)
        value = getattr(entry, "name", value) if value is None else value
        value = getattr(entry, "idx", value) if value is None else value
        parts.append(str(value))
    return "/" + "/".join(parts)


def is_key(leaf: Any) -> bool:
    """Whether an array holds typed random keys."""
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def to_host(tree: Any) -> Any:
    """Copy to numpy; typed random keys become their raw words."""
    raw = jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)
    return jax.tree.map(np.asarray, raw)


def like_original(original: Any, restored: Any) -> Any:
    """Turn a restored array into what was saved: a key, an array of numpy, or one of jax."""
    if isinstance(original, np.ndarray | np.generic):
        return restored  # jax would cut 64 bits down to 32
    return jax.random.wrap_key_data(restored) if is_key(original) else jax.numpy.asarray(restored)
