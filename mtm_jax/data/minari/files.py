"""Reads the files of one Minari data set, with every episode straight into its place."""

from __future__ import annotations

import logging
import pathlib
import re
from collections.abc import Mapping

import h5py
import numpy as np

from mtm_jax.data import custom, endings, hdf5, paths, validation
from mtm_jax.data.minari import arrays
from mtm_jax.data.minari import metadata as minari_metadata
from mtm_jax.data.recorded import actions, settings
from mtm_jax.errors import UserError
from mtm_jax.io import cache
from mtm_jax.types import DataInfo, Trajectories

_LOG = logging.getLogger("mtm_jax")
_EPISODE = re.compile(rb"episode_(\d{1,18})")


def load(
    folder: pathlib.Path,
    about: DataInfo | str | None,
    name: str,
    source: str,
    clip_actions: bool = False,
) -> Trajectories:
    """Read and check one data set.

    Args:
        folder: the data set.
        about: see `minari_metadata.describe`, likewise name and source.
        name: its id or path.
        source: what `info.source` says.
        clip_actions: see `validation.check`.

    Raises:
        UserError: it is damaged, of another kind, or its environment is refused.
    """
    what, metadata = f"Minari data set {folder}", minari_metadata.read(folder)
    minari_metadata.check_format(what, metadata)
    notes: list[str] = []
    info = minari_metadata.describe(what, metadata, about, name, source, notes)
    compared = info is not None and info is not about and info.env_id
    mapped = minari_metadata.rescaled_from(what, metadata, info, notes) if compared else None
    if compared:
        clip_actions |= settings.clips(what, minari_metadata.env_spec(what, metadata))
    for note in notes:
        _LOG.warning("%s: %s", what, note)
    with hdf5.opened(_intact_file(folder, metadata)) as file:
        held = _read(what, file.id)
    _compare_totals(what, metadata, held)
    limit = None if info is None else info.max_episode_steps
    marks = {key: held.pop(key) for key in endings.FLAGS if key in held} | {
        "lengths": held["lengths"]
    }
    ends = endings.find(what, marks, held["observations"], None, limit, "the ends of its groups")
    if info is None:
        info = _of_data(what, metadata, held, str(about), source)
    elif mapped is not None:
        held["actions"] = actions.rescale(held["actions"], mapped, info)
    whole = Trajectories(**held, terminals=ends.terminals, info=info)
    return validation.check(whole, clip_actions)


def _of_data(
    what: str, metadata: Mapping, held: Mapping[str, np.ndarray], name: str, source: str
) -> DataInfo:
    """Describe data of an environment that nobody here knows by what is stored with them."""
    bounds = minari_metadata.action_bounds(metadata) or (None, None)
    limit = minari_metadata.env_spec(what, metadata).get("max_episode_steps")
    longest = int(held["lengths"].max())
    if limit not in (None, -1):
        limit = max(custom.whole_steps(what, "max_episode_steps", limit), longest)
    else:
        limit = longest
    given = held["actions"], held["lengths"]
    return custom.describe(what, name, source, *given, limit, bounds)


def _intact_file(folder: pathlib.Path, metadata: Mapping) -> pathlib.Path:
    path = minari_metadata.data_folder(folder) / minari_metadata.FILE
    if not path.exists():
        raise UserError(
            f"Minari data set {folder} lacks {path.name}; remove that folder and download it again"
        )
    paths.require_file(path)
    if "sha256" in metadata and metadata["sha256"] != cache.sha256(path):
        raise UserError(f"file {path} is damaged: its checksum differs; remove {folder}")
    return path


def _read(what: str, file: h5py.h5f.FileID) -> dict[str, np.ndarray]:
    """Read all episodes in the order of their numbers, with what marks their ends."""
    names = _episode_names(what, file)
    marks = _marks(what, h5py.h5g.open(file, names[0]))
    counts = [arrays.size(what, file, name, b"rewards", 1) for name in names]
    steps = sum(counts)
    if min(counts) == 0:
        empty = names[counts.index(0)].decode()
        raise UserError(f"{what}: {empty} has 0 steps of {steps} in all; remove that episode")
    dims = [arrays.size(what, file, names[0], key, 2) for key in (b"observations", b"actions")]
    hdf5.check_size(what, file, (steps + len(names)) * (sum(dims) + 1 + len(marks)) * 4)
    lengths = np.array(counts)
    stops = np.cumsum(lengths)
    # Rewards are not rounded yet, so that none becomes zero before it is looked at.
    flat = {b"rewards": arrays.empty(what, steps, dtype=np.float64)}
    flat |= {mark: arrays.empty(what, steps) for mark in marks}
    flat[b"actions"] = arrays.empty(what, steps, dims[1])
    # One row more: an episode's last observation lies where the next one begins, and moves.
    observations = arrays.empty(what, steps + 1, dims[0])
    finals = arrays.empty(what, len(names), dims[0])
    for k, (name, start, stop) in enumerate(zip(names, stops - lengths, stops, strict=True)):
        for key, array in flat.items():
            arrays.fill(what, file, name, key, array[start:stop])
        arrays.fill(what, file, name, b"observations", observations[start : stop + 1])
        finals[k] = observations[stop]
    found = {key.decode(): array for key, array in flat.items()}
    return found | {
        "observations": observations[:-1],
        "lengths": lengths,
        "final_observations": finals,
    }


def _marks(what: str, episode: h5py.h5g.GroupID) -> list[bytes]:
    """Name the arrays that mark ends, as the first episode has them."""
    names = [name.decode(errors="replace") for name in episode]
    found = [key for key in endings.FLAGS if key in names]
    if not set(found) & {"terminations", "terminals", "dones"}:
        others = ", ".join(endings.alike(names))
        raise UserError(
            f"{what}: its first episode has no terminations, which say whether the environment "
            f"ended it{f' (it has {others})' if others else ''}; add them"
        )
    endings.warn_alike(what, names)
    return [key.encode() for key in found]


def _episode_names(what: str, file: h5py.h5f.FileID) -> list[bytes]:
    found = [match for match in map(_EPISODE.fullmatch, h5py.h5g.open(file, b"/")) if match]
    if not found:
        raise UserError(f"{what} holds no episodes; download it again")
    return [match[0] for match in sorted(found, key=lambda match: (int(match[1]), match[0]))]


def _compare_totals(what: str, metadata: Mapping, held: Mapping[str, np.ndarray]) -> None:
    for key, array in (("total_episodes", "lengths"), ("total_steps", "rewards")):
        stored, found = metadata.get(key), len(held[array])
        if isinstance(stored, int) and stored != found:
            _LOG.warning("%s: metadata say %s=%d; %d are there and read", what, key, stored, found)
