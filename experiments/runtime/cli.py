"""The command line that every program in `experiments/` shares.

    from experiments import cli

    def main(config): ...

    if __name__ == "__main__":
        cli.run(main)

A wrong key, value, file or data set ends in one sentence on stderr and exit code 2; see `failures`.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence

import rich
from absl import flags
from ml_collections import config_dict, config_flags
from rich import logging as rich_logging

from experiments.runtime import (
    cli_help,
    config_files,
    config_values,
    failures,
    signals,
    startup,
    surroundings,
)
from mtm_jax.errors import UserError
from mtm_jax.io import console

_OVERRIDE = re.compile(r"--?(?P<no>no)?config\.(?P<key>[^=]+)(=(?P<value>.*))?", re.DOTALL)
_DEBUG = re.compile(r"--?debug(=(true|t|yes|y|1))?", re.IGNORECASE)
_HELP = {"-h", "--h", "-help", "--help", "--helpfull", "--helpshort"}


def run(
    main: Callable[[config_dict.ConfigDict], None],
    description: str | Callable[[str], str] | None = None,
    argv: Sequence[str] | None = None,
    spell_out: Callable[[Sequence[str]], list[str]] = list,
    start: Callable[[Sequence[str]], None] = lambda argv: None,
) -> None:
    """Parse the command line and call `main` with a locked configuration.

    Args:
        main: the program.
        description: what --help says about it, by default the docstring of main's module; or
            writes all of the help, from FILE[:NAME].
        argv: arguments without the program's name; by default those of this process.
        spell_out: turns the arguments that a program takes without a flag into flags.
        start: is called with the arguments before the configuration is read.

    Raises:
        SystemExit: what `failures.describe` says where it fails, with one sentence on stderr (and
            the traceback with --debug); 130 where the user pressed Ctrl-C, 143 where SIGTERM came.
    """
    startup.end()
    with console.tolerant():
        _run(main, description, list(sys.argv[1:] if argv is None else argv), spell_out, start)


def _run(
    main: Callable[[config_dict.ConfigDict], None],
    description: str | Callable[[str], str] | None,
    argv: list[str],
    spell_out: Callable[[Sequence[str]], list[str]],
    start: Callable[[Sequence[str]], None],
) -> None:
    try:
        argv = spell_out(argv)
        if _HELP.intersection(argv):
            print(_help(main, description, argv))
            return
        start(argv)
        config = parse(argv, _default_file(main))
        surroundings.check_settings()
        _log_to_stderr()
        _keep_compiled()
        with signals.terminable():
            main(config)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if any(_DEBUG.fullmatch(arg) for arg in argv):
            traceback.print_exc()
        code, sentence = failures.describe(error)
        print(sentence, file=sys.stderr)
        sys.exit(code)


def say(text: str) -> None:
    """Print one line on the console that logs and progress bars draw on."""
    rich.get_console().print(text, soft_wrap=True, highlight=False)


def parse(argv: Sequence[str], default: str) -> config_dict.ConfigDict:
    """Read `--config=FILE[:NAME]` and the `--config.KEY=VALUE` overrides.

    Args:
        argv: arguments without the program's name.
        default: the configuration file to use where none is named.

    Returns:
        The locked configuration.

    Raises:
        UserError: a file, key, value or flag is wrong.
    """
    path, rest = _split(argv, default)
    config = config_files.load(path)
    defaults = dict(cli_help.flatten(config))
    _check_keys(rest, list(defaults))
    _check_name_keys(rest, path)
    values = flags.FlagValues()
    flags.DEFINE_bool("debug", False, "show tracebacks", flag_values=values)
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=rest)
        unparsed = values(["program", *rest])[1:]
    except flags.UnrecognizedFlagError as error:
        hint = _suggest(error.flagname, list(defaults)) or "; --help lists what there is"
        raise UserError(f"unknown flag --{error.flagname}{hint}") from None
    except flags.IllegalFlagValueError as error:
        raise UserError(_wrong_value(str(error), defaults)) from None
    except flags.Error as error:
        raise UserError(str(error)) from None
    if unparsed:
        raise UserError(f"unexpected argument {unparsed[0]!r}; write --config.KEY=VALUE")
    config_values.check(values.config, defaults)
    return values.config


def _name(main: Callable) -> str:
    """Name the program: its file, or its folder where that holds a `__main__`."""
    path = pathlib.Path(main.__code__.co_filename)
    return path.parent.name if path.stem == "__main__" else path.stem


def _default_file(main: Callable) -> str:
    return f"configs/{_name(main)}.py"


def _split(argv: Sequence[str], default: str) -> tuple[str, list[str]]:
    """Separate the configuration file, the last one named, from the other arguments."""
    path, rest, pending = default, [], False
    for arg in argv:
        if pending:
            path, pending = arg, False
        elif arg in ("--config", "-config"):
            pending = True
        elif arg.startswith(("--config=", "-config=")):
            path = arg.partition("=")[2]
        else:
            rest.append(arg)
    if pending or not path:
        raise UserError("--config needs a file; write --config=configs/FILE.py")
    return path, rest


def _check_keys(argv: Sequence[str], known: Sequence[str]) -> None:
    for arg in argv:
        match = _OVERRIDE.fullmatch(arg)
        if match and match["key"] not in known:
            key = match["key"]
            inside = [k for k in known if k.startswith(f"{key}.")]
            hint = f"; it holds {', '.join(inside)}" if inside else _suggest(key, known)
            raise UserError(f"unknown key --config.{key}{hint or '; --help lists the keys'}")


def _check_name_keys(argv: Sequence[str], path: str) -> None:
    """Refuse overrides of what the NAME behind the file has already decided other keys by."""
    file = path.partition(":")[0]
    decided = getattr(config_files.run(config_files.find(file)), "NAME_KEYS", {})
    for arg in argv:
        match = _OVERRIDE.fullmatch(arg)
        if match and match["key"] in decided:
            raise UserError(
                f"--config.{match['key']} would not change what depends on it; "
                f"write --config={file}:{decided[match['key']]}"
            )


def _suggest(word: str, known: Sequence[str]) -> str:
    """Keys that end in the same name, then close matches."""
    same_leaf = [k for k in known if k.split(".")[-1] == word.split(".")[-1]]
    close = list(dict.fromkeys(same_leaf + difflib.get_close_matches(word, known)))[:3]
    return "; did you mean " + " or ".join(f"--config.{k}" for k in close) + "?" if close else ""


def _wrong_value(message: str, defaults: Mapping[str, object]) -> str:
    """Turn absl's "flag --config.steps=x: invalid literal..." into a sentence."""
    match = re.match(r"flag (?P<flag>--config\.(?P<key>[^=]+)=.*?): ", message, re.DOTALL)
    return config_values.expected(match["flag"], defaults[match["key"]]) if match else message


def _help(main: Callable, description: str | Callable | None, argv: Sequence[str]) -> str:
    path, _ = _split([arg for arg in argv if arg not in _HELP], _default_file(main))
    if callable(description):
        return description(path)
    return cli_help.describe(
        program=f"python -m experiments.{_name(main)}",
        text=inspect.cleandoc(description or main.__globals__.get("__doc__") or ""),
        path=path,
        config=config_files.load(path),
        texts=cli_help.sources(path),
    )


def _keep_compiled() -> None:
    if "jax" in sys.modules:  # a program without it need not wait for its import
        from experiments.runtime import compilation

        compilation.keep()
        compilation.draw_by_kernel()


def _log_to_stderr() -> None:
    """Send "mtm_jax" logs to stderr, through the console that progress bars draw on."""
    rich.reconfigure(stderr=True)
    console = rich.get_console()
    if console.is_terminal:
        handler = rich_logging.RichHandler(console=console, show_path=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("mtm_jax")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
