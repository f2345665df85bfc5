"""What --help prints: the program, the keys of its configuration and an example."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator

from ml_collections import config_dict


def describe(
    program: str, text: str, path: str, config: config_dict.ConfigDict, source: str
) -> str:
    """Write the help of one program.

    Args:
        program: the command without its flags.
        text: what the program does.
        path: its configuration, FILE or FILE:NAME.
        config: what `path` holds.
        source: the file's text; the comment behind a key's line explains the key.
    """
    pairs = dict(flatten(config))
    key = "seed" if "seed" in pairs else next((k for k, v in pairs.items() if v), "KEY")
    return (
        f"{text}\n\n"
        f"usage: {program} [--config=FILE[:NAME]] [--config.KEY=VALUE ...] [--debug] [--help]\n"
        "       --debug shows the traceback of an error\n\n"
        f"keys of {path}:\n{key_lines(pairs, source)}\n\n"
        f"example: {program} --config={path} --config.{key}={_shown(pairs.get(key))}"
    )


def flatten(config: config_dict.ConfigDict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield every leaf of a nested configuration as ("a.b", value)."""
    for key in config:
        value = config[key]
        if isinstance(value, config_dict.ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def key_lines(pairs: dict[str, object], source: str) -> str:
    """Write a line per key, with the comment behind its line in `source`."""
    comments = _comments(source)
    flags = {key: f"--config.{key}={_shown(value)}" for key, value in pairs.items()}
    width = min(48, max(map(len, flags.values()), default=0))
    lines = [f"  {flag:<{width}}  {comments.get(key, '')}".rstrip() for key, flag in flags.items()]
    return "\n".join(lines)


def _shown(value: object) -> str:
    """Write a value as a shell takes it."""
    text = "" if value is None else str(value)
    quote = '"' if "'" in text else "'"
    return f"{quote}{text}{quote}" if re.search(r"[\s'()\[\]{}*?;&|<>$]", text) else text


def _comments(source: str) -> dict[str, str]:
    """Find the trailing comments of lines like `config.steps = 10  # gradient steps`."""
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        match = re.match(r"\s*config\.([\w.]+)\s*=", token.line)
        if token.type == tokenize.COMMENT and match:
            found[match[1]] = token.string.lstrip("# ")
    return found
