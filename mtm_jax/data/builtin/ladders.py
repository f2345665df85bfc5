"""Ladders of behaviour actors: the snapshots that one training run left behind, and their index."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib

import numpy as np

from mtm_jax.data import archives
from mtm_jax.data.builtin import shard
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.io import cache

_INDEX = "ladder.json"
_ROLES = ("medium", "expert")
_ACTORS = pathlib.Path(__file__).resolve().parent / "actors"


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """One actor of a ladder."""

    path: pathlib.Path
    step: int  # environment steps of training before it
    sha256: str


@dataclasses.dataclass(frozen=True)
class Ladder:
    """Actors of one training run, in the order of training."""

    env_id: str
    snapshots: tuple[Snapshot, ...]
    medium: Snapshot | None  # None where an explorer left them
    expert: Snapshot | None


@dataclasses.dataclass(frozen=True)
class Section:
    """Steps that are recorded in one go: whole episodes, except that the last one may be cut."""

    quotas: tuple[tuple[Snapshot, int], ...]  # (actor, steps), in order


def folder_of(spec: registry.EnvSpec) -> pathlib.Path:
    """Return the folder of the actors that come with this package; walker tasks share one."""
    return _ACTORS / ("walker" if spec.suite == "walker" else spec.name)


def load(folder: str | os.PathLike, spec: registry.EnvSpec) -> Ladder:
    """Read a ladder and check each of its actors.

    Args:
        folder: holds `ladder.json` and the actors it names.
        spec: the environment that they must fit.

    Raises:
        UserError: a file is missing or damaged, the index is wrong, or an actor does not fit.
    """
    folder = pathlib.Path(folder)
    index = _read_index(folder, spec)
    try:
        env_id = str(index["env_id"])
        steps = {str(entry["file"]): int(entry["step"]) for entry in index["ladder"]}
        chosen = {role: str(index[role]) for role in _ROLES if role in index}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / _INDEX} has a missing or wrong entry ({error!r})") from error
    _check_index(folder, env_id, steps, chosen, spec)
    snapshots = {file: _read_snapshot(folder / file, step, spec) for file, step in steps.items()}
    roles = {role: snapshots[chosen[role]] if role in chosen else None for role in _ROLES}
    env_id = spec.builtin_id if spec.suite == "walker" else env_id
    return Ladder(env_id, tuple(snapshots.values()), **roles)


def plan(ladder: Ladder, level: str, steps: int) -> tuple[Section, ...]:
    """Divide `steps` among the actors of a ladder.

    Args:
        ladder: the actors.
        level: one of `registry.LEVELS`.
        steps: of the whole data set.

    Returns:
        What to record, in order.
    """
    if level == "medium-expert":
        half = steps // 2
        return plan(ladder, "medium", half) + plan(ladder, "expert", steps - half)
    if level in _ROLES:
        return (Section(((getattr(ladder, level), steps),)),)
    last = ladder.snapshots[-1] if level == "explore" else ladder.medium
    seen = [s for s in ladder.snapshots if s.step <= last.step]
    ends = [steps * s.step // last.step for s in seen]
    quotas = np.diff(ends, prepend=0).tolist()
    return (Section(tuple((s, q) for s, q in zip(seen, quotas, strict=True) if q > 0)),)


def _read_index(folder: pathlib.Path, spec: registry.EnvSpec) -> dict:
    path = folder / _INDEX
    if not path.is_file():
        raise UserError(
            f"there are no behaviour actors of {spec.name} in {folder} ({_INDEX} is missing); "
            f"train them with `make behaviours ENV={spec.name}`, "
            "or choose the source d4rl or minari"
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); restore it") from error
    if not isinstance(index, dict):
        raise UserError(f"{path} holds a {type(index).__name__}, expected an object; restore it")
    return index


def _check_index(
    folder: pathlib.Path,
    env_id: str,
    steps: dict[str, int],
    chosen: dict[str, str],
    spec: registry.EnvSpec,
) -> None:
    path = folder / _INDEX
    trained = registry.spec_of_id(env_id)
    if trained != spec and not trained.suite == spec.suite == "walker":
        raise UserError(f"{path} is a ladder of {env_id}, not of {spec.name}; choose another")
    if set(chosen) != set(_ROLES) and spec.levels != ("explore",):
        raise UserError(f"{path} must name the actors {' and '.join(_ROLES)}; correct it")
    if not steps:
        raise UserError(f"{path} lists no actors; correct it")
    for file in chosen.values():
        if file not in steps:
            raise UserError(f"{path} chooses {file}, which its ladder does not list; correct it")
    for file in steps:
        if pathlib.Path(file).name != file:
            raise UserError(f"{path} lists {file!r}; actors must lie in the folder of the index")
    order = list(steps.values())
    if order[0] < 1 or any(b <= a for a, b in zip(order, order[1:], strict=False)):
        raise UserError(f"{path} has training steps {order}; they must be positive and increase")


def _read_snapshot(path: pathlib.Path, step: int, spec: registry.EnvSpec) -> Snapshot:
    if not path.is_file():
        raise UserError(f"the actor {path} of {_INDEX} is missing; restore it")
    check_actor(path, spec)
    return Snapshot(path, step, cache.sha256(path))


def check_actor(path: pathlib.Path, spec: registry.EnvSpec) -> None:
    """Refuse an actor that is not one of an environment.

    Raises:
        UserError: it cannot be read, or its layers do not fit the environment or each other.
    """
    try:
        layers = shard.load_actor(path)
    except archives.DAMAGE as error:
        raise UserError(f"the actor {path} cannot be read ({error}); restore it") from error
    shapes = [(kernel.shape, bias.shape) for kernel, bias in layers]
    if any(len(k) != 2 or b != k[1:] for k, b in shapes) or any(
        after[0][0] != before[0][1] for before, after in zip(shapes, shapes[1:], strict=False)
    ):
        raise UserError(f"the actor {path} has layers of shapes {shapes}; restore it")
    found = (layers[0][0].shape[0], layers[-1][0].shape[-1])
    expected = (spec.obs_dim, 2 * spec.action_dim)
    if found != expected:
        raise UserError(
            f"the actor {path} maps {found[0]} inputs to {found[1]} outputs, but {spec.name} needs "
            f"{expected[0]} and {expected[1]}; choose actors of {spec.name}"
        )
