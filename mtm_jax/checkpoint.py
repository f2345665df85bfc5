"""Checkpoints: the only module that knows orbax.

A checkpoint has three parts: `model` (parameters and statistics, enough to act), `train` (the
whole training state) and `meta` (JSON: step, model configuration, data set, digests).
"""

from __future__ import annotations

import hashlib
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mtm_jax.errors import UserError

FORMAT_VERSION = 1
logging.getLogger("absl").setLevel(logging.WARNING)


class Checkpoints:
    """The checkpoints of one run folder, newest last; keeps the newest two."""

    def __init__(self, run_dir: str | pathlib.Path):
        self.folder = pathlib.Path(run_dir).absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, enable_async_checkpointing=False, create=True
        )
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=options,
            item_names=("model", "train", "meta"),
        )

    def steps(self) -> list[int]:
        """Steps that can be restored, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, model: Any, train: Any, meta: Mapping[str, Any]) -> None:
        """Write one checkpoint; it appears under its name only when it is complete."""
        model, train = _to_host(model), _to_host(train)
        meta = dict(meta) | {
            "format_version": FORMAT_VERSION,
            "step": step,
            "digests": {"model": digests(model), "train": digests(train)},
        }
        self._manager.save(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(model),
                train=ocp.args.StandardSave(train),
                meta=ocp.args.JsonSave(meta),
            ),
        )

    def restore_meta(self, step: int) -> dict[str, Any]:
        """Read a checkpoint's JSON part.

        Raises:
            UserError: it cannot be read, or another version of the format wrote it.
        """
        meta = self._restore(step, meta=ocp.args.JsonRestore())["meta"]
        if meta["format_version"] != FORMAT_VERSION:
            raise UserError(
                f"checkpoint {self.folder / str(step)} has format version "
                f"{meta['format_version']}, this program reads {FORMAT_VERSION}; "
                "use the version of mtm_jax that wrote it"
            )
        return meta

    def restore_model(self, step: int) -> Any:
        """Read parameters and statistics as plain dicts of arrays, verified.

        Raises:
            UserError: the checkpoint is damaged.
        """
        model = self._restore(step, model=ocp.args.StandardRestore())["model"]
        self._verify(step, "model", model)
        return model

    def restore_train(self, step: int, like: Any) -> Any:
        """Read the training state into the structure of `like`, verified.

        Raises:
            UserError: the checkpoint is damaged, or belongs to another model.
        """
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, _to_host(like))
        saved = self._restore(step, train=ocp.args.StandardRestore())["train"]
        self._compare_shapes(step, saved, target)
        restored = self._restore(step, train=ocp.args.StandardRestore(target))["train"]
        self._verify(step, "train", restored)
        return jax.tree.map(_like_original, like, restored)

    def _restore(self, step: int, **args: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**args))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"checkpoint {self.folder / str(step)} cannot be read ({error}); "
                "delete that folder to continue from an older checkpoint or from the start"
            ) from error

    def _compare_shapes(self, step: int, saved: Any, target: Any) -> None:
        """Refuse a checkpoint of another model before orbax reshapes or pads anything."""
        found, wanted = _shapes(saved), _shapes(target)
        wrong = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
        if wrong:
            first = wrong[0]
            raise UserError(
                f"checkpoint {self.folder / str(step)} belongs to another model: {len(wrong)} "
                f"arrays differ, the first is {first} with shape {found.get(first)} in the "
                f"checkpoint and {wanted.get(first)} here; use the run's own configuration or "
                "another --config.out"
            )

    def _verify(self, step: int, item: str, tree: Any) -> None:
        expected = self.restore_meta(step)["digests"][item]
        for name, digest in digests(tree).items():
            if expected.get(name) != digest:
                raise UserError(
                    f"checkpoint {self.folder / str(step)} is damaged: array {item}{name} does not "
                    "match its digest; delete that folder to continue from an older checkpoint"
                )


def digests(tree: Any) -> dict[str, str]:
    """SHA-256 of every array's bytes, by its path in the tree."""
    return {
        _path_name(path): hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_path_name(path): tuple(leaf.shape) for path, leaf in leaves}


def _path_name(path: tuple) -> str:
    """One name for a leaf, whether it sits in a dict, a list or a named tuple."""
    parts = []
    for entry in path:
        value = getattr(entry, "key", None)
        value = getattr(entry, "name", value) if value is None else value
        value = getattr(entry, "idx", value) if value is None else value
        parts.append(str(value))
    return "/" + "/".join(parts)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_host(tree: Any) -> Any:
    """Copy to numpy; typed random keys become their raw words."""
    raw = jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)
    return jax.tree.map(np.asarray, raw)


def _like_original(original: Any, restored: Any) -> Any:
    return jax.random.wrap_key_data(restored) if _is_key(original) else jax.numpy.asarray(restored)
