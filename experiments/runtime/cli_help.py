"""What --help prints: what the program does, the keys of its configuration, an example."""

from __future__ import annotations

import ast
import inspect
import io
import json
import re
import tokenize
import types
from collections.abc import Iterator, Mapping, Sequence

from ml_collections import config_dict

from experiments.runtime import config_files
from mtm_jax import config as settings

# Keys that a program cannot do without, and what to write for them.
_NEEDED = {"run": "RUN", "results": "RESULTS"}
_PLANS = ("m3pc_0", "m3pc_m", "m3pc_v", "m3pc_q", "ways")  # sections that hold settings of plans


def describe(
    program: str, text: str, path: str, config: config_dict.ConfigDict, texts: Sequence[str]
) -> str:
    """Write the help of one program.

    Args:
        program: the command without its flags.
        text: what the program does.
        path: its configuration, FILE or FILE:NAME.
        config: the configuration of `path`.
        texts: sources of that file, see `sources`; comments in them explain the keys.
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
    """Choose a key for the example: one that the program needs, else any that has a value."""
    if not pairs.get("env"):  # else it names the run
        for key, value in _NEEDED.items():
            if pairs.get(key) == "":
                return f"{key}={value}"
    key = "seed" if "seed" in pairs else next((k for k, v in pairs.items() if v), "KEY")
    return f"{key}={_shown(pairs.get(key))}"


def sources(path: str) -> list[str]:
    """Read the source of a configuration file and of the modules of `configs` that it imports."""
    file = config_files.find(path.partition(":")[0])
    helpers = (
        value
        for value in vars(config_files.run(file)).values()
        if isinstance(value, types.ModuleType) and value.__name__.startswith("configs.")
    )
    return [file.read_text(), *map(inspect.getsource, helpers)]


def flatten(config: config_dict.ConfigDict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield every leaf of a nested configuration as ("a.b", value), in the order of its page.

    A leaf that is unset (a placeholder) has its type as value.
    """
    for key in json.loads(config.to_json_best_effort()):  # ConfigDict itself sorts its keys
        value = config[key]
        if isinstance(value, config_dict.ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", config.get_type(key) if value is None else value


def key_lines(pairs: Mapping[str, object], *texts: str) -> str:
    """Write a line per key, explained by the comments in `texts`; sections stand apart."""
    said = explanations(pairs, *texts)
    flags = {key: f"--config.{key}={_shown(value)}" for key, value in pairs.items()}
    width = min(50, max(map(len, flags.values()), default=0))
    lines, above = [], None
    for key, flag in flags.items():
        section = key.rpartition(".")[0]
        lines += [""] if above not in (None, section) else []
        lines.append(f"  {flag:<{width}}  {said[key]}".rstrip())
        above = section
    return "\n".join(lines)


def explanations(pairs: Mapping[str, object], *texts: str) -> dict[str, str]:
    """Find the comment that explains each key.

    It stands behind the key's own statement, or else behind its name in a dictionary of `texts` or
    in the dataclass of its section in mtm_jax.config. The section's own comment follows in
    brackets.
    """
    lines, entries, fields = {}, {}, {}
    for text in reversed(texts):  # the configuration file, which comes first, takes precedence
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
    if isinstance(value, type):  # of a key that is unset
        return value.__name__.upper()
    text = str(value)
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
    """Map line numbers to the comments that follow code there."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {
        token.start[0]: token.string.lstrip("# ")
        for token in tokens
        if token.type == tokenize.COMMENT and token.line[: token.start[1]].strip()
    }
