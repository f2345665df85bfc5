"""Checkpoints: the only module that knows orbax.

A checkpoint has three parts: `model` (parameters and statistics, enough to act), `train` (the
whole training state) and `meta` (JSON: step, model configuration, data set, digests).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import pathlib
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mtm_jax.errors import UserError

FORMAT_VERSION = 1
# orbax warns of what is meant, such as a folder that is opened for reading only.
logging.getLogger("absl").setLevel(logging.ERROR)


class Checkpoints:
    """The checkpoints of one run folder, newest last; keeps the newest two."""

    def __init__(self, run_dir: str | pathlib.Path, read_only: bool = False):
        """Open the checkpoints of a run; their folder is created unless they are only read."""
        self.folder = pathlib.Path(run_dir).absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else 2,
            enable_async_checkpointing=False,
            create=not read_only,
            read_only=read_only,
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
        version = meta.get("format_version") if isinstance(meta, Mapping) else None
        if version is None:
            raise self._unreadable(step, "its metadata lack format_version")
        if version != FORMAT_VERSION:
            raise UserError(
                f"checkpoint {self.folder / str(step)} has format version "
                f"{version}, this program reads {FORMAT_VERSION}; "
                "use the version of mtm_jax that wrote it"
            )
        if not _holds_digests(meta.get("digests")):
            raise self._unreadable(step, "its metadata lack digests")
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
            with _only_the_error():
                return self._manager.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:  # orbax raises whatever it meets in a damaged file
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 300)
            raise self._unreadable(step, reason) from error

    def _unreadable(self, step: int, reason: str) -> UserError:
        return UserError(
            f"checkpoint {self.folder / str(step)} cannot be read ({reason}); "
            "delete that folder to continue from an older checkpoint or from the start"
        )

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
        expected, found = self.restore_meta(step)["digests"][item], digests(tree)
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                raise UserError(
                    f"checkpoint {self.folder / str(step)} is damaged: array {item}{name} does not "
                    "match its digest; delete that folder to continue from an older checkpoint"
                )


@contextlib.contextmanager
def _only_the_error() -> Iterator[None]:
    """Keep what orbax prints besides the error that it raises from standard error.

    When one array cannot be read, it closes its event loop under the reads of the others. Each
    complains about that when it ends, which may be later: after an error the filters stay.
    """
    logger, hook = logging.getLogger("asyncio"), sys.unraisablehook
    filtered = _is_no_late_read in logger.filters

    def report(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    logger.addFilter(_is_no_late_read)
    sys.unraisablehook = report
    yield
    sys.unraisablehook = hook
    if not filtered:
        logger.removeFilter(_is_no_late_read)


def _is_no_late_read(record: logging.LogRecord) -> bool:
    """Whether a message of asyncio is about something else than a failed read of tensorstore."""
    return not (record.exc_info and "tensorstore_spec=" in str(record.exc_info[1]))


def _holds_digests(value: Any) -> bool:
    parts = [value.get(k) for k in ("model", "train")] if isinstance(value, Mapping) else [None]
    return all(isinstance(part, Mapping) for part in parts)


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
