"""Every mistake on the command line ends in one sentence and exit code 2."""

import errno
import logging
import subprocess
import sys
import tempfile

import pytest

from experiments.runtime import cli, cli_help, config_files, failures
from mtm_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("clean_logging")

CONFIG = """
from ml_collections import config_dict
from mtm_jax.envs import registry

def get_config(name="hopper-medium"):
    registry.parse_name(name)
    config = config_dict.ConfigDict()
    config.env = name
    config.steps = 10  # gradient steps
    config.rate = 1e-3
    config.fast = False
    config.source = config_dict.placeholder(str)
    config.discount = config_dict.placeholder(float)  # of future rewards; unset: by preset
    config.model = config_dict.ConfigDict()
    config.model.hidden = (256, 256)  # widths
    config.model.layers = config_dict.placeholder(int)
    config.model.sizes = config_dict.placeholder(tuple)
    config.methods = ("bc", "rcbc")
    return config
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "dummy.py"
    path.write_text(CONFIG)
    return path


def run(*argv, main=lambda config: None):
    cli.run(main, description="A dummy.", argv=argv)


def error_of(capsys, *argv, main=lambda config: None):
    """Run, expect exit code 2, and return the one line on stderr."""
    with pytest.raises(SystemExit) as exit_:
        run(*argv, main=main)
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def test_overrides_reach_a_locked_config(file):
    seen = []
    run(
        f"--config={file}:walker2d-expert",
        *("--config.steps=5", "--config.rate", "2", "--config.fast", "--config.source=d4rl"),
        "--config.model.hidden=(1,2)",
        main=lambda config: seen.append(config),
    )
    (config,) = seen
    assert config.is_locked
    assert (config.env, config.steps, config.rate, config.fast, config.source) == (
        *("walker2d-expert", 5, 2.0, True, "d4rl"),
    )
    assert config.model.hidden == (1, 2)


def test_keys_without_a_value_take_one_of_their_type(file):
    flags = ("--config.discount=1", "--config.model.layers=3", "--config.model.sizes=(8,)")
    config = cli.parse(flags, str(file))
    assert (config.discount, config.model.layers, config.model.sizes) == (1.0, 3, (8,))
    assert isinstance(config.discount, float)
    assert cli.parse([], str(file)).model.layers is None


@pytest.mark.parametrize(
    ("flag", "parts"),
    [
        ("--config.stepz=5", ("--config.stepz", "did you mean --config.steps?")),
        ("--config.hidden=5", ("--config.hidden", "did you mean --config.model.hidden?")),
        ("--config.model=5", ("--config.model", "model.hidden")),
        ("--config.zzz=5", ("--config.zzz", "--help")),
        ("--config.steps=1e5", ("--config.steps=1e5", "type int", "10")),
        ("--config.rate=fast", ("--config.rate=fast", "type float", "0.001")),
        ("--config.fast=maybe", ("--config.fast=maybe", "type bool")),
        ("--config.model.hidden=wide", ("--config.model.hidden", "type tuple", "(256, 256)")),
        ("--config.model.layers=2.5", ("--config.model.layers=2.5", "must be of type int")),
        ("--config.discount=high", ("--config.discount=high", "must be of type float")),
        ("--steps=5", ("--steps", "did you mean --config.steps?")),
        ("steps=5", ("steps=5", "--config.KEY=VALUE")),
    ],
)
def test_wrong_override_is_named(file, capsys, flag, parts):
    message = error_of(capsys, f"--config={file}", flag)
    for part in parts:
        assert part in message


def test_unknown_environment_in_get_config(file, capsys):
    message = error_of(capsys, f"--config={file}:ant-medium")
    assert "unknown environment 'ant'" in message and "hopper" in message


def test_unknown_file_lists_close_ones(capsys):
    assert "configs/mask_figure.py" in error_of(capsys, "--config=configs/mask_figures.py")


def test_name_after_a_config_that_takes_none(capsys):
    message = error_of(capsys, "--config=configs/mask_figure.py:hopper")
    assert "'hopper'" in message and "--config=configs/mask_figure.py" in message


def test_config_file_with_a_syntax_error(tmp_path, capsys):
    broken = tmp_path / "broken.py"
    broken.write_text("x = 1\ndef (:\n")
    assert "broken.py line 2" in error_of(capsys, f"--config={broken}")


def fail(config):
    raise UserError("no such data")


def test_user_error_of_the_program(file, capsys):
    assert error_of(capsys, f"--config={file}", main=fail) == "error: no such data"


def test_debug_shows_the_traceback(file, capsys):
    with pytest.raises(SystemExit):
        run(f"--config={file}", "--debug", main=fail)
    err = capsys.readouterr().err
    assert "Traceback" in err and "in fail" in err


def code_of(error):
    """Exit code of a program that raises `error`."""

    def main(config):
        raise error

    with pytest.raises(SystemExit) as exit_:
        run("--config=configs/mask_figure.py", main=main)
    return exit_.value.code


@pytest.mark.parametrize("flag", ["--debug", "--debug=true", "-debug=1"])
def test_debug_shows_the_traceback_of_a_bug_too(file, flag, capsys):
    with pytest.raises(SystemExit) as exit_:
        run(f"--config={file}", flag, main=lambda config: {}["gone"])
    err = capsys.readouterr().err
    assert exit_.value.code == failures.BUG and "Traceback" in err and "KeyError: 'gone'" in err


def test_a_bug_ends_in_one_sentence_that_keeps_its_traceback(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert code_of(KeyError("gone\naway")) == failures.BUG
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Traceback" not in said
    assert said.startswith(
        "error: this is a bug in mtm_jax: KeyError: 'gone\\naway' (tests/runtime/test_cli.py"
    )
    (kept,) = tmp_path.iterdir()
    assert f"run again with --debug and report it; the traceback is in {kept}" in said
    assert "Traceback" in kept.read_text() and "in code_of" not in said


def test_a_bug_is_said_where_no_traceback_can_be_kept(capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    assert code_of(ZeroDivisionError()) == failures.BUG
    assert capsys.readouterr().err.endswith("run again with --debug and report it\n")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "(No space left on device); make room"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y cannot be read or writ"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "out"), "out cannot be read or written"),
        (MemoryError(), "not enough memory (MemoryError); choose a smaller model, batch"),
        (RuntimeError("RESOURCE_EXHAUSTED: 9 GB\nmore"), "the device has not enough memory"),
        (UserError("first\nsecond"), "error: first second"),
    ],
)
def test_what_the_machine_refuses_is_no_bug(capsys, error, says):
    assert code_of(error) == failures.REFUSED
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_a_configuration_file_that_fails_is_named(tmp_path, capsys):
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_this_name")
    assert f"{broken} fails (ModuleNotFoundError: " in error_of(capsys, f"--config={broken}")


def test_interrupt_exits_with_130(file):
    def interrupt(config):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as exit_:
        run(f"--config={file}", main=interrupt)
    assert exit_.value.code == 130


def test_help_lists_keys_defaults_comments_and_an_example(file, capsys):
    run(f"--config={file}", "--help", main=fail)
    out = capsys.readouterr().out
    assert "A dummy." in out and "example: python -m experiments." in out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "--config.steps=10 gradient steps" in lines
    assert "--config.model.hidden='(256, 256)' widths" in lines
    assert """--config.methods="('bc', 'rcbc')\"""" in lines
    assert "--config.discount=FLOAT of future rewards; unset: by preset" in lines


