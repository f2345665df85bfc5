"""The built-in data: collected on this machine with committed SAC actors, after D4RL's recipe.

A ladder is the actors that one training run left behind, in order. From it:

    medium          the medium actor, sampled stochastically
    expert          the expert actor, likewise
    medium-expert   half medium, then half expert
    medium-replay   every actor up to medium, each for its share of the training steps
    explore         every actor of an explorer that got no reward, likewise
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from mtm_jax.data import info as data_info
from mtm_jax.data import validation
from mtm_jax.data.builtin import assembly, collector, ladders, shard
from mtm_jax.data.minari import reader as minari
from mtm_jax.data.minari import writer as minari_writer
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.io import cache
from mtm_jax.types import DataInfo, Trajectories

_LOG = logging.getLogger("mtm_jax")
STEPS = {"medium": 1_000_000, "medium-replay": 400_000, "expert": 1_000_000, "explore": 500_000}
STEPS["medium-expert"] = STEPS["medium"] + STEPS["expert"]
_SIMULATORS = {"walker": ("dm_control",)}  # suite -> what simulates it besides MuJoCo
_SHARD_STEPS = 25_000
_VERSION = 3  # of the recipe; data of another version are collected again


def load(
    name: str,
    steps: int | None = None,
    seed: int = 0,
    actors: str | os.PathLike | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Trajectories:
    """Return a built-in data set, collecting it on all cores the first time.

    A collection that was interrupted continues with the shards that it had finished.
    medium-expert joins the two data sets, which are stored as well.

    It holds exactly `steps` steps in whole episodes; only the last one (of each half, for
    medium-expert) is cut where the steps run out. The data depend on the name, the steps, the
    seed, the actors and the installed simulator, not on the number of cores.

    Args:
        name: `<env>-<level>`.
        steps: size of the data set; by default `STEPS`, near D4RL's.
        seed: of every random number.
        actors: a folder with a ladder; by default the committed one of the environment.
        workers: processes that collect; by default one per core.
        progress: whether to draw a progress bar.

    Returns:
        Checked trajectories, to be evaluated in the environment they were recorded in.

    Raises:
        UserError: the name is unknown, there is no ladder, or steps or seed are out of range.
        collector.WorkerError: a collecting process failed.
    """
    spec, level = registry.parse_name(name)
    steps = STEPS[level] if steps is None else steps
    _check_numbers(name, level, steps, seed)
    ladder = ladders.load(ladders.folder_of(spec) if actors is None else actors, spec)
    sections = ladders.plan(ladder, level, steps)
    info = data_info.of_env(spec, ladder.env_id, name, "builtin")
    target = folder(name, steps, seed)
    origin = provenance(ladder, sections, steps, seed)
    stored = _reuse(target, origin, info)
    if stored is not None:
        return stored
    with cache.staging(target) as staged:  # before the work, to learn early if it cannot be made
        if level == "medium-expert":
            halves = {"medium": steps // 2, "expert": steps - steps // 2}
            parts = [
                load(f"{spec.name}-{half}", count, seed, actors, workers, progress)
                for half, count in halves.items()
            ]
            return _store(assembly.concatenate(parts, info), staged, target, origin)
        (section,) = sections
        with cache.partial(target, origin) as kept:
            collected = _collect(section, info, seed, workers, progress, kept)
            return _store(collected, staged, target, origin)


def folder(name: str, steps: int | None = None, seed: int = 0) -> pathlib.Path:
    """Return the place of a built-in data set, whether it is there or not."""
    steps = STEPS[registry.parse_name(name)[1]] if steps is None else steps
    return cache.folder() / "minari" / dataset_id(name, steps, seed)


def dataset_id(name: str, steps: int, seed: int) -> str:
    """Return the Minari id of a built-in data set."""
    return f"mtm_jax/{name}-{steps}-seed{seed}-v0"


def provenance(
    ladder: ladders.Ladder, sections: Sequence[ladders.Section], steps: int, seed: int
) -> dict:
    """Everything that determines the data; two that are equal give the same data."""
    used = {
        actor.path.name: {"step": actor.step, "sha256": actor.sha256}
        for section in sections
        for actor, _ in section.quotas
    }
    return {
        "recipe": _VERSION,
        "env_id": ladder.env_id,
        "actors": used,
        "steps": steps,
        "seed": seed,
        "mujoco": _version("mujoco"),
        "gymnasium": _version("gymnasium"),
        **{p: _version(p) for p in _SIMULATORS.get(registry.spec_of_id(ladder.env_id).suite, ())},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"collecting the built-in data needs {package}, which is not installed; "
            f"run `pip install {package}`"
        ) from None


def _check_numbers(name: str, level: str, steps: int, seed: int) -> None:
    least = 2 if level == "medium-expert" else 1
    if steps < least:
        raise UserError(f"{name} with {steps} steps is too small; ask for at least {least}")
    if seed < 0:
        raise UserError(f"the seed of {name} is {seed}; it must be 0 or more")


def _reuse(target: pathlib.Path, origin: dict, info: DataInfo) -> Trajectories | None:
    """Read a stored data set if it was made in the same way."""
    if not target.exists():
        return None
    try:
        stored = minari.read_metadata(target).get("mtm_jax")
        stored = stored if isinstance(stored, dict) else {}
        different = [key for key, value in origin.items() if stored.get(key) != value]
        if not different:
            trajectories = minari.read(target, info)
            _LOG.info("using the stored data set %s", target)
            return trajectories
        reason = f"it was made with other {', '.join(different)}"
    except UserError as error:
        reason = str(error)
    _LOG.warning("collecting %s again: %s", info.name, reason)
    cache.discard(target)
    return None


def _collect(
    section: ladders.Section,
    info: DataInfo,
    seed: int,
    workers: int | None,
    progress: bool,
    kept: pathlib.Path,
) -> Trajectories:
    tasks = _shards(section, info, seed)
    shards = collector.collect(tasks, workers, f"collecting {info.name}", progress, kept)
    recorded = assembly.take(shards, [task.steps for task in tasks])
    return validation.check(Trajectories(*recorded, info=info))


def _shards(section: ladders.Section, info: DataInfo, seed: int) -> list[shard.Task]:
    """Cut every quota into shards of similar size, each with random numbers of its own."""
    tasks = []
    for actor, quota in section.quotas:
        count = -(-quota // _SHARD_STEPS)
        ends = [quota * (k + 1) // count for k in range(count)]
        for k, size in enumerate(np.diff(ends, prepend=0).tolist()):
            path, key = str(actor.path.resolve()), (actor.step, k)
            limit = info.max_episode_steps
            tasks.append(shard.Task(path, info.env_id, limit, size, seed, key))
    return tasks


def _store(
    trajectories: Trajectories, staged: pathlib.Path, target: pathlib.Path, origin: dict
) -> Trajectories:
    """Publish a collected data set, unless another process just did."""
    extra = {
        "mtm_jax": origin,
        "algorithm_name": "SAC",
        "requirements": [f"{name}=={origin[name]}" for name in ("mujoco", "gymnasium")],
    }
    name = trajectories.info.name
    try:
        minari_writer.write_files(trajectories, f"mtm_jax/{target.name}", staged, extra)
        first = cache.publish(staged, target)
    except OSError as error:
        raise UserError(
            f"{name} was collected but cannot be stored in {target} ({error}); "
            "set MTM_JAX_DATA to a folder with enough space"
        ) from error
    _LOG.info("stored %s in %s" if first else "another process stored %s first in %s", name, target)
    return trajectories
