"""Reads ExORL's walker data: one npz file per episode, in a folder or in the zip as downloaded.

Row 0 of an episode is its reset: step i goes from observation i - 1 with action i to observation i.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import pathlib
from typing import NamedTuple

import numpy as np

from mtm_jax.data import archives, endings, validation
from mtm_jax.data import info as data_info
from mtm_jax.data.exorl import files as exorl_files
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.io import progress as progress_bar
from mtm_jax.types import DataInfo, Trajectories

_LOG = logging.getLogger("mtm_jax")
_TASKS = "mtm_jax.envs.walker_tasks"  # imports a simulator, which only relabelling needs
_ROW_BYTES = 4096  # at most, of one step; the walker's have 400
_BLOCK = 64  # episodes whose rewards are computed together


class _Kind(NamedTuple):
    """What is read of every file."""

    info: DataInfo
    spec: registry.EnvSpec
    rewards: bool

    def shapes(self, rows: int) -> dict[str, tuple[int, ...]]:
        shapes = {
            "observation": (rows, self.spec.obs_dim),
            "action": (rows, self.spec.action_dim),
            "discount": (rows,),
        }
        return shapes | ({"physics": (rows, 18)} if self.rewards else {})


def read(
    path: str | os.PathLike,
    about: DataInfo | str | None = None,
    source: str | None = None,
    rewards: bool = True,
    limit_steps: int | None = None,
    progress: bool = False,
    clip_actions: bool = False,
) -> Trajectories:
    """Read the episodes of a folder or a zip archive, in the order of their numbers.

    The rewards are those of the task in the name, computed from the stored physics; the rewards
    in the files are those of the explorer and are not used. A discount of 0 is terminal.

    Args:
        path: a folder with `episode_<number>_<steps>.npz` at any depth, or a zip archive of one,
            which is read in place.
        about: a DataInfo, or a name that starts with walker_stand, walker_walk or walker_run; by
            default the name of the folder or archive.
        source: what `info.source` says; by default the path.
        rewards: whether to compute them; without, `available` says that there are none.
        limit_steps: read the first episodes that hold this many steps together.
        progress: whether to draw a progress bar.
        clip_actions: see `validation.check`.

    Returns:
        Checked trajectories.

    Raises:
        UserError: the task is unknown, there are no episodes, or one of them is damaged, does not
            fit or lacks the physics; or the archive is not safe to read.
    """
    path = pathlib.Path(path).expanduser()
    kind = _describe(path, about, source, rewards)
    with exorl_files.entries(path) as found:
        entries = exorl_files.choose(path, found, kind.info.max_episode_steps, limit_steps)
        total = sum(entry.steps for entry in entries)
        if len(entries) < len(found):
            _LOG.info("%s: the first %d of %d episodes are read", path, len(entries), len(found))
        bars = progress_bar.progress(total, "reading") if progress else contextlib.nullcontext()
        with bars as bar:
            _warn_alike(path, entries[0], kind)
            trajectories = _read_all(entries, kind, bar)
    _log_cut(path, trajectories)
    return validation.check(trajectories, clip_actions)


def _describe(
    path: pathlib.Path, about: DataInfo | str | None, source: str | None, rewards: bool
) -> _Kind:
    name = about.name if isinstance(about, DataInfo) else about or path.stem
    spec = data_info.find_env(name)
    if spec is None or spec.suite != "walker":
        tasks = ", ".join(s.name for s in registry.ENVS.values() if s.suite == "walker")
        raise UserError(
            f"the task of {path} cannot be told from {name!r}; give a name that starts with one "
            f"of {tasks}, like walker_walk-proto"
        )
    source = str(path) if source is None else source
    if not isinstance(about, DataInfo):
        about = data_info.of_env(spec, spec.builtin_id, name, source)
    return _Kind(about, spec, rewards)


def _warn_alike(path: pathlib.Path, entry: exorl_files.Entry, kind: _Kind) -> None:
    """Say which arrays of the first episode may mean ends; only the discount does here."""
    with entry.open() as file:
        shapes = kind.shapes(entry.steps + 1)
        _, others = archives.load_npz(f"episode {entry.where}", file, shapes)
    endings.warn_alike(str(path), others)


def _read_all(
    entries: list[exorl_files.Entry], kind: _Kind, bar: progress_bar.Bar | None
) -> Trajectories:
    """Fill arrays whose sizes the names of the files have told; no step is held twice."""
    lengths = np.array([entry.steps for entry in entries])
    whole = _empty(lengths, kind)
    row = 0
    for first in range(0, len(entries), _BLOCK):
        start, physics = row, []
        for k, entry in enumerate(entries[first : first + _BLOCK], first):
            episode = _read_episode(entry, kind)
            _place(whole, k, row, episode)
            physics.append(episode.get("physics"))
            row += entry.steps
        if kind.rewards:
            whole.rewards[start:row] = _rewards(kind.spec, [states[1:] for states in physics])
        if bar is not None:
            bar.update(row)
    return whole


def _empty(lengths: np.ndarray, kind: _Kind) -> Trajectories:
    rows, episodes, spec = int(lengths.sum()), len(lengths), kind.spec
    absent = dict.fromkeys(("rewards", "returns"), np.zeros(episodes, bool))
    return Trajectories(
        observations=np.empty((rows, spec.obs_dim), np.float32),
        actions=np.empty((rows, spec.action_dim), np.float32),
        rewards=np.zeros(rows, np.float32),
        terminals=np.zeros(rows, bool),
        lengths=lengths,
        final_observations=np.empty((episodes, spec.obs_dim), np.float32),
        info=kind.info,
        available={} if kind.rewards else absent,
    )


def _place(whole: Trajectories, k: int, row: int, episode: dict[str, np.ndarray]) -> None:
    """Write the k-th episode at its rows."""
    here = slice(row, row + len(episode["action"]) - 1)
    with np.errstate(over="ignore"):  # what overflows is refused as infinite later
        whole.observations[here] = episode["observation"][:-1]
        whole.final_observations[k] = episode["observation"][-1]
        whole.actions[here] = episode["action"][1:]
    whole.terminals[here] = episode["discount"][1:] == 0


def _read_episode(entry: exorl_files.Entry, kind: _Kind) -> dict[str, np.ndarray]:
    what, shapes = f"episode {entry.where}", kind.shapes(entry.steps + 1)
    with entry.open() as file:
        episode, _ = archives.load_npz(what, file, shapes, _ROW_BYTES * (entry.steps + 1))
    missing = [key for key in shapes if key not in episode]
    if missing:
        hint = "; rewards are computed from it (mtm_jax.data.exorl.reader.read can do without them)"
        raise UserError(
            f"{what} lacks {', '.join(missing)}" + (hint if "physics" in missing else "; remove it")
        )
    if episode["discount"].ndim == 2:
        episode["discount"] = episode["discount"][:, 0]
    for key, shape in shapes.items():
        if episode[key].shape != shape:
            raise UserError(
                f"{what}: {key} has shape {list(episode[key].shape)}, expected {list(shape)} for "
                f"{entry.steps} steps of {kind.spec.name} and the reset; remove it"
            )
        if not np.isfinite(episode[key]).all():
            raise UserError(f"{what}: {key} holds NaN or infinite values; remove it")
    return episode


def _rewards(spec: registry.EnvSpec, physics: list[np.ndarray]) -> np.ndarray:
    """Compute the rewards of a task in many states at once, [n] float32."""
    try:
        tasks = importlib.import_module(_TASKS)
    except ModuleNotFoundError as error:
        raise UserError(
            f"computing the rewards of {spec.name} needs {error.name}, which is not installed; "
            "run `pip install 'mtm_jax[walker]'`"
        ) from error
    return tasks.rewards(spec.name.removeprefix("walker_"), np.concatenate(physics))


def _log_cut(path: pathlib.Path, trajectories: Trajectories) -> None:
    last = np.cumsum(trajectories.lengths) - 1
    short = trajectories.lengths < trajectories.info.max_episode_steps
    cut = int((short & ~trajectories.terminals[last]).sum())
    if cut:
        _LOG.info(
            "%s: %d of %d episodes are cut before the limit of %d steps; they are kept as "
            "non-terminal ones",
            *(path, cut, len(last), trajectories.info.max_episode_steps),
        )
