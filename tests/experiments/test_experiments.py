"""Pretraining and evaluation from the command line to the run folder, on a tiny scale."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from experiments import evaluate, pretrain
from experiments.runtime import cli
from experiments.training import loop, pretrain_run
from mtm_jax.agents import agent as agent_lib
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint, metrics, records, results

pytestmark = pytest.mark.usefixtures("no_curves")


def listing(folder):
    return {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture
def copied(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    return tmp_path / "run"


def last_digests(folder):
    """Hashes of every array of the last training state: parameters, moments, sigma, key."""
    checkpoints = checkpoint.Checkpoints(folder)
    digests = checkpoints.restore_meta(checkpoints.steps()[-1])["digests"]["train"]
    assert {"/log_sigma", "/key", "/step"} < set(digests)
    return digests


def test_a_run_folder_is_complete(tiny_run):
    config = json.loads((tiny_run / "config.json").read_text())
    assert (config["env"], config["model"]["width"]) == ("hopper-medium", 16)
    assert sorted(p.name for p in (tiny_run / "checkpoints").iterdir()) == ["20", "30"]
    drawn = list((tiny_run / "figures").glob("*.png"))
    assert {f.name for f in drawn} == {"learning_curve.png", "scores.png"}
    assert all(f.read_bytes().startswith(b"\x89PNG") for f in drawn)
    assert not list(tiny_run.rglob(".*"))


def test_metrics_are_logged_after_every_chunk(tiny_run):
    rows = records.read_jsonl(tiny_run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [10, 20, 30]
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert {"train/loss", "train/sigma", "train/learning_rate"} < set(rows[0])
    assert "valid/rcbc/actions" in rows[-1] and "valid/rcbc/actions" not in rows[0]
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]


def test_results_keep_their_contract(tiny_run):
    (row,) = records.read_jsonl(tiny_run / "results.jsonl")
    results.check_result(row)
    expected = {
        "experiment": "pretrain",
        "env_id": "Hopper-v4",
        "dataset": "hopper-medium",
        "method": "rcbc",
        "seed": 0,
        "step": 30,
        "checkpoint": "last",
    }
    assert {key: row[key] for key in expected} == expected
    assert len(row["returns"]) == len(row["normalized_scores"]) == 2
    scores = registry.normalized_score(registry.ENVS["hopper"], row["returns"])
    np.testing.assert_allclose(row["normalized_scores"], scores)
    assert row["normalized_mean"] == pytest.approx(scores.mean())
    assert row["target_return"] > 0
    assert row["versions"]["jax"] and row["metrics"]["mean_length"] > 0


def test_the_same_command_shows_a_finished_run_and_changes_nothing(copied, tiny_config, capsys):
    before = listing(copied)
    pretrain.main(tiny_config(copied))
    assert listing(copied) == before
    assert "rcbc" in capsys.readouterr().out


def test_a_run_that_was_killed_before_its_evaluation_is_evaluated(copied, tiny_config):
    (first,) = records.read_jsonl(copied / "results.jsonl")
    (copied / "results.jsonl").unlink()
    pretrain.main(tiny_config(copied))
    (again,) = records.read_jsonl(copied / "results.jsonl")
    assert again["returns"] == first["returns"]


def test_a_run_can_be_evaluated_by_itself(copied):
    keys = (f"run={copied}", "eval.episodes=2", "eval.methods=('bc', 'rcbc')")
    argv = [f"--config.{key}" for key in keys]
    evaluate.main(cli.parse(argv, "configs/evaluate.py"))
    trained, bc, rcbc = records.read_jsonl(copied / "results.jsonl")
    assert (bc["method"], bc["experiment"], bc["seed"]) == ("bc", "evaluate", 0)
    assert bc["target_return"] is None
    assert rcbc["returns"] == trained["returns"]


def interrupt_after(monkeypatch, step):
    """Have SIGTERM arrive while the metrics of a step are written."""
    write = metrics.MetricsWriter.write

    def hooked(self, now, row):
        write(self, now, row)
        if now == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(metrics.MetricsWriter, "write", hooked)


def test_an_interrupted_run_ends_bit_for_bit_like_an_undisturbed_one(
    tiny_run, tiny_config, tmp_path, monkeypatch
):
    config = tiny_config(tmp_path / "run", "save_every=1000")  # only the signal saves
    with monkeypatch.context() as patch:
        interrupt_after(patch, 10)
        with pytest.raises(SystemExit) as stopped:
            pretrain.main(config)
    assert stopped.value.code == 143
    assert checkpoint.Checkpoints(tmp_path / "run").steps() == [10]
    assert not (tmp_path / "run" / "results.jsonl").exists()
    pretrain.main(config)
    assert last_digests(tmp_path / "run") == last_digests(tiny_run)
    runs = [records.read_jsonl(f / "metrics.jsonl") for f in (tmp_path / "run", tiny_run)]
    assert runs[0] == runs[1]


@pytest.mark.slow
def test_rows_after_the_last_checkpoint_are_not_repeated(copied, tiny_config):
    """A run that was killed between two checkpoints has logged more than it has saved."""
    before = records.read_jsonl(copied / "metrics.jsonl")
    (copied / "results.jsonl").unlink()
    shutil.rmtree(copied / "checkpoints" / "30")
    pretrain.main(tiny_config(copied))
    assert records.read_jsonl(copied / "metrics.jsonl") == before


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_an_older_one_used_on_request(
    copied, tiny_run, tiny_config
):
    (copied / "results.jsonl").unlink()
    for file in (copied / "checkpoints" / "30" / "train" / "d").iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError, match="checkpoints/30 cannot be read.*good one is of step 20"):
        pretrain.main(tiny_config(copied))
    pretrain.main(tiny_config(copied, "use_older=True"))
    assert last_digests(copied) == last_digests(tiny_run)
    assert [f.name for f in (copied / "damaged").iterdir()] == ["30"]


def test_checkpoints_are_scored_by_the_metric_that_is_named(tiny_config, tmp_path):
    row = {"train/loss": 2.0, "valid/rcbc/actions": 0.5}
    assert pretrain_run.score_of(row, tiny_config(tmp_path)) is None
    by_metric = ("keep_best=1", "keep_metric=valid/rcbc/actions")
    config = tiny_config(tmp_path, *by_metric)
    assert pretrain_run.score_of(row, config) == 0.5
    assert pretrain_run.score_of({"train/loss": 2.0}, config) is None
    with pytest.raises(UserError, match="no metric 'valid/x' to keep by; choose among train/loss"):
        pretrain_run.score_of(row, tiny_config(tmp_path, "keep_best=1", "keep_metric=valid/x"))


def test_a_metric_that_is_not_measured_is_refused_before_training(tiny_config, tmp_path):
    config = tiny_config(tmp_path / "run", "keep_best=1", "keep_metric=valid/x")
    with pytest.raises(UserError, match="no metric 'valid/x'.*train/loss.*valid/train_masks/act"):
        pretrain.main(config)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.slow
def test_the_best_checkpoints_of_a_run_are_kept(tiny_run, tiny_config, tmp_path):
    keys = ("keep_best=1", "keep_metric=valid/train_masks/nll", "eval.episodes=1")
    pretrain.main(tiny_config(tmp_path / "run", *keys, "steps=50", "optim.learning_rate=0.05"))
    rows = records.read_jsonl(tmp_path / "run" / "metrics.jsonl")
    scores = {row["step"]: row["valid/train_masks/nll"] for row in rows}
    best = min(scores, key=lambda step: (scores[step], -step))
    checkpoints = checkpoint.Checkpoints(tmp_path / "run", read_only=True)
    assert checkpoints.steps() == sorted({best, 40, 50})
    assert checkpoints.scores() == {step: scores[step] for step in checkpoints.steps()}


def test_another_configuration_does_not_touch_a_run(copied, tiny_config):
    before = listing(copied)
    with pytest.raises(UserError, match="batch_size is 16 there and 8 here"):
        pretrain.main(tiny_config(copied, "batch_size=8"))
    assert listing(copied) == before


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("source=no/such.hdf5", "no/such.hdf5.*check the path"),
        ("model.window=99", "window of 99"),
        ("model.width=15", "width 15"),
        ("model.bins=4", "model.bins is 4"),
        ("eval.history=8", "eval.history is 8.*0 to 7"),
        ("eval.methods=('dt',)", r"eval.methods are \('dt',\); choose among bc, rcbc"),
        ("eval.methods=()", "eval.methods are"),
        ("eval.episodes=0", "eval.episodes is 0"),
        ("eval.seed=-1", "eval.seed is -1"),
        ("log_every=0", "log_every is 0"),
        ("validate_every=-5", "validate_every is -5"),
        ("save_every=0", "save_every is 0"),
        ("keep_best=-1", "keep_best is -1 checkpoints"),
        ("data.train_fraction=95.0", "fraction is 95.0"),
        ("data.actions_fraction=50.0", "actions_fraction is 50.0; it must lie in"),
        ("data.actions_fraction=0.0", "actions_fraction is 0.0; it must lie in"),
        ("data.split_seed=-1", "data.split_seed is -1"),
        ("batch_size=0", "batch_size is 0"),
        ("steps=0", "at least one step"),
        ("optim.learning_rate=-1.0", "learning_rate is -1.0"),
        ("masks.patterns.random_autoregressive=0.0", "patterns"),
        ("masks.fractions=(2.0,)", "fractions"),
    ],
)
def test_wrong_settings_leave_no_run_folder(tiny_config, tmp_path, override, says):
    with pytest.raises(UserError, match=says):
        pretrain.main(tiny_config(tmp_path / "run", override))
    assert list(tmp_path.iterdir()) == []


def test_evaluation_needs_a_run(tmp_path):
    for run, says in (("", "no run was named"), (tmp_path / "no", "no run in")):
        argv = [f"--config.run={run}"]
        with pytest.raises(UserError, match=says):
            evaluate.main(cli.parse(argv, "configs/evaluate.py"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("step", "log", "save", "validate"),
    [
        *((10, True, False, False), (12, True, False, False), (9, False, False, False)),
        *((20, True, True, False), (30, True, False, True), (98, False, False, True)),
        *((100, True, True, True), (97, False, False, False)),
    ],
)
def test_an_interval_is_due_when_a_multiple_is_passed_and_at_the_end(step, log, save, validate):
    schedule = loop.Schedule(total=100, call=5, log=10, save=20, validate=14)
    assert schedule.due(step, length=5) == loop.Due(log, validate, save)
    never = schedule._replace(validate=None)
    assert never.due(step, length=5) == loop.Due(log, False, save)
    assert never._replace(validate_saves=True).due(step, length=5) == loop.Due(log, save, save)


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--config=configs/pretrain.py:ant-medium", "error: unknown environment 'ant'"),
        ("--config.model.widht=3", "error: unknown key --config.model.widht; did you mean"),
    ],
)
def test_mistakes_end_in_one_sentence_and_exit_code_2(root, argument, says):
    found = subprocess.run(
        [sys.executable, "-m", "experiments.pretrain", argument],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 2
    assert found.stderr.startswith(says) and found.stderr.count("\n") == 1
    assert found.stdout == ""


@pytest.mark.slow
def test_data_of_your_own_train_without_rewards_or_a_simulator(tiny_config, tmp_path, capsys):
    rng = np.random.default_rng(0)
    path = tmp_path / "mine.npz"
    actions = rng.integers(0, 2, (60, 3)).astype(bool)
    np.savez(path, observations=rng.normal(size=(60, 5)), actions=actions, lengths=[20, 25, 15])
    config = tiny_config(
        tmp_path / "run", f"source={path}", "steps=10", name="custom-robot,preset=paper"
    )
    pretrain.main(config)
    assert "custom-robot has no simulator here" in capsys.readouterr().out
    assert not (tmp_path / "run/results.jsonl").exists()


@pytest.mark.slow
def test_without_rewards_only_behaviour_cloning_is_evaluated(tiny_config, tmp_path, capsys):
    rng = np.random.default_rng(0)
    path = tmp_path / "mine.npz"
    arrays = {"observations": rng.normal(size=(60, 11)), "actions": np.zeros((60, 3))}
    np.savez(path, **arrays, lengths=[20, 25, 15])
    config = tiny_config(
        *(tmp_path / "run", f"source={path}", "steps=10", "eval.methods=('bc', 'rcbc')"),
        name="hopper-mine,preset=paper",
    )
    pretrain.main(config)
    (row,) = records.read_jsonl(tmp_path / "run/results.jsonl")
    assert row["method"] == "bc"
    assert "dataset_best_score" not in row["metrics"]
    assert "left out" in capsys.readouterr().out
    pretrain.main(config)  # shows what is stored
    assert len(records.read_jsonl(tmp_path / "run/results.jsonl")) == 1
    with pytest.raises(UserError, match="hopper-mine has no rewards"):
        agent_lib.load(tmp_path / "run").policy("rcbc")
