"""The data sets that can be had, and which of them are here; no data are read for it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator

from mtm_jax.data.builtin import behaviours
from mtm_jax.data.d4rl import files as d4rl_files
from mtm_jax.data.minari import metadata as minari_metadata
from mtm_jax.data.minari import reader as minari
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.io import cache

SOURCES = ("builtin", "d4rl", "minari")
_BUILTIN = re.compile(r"mtm_jax/(?P<name>.+)-(?P<steps>\d+)-seed(?P<seed>\d+)-v0")
_MEGABYTE = 1e6


@dataclasses.dataclass(frozen=True)
class Entry:
    """One data set.

    Attributes:
        name: what a user calls it: "hopper-medium", "d4rl:hopper-medium", "minari:<id>" or a path.
        source: one of SOURCES.
        env_id: the gymnasium id that it is evaluated in; "" where that is unknown.
        steps: in all; None where unknown.
        megabytes: on disk (10^6 bytes), or to be expected there; None where unknown.
        path: where it is; None where it is not here.
        seed: of built-in data.
    """

    name: str
    source: str
    env_id: str
    steps: int | None
    megabytes: float | None
    path: pathlib.Path | None
    seed: int = 0


def entries(source: str = "") -> list[Entry]:
    """List every known data set and every Minari data set that is here.

    Args:
        source: only those of one of SOURCES; "" for all.

    Raises:
        UserError: there is no such source.
    """
    if source and source not in SOURCES:
        raise UserError(f"unknown source {source!r}; choose one of {', '.join(SOURCES)}")
    makers = {"builtin": _builtin, "d4rl": _d4rl, "minari": _minari}
    return [e for name in SOURCES if source in ("", name) for e in makers[name]()]


def builtin_names() -> list[str]:
    """Name every built-in data set."""
    return [f"{spec.name}-{level}" for spec in registry.ENVS.values() for level in spec.levels]


def _builtin() -> list[Entry]:
    """The usual sizes, and after each those of other sizes and seeds that are here."""
    names = builtin_names()
    here = {}
    for dataset_id, folder in _stored(cache.folder() / "minari"):
        match = _BUILTIN.fullmatch(dataset_id)
        if match and match["name"] in names:
            here[match["name"], int(match["steps"]), int(match["seed"])] = folder
    known = {(name, behaviours.STEPS[registry.parse_name(name)[1]], 0) for name in names}
    order = sorted(known | here.keys(), key=lambda k: (names.index(k[0]), -k[1], k[2]))
    return [_builtin_entry(*key, here.get(key)) for key in order]


def _builtin_entry(name: str, steps: int, seed: int, folder: pathlib.Path | None) -> Entry:
    spec, _ = registry.parse_name(name)
    size = _expected_size(spec, steps) if folder is None else _size(folder)
    return Entry(name, "builtin", spec.builtin_id, steps, size, folder, seed)


def _expected_size(spec: registry.EnvSpec, steps: int) -> float:
    """Megabytes of float32 arrays and two flags per step; what HDF5 adds is left out."""
    return steps * (4 * (spec.obs_dim + spec.action_dim + 1) + 2) / _MEGABYTE


def _d4rl() -> list[Entry]:
    """The official files; how many steps they hold is only in them."""
    found = []
    for env, family in d4rl_files.FAMILIES.items():
        for level in family.levels:
            name = f"{env}-{level}"
            path, env_id = d4rl_files.find(name), registry.ENVS[env].d4rl_id
            size = None if path is None else _size(path)
            found.append(Entry(f"d4rl:{name}", "d4rl", env_id, None, size, path))
    return found


def _minari() -> list[Entry]:
    here = {}
    for root in minari.roots():
        for dataset_id, folder in _stored(root):
            if not _is_builtin(dataset_id):
                here.setdefault(dataset_id, folder)
    known = {
        template.format(spec.name, level): spec
        for spec in registry.ENVS.values()
        if spec.suite in minari.OFFICIAL and not spec.name.endswith("_dense")
        for template, levels in [minari.OFFICIAL[spec.suite]]
        for level in levels
    }
    return [_minari_entry(i, here.get(i)) for i in (*known, *sorted(here.keys() - known))]


def _is_builtin(dataset_id: str) -> bool:
    match = _BUILTIN.fullmatch(dataset_id)
    return bool(match) and match["name"] in builtin_names()


def _minari_entry(dataset_id: str, folder: pathlib.Path | None) -> Entry:
    metadata = {} if folder is None else _metadata(folder)
    steps, size = metadata.get("total_steps"), None if folder is None else _size(folder)
    return Entry(
        name=f"minari:{dataset_id}",
        source="minari",
        env_id=_env_id(dataset_id, metadata),
        steps=steps if isinstance(steps, int) else None,
        megabytes=size,
        path=folder,
    )


def _stored(root: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    """Yield the id and folder of every Minari data set below `root`."""
    for folder, below, files in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if minari_metadata.METADATA in files:
            below.clear()
            path = pathlib.Path(folder)
            path = path.parent if path.name == "data" else path
            yield path.relative_to(root).as_posix(), path


def _metadata(folder: pathlib.Path) -> dict:
    """Read the metadata; what is damaged is listed all the same, without what they say."""
    try:
        return minari_metadata.read(folder)
    except UserError:
        return {}


def _env_id(dataset_id: str, metadata: dict) -> str:
    try:
        return minari_metadata.describe("", metadata, None, dataset_id, "minari", []).env_id
    except UserError:
        return ""


def _size(path: pathlib.Path) -> float:
    """Megabytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files) / _MEGABYTE
