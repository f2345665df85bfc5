"""What a checkpoint says of itself, and whether it is as it was saved.

A manifest is the JSON part of a checkpoint: what its writer says (step, model, data set), the
version of the format, and type, shape and digest of every array and of itself.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mtm_jax.errors import UserError
from mtm_jax.io import trees

FORMAT_VERSION = 1
SHOWN = 5  # arrays that differ, in a message


class Damaged(UserError):
    """A checkpoint is not as it was saved."""


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
        "digests": {"model": trees.digests(model), "train": trees.digests(train)},
        "arrays": {"model": trees.kinds(model), "train": trees.kinds(train)},
    }
    meta |= {} if score is None else {"score": float(score)}
    meta["digests"]["meta"] = _own_digest(meta)
    return meta


def unreadable(path: pathlib.Path, reason: str) -> Damaged:
    """Say that a checkpoint, or its manifest, makes no sense."""
    return Damaged(f"checkpoint {path} cannot be read ({reason})")


def check(path: pathlib.Path, meta: Any) -> dict[str, Any]:
    """Return the manifest that was read from a checkpoint, where it is as it was written.

    Raises:
        UserError: `Damaged`, or another version of the format wrote it.
    """
    version = meta.get("format_version") if isinstance(meta, Mapping) else None
    if version is None:
        raise unreadable(path, "its metadata lack format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"checkpoint {path} has format version {version}, this program reads "
            f"{FORMAT_VERSION}; use the version of mtm_jax that wrote it"
        )
    if not _holds_digests(meta.get("digests")):
        raise unreadable(path, "its metadata lack digests")
    own = _own_digest(meta)
    if meta["digests"].get("meta", own) != own:
        raise Damaged(f"checkpoint {path} is damaged: its metadata do not match their digest")
    return meta


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
    """Refuse arrays of other shapes, before orbax reshapes or pads anything.

    Args:
        path: the checkpoint.
        saved: the tree in it.
        wanted: the tree that it is to fill.

    Raises:
        UserError: names the first few arrays that differ, with both shapes.
    """
    there, here = trees.shapes(saved), trees.shapes(wanted)
    wrong = sorted(k for k in there.keys() | here.keys() if there.get(k) != here.get(k))
    if not wrong:
        return
    shown = [
        f"{k} is {there.get(k, 'missing')} there and {here.get(k, 'missing')} here"
        for k in wrong[:SHOWN]
    ]
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    raise UserError(
        f"checkpoint {path} belongs to another model, the shapes of {len(wrong)} arrays differ: "
        f"{'; '.join(shown)}{more}; use the run's own configuration or another --config.out"
    )


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
