"""Minari data sets of flat observations and actions (HDF5, Minari >= 0.5): found, read, written.

Files are read with h5py, because the library's reader may build the environment that the metadata
describe, and metadata can name any code. Ours only ever looks at the id, and at our own list.
"""

from __future__ import annotations

import os
import pathlib

from mtm_jax.data.minari import download as minari_download
from mtm_jax.data.minari import files as minari_files
from mtm_jax.data.minari import metadata as minari_metadata
from mtm_jax.data.minari import writer as minari_writer
from mtm_jax.errors import UserError
from mtm_jax.io import cache
from mtm_jax.types import DataInfo, Trajectories

OFFICIAL = {  # suite of environments -> ids of Minari's own data sets, and their levels
    "gymnasium": ("mujoco/{}/{}-v0", ("simple", "medium", "expert")),
    "adroit": ("D4RL/{}/{}-v2", ("human", "cloned", "expert")),
}
read_metadata = minari_metadata.read
write = minari_writer.write


def user_root() -> pathlib.Path:
    """Return the folder of Minari's own downloads."""
    chosen = os.environ.get("MINARI_DATASETS_PATH")
    return pathlib.Path(chosen) if chosen else _home_root()


def roots() -> tuple[pathlib.Path, ...]:
    """Return the folders that ids are looked up in, in order; downloads go to the last."""
    return tuple(dict.fromkeys((user_root(), _home_root(), minari_download.default_root())))


def read(
    dataset: str | os.PathLike,
    about: DataInfo | str | None = None,
    root: str | os.PathLike | None = None,
    source: str = "minari",
    download: bool = True,
    progress: bool = True,
    clip_actions: bool = False,
) -> Trajectories:
    """Read one data set; it is evaluated in the environment id that it was recorded in.

    Args:
        dataset: an id like "mujoco/hopper/medium-v0", or the path of its folder as a `Path`.
        about: a DataInfo, or a name like "hopper-medium" that starts with the environment, or
            with "custom" for one without a simulator; by default the stored id tells.
        root: the folder that ids are looked up in and downloaded to; by default `roots()`.
        source: what `info.source` says.
        download: whether to download an id that is not here.
        progress: whether to draw a progress bar meanwhile.
        clip_actions: see `validation.check`.

    Returns:
        Checked trajectories.

    Raises:
        UserError: the data set is missing, damaged or of another kind, or its environment is
            unknown or not the one of `about`.
    """
    if isinstance(dataset, os.PathLike):
        folder = _at(pathlib.Path(dataset).expanduser())
    else:
        places = roots() if root is None else (pathlib.Path(root),)
        folder = _find(dataset, places)
        if folder is None and not download:
            raise UserError(
                f"there is no Minari data set {dataset!r} in {' or '.join(map(str, places))}; "
                f"download it with `minari download {dataset}`, or place its folder there"
            )
        if folder is None:
            folder = minari_download.fetch(dataset, places[-1], progress, about)
    return minari_files.load(folder, about, str(dataset), source, clip_actions)


def _home_root() -> pathlib.Path:
    return cache.home() / ".minari" / "datasets"


def _at(folder: pathlib.Path) -> pathlib.Path:
    if not minari_metadata.is_data_set(folder):
        lacking = f"it lacks data/{minari_metadata.METADATA}"
        raise UserError(f"folder {folder} holds no Minari data set: {lacking}; check the path")
    return folder


def _find(dataset_id: str, places: tuple[pathlib.Path, ...]) -> pathlib.Path | None:
    minari_metadata.check_id(dataset_id)
    folders = (place / dataset_id for place in places)
    return next((folder for folder in folders if minari_metadata.is_data_set(folder)), None)
