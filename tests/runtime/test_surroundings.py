"""The machine and its settings are named where they are to blame, before and during a program."""

import os
import signal
import subprocess
import sys

import jax
import pytest

from experiments.runtime import failures, surroundings
from mtm_jax.errors import UserError


@pytest.mark.parametrize(
    ("error", "setting", "says"),
    [
        (
            RuntimeError("Unable to initialize backend 'tpu': no"),
            "JAX_PLATFORMS=tpu",
            "no device of",
        ),
        (RuntimeError("Unable to initialize backend 'cuda': no"), "", "jax finds no device"),
        (RuntimeError("Could not determine home directory."), "", "set HOME, or MTM_JAX_DATA"),
        (RuntimeError("can't start new thread"), "", "ulimit -u"),
        (ModuleNotFoundError("No module named 'flax'", name="flax"), "", "flax is not installed"),
        (ValueError("when jax_numpy_dtype_promotion=x"), "JAX_NUMPY_DTYPE_PROMOTION=x", "unset it"),
        (
            FloatingPointError("invalid value (nan) encountered in x"),
            "JAX_DEBUG_NANS=1",
            "unset it",
        ),
        (Exception("Leaked trace MainTrace"), "JAX_CHECK_TRACER_LEAKS=1", "unset it"),
    ],
)
def test_what_is_to_blame_is_named(monkeypatch, error, setting, says):
    for name in ("JAX_PLATFORMS", "JAX_DEBUG_NANS"):
        monkeypatch.delenv(name, raising=False)
    if setting:
        monkeypatch.setenv(*setting.split("="))
    code, sentence = failures.describe(error)
    assert code == failures.REFUSED and says in sentence and setting in sentence


@pytest.mark.parametrize(
    "error",
    [
        ValueError("jax_numpy_dtype_promotion"),  # which nobody has set
        FloatingPointError("invalid value (nan) encountered in x"),
        ModuleNotFoundError("No module named 'mtm_jax.gone'", name="mtm_jax.gone"),
        AssertionError(),
    ],
)
def test_a_bug_is_not_blamed_on_the_machine(monkeypatch, error):
    monkeypatch.delenv("JAX_DEBUG_NANS", raising=False)
    assert surroundings.blame(error) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("jax_numpy_dtype_promotion", "strict"), ("jax_numpy_rank_promotion", "raise")],
)
def test_settings_that_nothing_works_with_are_refused_at_the_start(name, value):
    surroundings.check_settings()
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        with pytest.raises(UserError, match=f"do not work with {name}={value}; unset it"):
            surroundings.check_settings()
    finally:
        jax.config.update(name, before)


def start(root, *argv, path="", **settings):
    """Run a program; `path` is where Python looks for modules first."""
    env = {k: v for k, v in os.environ.items() if k not in ("JAX_PLATFORMS", "MTM_JAX_DATA")}
    done = subprocess.run(
        [sys.executable, "-m", *argv],
        cwd=root,
        env=env | {"PYTHONPATH": str(path)} | settings,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_device_that_is_not_there_is_said_to_be_missing(root, platform):
    code, said = start(root, "experiments.pretrain", JAX_PLATFORMS=platform)
    assert code == failures.REFUSED
    assert f"no device of JAX_PLATFORMS={platform}" in said[-1] and "bug" not in said[-1]


def test_a_setting_that_jax_does_not_understand_is_named(root):
    code, said = start(root, "experiments.critic", JAX_ENABLE_X64="perhaps")
    assert (code, len(said)) == (failures.REFUSED, 1)
    assert "does not work with JAX_ENABLE_X64=perhaps" in said[0]


def test_a_user_without_a_home_folder_is_told_what_to_set(root, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import pwd\n\ndef gone(_):\n    raise KeyError\n\npwd.getpwuid = gone\n"
    )
    env = {k: v for k, v in os.environ.items() if k not in ("HOME", "MTM_JAX_DATA")}
    done = subprocess.run(
        [sys.executable, "-m", "experiments.data", "list"],
        cwd=root,
        env=env | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == failures.REFUSED
    assert "no home folder to keep data in; set MTM_JAX_DATA" in done.stderr


IMPORTS = {
    "interrupt": "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n",
    "missing": "import nothing_of_this_name\n",
}


@pytest.mark.parametrize(
    ("what", "code", "says"),
    [
        ("interrupt", 128 + signal.SIGINT, "interrupted"),
        ("missing", failures.REFUSED, "error: nothing_of_this_name is not installed"),
    ],
)
def test_what_happens_during_imports_is_one_line(root, tmp_path, what, code, says):
    (tmp_path / "ml_collections.py").write_text(IMPORTS[what])
    found, said = start(root, "experiments.mask_figure", path=tmp_path)
    assert found == code and len(said) == 1 and said[0].startswith(says)


def test_a_renderer_that_is_not_installed_stops_no_program(root):
    program = """
import logging, sys
from mtm_jax.envs import make
env = make.make("Hopper-v5")
env.reset(seed=0)
print(env.step(env.action_space.sample())[0].shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root,
        env=os.environ | {"MUJOCO_GL": "no-such-renderer"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "(11,)\n"), done.stderr
    assert done.stderr.startswith("MUJOCO_GL=no-such-renderer cannot be used here")
