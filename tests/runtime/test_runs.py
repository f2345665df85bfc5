"""Run folders are continued by the same run only, by one process at a time."""

import json
import os
import pathlib

import pytest

from experiments.runtime import runs
from mtm_jax.errors import UserError

CONFIG = {"seed": 0, "out": "a", "save_every": 5, "model": {"width": 8}}
CONFIG["eval"] = {"episodes": 2, "history": 4}


def listing(folder):
    return {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def begun_run(folder, config=CONFIG):
    runs.open_run(folder, config)
    (folder / "metrics.jsonl").write_text('{"step": 5}\n')


def test_a_new_folder_holds_its_configuration(tmp_path):
    folder = tmp_path / "deep" / "run"
    runs.open_run(folder, CONFIG)
    assert json.loads((folder / "config.json").read_text()) == CONFIG
    assert {f.name for f in folder.iterdir()} >= {"checkpoints", "figures"}
    assert not [f for f in folder.iterdir() if f.name.startswith(".")]


def test_the_same_configuration_continues(tmp_path):
    begun_run(tmp_path / "run")
    before = listing(tmp_path)
    free = {"out": "b", "save_every": 9, "eval": {"episodes": 7, "history": 4}}
    free |= {"micro_batches": 4, "model": {"width": 8, "remat": True}}
    runs.open_run(tmp_path / "run", CONFIG | free)
    assert listing(tmp_path) == before


def test_another_configuration_is_refused_with_both_values(tmp_path):
    begun_run(tmp_path / "run")
    before = listing(tmp_path)
    other = CONFIG | {"model": {"width": 16}, "steps": 3}
    with pytest.raises(UserError) as refused:
        runs.open_run(tmp_path / "run", other)
    message = str(refused.value)
    assert message.endswith("with --config.out (OUT=... with make), or delete this one")
    assert "model.width is 8 there and 16 here" in message
    assert "steps is None there and 3 here" in message
    assert "seed" not in message
    assert listing(tmp_path) == before


def test_the_history_that_checkpoints_hold_is_not_free(tmp_path):
    begun_run(tmp_path / "run")
    other = CONFIG | {"eval": {"episodes": 2, "history": 3}}
    with pytest.raises(
        UserError, match=r"different run: eval\.history is 4 there and 3 here; choose"
    ):
        runs.open_run(tmp_path / "run", other)


def test_a_run_that_never_began_gives_its_folder_to_another(tmp_path):
    other = CONFIG | {"model": {"width": 16}}
    runs.open_run(tmp_path / "run", CONFIG)
    runs.open_run(tmp_path / "run", other)
    assert runs.read_config(tmp_path / "run") == other


def test_a_run_on_all_data_that_says_so_as_earlier_versions_did_goes_on(tmp_path):
    begun_run(tmp_path, CONFIG | {"data": {"steps": 0}})
    runs.open_run(tmp_path, CONFIG | {"data": {"steps": None}})
    assert runs.read_config(tmp_path)["data"] == {"steps": None}
    with pytest.raises(UserError, match=r"data\.steps is None there and 5 here"):
        runs.open_run(tmp_path, CONFIG | {"data": {"steps": 5}})


@pytest.mark.parametrize("file", ["metrics.jsonl", "checkpoints/5/model/d", "figures/a.png"])
def test_a_run_that_has_written_anything_keeps_its_folder(tmp_path, file):
    runs.open_run(tmp_path, CONFIG)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("")
    with pytest.raises(UserError, match="holds a different run"):
        runs.open_run(tmp_path, CONFIG | {"seed": 1})
    assert runs.read_config(tmp_path) == CONFIG


def test_a_configuration_of_something_else_is_never_overwritten(tmp_path):
    (tmp_path / "config.json").write_text('{"width": 3}')
    with pytest.raises(UserError, match="holds a different run"):
        runs.open_run(tmp_path, CONFIG)
    assert listing(tmp_path) == {pathlib.Path("config.json"): b'{"width": 3}'}


def test_a_damaged_configuration_is_named(tmp_path):
    begun_run(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        runs.open_run(tmp_path, CONFIG)


@pytest.mark.parametrize("open_folder", [runs.check_folder, runs.open_run])
def test_a_file_is_no_folder(tmp_path, open_folder):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below" / "run"):
        with pytest.raises(UserError) as refused:
            open_folder(folder, CONFIG)
        assert str(refused.value).startswith(f"{folder} cannot be a run folder")
        assert str(refused.value).endswith("is a file); choose another one with --config.out")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("open_folder", [runs.check_folder, runs.open_run])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch, open_folder):
    (tmp_path / "kept").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "kept")
    with pytest.raises(UserError, match=r"kept/a/run cannot be .*kept is read-only.*--config\.out"):
        open_folder(tmp_path / "kept" / "a" / "run", CONFIG)
    assert not list((tmp_path / "kept").iterdir())


