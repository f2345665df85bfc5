"""Trees of arrays on their way to a file and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_FAMILIES = (np.floating, np.integer, np.bool_, np.generic)
_THREEFRY, _RBG = "threefry2x32", "rbg"  # implementations of random keys, of two words and of four


def leaves(tree: Any) -> dict[str, Any]:
    """Collect the leaves of a tree by their path in it."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def digests(tree: Any) -> dict[str, str]:
    """SHA-256 of every array's bytes, by its path in the tree."""
    return {
        name: hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest()
        for name, leaf in leaves(tree).items()
    }


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shape of every array, by its path in the tree."""
    return {name: tuple(leaf.shape) for name, leaf in leaves(tree).items()}


def kinds(tree: Any) -> dict[str, str]:
    """Type and shape of every array, by its path in the tree; equal bytes can differ in both."""
    return {
        name: f"{np.asarray(leaf).dtype} {list(np.shape(leaf))}"
        for name, leaf in leaves(tree).items()
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


def key_implementations(tree: Any) -> dict[str, str]:
    """Name of the generator behind every array of random keys, by its path in the tree."""
    return {k: str(jax.random.key_impl(x)) for k, x in leaves(tree).items() if is_key(x)}


def to_host(tree: Any) -> Any:
    """Copy to numpy; typed random keys become their raw words."""
    raw = jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)
    return jax.tree.map(np.asarray, raw)


def fits(saved: np.ndarray | None, wanted: Any) -> bool:
    """Whether a leaf can be filled with an array, perhaps in another precision; None: missing."""
    if saved is None or wanted is None:
        return False
    if is_key(wanted):  # one implementation has more words than another
        return saved.shape[:-1] == wanted.shape
    return saved.shape == np.shape(wanted) and _family(saved) is _family(wanted)


def fill(like: Any, saved: Any, implementations: Mapping[str, str]) -> Any:
    """Build a tree of the structure of `like` from the arrays of another, matched by path.

    Args:
        like: says what each leaf is: random keys, an array of numpy, or one of jax.
        saved: arrays of numpy that fit, see `fits`.
        implementations: of saved random keys, by path; see `key_implementations`.
    """
    found = leaves(saved)

    def leaf(path: tuple, wanted: Any) -> Any:
        name = path_name(path)
        return like_original(wanted, found[name], implementations.get(name))

    return jax.tree_util.tree_map_with_path(leaf, like)


def like_original(original: Any, restored: np.ndarray, implementation: str | None = None) -> Any:
    """Turn a restored array into what was saved: a key, an array of numpy, or one of jax.

    An array of jax gets the precision of the original, keys keep their own implementation.
    """
    if is_key(original):
        implementation = implementation or _guess(original, restored.shape[-1])
        return jax.random.wrap_key_data(jnp.asarray(restored), impl=implementation)
    if isinstance(original, np.ndarray | np.generic):
        return restored  # jax would cut 64 bits down to 32
    return jnp.asarray(restored, getattr(original, "dtype", None))


def _guess(original: jax.Array, words: int) -> str:
    """Name the implementation of keys of so many words, which older checkpoints do not tell."""
    if jax.random.key_data(original).shape[-1] == words:
        return str(jax.random.key_impl(original))
    return _THREEFRY if words == 2 else _RBG


def _family(array: Any) -> type:
    """Tell real numbers of any precision, whole numbers and truth values apart."""
    dtype = getattr(array, "dtype", np.asarray(array).dtype)
    return next(family for family in _FAMILIES if jnp.issubdtype(dtype, family))
