"""Checkpoints: the only module that knows orbax.

A checkpoint has three parts: `model` (parameters and statistics, enough to act), `train` (the
whole training state) and `meta` (JSON: step, model configuration, data set, digests).
"""

from __future__ import annotations

import errno
import logging
import os
import pathlib
import re
import shutil
import textwrap
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from mtm_jax.errors import UserError
from mtm_jax.io import manifest, orbax_noise, trees
from mtm_jax.io.manifest import Damaged

T = TypeVar("T")

OFFER = "--config.use_older=True continues from there and sets the damaged one aside"
KEPT = 2  # newest checkpoints
ASIDE = "damaged"  # folder of a run, for checkpoints that were skipped
LATER = "later"  # the same, for those after the step that a training went back to
REFUSED = re.compile(r"os_error_code='(\d+)'")  # what tensorstore says of the file system
# What a save, or a removal, is called while it is not complete.
UNFINISHED = re.compile(r"\d+\.orbax-checkpoint-tmp.*|\.removed-\d+")
# orbax warns of what is meant, such as a folder that is opened for reading only, and logs what it
# also raises.
logging.getLogger("absl").setLevel(logging.CRITICAL)


class Checkpoints:
    """The checkpoints of one run folder, newest last.

    Keeps the newest two, and besides them those of the lowest `keep_best` scores.
    """

    def __init__(self, run_dir: str | pathlib.Path, read_only: bool = False, keep_best: int = 0):
        """Open the checkpoints of a run; their folder is created unless they are only read.

        What a killed process left unfinished is removed, unless they are only read.
        """
        self.folder = pathlib.Path(run_dir).absolute() / "checkpoints"
        self._keep_best, self._read_only = keep_best, read_only
        if not read_only:
            _remove_unfinished(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            enable_async_checkpointing=False, create=False, read_only=read_only, **_alone()
        )
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=options,
            item_names=("model", "train", "meta"),
        )

    def steps(self) -> list[int]:
        """Steps that can be restored, ascending."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        step: int,
        model: Any,
        train: Any,
        meta: Mapping[str, Any],
        score: float | None = None,
    ) -> None:
        """Write one checkpoint; it appears under its name only when it is complete.

        Args:
            step: steps done.
            model: what acting needs.
            train: what training on needs.
            meta: JSON values.
            score: lower is better; see `keep_best`.

        Raises:
            UserError: the file system refuses, or there is a checkpoint of this or a later step.
        """
        if self._read_only:
            return
        self._refuse_earlier(step)
        model, train = trees.to_host(model), trees.to_host(train)
        meta = manifest.make(meta, step, model, train, score)
        items = ocp.args.Composite(
            model=ocp.args.StandardSave(model),
            train=ocp.args.StandardSave(train),
            meta=ocp.args.JsonSave(meta),
        )
        try:
            with orbax_noise.only_the_error():
                self._manager.save(step, args=items)
        except (OSError, ValueError) as error:  # the latter of tensorstore
            if not isinstance(error, OSError) and not REFUSED.search(str(error)):
                raise
            raise UserError(
                f"the checkpoint of step {step} cannot be written to {self.folder} "
                f"({_reason(error)}); older ones are untouched: make room, then the same command "
                "continues"
            ) from error
        self._remove_old()

    def _refuse_earlier(self, step: int) -> None:
        """Refuse what orbax would pass over in silence."""
        newest = max(self.steps(), default=-1)
        if newest >= step:
            raise UserError(
                f"{self.folder} has a checkpoint of step {newest}, so none of step {step} is "
                "written; go_back to an earlier step first"
            )

    def go_back(self, step: int) -> None:
        """Set the checkpoints after a step aside, for a training that continues from there."""
        for later in self.steps():
            if later > step and not self._read_only:
                self._set_aside(later, LATER)

    def _remove_old(self) -> None:
        steps = self.steps()
        scores = self.scores() if self._keep_best else {}
        best = sorted(scores, key=lambda step: (scores[step], -step))[: self._keep_best]
        for step in set(steps[:-KEPT]) - set(best):
            # A folder that is being deleted must not look like a checkpoint.
            removed = self.folder / f".removed-{step}"
            os.replace(self.folder / str(step), removed)
            shutil.rmtree(removed)
        self._manager.reload()

    def scores(self) -> dict[int, float]:
        """Scores of the checkpoints that were saved with one, by step."""
        found = {}
        for step in self.steps():
            try:
                score = self.restore_meta(step).get("score")
            except UserError:  # said where it is restored
                continue
            found |= {} if score is None else {step: score}
        return found

    def newest(
        self, read: Callable[[int], T], use_older: bool = False, offer: str = OFFER
    ) -> T | None:
        """Read the newest checkpoint; None where there is none.

        Args:
            read: reads the checkpoint of a step, for example with `restore_train`.
            use_older: where it is damaged, set it aside and read the newest one that is not.
            offer: what to do about damage, with "{step}" for the step of the newest good one.

        Raises:
            UserError: `Damaged`, with the newest good one; or what else `read` refuses.
        """
        steps = self.steps()
        if not steps:
            return None
        try:
            return read(steps[-1])
        except Damaged as error:
            damage = error
        good, found = self._newest_good(steps[:-1], read)
        if good is None:
            raise Damaged(f"{damage}; no older one is good: delete {self.folder} to start anew")
        if not use_older:
            text = f"{damage}; the newest good one is of step {good}: "
            raise Damaged(text + offer.replace("{step}", str(good)))
        for step in steps[steps.index(good) + 1 :]:
            self._set_aside(step)
        return found

    def _newest_good(
        self, steps: list[int], read: Callable[[int], T]
    ) -> tuple[int, T] | tuple[None, None]:
        for step in reversed(steps):
            try:
                return step, read(step)
            except Damaged:
                continue
        return None, None

    def _set_aside(self, step: int, name: str = ASIDE) -> None:
        aside = self.folder.parent / name
        aside.mkdir(exist_ok=True)
        names = (f"{step}", *(f"{step}-{n}" for n in range(2, 100)))
        target = next(aside / name for name in names if not (aside / name).exists())
        os.replace(self.folder / str(step), target)
        self._manager.reload()

    def restore_meta(self, step: int) -> dict[str, Any]:
        """Read a checkpoint's JSON part.

        Raises:
            UserError: `Damaged`, or another version of the format wrote it.
        """
        meta = self._restore(step, meta=ocp.args.JsonRestore())["meta"]
        return manifest.check(self.folder / str(step), meta)

    def restore_model(self, step: int) -> Any:
        """Read parameters and statistics as plain dicts of arrays, verified.

        Raises:
            UserError: `Damaged`.
        """
        model = self._restore(step, model=ocp.args.StandardRestore())["model"]
        manifest.verify(self.folder / str(step), self.restore_meta(step), "model", model)
        return model

    def restore_train(self, step: int, like: Any) -> Any:
        """Read the training state into the structure of `like`, verified.

        Raises:
            UserError: `Damaged`, or it belongs to another model.
        """
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, trees.to_host(like))
        saved = self._restore(step, train=ocp.args.StandardRestore())["train"]
        manifest.refuse_other_model(self.folder / str(step), saved, target)
        restored = self._restore(step, train=ocp.args.StandardRestore(target))["train"]
        manifest.verify(self.folder / str(step), self.restore_meta(step), "train", restored)
        return jax.tree.map(trees.like_original, like, restored)

    def _restore(self, step: int, **args: Any) -> Any:
        try:
            with orbax_noise.only_the_error():
                return self._manager.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:  # orbax raises whatever it meets in a damaged file
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 300)
            raise manifest.unreadable(self.folder / str(step), reason) from error


def _alone() -> dict[str, Any]:
    """Options by which no process waits for another: the first one writes, each reads alone."""
    if jax.process_count() == 1:
        return {}
    here = jax.process_index()
    multiprocessing = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
    )
    return {"multiprocessing_options": multiprocessing}


def _reason(error: Exception) -> str:
    """Say why nothing was written; tensorstore ends a long story with the number of the error."""
    number = REFUSED.search(str(error))
    return os.strerror(int(number[1])) if number else str(error)


def _remove_unfinished(folder: pathlib.Path) -> None:
    """Remove what is no complete checkpoint, as a save or a removal was killed; no other folder."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and UNFINISHED.fullmatch(path.name):
            _remove_folder(path)


def _remove_folder(path: pathlib.Path) -> None:
    """Remove a folder; a save of this process that failed may still be writing into it."""
    for wait in (0.1, 0.3, 1.0, 3.0, None):
        try:
            return shutil.rmtree(path)
        except OSError as error:
            if wait is None or error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                raise
            time.sleep(wait)