@pytest.mark.parametrize("refusing", ["mkdir", "replace"])
def test_what_the_file_system_refuses_names_the_folder(tmp_path, monkeypatch, refusing):
    def refuse(*args, **kwargs):
        raise PermissionError("Permission denied")

    monkeypatch.setattr(pathlib.Path, refusing, refuse)
    with pytest.raises(UserError, match=r"run cannot be .*Permission denied.*--config\.out"):
        runs.open_run(tmp_path / "run", CONFIG)


def test_checking_a_folder_changes_nothing(tmp_path):
    runs.check_folder(tmp_path / "new" / "run", CONFIG)
    assert not list(tmp_path.iterdir())
    begun_run(tmp_path / "run")
    before = listing(tmp_path)
    runs.check_folder(tmp_path / "run", CONFIG)
    with pytest.raises(UserError, match="seed is 0 there and 1 here"):
        runs.check_folder(tmp_path / "run", CONFIG | {"seed": 1})
    with pytest.raises(UserError, match="is not empty and holds no run"):
        runs.check_folder(tmp_path, CONFIG)
    assert listing(tmp_path) == before


def test_a_relative_folder_may_be_new(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs.open_run(pathlib.Path("run"), CONFIG)
    assert runs.read_config(tmp_path / "run") == CONFIG


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        runs.open_run(tmp_path, CONFIG)
    assert set(os.listdir(tmp_path)) == {"notes.txt"}


@pytest.mark.parametrize("moment", ["mkdir", "replace"])
def test_a_run_that_was_killed_while_its_folder_was_made_begins_again(
    tmp_path, monkeypatch, moment
):
    def killed(*args, **keys):
        raise KeyboardInterrupt

    if moment == "replace":
        monkeypatch.setattr(pathlib.Path, "replace", killed)
    else:
        monkeypatch.setattr(runs, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        runs.open_run(tmp_path, CONFIG)
    monkeypatch.undo()
    assert list(tmp_path.iterdir())
    runs.open_run(tmp_path, CONFIG)
    assert runs.read_config(tmp_path) == CONFIG


def test_an_empty_folder_may_be_used(tmp_path):
    runs.open_run(tmp_path, CONFIG)
    assert (tmp_path / "config.json").exists()


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("first", "second"):
        runs.write_text(path, text)
    assert path.read_text() == "second"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_one_process_at_a_time_writes_into_a_folder(tmp_path):
    with runs.only_writer(tmp_path):
        with pytest.raises(UserError, match="another process is training in .*--config.out"):
            with runs.only_writer(tmp_path):
                raise AssertionError
    with runs.only_writer(tmp_path):
        assert not list(tmp_path.iterdir())


def test_measured_numbers_may_differ_by_rounding_only():
    assert runs.differences({"a": {"b": 0.1 + 0.2}, "c": (1,)}, {"a": {"b": 0.3}, "c": (1,)}) == {}
    found = runs.differences({"a": {"b": 0.3}, "c": 1}, {"a": {"b": 0.31}, "d": 2})
    assert list(found) == ["a.b", "c", "d"]
    assert found["a.b"] == "a.b is 0.3 there and 0.31 here"


def test_a_folder_that_is_held_is_given_to_no_other_run(tmp_path):
    runs.open_run(tmp_path, CONFIG)
    with runs.only_writer(tmp_path), pytest.raises(UserError, match="another process is training"):
        runs.open_run(tmp_path, CONFIG | {"model": {"width": 16}})
    assert runs.read_config(tmp_path) == CONFIG


def test_who_holds_a_folder_says_whose_it_is(tmp_path):
    other = CONFIG | {"model": {"width": 16}}
    for config in (CONFIG, other):
        runs.open_run(tmp_path, config)
    with runs.only_writer(tmp_path):
        runs.settle(tmp_path, CONFIG)
        assert runs.read_config(tmp_path) == CONFIG
        (tmp_path / "metrics.jsonl").write_text("{}\n")
        with pytest.raises(UserError, match=r"a different run: model\.width"):
            runs.settle(tmp_path, other)
