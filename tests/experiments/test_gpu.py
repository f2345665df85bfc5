"""The stages of experiments.gpu: their commands, and what happens when time is up."""

import json

import pytest

from experiments import gpu
from experiments.runtime import cli
from mtm_jax.errors import UserError


def settings(tmp_path, **changes):
    flags = [f"--config.{k}={v}" for k, v in ({"out": tmp_path / "gpu"} | changes).items()]
    return cli.parse(flags, "configs/gpu.py")


def test_every_stage_is_a_command_that_its_page_accepts(tmp_path):
    config = settings(tmp_path, overrides=("optim.average=0.9",), preset="small")
    gpu.check(config)
    names = [stage.arguments[0] for stage in gpu.stages(config)]
    assert names == [f"experiments.{n}" for n in ("bench", "pretrain", "critic", "m3pc_offline")]
    assert "--config.optim.average=0.9" in gpu.stages(config)[1].arguments


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"minutes": 0}, "minutes is 0"),
        ({"timing_share": 2.0}, "timing_share is 2.0"),
        ({"steps": 0}, "steps is 0"),
        ({"env": "hoper-medium"}, "hoper"),
        ({"overrides": ("optim.averge=1",)}, "unknown key --config.optim.averge"),
    ],
)
def test_wrong_settings_are_refused_before_anything_starts(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        gpu.check(settings(tmp_path, **changes))
    assert not (tmp_path / "gpu").exists()


def test_a_stage_ends_when_its_time_is_up(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "GRACE", 2.0)
    program = tmp_path / "forever.py"
    program.write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    gpu.run(gpu.Stage("sleeping", ["forever"]), 0.5, tmp_path)
    program.write_text("print('done')\n")
    gpu.run(gpu.Stage("quick", ["forever"]), 60.0, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "stages.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["code"] == 0) for row in rows] == [
        ("sleeping", False),
        ("quick", True),
    ]
    assert rows[0]["seconds"] < 10


def test_what_was_reached_is_shown(tmp_path, capsys):
    gpu.show(tmp_path)
    assert "everything is in" in "".join(capsys.readouterr())
