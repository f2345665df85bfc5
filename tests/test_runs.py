"""Run folders are continued by the same run only, and signals let a loop finish its step."""

import json
import os
import signal

import pytest

from experiments import runs
from mtm_jax.errors import UserError

CONFIG = {"seed": 0, "out": "a", "save_every": 5, "eval": {"episodes": 2}, "model": {"width": 8}}


def listing(folder):
    return {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_new_folder_holds_its_configuration(tmp_path):
    folder = tmp_path / "deep" / "run"
    runs.open_run(folder, CONFIG)
    assert json.loads((folder / "config.json").read_text()) == CONFIG
    assert {f.name for f in folder.iterdir()} >= {"checkpoints", "figures"}
    assert not [f for f in folder.iterdir() if f.name.startswith(".")]


def test_the_same_configuration_continues(tmp_path):
    runs.open_run(tmp_path / "run", CONFIG)
    before = listing(tmp_path)
    free = {"out": "b", "save_every": 9, "eval": {"episodes": 7}}
    runs.open_run(tmp_path / "run", CONFIG | free)
    assert listing(tmp_path) == before


def test_another_configuration_is_refused_with_both_values(tmp_path):
    runs.open_run(tmp_path / "run", CONFIG)
    before = listing(tmp_path)
    other = CONFIG | {"model": {"width": 16}, "steps": 3}
    with pytest.raises(UserError) as refused:
        runs.open_run(tmp_path / "run", other)
    message = str(refused.value)
    assert "model.width is 8 there and 16 here" in message
    assert "steps is None there and 3 here" in message
    assert "seed" not in message
    assert listing(tmp_path) == before


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        runs.open_run(tmp_path, CONFIG)
    assert set(os.listdir(tmp_path)) == {"notes.txt"}


def test_an_empty_folder_may_be_used(tmp_path):
    runs.open_run(tmp_path, CONFIG)
    assert (tmp_path / "config.json").exists()


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("first", "second"):
        runs.write_text(path, text)
    assert path.read_text() == "second"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_the_loop_goes_on(number):
    before = signal.getsignal(number)
    with runs.interruptible() as interrupted:
        assert not interrupted
        os.kill(os.getpid(), number)
        assert interrupted
        assert interrupted.exit_code == 128 + number
    assert signal.getsignal(number) is before


def test_a_second_signal_ends_the_program(monkeypatch):
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    with runs.interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
        assert codes == []
        os.kill(os.getpid(), signal.SIGTERM)
    assert codes == [143]