def test_help_keeps_the_order_of_the_page_and_sets_sections_apart(file):
    lines = cli_help.key_lines(dict(cli_help.flatten(config_files.load(str(file))))).splitlines()
    keys = [line.strip().removeprefix("--config.").partition("=")[0] for line in lines]
    assert keys == [
        *("env", "steps", "rate", "fast", "source", "discount", ""),
        *("model.hidden", "model.layers", "model.sizes", "", "methods"),
    ]


PLAIN = {"action"}  # keys that need no explanation
NAMES = {"data": (":list", ":inspect", ":collect", ":convert", ":download")}


def test_help_explains_every_key_of_every_program(root):
    for file in sorted(set((root / "configs").glob("*.py")) - {root / "configs" / "common.py"}):
        for name in NAMES.get(file.stem, ("",)):
            pairs = dict(cli_help.flatten(config_files.load(f"{file}{name}")))
            said = cli_help.explanations(pairs, *cli_help.sources(str(file)))
            silent = {key for key in pairs if not said[key]} - PLAIN
            assert not silent, f"{file.name} lacks a comment behind {', '.join(sorted(silent))}"


def test_help_reads_helpers_dictionaries_dataclasses_and_sections():
    path = "configs/m3pc_offline.py"
    pairs = dict(cli_help.flatten(config_files.load(path)))
    said = cli_help.explanations(pairs, *cli_help.sources(path))
    assert said["eval.episodes"] == "episodes of each method"  # common
    assert said["plan.candidates"] == "action sequences to choose among (N)"  # its dict
    assert (
        said["m3pc_q.xi"] == "factor of the utilities in the softmax over the candidates (M3PC-Q)"
    )


def test_a_comment_explains_nothing_but_its_own_entry():
    text = """
def f(config):
    config.a = 1
    # no.
    config.c, config.d = (
        2, 3  # yes
    )
X = {"a": 1, "e": 2}  # all
Y = {
    "g": 1,  # one
}
"""
    said = cli_help.explanations(dict.fromkeys(("a", "c", "d", "x.e", "x.g")), text)
    assert said == {"a": "", "c": "yes", "d": "yes", "x.e": "", "x.g": "one"}


@pytest.mark.parametrize(
    ("path", "example"),
    [
        ("configs/m3pc_offline.py", "--config.run=RUN"),
        ("configs/plan_signal.py", "--config.run=RUN"),
        ("configs/report.py", "--config.results=RESULTS"),
        ("configs/m3pc_offline.py:hopper-medium", "--config.seed=0"),
    ],
)
def test_the_example_of_the_help_names_what_the_program_needs(capsys, path, example):
    run(f"--config={path}", "--help", main=fail)
    assert capsys.readouterr().out.strip().endswith(f" --config={path} {example}")


def test_logs_go_to_stderr(file, capsys):
    run(f"--config={file}", main=lambda _: logging.getLogger("mtm_jax.data").info("loaded"))
    captured = capsys.readouterr()
    assert "loaded" in captured.err and captured.out == ""


def test_default_file_is_named_after_the_module(root):
    command = [sys.executable, "-m", "experiments.mask_figure", "--config.windoww=3"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.strip() == (
        "error: unknown key --config.windoww; did you mean --config.window?"
    )
