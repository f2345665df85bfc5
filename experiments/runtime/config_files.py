"""Configuration files: Python files with a function `get_config`, which may take a name."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import pathlib
import types

from ml_collections import config_dict

from mtm_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load(path: str) -> config_dict.ConfigDict:
    """Call `get_config` of `FILE.py[:NAME]`; NAME is its argument.

    Raises:
        UserError: there is no such file, it has no get_config, or get_config refuses NAME.
    """
    file, colon, name = path.partition(":")
    module = run(find(file))
    get_config = getattr(module, "get_config", None)
    if get_config is None:
        raise UserError(f"configuration file {file} defines no get_config")
    arguments = [name] if colon else []
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError:
        problem = f"takes no name, but {name!r} follows the colon" if colon else "needs a name"
        hint = f"--config={file}" if colon else f"--config={file}:NAME"
        raise UserError(f"configuration file {file} {problem}; write {hint}") from None
    return get_config(*arguments)


def find(file: str) -> pathlib.Path:
    """Find a configuration file, below the working folder or in this repository.

    Raises:
        UserError: there is none of that name.
    """
    for candidate in (pathlib.Path(file), ROOT / file):
        if candidate.is_file():
            return candidate
    known = sorted(p.stem for p in (ROOT / "configs").glob("*.py") if p.stem != "common")
    offer = difflib.get_close_matches(pathlib.Path(file).stem, known) or known
    names = ", ".join(f"configs/{stem}.py" for stem in offer)
    raise UserError(f"no configuration file {file!r}; choose one of {names}")


def run(path: pathlib.Path) -> types.ModuleType:
    """Run a configuration file; what it defines are the attributes of the result.

    Raises:
        UserError: it is no Python file, or it fails.
    """
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if spec is None:
        raise UserError(f"configuration file {path} must be a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"{error.filename} line {error.lineno}: {error.msg}") from None
    except UserError:
        raise
    except Exception as error:  # whatever a file of the user does
        raise UserError(
            f"configuration file {path} fails ({type(error).__name__}: {error}); correct it, or "
            "add --debug to see where"
        ) from error
    return module
