"""TD3 is trained from the command line, on raw states or features, continued and evaluated."""

import jax
import numpy as np
import pytest

from experiments import td3
from experiments.runtime import cli
from experiments.training import td3_features, td3_run
from mtm_jax import tokens
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint, records
from mtm_jax.types import DataInfo

TINY = {
    "td3.hidden": (8,),
    "td3.batch_size": 8,
    "steps": 20,
    "log_every": 10,
    "save_every": 10,
    "eval.episodes": 1,
}


def settings(source, out, name="hopper-medium,variant=td3_bc,preset=small", **overrides):
    """A configuration of seconds; two underscores in a key of `overrides` stand for a dot."""
    given = TINY | {"source": source, "out": out, "data.steps": None}
    given |= {k.replace("__", "."): v for k, v in overrides.items()}
    argv = [f"--config.{k}={v}" for k, v in given.items() if v is not None]
    return cli.parse([f"--config=configs/td3.py:{name}", *argv], "configs/td3.py")


@pytest.fixture
def no_curves(monkeypatch):
    monkeypatch.setattr(td3.learning_curves, "draw", lambda folder: None)


def digests(folder):
    found = checkpoint.Checkpoints(folder, read_only=True)
    return {part: found.restore_meta(20)["digests"][part] for part in ("model", "train")}


def test_a_run_is_trained_evaluated_and_shown_again(hopper_file, tmp_path, no_curves, capsys):
    config = settings(hopper_file, tmp_path / "run", eval__every=20, eval__episodes_on_the_way=1)
    td3.main(config)
    (row,) = records.read_jsonl(tmp_path / "run" / "results.jsonl")
    assert (row["method"], row["step"], row["settings"]["features"]) == ("td3_bc", 20, "raw")
    logged = records.read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert [found["step"] for found in logged] == [10, 20]
    assert logged[1]["eval/return"] == pytest.approx(row["returns"][0], rel=1e-5)
    td3.main(config)
    assert "is finished" in capsys.readouterr().out


def test_a_training_in_two_parts_is_the_same_training(hopper_file, tmp_path, monkeypatch):
    monkeypatch.setattr(td3, "finish", lambda runs, trainer, data: None)
    td3.main(settings(hopper_file, tmp_path / "whole"))
    run = td3.GroupTrainer.run

    def stop(self, length):
        rows = run(self, length)
        if self.step == 10:
            td3.loop.signals.os.kill(td3.loop.signals.os.getpid(), td3.loop.signal.SIGTERM)
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(td3.GroupTrainer, "run", stop)
        with pytest.raises(SystemExit):
            td3.main(settings(hopper_file, tmp_path / "parts"))
    td3.main(settings(hopper_file, tmp_path / "parts"))
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")


@pytest.mark.slow
def test_features_of_a_run_are_finetuned_inside_of_the_state(
    hopper_file, drawn_run, tmp_path, monkeypatch
):
    monkeypatch.setattr(td3, "finish", lambda runs, trainer, data: None)
    named = {"run": drawn_run, "kind": "pairs", "finetuned": True}
    config = settings(
        hopper_file, tmp_path, **{f"features__{k}": v for k, v in named.items()}, seeds=2, steps=10
    )
    td3.main(config)
    for seed in (0, 1):
        saved = checkpoint.Checkpoints(tmp_path / f"seed{seed}", read_only=True).restore_model(10)
        assert "features" in saved["params"]
    trained = jax.tree.leaves(saved["params"]["features"])
    assert all(np.isfinite(x).all() for x in trained)


def test_folders_are_named_after_what_is_trained(hopper_file):
    named = settings(hopper_file, "", features__run="runs/pretrain/RUN", features__kind="pairs")
    (found,) = td3_run.expand(named)
    assert found.out.endswith("td3_bc-small-seed0-pairs-frozen-RUN")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"steps": 0}, "steps is 0 updates"),
        ({"eval__every": 15}, "eval.every is 15 updates and log_every 10; give a multiple"),
        ({"eval__episodes": 0}, "eval.episodes is 0"),
        ({"seeds": 0}, "seeds is 0"),
        ({"seed": -1}, "seed is -1; it must not be negative"),
        ({"data__steps": 0}, "data.steps is 0"),
        ({"features__kind": "rewards"}, "features.kind is 'rewards'; choose one of states, pairs"),
        ({"features__finetuned": True}, "no model was named; give --config.features.run"),
        ({"features__run": "nowhere"}, "no run in nowhere"),
        ({"td3__alpha": -1.0}, "alpha is -1.0"),
        ({"name": "walker2d-medium,preset=small"}, "actions has 3 dimensions"),
    ],
)
def test_settings_that_mean_nothing_are_refused(hopper_file, tmp_path, overrides, says):
    with pytest.raises(UserError, match=says):
        td3.main(settings(hopper_file, tmp_path / "run", **overrides))
    assert not (tmp_path / "run").exists()


def test_a_training_on_frozen_features_goes_on_with_the_same_encoder(tmp_path):
    stats = dict.fromkeys(("states", "actions"), tokens.identity_stats(2))
    encoder = {"kernel": np.ones((2, 2), np.float32)}
    found = checkpoint.Checkpoints(tmp_path)
    saved = {"params": encoder, "stats": stats, "features": encoder}
    found.save(1, saved, {"step": np.int32(1)}, {})
    td3_run.check_same(found, 1, stats, encoder)
    with pytest.raises(UserError, match="the encoder of features.run has other parameters"):
        td3_run.check_same(found, 1, stats, {"kernel": np.zeros((2, 2), np.float32)})


def test_tasks_of_one_robot_share_an_encoder_and_robots_do_not():
    def robot(name):
        env_id = {"walker2d": "Walker2d-v5", "halfcheetah": "HalfCheetah-v5"}.get(name)
        env_id = env_id or f"mtm_jax/Walker{name.title()}-v0"
        return td3_features.robot(DataInfo(name, "test", env_id, 1000, (-1.0,), (1.0,)))

    assert robot("run") == robot("stand")
    assert len({robot(name) for name in ("run", "walker2d", "halfcheetah")}) == 3
