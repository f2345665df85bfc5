"""What a checkpoint says of itself, and whether it is as it was saved.

A manifest is the JSON part of a checkpoint: what its writer says (model, data set), its step and
its run, the version of the format, the settings of jax that change numbers, and type, shape and
digest of every array and of itself.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtm_jax.errors import UserError
from mtm_jax.io import numerics, trees

FORMAT_VERSION = 2
FIRST_VERSION = 1  # says nothing of its run; without types of arrays it has no digest of its own
SHOWN = 5  # arrays that differ, in a message


class Damaged(UserError):
    """A checkpoint is not as it was saved."""

    kind = "damaged"


class Misplaced(Damaged):
    """A checkpoint is not where it was saved; it may well be good."""

    kind = "misplaced"


def make(
    said: Mapping[str, Any], step: int, model: Any, train: Any, score: float | None
) -> dict[str, Any]:
    """Describe a checkpoint.

    Args:
        said: JSON values of its writer.
        step: steps done.
        model: tree of numpy arrays, what acting needs.
        train: tree of numpy arrays, what training on needs.
        score: None, or a number by which the best are kept.
    """
    meta = dict(said) | {
        "format_version": FORMAT_VERSION,
        "step": step,
        "numerics": numerics.present(),
        "digests": {"model": trees.digests(model), "train": trees.digests(train)},
        "arrays": {"model": trees.kinds(model), "train": trees.kinds(train)},
    }
    meta |= {} if score is None else {"score": float(score)}
    meta["digests"]["meta"] = _own_digest(meta)
    return meta


def unreadable(path: pathlib.Path, reason: str) -> Damaged:
    """Say that a checkpoint, or its manifest, makes no sense."""
    return Damaged(f"checkpoint {path} cannot be read ({reason})")


def check(path: pathlib.Path, meta: Any, run_id: str | None) -> dict[str, Any]:
    """Return the manifest that was read from a checkpoint, where it is as it was written.

    Args:
        path: the folder of the checkpoint, named after its step.
        meta: what was read.
        run_id: of the run that it lies in; None where that has none.

    Raises:
        UserError: `Damaged`, `Misplaced`, or another version of the format wrote it.
    """
    version = meta.get("format_version") if isinstance(meta, Mapping) else None
    if version is None:
        raise unreadable(path, "its metadata lack format_version")
    if version not in (FIRST_VERSION, FORMAT_VERSION):
        raise UserError(
            f"checkpoint {path} has format version {version}, this program reads "
            f"{FIRST_VERSION} and {FORMAT_VERSION}; use the version of mtm_jax that wrote it"
        )
    if not _holds_digests(meta.get("digests")):
        raise unreadable(path, "its metadata lack digests")
    if meta["digests"].get("meta", _none_needed(meta)) != _own_digest(meta):
        raise Damaged(f"checkpoint {path} is damaged: its metadata do not match their digest")
    _refuse_misplaced(path, meta, run_id)
    return meta


def _none_needed(meta: Mapping[str, Any]) -> str | None:
    """Stand in for the digest that the first manifests did not have."""
    first = meta["format_version"] == FIRST_VERSION and "arrays" not in meta
    return _own_digest(meta) if first else None


def _refuse_misplaced(path: pathlib.Path, meta: Mapping[str, Any], run_id: str | None) -> None:
    if meta.get("step", path.name) not in (path.name, int(path.name)):
        raise Misplaced(
            f"checkpoint {path} is of step {meta['step']}: it was renamed, or copied from there; "
            "give it its own name, or move it out of the run"
        )
    if meta.get("run_id", run_id) != run_id:
        there = f"{run_id!r}" if run_id else "missing"
        raise Misplaced(
            f"checkpoint {path} is of another run: its run_id is {meta['run_id']!r}, and that of "
            f"{path.parents[1]} is {there}; put back the run's own checkpoint, or the file run_id "
            "that belongs to it"
        )


def verify(path: pathlib.Path, meta: Mapping[str, Any], item: str, tree: Any) -> None:
    """Compare the arrays of `model` or `train` with a manifest.

    Raises:
        Damaged: one is missing, too many, or not as it was saved.
    """
    digests, kinds = trees.digests(tree), trees.kinds(tree)
    # The first checkpoints of this format do not tell types and shapes.
    saved_kinds = meta.get("arrays", {}).get(item, kinds)
    for saved, found in ((meta["digests"][item], digests), (saved_kinds, kinds)):
        for name in sorted(saved.keys() | found.keys()):
            if saved.get(name) != found.get(name):
                raise Damaged(
                    f"checkpoint {path} is damaged: array {item}{name} does not match its digest"
                )


def refuse_other_model(path: pathlib.Path, saved: Any, wanted: Any) -> None:
    """Refuse arrays that a state cannot take: of other shapes, or whole numbers for real ones.

    Args:
        path: the checkpoint.
        saved: the tree in it.
        wanted: the tree that it is to fill.

    Raises:
        UserError: names the first few arrays that differ, with both shapes.
    """
    there, here = trees.leaves(saved), trees.leaves(wanted)
    wrong = sorted(
        k for k in there.keys() | here.keys() if not trees.fits(there.get(k), here.get(k))
    )
    if not wrong:
        return
    shown = [_two_arrays(k, there.get(k), here.get(k)) for k in wrong[:SHOWN]]
    what = (
        "shapes" if any(np.shape(there.get(k)) != np.shape(here.get(k)) for k in wrong) else "types"
    )
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    raise UserError(
        f"checkpoint {path} belongs to another model, the {what} of {len(wrong)} arrays differ: "
        f"{'; '.join(shown)}{more}; use the run's own configuration or another --config.out"
    )


def _two_arrays(name: str, there: Any, here: Any) -> str:
    texts = ["missing" if x is None else str(np.shape(x)) for x in (there, here)]
    if texts[0] == texts[1]:
        texts = [f"{text} of {x.dtype}" for text, x in zip(texts, (there, here), strict=True)]
    return f"{name} is {texts[0]} there and {texts[1]} here"


def refuse_other_program(
    folder: pathlib.Path, meta: Mapping[str, Any], keys: Sequence[str], kind: str
) -> None:
    """Refuse the checkpoint of another program.

    Args:
        folder: holds the checkpoints.
        meta: manifest of one of them.
        keys: what the program says in its manifests.
        kind: what the program trains, for example "critic".

    Raises:
        UserError: names the keys that are missing.
    """
    missing = [key for key in keys if key not in meta]
    if missing:
        raise UserError(
            f"the checkpoints in {folder} are not those of a {kind}: they lack "
            f"{', '.join(missing)}; give the folder of a pretraining run"
        )


def _holds_digests(value: Any) -> bool:
    """Whether there are digests of the arrays, and none of unknown things."""
    if not isinstance(value, Mapping) or value.keys() - {"meta"} != {"model", "train"}:
        return False
    return all(isinstance(value[part], Mapping) for part in ("model", "train"))


def _own_digest(meta: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest but itself; the first ones of this format have none."""
    arrays = {k: v for k, v in meta["digests"].items() if k != "meta"}
    plain = json.loads(json.dumps(dict(meta) | {"digests": arrays}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
