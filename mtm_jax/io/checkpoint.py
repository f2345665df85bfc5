"""Checkpoints of a run: written whole, read back verified, the newest and the best kept.

A checkpoint has three parts: `model` (parameters and statistics, enough to act), `train` (the
whole training state) and `meta` (JSON, see `manifest`).

Orbax's own policies of preservation are not used: it removes a checkpoint in place, so that a
killed removal leaves half of one under the name of a step, or moves it away and keeps it for ever;
and its metrics lie outside of what the digests protect.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mtm_jax.errors import UserError
from mtm_jax.io import manifest, orbax_files, step_folders, trees
from mtm_jax.io.manifest import Damaged, Misplaced

T = TypeVar("T")

OFFER = "--config.use_older=True continues from there and sets the damaged one aside"
KEPT = 2  # newest checkpoints
ASIDE = "damaged"  # folder of a run, for checkpoints that were skipped
LATER = "later"  # the same, for those after the step that a training went back to


class Checkpoints:
    """The checkpoints of one run folder, newest last.

    Keeps the newest two, and besides them those of the lowest `keep_best` scores.
    """

    def __init__(self, run_dir: str | pathlib.Path, read_only: bool = False, keep_best: int = 0):
        """Open the checkpoints of a run; their folder is created unless they are only read.

        What a killed process left unfinished is removed, unless they are only read.
        """
        self._run_dir = pathlib.Path(run_dir).absolute()
        self.folder = self._run_dir / "checkpoints"
        self._keep_best, self._read_only = keep_best, read_only
        if not read_only:
            step_folders.remove_unfinished(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)

    def steps(self) -> list[int]:
        """Steps that can be restored, ascending."""
        return step_folders.steps(self.folder)

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
        keys = trees.key_implementations(train)
        model, train = trees.to_host(model), trees.to_host(train)
        try:
            said = {**meta, "run_id": step_folders.make_run_id(self._run_dir), "keys": keys}
            meta = manifest.make(said, step, model, train, score)
            orbax_files.write(self._path(step), {"model": model, "train": train}, meta)
        except OSError as error:
            raise UserError(
                f"the checkpoint of step {step} cannot be written to {self.folder} "
                f"({error.strerror or error}); older ones are untouched: make room, then the same "
                "command continues"
            ) from error
        self._remove_old()

    def _refuse_earlier(self, step: int) -> None:
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
                step_folders.set_aside(self._path(later), self._run_dir / LATER)

    def _remove_old(self) -> None:
        steps = self.steps()
        scores = self.scores() if self._keep_best else {}
        best = sorted(scores, key=lambda step: (scores[step], -step))[: self._keep_best]
        for step in set(steps[:-KEPT]) - set(best):
            step_folders.remove(self._path(step))

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
        steps, refused = self.steps(), []
        for step in reversed(steps):
            try:
                found = read(step)
            except Damaged as error:
                refused.append(error)
                continue
            if refused and not use_older:
                offer = offer.replace("{step}", str(step)).replace("damaged", refused[0].kind)
                raise type(refused[0])(
                    f"{refused[0]}; the newest good one is of step {step}: {offer}"
                )
            for skipped in steps[len(steps) - len(refused) :]:
                step_folders.set_aside(self._path(skipped), self._run_dir / ASIDE)
            return found
        if any(isinstance(error, Misplaced) for error in refused):  # good ones may be among them
            raise next(error for error in refused if isinstance(error, Misplaced))
        if refused:
            raise Damaged(f"{refused[0]}; no older one is good: delete {self.folder} to start anew")
        return None

    def restore_meta(self, step: int) -> dict[str, Any]:
        """Read a checkpoint's JSON part.

        Raises:
            UserError: `Damaged`, or another version of the format wrote it.
        """
        try:
            meta = orbax_files.read_meta(self._path(step))
        except orbax_files.Unreadable as error:
            raise manifest.unreadable(self._path(step), str(error)) from error
        return manifest.check(self._path(step), meta, step_folders.read_run_id(self._run_dir))

    def restore_model(self, step: int) -> Any:
        """Read parameters and statistics as plain dicts of arrays, verified.

        Raises:
            UserError: `Damaged`.
        """
        return self._restore(step, "model")[1]

    def restore_train(self, step: int, like: Any) -> Any:
        """Read the training state into the structure of `like`, verified.

        Numbers get the precision of `like`, random keys keep the implementation that they were
        saved with: a training continues under other settings of jax.

        Raises:
            UserError: `Damaged`, or it belongs to another model.
        """
        meta, saved = self._restore(step, "train")
        manifest.refuse_other_model(self._path(step), saved, like)
        return trees.fill(like, saved, meta.get("keys", {}))

    def _restore(self, step: int, item: str) -> tuple[dict[str, Any], Any]:
        """Read the manifest and an item that agrees with it."""
        meta = self.restore_meta(step)
        try:
            found = orbax_files.read_arrays(self._path(step), item)
        except orbax_files.Unreadable as error:
            raise manifest.unreadable(self._path(step), str(error)) from error
        manifest.verify(self._path(step), meta, item, found)
        return meta, found

    def _path(self, step: int) -> pathlib.Path:
        return self.folder / str(step)
