"""Run folders: one run each, never overwritten by another, continued by the same command."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import config_dict

from mtm_jax.errors import UserError

CONFIG_FILE = "config.json"
FOLDERS = ("checkpoints", "figures", "videos")
# Keys that may change between the parts of one run: they do not touch what is trained.
FREE_KEYS = ("out", "eval", "save_every", "wandb_project", "keep_best", "keep_metric")
FREE_KEYS += ("use_older", "debug_batch")
FREE_KEYS += ("distributed", "micro_batches", "model.remat")  # the same step in less memory
# Keys that other programs need of a pretraining run.
PRETRAINING_KEYS = {"env", "source", "preset", "variant", "seed", "batch_size", "model.window"}
PRETRAINING_KEYS |= {f"data.{k}" for k in ("steps", "train_fraction", "split_seed")}
PRETRAINING_KEYS |= {"data.actions_fraction"}
FIXED_KEYS = ("eval.history",)  # checkpoints hold it


def to_json(config: config_dict.ConfigDict) -> dict[str, Any]:
    """Convert a configuration to plain JSON values."""
    return json.loads(config.to_json_best_effort())


def open_run(folder: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Create a run folder with its `config.json`, or continue the same run.

    Raises:
        UserError: what `check_folder` and `only_writer` raise, or the folder cannot be written.
    """
    check_folder(folder, config)
    with _folder_errors(folder):
        for name in FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
    with only_writer(folder):
        settle(folder, config)


def settle(folder: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Write the configuration of a run that has written nothing else; call it as the only writer.

    Between `open_run` and the first file of a run, another one may have opened the folder.

    Raises:
        UserError: what `check_folder` raises.
    """
    check_folder(folder, config)
    with _folder_errors(folder):
        if _is_unused(folder) or not (folder / CONFIG_FILE).exists():
            write_text(folder / CONFIG_FILE, json.dumps(config, indent=2) + "\n")


def check_folder(folder: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder that cannot take a run of this configuration; nothing is changed.

    Raises:
        UserError: the folder holds a different run or something else, or cannot be written.
    """
    with _folder_errors(folder):
        existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        if not existing.is_dir():
            raise NotADirectoryError(f"{existing} is a file")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise PermissionError(f"{existing} is read-only")
        if (folder / CONFIG_FILE).exists():
            if not _is_unused(folder):
                _check_same(folder, read_config(folder), config)
        elif folder.exists() and not _is_blank(folder):
            raise UserError(
                f"{folder} is not empty and holds no run ({CONFIG_FILE} is missing); "
                "choose another folder with --config.out"
            )


def read_config(folder: pathlib.Path) -> dict[str, Any]:
    """Read the configuration that a run was started with.

    Raises:
        UserError: the folder holds no run, or its configuration is damaged.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no run: {CONFIG_FILE} is missing; give a run folder")
    try:
        config = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it or delete {folder}") from error
    if not isinstance(config, dict):
        kind = type(config).__name__
        raise UserError(f"{path} is damaged (it holds a {kind}); restore it or delete {folder}")
    data = config.get("data")
    if isinstance(data, dict) and data.get("steps") == 0:  # how earlier versions said "all"
        data["steps"] = None
    if isinstance(data, dict) and "actions_fraction" in data:  # keys that earlier versions lack
        newer = {"episodes_fraction": 1.0, "labelled_share": 0.0, "rewards": True}
        config["data"] = newer | data
    return config


def read_pretraining(folder: pathlib.Path) -> dict[str, Any]:
    """Read the configuration of a pretraining run.

    Raises:
        UserError: `read_config` refuses, or it is not that of a pretraining run.
    """
    config = read_config(folder)
    missing = PRETRAINING_KEYS - flatten(config).keys()
    if missing:
        raise UserError(
            f"{folder} holds no pretraining run: its {CONFIG_FILE} lacks "
            f"{', '.join(sorted(missing))}; give another run folder"
        )
    return config


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a file that appears under its name only when it is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


@contextlib.contextmanager
def _folder_errors(folder: pathlib.Path) -> Iterator[None]:
    """Turn what the file system refuses into a sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder} cannot be a run folder ({error}); choose another one with --config.out"
        ) from error


def _is_blank(folder: pathlib.Path) -> bool:
    """Whether a folder is empty, or holds no more than a killed `open_run` leaves."""
    for path in folder.iterdir():
        made_here = path.name in FOLDERS and path.is_dir() and not any(path.iterdir())
        if not made_here and not path.name.startswith(f".{CONFIG_FILE}."):
            return False
    return True


def _is_unused(folder: pathlib.Path) -> bool:
    """Whether `open_run` made the folder and nothing has been written into it since."""
    files = (path for path in folder.rglob("*") if not path.is_dir())
    made_here = (folder / "checkpoints").is_dir()
    return made_here and all(file == folder / CONFIG_FILE for file in files)


def _check_same(folder: pathlib.Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    differ = [text for key, text in differences(old, new).items() if not _is_free(key)]
    if differ:
        raise UserError(
            f"{folder} holds a different run: {'; '.join(differ)}; "
            "choose another folder with --config.out (OUT=... with make), or delete this one"
        )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Say of every "a.b" in which two nested mappings differ what it is in both."""
    old, new = flatten(old), flatten(new)
    return {
        key: f"{key} is {old.get(key)!r} there and {new.get(key)!r} here"
        for key in sorted(old.keys() | new.keys())
        if not _same(old.get(key), new.get(key))
    }


def _same(old: Any, new: Any) -> bool:
    """Whether two values are the same; measured ones may differ by rounding elsewhere."""
    if isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=1e-6)
    return old == new


@contextlib.contextmanager
def only_writer(folder: pathlib.Path) -> Iterator[None]:
    """Hold a run folder against other processes that would write into it.

    Raises:
        UserError: another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise UserError(
            f"another process is training in {folder}; wait until it ends, or choose another "
            "folder with --config.out"
        ) from error
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(descriptor)


def _is_free(key: str) -> bool:
    return not {key, key.split(".")[0]}.isdisjoint(FREE_KEYS) and key not in FIXED_KEYS


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a nested configuration, "a.b" -> value."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
