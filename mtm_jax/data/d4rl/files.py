"""The official D4RL files: names, servers and checksums, and where they lie on this machine."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence

import h5py

from mtm_jax.data import hdf5
from mtm_jax.data.download import fetch as download
from mtm_jax.data.download import part as download_part
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.io import cache

_LOG = logging.getLogger("mtm_jax")
_VARIABLE = "D4RL_DATASET_DIR"
_KEYS = ("observations", "actions", "rewards", "terminals")


@dataclasses.dataclass(frozen=True)
class Family:
    """Files that have a folder on D4RL's server in common.

    Attributes:
        mirrors: where they are, the preferred place first.
        pattern: of a file's name.
        levels: that each of the environments has.
    """

    mirrors: tuple[str, ...]
    pattern: str
    levels: tuple[str, ...]


_RAIL = "rail.eecs.berkeley.edu/datasets/offline_rl"
_LOCOMOTION = Family(
    mirrors=(
        f"https://{_RAIL}/gym_mujoco_v2/",
        f"http://{_RAIL}/gym_mujoco_v2/",  # the address in D4RL's own code
        "https://huggingface.co/datasets/imone/D4RL/resolve/main/",
    ),
    pattern="{env}_{level}-v2.hdf5",
    levels=registry.LEVELS,
)
_ADROIT = Family(
    mirrors=(f"https://{_RAIL}/hand_dapg_v1/", f"http://{_RAIL}/hand_dapg_v1/"),
    pattern="{env}-{level}-v1.hdf5",
    levels=("human", "cloned", "expert"),
)
FAMILIES = {
    **dict.fromkeys(("hopper", "walker2d", "halfcheetah"), _LOCOMOTION),
    **dict.fromkeys(("pen", "door"), _ADROIT),
}

# D4RL publishes no checksums; these are the ones that TensorFlow Datasets verifies its downloads
# from the same server with (tensorflow_datasets/d4rl/*/checksums.tsv).
PINNED: Mapping[str, str] = {
    "door-cloned-v1.hdf5": "1f6a60ecc4d2a2e5c02f41dd3412be61bb265a33dcf120ceee9e9682d4fe4d48",
    "door-expert-v1.hdf5": "66df4cd4e0a1e0b72ea72653ce088e29ecbfa99bac3cd2b52e64092e9a0aaab4",
    "door-human-v1.hdf5": "f9691288c3ddf2b4e7b31bdae0d8444b80ba035515495f8a902d60c43ee09370",
    "halfcheetah_expert-v2.hdf5": (
        "d9fe53bb994eb1e20a99b4fa3412cd76a1bb7966a7ff55e0fcbdd6081bd2965f"
    ),
    "halfcheetah_medium-v2.hdf5": (
        "41324e8487a9556d8cfa4538827f8937f4d63dae3030825ebc9f3a726ed08ca0"
    ),
    "halfcheetah_medium_expert-v2.hdf5": (
        "015db75dae5bbe8e94029b71fa0bafc2073365df0c94744e71031189f3f79c06"
    ),
    "halfcheetah_medium_replay-v2.hdf5": (
        "48d494a4770c11f48260736dec090b78bdca8375647ed4d24bfa5b6610c7f683"
    ),
    "hopper_expert-v2.hdf5": "01aa219a5f8eea5e639eccdc636ec2bf40e317159a95cf4bf6e985f16909941b",
    "hopper_medium-v2.hdf5": "5bdf1bc4a713c82941de44633df669b36c89850b652a25985166796d25cf71a0",
    "hopper_medium_expert-v2.hdf5": (
        "9d51ad87f8c905be3880d84c6140bcdb7fbf39a19e046a237f238ba34fec9e26"
    ),
    "hopper_medium_replay-v2.hdf5": (
        "e121c5f7c9857a307baa9edc6a2c3b48e85fedb9ac316ecddd0f48ca7ef4e39b"
    ),
    "pen-cloned-v1.hdf5": "6d1a982cee1950501bedebbddedbcbb377e6284d379986c83abac8a6c0be0c22",
    "pen-expert-v1.hdf5": "3791b8ca6a802061770af2977c051ac3ae261488210ce73788760a5b8308f374",
    "pen-human-v1.hdf5": "209e345b2150b633f30a11612612c60f49e941f127ce6c4dc0cd790501c46f9f",
    "walker2d_expert-v2.hdf5": "2985dc3d436a8baa10e8f43f946fe1d7c6337a4e4fbc65def70618093b18c59a",
    "walker2d_medium-v2.hdf5": "cf00f43add04c17fdfc2958dd581dea0851b2e5bedbe6fda073758a8f841aeda",
    "walker2d_medium_expert-v2.hdf5": (
        "6b8d7f868c45bbaedf460be797fb7271b46dee6ebe45fe7a64319f2005b59a04"
    ),
    "walker2d_medium_replay-v2.hdf5": (
        "e75de96a4f77acf7d4e0d6fdf0d7ccb177c26c44bb4388e4fd99f543ccfa18db"
    ),
}


def locate(
    name: str, *, progress: bool = True, mirrors: Sequence[str] | None = None
) -> pathlib.Path:
    """Find the official file of a data set on this machine, or download it.

    A file is refused where its checksum is known and differs, also one that the user has placed.
    Where none is known, that of the first download is trusted from then on.

    Args:
        name: environment and level, e.g. "hopper-medium-replay", "pen-human", "door_dense-expert".
        progress: whether to draw a progress bar while downloading.
        mirrors: folders on the web to look in, by default D4RL's server and copies of it.

    Returns:
        The file in D4RL_DATASET_DIR, `~/.d4rl/datasets` or the data folder, the first that has it.

    Raises:
        UserError: D4RL has no such data, no server gives the file, or its checksum or content
            are not what they should be.
    """
    spec, family, file = _describe(name)
    folders = _folders()
    for folder in folders:
        if (folder / file).is_file():
            return _verified(folder / file)
    known = _known(file)

    def check(path: pathlib.Path, sha256: str) -> None:
        _check_sha256(file, sha256)
        _check_content(path, spec)

    final = folders[0 if os.environ.get(_VARIABLE) else -1] / file
    urls = [f"{m.rstrip('/')}/{file}" for m in (family.mirrors if mirrors is None else mirrors)]
    digest = download.fetch(urls, final, check=check, variable=_VARIABLE, progress=progress)
    if known is None:
        _trust(file, digest)
    return final


def find(name: str) -> pathlib.Path | None:
    """Return where the file of a data set lies on this machine, unchecked; None where it is not.

    Raises:
        UserError: D4RL has no such data.
    """
    _, _, file = _describe(name)
    return next((f / file for f in _folders() if (f / file).is_file()), None)


def _describe(name: str) -> tuple[registry.EnvSpec, Family, str]:
    """Find the environment of a name, and the family and name of its file."""
    spec, level = registry.split_name(name)
    env = spec.name.removesuffix("_dense")  # the same recordings
    if env not in FAMILIES:
        raise UserError(f"there are no D4RL files of {spec.name}, only of {', '.join(FAMILIES)}")
    family = FAMILIES[env]
    if level not in family.levels:
        known = ", ".join(f"{spec.name}-{level}" for level in family.levels)
        raise UserError(f"there is no D4RL file for {name!r}; choose one of {known}")
    return spec, family, family.pattern.format(env=env, level=level.replace("-", "_"))


def _folders() -> list[pathlib.Path]:
    """Where files are looked for, in this order."""
    chosen = os.environ.get(_VARIABLE)
    return [
        *([pathlib.Path(chosen).expanduser()] if chosen else []),
        cache.home() / ".d4rl" / "datasets",
        cache.folder() / "d4rl",
    ]


def _verified(path: pathlib.Path) -> pathlib.Path:
    """Refuse a file of known checksum that has another one."""
    if _known(path.name):
        try:
            _check_sha256(path.name, cache.sha256(path))
        except UserError as error:
            raise UserError(
                f"file {path}: {error}; remove it to have it downloaded again, or give its path "
                "as the source to read it as it is"
            ) from error
    return path


def _check_sha256(file: str, found: str) -> None:
    known = _known(file)
    if known is not None and found != known:
        origin = "of the official file"
        if file not in PINNED:
            origin = f"trusted on first use (its line in {_record()}; remove it for a new version)"
        raise UserError(f"its sha256 is {found}, expected {known} {origin}")


def _check_content(path: pathlib.Path, spec: registry.EnvSpec) -> None:
    """Look at the shapes in a file; a cut one cannot be opened."""
    try:
        with hdf5.opened(path) as file:
            shapes = {k: v.shape for k, v in file.items() if isinstance(v, h5py.Dataset)}
    except UserError as error:
        raise UserError(f"it is not whole HDF5: {error}") from error
    found = [shapes.get(key) for key in _KEYS]
    rows = max(1, *(found[0] or (0,))[:1])
    expected = [(rows, spec.obs_dim), (rows, spec.action_dim), (rows,), (rows,)]
    if found != expected:
        raise UserError(
            f"it does not hold the data of {spec.name}: {', '.join(_KEYS)} have the shapes "
            f"{found}, expected {expected}"
        )


def _known(file: str) -> str | None:
    """The checksum that a file must have; None where any is taken."""
    return PINNED.get(file) or _trusted().get(file)


def _record() -> pathlib.Path:
    """Where checksums are kept that were trusted on first use."""
    return cache.folder() / "d4rl" / "sha256.json"


def _trusted() -> dict[str, str]:
    path = _record()
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"checksums cannot be read from {path} ({error}); repair it") from error
    if not isinstance(known, dict):
        raise UserError(f"{path} does not map files to checksums; repair or remove it")
    return known


def _trust(file: str, sha256: str) -> None:
    """Record the checksum of a first download."""
    path = _record()
    try:
        with download_part.locked(path.with_name(f".{path.name}.lock")):
            staged = path.with_name(f".{path.name}.staged")
            staged.write_text(json.dumps(_trusted() | {file: sha256}, indent=1, sort_keys=True))
            os.replace(staged, path)
    except OSError as error:
        raise UserError(
            f"{file} is downloaded, but its checksum cannot be recorded in {path} "
            f"({error.strerror}); set MTM_JAX_DATA to a folder that you may write to"
        ) from error
    _LOG.warning(
        "%s: no checksum is published, so its sha256 %s is trusted on first use; recorded in %s",
        *(file, sha256, path),
    )
