"""The comparison of features trains what remains, and counts updates to a level."""

import pytest

from experiments import representation
from experiments.runtime import cli
from mtm_jax.errors import UserError
from mtm_jax.io import records

RAW = {100: [1.0, 2.0], 200: [4.0, 6.0], 300: [10.0, 10.0]}
FAST = {100: [9.5, 9.0], 200: [10.0, 9.0], 300: [9.0, 8.0]}


def settings(out, *keys):
    return cli.parse([f"--config.out={out}", *keys], "configs/representation.py")


def store(out, name, curve):
    """Logs of two seeds."""
    for seed in (0, 1):
        folder = out / name / f"seed{seed}"
        folder.mkdir(parents=True)
        rows = [{"step": step, "eval/return": values[seed]} for step, values in curve.items()]
        records.rewrite(folder / "metrics.jsonl", [{"step": 50, "actor/loss": 1.0}, *rows])


def test_updates_are_counted_to_a_share_of_what_raw_states_reach():
    raw, fast = representation.compare("run", {"raw": RAW, "states_frozen": FAST})
    assert (raw.level, raw.updates) == (pytest.approx(9.0), [300, 300])
    assert fast.updates == [100, 100]
    assert representation.updates_to(RAW, 11.0) == [None, None]


def test_what_there_is_is_shown_without_training(tmp_path, drawn, capsys):
    store(tmp_path, "run-raw", RAW)
    store(tmp_path, "run-states_frozen", FAST)
    representation.main(settings(tmp_path, "--config.report=True", "--config.seeds=2"))
    assert "3.00" in capsys.readouterr().out
    rows = records.read_jsonl(tmp_path / "representation.jsonl")
    assert [row["features"] for row in rows] == ["raw", "states_frozen"]
    (axis,) = drawn[0].axes
    assert len(axis.lines) == 2 and axis.get_xscale() == "linear"


def test_the_model_knows_states_and_actions_alone_and_features_name_it(tmp_path):
    config = settings(tmp_path, "--config.quick=True")
    representation.complete(config)
    model = representation.pretraining(config)
    assert not model.data.rewards
    assert (model.steps, model.data.steps) == (200, 20_000)
    one = representation.training(config, "stand", "pairs_finetuned")
    assert (one.features.run, one.features.kind) == (model.out, "pairs")
    assert representation.training(config, "stand", "raw").features.run == ""


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("tasks=('fly',)", "tasks are .*choose among stand, walk, run"),
        ("features=('raw','pixels')", "choose among raw, states_frozen"),
        ("features=('pairs_frozen',)", "name raw, which the others are held to"),
        ("every=750", "eval.every is 750 updates"),
        ("episodes=0", "eval.episodes is 0"),
        ("pretraining_steps=-1", "pretraining_steps is -1"),
        ("seeds=0", "seeds is 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path, key, says):
    config = settings(tmp_path / "out", f"--config.{key}")
    with pytest.raises(UserError, match=says):
        representation.main(config)
    assert not (tmp_path / "out").exists()
