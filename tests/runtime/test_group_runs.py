"""Runs that are trained in one program have the folders, and end like, runs that are not."""

import json
import os
import shutil
import signal

import numpy as np
import pytest

from experiments import pretrain
from experiments.training import group_trainer, run_configs
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint, records
from mtm_jax.plots import learning_curves

pytestmark = pytest.mark.usefixtures("no_curves")
NAMES = {"seed0", "seed1"}


@pytest.fixture(scope="module")
def trained(tiny_config, tmp_path_factory):
    """Two seeds, trained together."""
    folder = tmp_path_factory.mktemp("group")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning_curves, "draw", lambda folder: None)
        pretrain.main(tiny_config(folder, "seeds=2"))
    return folder


def losses(folder):
    return [row["train/loss"] for row in records.read_jsonl(folder / "metrics.jsonl")]


def test_each_has_its_folder_and_results(trained):
    assert {path.name for path in trained.iterdir()} == NAMES
    for seed in range(2):
        folder = trained / f"seed{seed}"
        (row,) = records.read_jsonl(folder / "results.jsonl")
        assert (row["seed"], row["step"], row["metrics"]["trained_together"]) == (seed, 30, 2)
        assert checkpoint.Checkpoints(folder, read_only=True).steps() == [20, 30]
    assert losses(trained / "seed0") != losses(trained / "seed1")


def test_each_ends_like_a_run_alone(trained, tiny_run):
    np.testing.assert_allclose(losses(trained / "seed0"), losses(tiny_run), rtol=1e-3)
    together, alone = (
        json.loads((f / "config.json").read_text()) for f in (trained / "seed0", tiny_run)
    )
    assert together.pop("out") != alone.pop("out")
    assert together == alone


def test_a_run_of_a_group_can_be_shown_alone(trained, tiny_config, capsys):
    pretrain.main(tiny_config(trained / "seed1", "seed=1"))
    assert "this run is finished" in capsys.readouterr().out


@pytest.mark.slow
def test_those_that_were_saved_further_wait_for_the_others(trained, tiny_config, tmp_path, capsys):
    folder = tmp_path / "group"
    shutil.copytree(trained, folder)
    for name in NAMES:
        (folder / name / "results.jsonl").unlink()
    shutil.rmtree(folder / "seed1" / "checkpoints" / "30")
    pretrain.main(tiny_config(folder, "seeds=2"))
    assert "all go on from step 20" in capsys.readouterr().out
    for name in NAMES:
        assert checkpoint.Checkpoints(folder / name, read_only=True).steps()[-1] == 30
        np.testing.assert_allclose(losses(folder / name), losses(trained / name), rtol=1e-5)


@pytest.mark.slow
def test_a_run_that_goes_back_is_saved_on_its_way(trained, tiny_config, tmp_path, monkeypatch):
    """Else a second interruption would lose the steps that it has said to be saved."""
    folder = tmp_path / "group"
    shutil.copytree(trained, folder)
    for name in NAMES:
        (folder / name / "results.jsonl").unlink()
    for step in (20, 30):
        shutil.rmtree(folder / "seed1" / "checkpoints" / str(step))
    run = group_trainer.GroupTrainer.run
    monkeypatch.setattr(group_trainer.GroupTrainer, "run", interrupting(run))
    with pytest.raises(SystemExit) as stopped:
        pretrain.main(tiny_config(folder, "seeds=2"))
    assert stopped.value.code == 143
    for name in NAMES:
        assert checkpoint.Checkpoints(folder / name, read_only=True).steps() == [10]
    later = folder / "seed0" / "later"
    assert sorted(f.name for f in later.iterdir()) == ["20", "30"]


def interrupting(run):
    def run_and_interrupt(*args):
        found = run(*args)
        os.kill(os.getpid(), signal.SIGTERM)
        return found

    return run_and_interrupt


@pytest.mark.slow
def test_only_runs_that_are_not_finished_are_trained(trained, tiny_config, tmp_path):
    folder = tmp_path / "group"
    shutil.copytree(trained, folder)
    shutil.rmtree(folder / "seed1")
    before = (folder / "seed0" / "metrics.jsonl").stat().st_mtime_ns
    pretrain.main(tiny_config(folder, "seeds=2"))
    assert (folder / "seed0" / "metrics.jsonl").stat().st_mtime_ns == before
    np.testing.assert_allclose(losses(folder / "seed1"), losses(trained / "seed1"), rtol=1e-3)


def test_devices_are_divided_among_the_runs_that_are_left(tiny_config, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(pretrain, "show_stored", lambda run: run.config.seed == 0)
    monkeypatch.setattr(pretrain.sharding, "make_mesh", lambda _, members: asked.append(members))
    monkeypatch.setattr(pretrain.loop, "run", lambda trainer, *_: asked.append(len(trainer.runs)))
    monkeypatch.setattr(pretrain.GroupTrainer, "states", lambda trainer: [])
    monkeypatch.setattr(pretrain, "finish", lambda *_: None)
    pretrain.main(tiny_config(tmp_path / "group", "seeds=3"))
    assert asked == [2, 2]


def test_values_are_swept_together_with_seeds(tiny_config, tmp_path):
    rates = "sweep.learning_rate=(0.001, 0.01)"
    found = run_configs.expand(tiny_config(tmp_path, "seed=3", "seeds=2", rates))
    assert [(c.seed, c.optim.learning_rate) for c in found] == [
        *((3, 0.001), (3, 0.01), (4, 0.001), (4, 0.01))
    ]
    assert [c.out for c in found][:2] == [
        f"{tmp_path}/seed3-learning_rate0.001",
        f"{tmp_path}/seed3-learning_rate0.01",
    ]
    unnamed = run_configs.expand(tiny_config("", "seeds=2", rates))
    assert str(unnamed[3].out).endswith("m3pc-paper-seed1-learning_rate0.01")


def test_one_run_goes_where_it_always_does(tiny_config, tmp_path):
    (one,) = run_configs.expand(tiny_config(tmp_path))
    assert one.out == str(tmp_path)
    assert not {"seeds", "sweep"} & set(one)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("seeds=0", "seeds is 0; give a number from 1 to 1000"),
        ("sweep.learning_rate=(0.1, 0.1)", "give every value once"),
    ],
)
def test_senseless_groups_are_refused(tiny_config, tmp_path, override, sentence):
    with pytest.raises(UserError, match=sentence):
        run_configs.expand(tiny_config(tmp_path, override))


@pytest.mark.slow
def test_a_step_that_went_wrong_names_the_run(tiny_config, tmp_path):
    rates = "sweep.learning_rate=(0.001, 1e30)"
    with pytest.raises(UserError, match=r"training went wrong in step \d+") as error:
        pretrain.main(tiny_config(tmp_path / "group", rates))
    assert "seed0-learning_rate1e+30/debug/before_" in str(error.value)
