"""What --help prints: the program, the keys of its configuration and an example."""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
import types
from collections.abc import Iterator, Mapping, Sequence

from ml_collections import config_dict

from experiments.runtime import config_files
from mtm_jax import config as settings

# Keys without which a program does nothing, and what to write for them.
_NEEDED = {"run": "RUN", "results": "RESULTS"}
_PLANS = ("m3pc_m", "m3pc_q", "ways")  # sections that hold settings of plans


def describe(
    program: str, text: str, path: str, config: config_dict.ConfigDict, texts: Sequence[str]
) -> str:
    """Write the help of one program.

    Args:
        program: the command without its flags.
        text: what the program does.
        path: its configuration, FILE or FILE:NAME.
        config: what `path` holds.
        texts: see `sources`; the comment behind a key's line explains the key.
    """
    pairs = dict(flatten(config))
    return (
        f"{text}\n\n"
        f"usage: {program} [--config=FILE[:NAME]] [--config.KEY=VALUE ...] [--debug] [--help]\n"
        "       --debug shows the traceback of an error\n\n"
        f"keys of {path}:\n{key_lines(pairs, *texts)}\n\n"
        f"example: {program} --config={path} --config.{_example(pairs)}"
    )


def _example(pairs: Mapping[str, object]) -> str:
    """Choose a key for the example: one that the program needs, or else any with a value."""
    if not pairs.get("env"):  # which stands for a run
        for key, value in _NEEDED.items():
            if pairs.get(key) == "":
                return f"{key}={value}"
    key = "seed" if "seed" in pairs else next((k for k, v in pairs.items() if v), "KEY")
    return f"{key}={_shown(pairs.get(key))}"


def sources(path: str) -> list[str]:
    """Read a configuration file and the modules of `experiments` that it imports."""
    file = config_files.find(path.partition(":")[0])
    helpers = (
        value
        for value in vars(config_files.run(file)).values()
        if isinstance(value, types.ModuleType) and value.__name__.startswith("configs.")
    )
    return [file.read_text(), *map(inspect.getsource, helpers)]


def flatten(config: config_dict.ConfigDict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield every leaf of a nested configuration as ("a.b", value)."""
    for key in config:
        value = config[key]
        if isinstance(value, config_dict.ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def key_lines(pairs: Mapping[str, object], *texts: str) -> str:
    """Write a line per key, with what the comments in `texts` say about it."""
    said = explanations(pairs, *texts)
    flags = {key: f"--config.{key}={_shown(value)}" for key, value in pairs.items()}
    width = min(48, max(map(len, flags.values()), default=0))
    return "\n".join(f"  {flag:<{width}}  {said[key]}".rstrip() for key, flag in flags.items())


def explanations(pairs: Mapping[str, object], *texts: str) -> dict[str, str]:
    """Explain each key by a comment: behind its own line, or else its name's elsewhere.

    A name is explained where a dictionary in `texts` has it, or the dataclass of its section in
    mtm_jax.config. What is said of the section follows in brackets.
    """
    lines, entries, fields = {}, {}, {}
    for text in reversed(texts):  # the configuration file, the first, has the last word
        lines |= _line_comments(text)
        entries |= _entry_comments(text)
    for name, kind in vars(settings).items():
        if inspect.isclass(kind) and name.endswith("Config"):
            own = _line_comments(inspect.getsource(kind))
            fields |= {f"{name[:-6].lower()}.{k}": v for k, v in own.items()}
    said = {}
    for key in pairs:
        sections = key.split(".")[:-1]
        name, kind = key.split(".")[-1], "plan" if key.split(".")[0] in _PLANS else key
        own = lines.get(key) or (sections and entries.get(name))
        own = own or fields.get(f"{kind.split('.')[0]}.{name}", "")
        above = (".".join(sections[:n]) for n in range(len(sections), 0, -1))
        about = next((lines[section] for section in above if section in lines), "")
        said[key] = f"{own} ({about})" if own and about else own or about
    return said


def _shown(value: object) -> str:
    """Write a value as a shell takes it."""
    text = "" if value is None else str(value)
    quote = '"' if "'" in text else "'"
    return f"{quote}{text}{quote}" if re.search(r"[\s'()\[\]{}*?;&|<>$]", text) else text


def _line_comments(text: str) -> dict[str, str]:
    """Find the comments in statements like `config.a.b = 10  # steps` or `a: int = 10  # steps`."""
    comments, found = _trailing(text), {}
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        inside = [n for n in range(node.lineno, node.end_lineno + 1) if n in comments]
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        for one in target.elts if isinstance(target, ast.Tuple) else [target]:
            name = ast.unparse(one)
            if inside and (name.startswith("config.") or isinstance(node, ast.AnnAssign)):
                found[name.removeprefix("config.")] = comments[inside[0]]
    return found


def _entry_comments(text: str) -> dict[str, str]:
    """Find the comments behind entries of dictionaries that have a line of their own."""
    comments, found = _trailing(text), {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Dict):
            places = [key.lineno for key in node.keys if isinstance(key, ast.Constant)]
            for key, value in zip(node.keys, node.values, strict=True):
                alone = isinstance(key, ast.Constant) and places.count(key.lineno) == 1
                if alone and value.end_lineno in comments:
                    found[key.value] = comments[value.end_lineno]
    return found


def _trailing(text: str) -> dict[int, str]:
    """Comments that follow code, by line."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {
        token.start[0]: token.string.lstrip("# ")
        for token in tokens
        if token.type == tokenize.COMMENT and token.line[: token.start[1]].strip()
    }
