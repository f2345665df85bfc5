"""What is given to make arrives at the programs as it was given; setup knows its Pythons."""

import configparser
import os
import subprocess

import pytest

AWKWARD = ("o'brien", "dol$lar $(b ${c} $$d", "two  spaces ", 'a "b" `c` \\ #e', "x,y=z;&|*?[]~")
VARIABLES = {"SOURCE": "source", "OUT": "out", "SEED": "seed", "SEEDS": "seeds", "STEPS": "steps"}


@pytest.fixture
def arguments(root, tmp_path):
    """Run a target with a stand-in for Python; return the words that it was given."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\0" "$word"; done\n')
    python.chmod(0o755)

    def run(target, env=None, **variables):
        command = ["make", "-s", "-o", ".venv/.installed", f"BIN={tmp_path}", target]
        command += [f"{name}={value}" for name, value in variables.items()]
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\0")[:-1]

    return run


@pytest.mark.parametrize("value", AWKWARD)
def test_every_variable_arrives_as_it_was_given(arguments, value):
    given = dict.fromkeys(VARIABLES, value)
    words = arguments("pretrain", ENV=value, PRESET=value, **given)
    assert words == [
        *("-m", "experiments.pretrain", f"--config=configs/pretrain.py:{value},preset={value}"),
        *(f"--config.{k}={value}" for k in ("source", "seed", "seeds", "steps", "out")),
    ]
    words = arguments("critic", ENV=value, STEPS=value, OUT=value)
    assert words[2:] == [
        *(f"--config=configs/critic.py:{value}", f"--config.critic.steps={value}"),
        f"--config.run={value}",
    ]
    assert arguments("bench", FIGURE=value)[2:] == [f"--config.figure={value}"]


def test_what_the_environment_holds_arrives_too(arguments):
    words = arguments("pretrain", env=os.environ | {"SOURCE": "a$b 'c'"}, ENV="hopper-medium")
    assert words[2:] == ["--config=configs/pretrain.py:hopper-medium", "--config.source=a$b 'c'"]


def test_a_missing_env_is_said(root):
    command = ["make", "-s", "-o", ".venv/.installed", "critic"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.stderr.startswith("error: make critic needs ENV, e.g. ENV=hopper-medium")


def test_setup_refuses_a_python_without_wheels(root, tmp_path):
    python = tmp_path / "my python"
    python.write_text('#!/bin/sh\ntest "$1" = --version && echo Python 3.14.0\nexit 1\n')
    python.chmod(0o755)
    command = ["make", "-s", f"BIN={tmp_path}/gone", f"PYTHON={python}", "-W", "setup.cfg", "setup"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 2 and "needs Python 3.11, 3.12 or 3.13" in done.stderr
    assert "my python is Python 3.14.0" in done.stderr


def test_what_needs_labmaze_is_left_out_from_python_3_13_on(root):
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    extras = config["options.extras_require"]
    for extra in ("walker", "dev"):
        (line,) = [line for line in extras[extra].splitlines() if line.startswith("dm_control")]
        assert line.endswith('; python_version < "3.13"')
    assert config["options"]["python_requires"] == ">=3.11,<3.14"
