"""Online finetuning from the command line: it explores, learns, and continues in mid-episode."""

import os
import shutil
import signal

import numpy as np
import pytest

import mtm_jax
from experiments import critic, m3pc_online
from experiments.runtime import cli
from experiments.training import explorer, online_run
from mtm_jax.envs import ongoing
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint, records

TINY = {
    "explore": "rcbc",
    "steps": 90,
    "environments": 2,
    "updates": 100,
    "critic_updates": 1,
    "chunk": 1,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "online_after": 30,
    "buffer.episodes": 4,
    "buffer.steps": 1000,
    "plan.candidates": 2,
    "eval.methods": "('rcbc',)",
    "eval.episodes": 1,
    "eval.every": 1000,
    "save_every": 1000,
}


def settings(run, out, **overrides):
    given = TINY | {"run": run, "out": out}
    given |= {k.replace("__", "."): v for k, v in overrides.items()}
    return cli.parse([f"--config.{k}={v}" for k, v in given.items()], "configs/m3pc_online.py")


@pytest.fixture(scope="module")
def source(drawn_run, tmp_path_factory):
    """A pretraining run with a critic."""
    run = shutil.copytree(drawn_run, tmp_path_factory.mktemp("source") / "run")
    tiny = ("critic.steps=3", "critic.hidden=(8,)", "critic.batch_size=8", "log_every=3")
    argv = [f"--config.{key}" for key in (f"run={run}", "critic.unit=1.0", *tiny)]
    critic.main(cli.parse(argv, "configs/critic.py"))
    return run


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    """An undisturbed run."""
    out = tmp_path_factory.mktemp("online") / "run"
    m3pc_online.main(settings(source, out))
    return out


def digests(folder):
    found = checkpoint.Checkpoints(folder, read_only=True)
    return found.restore_meta(found.steps()[-1])["digests"]["train"]


def test_a_run_explores_learns_and_is_evaluated(finished):
    rows = records.read_jsonl(finished / "metrics.jsonl")
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert rows[-1]["online/updates"] > 0 and "critic/q_loss" in rows[-1]
    evaluated = records.read_jsonl(finished / "results.jsonl")
    assert [(row["method"], row["step"]) for row in evaluated] == [("rcbc", 0), ("rcbc", 90)]
    assert evaluated[0]["experiment"] == "m3pc_online"
    assert {f.name for f in (finished / "figures").iterdir()} == {
        "online_curve.png",
        "exploration_returns.png",
    }


def test_what_was_finetuned_can_be_loaded_and_acts_and_plans(finished, source):
    agent, before = mtm_jax.load(finished), mtm_jax.load(source)
    assert agent.require_critic().step > before.require_critic().step
    assert agent.returns != before.returns
    action = agent.policy("rcbc").act(np.zeros(11, np.float32))
    assert np.isfinite(action).all() and action.shape == (3,)


@pytest.mark.slow
def test_a_run_that_is_stopped_in_mid_episode_ends_like_an_undisturbed_one(
    finished, source, tmp_path, monkeypatch
):
    step = online_run.OnlineRun.step

    def interrupt(self):
        step(self)
        if self.taken == 46:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(online_run.OnlineRun, "step", interrupt)
        with pytest.raises(SystemExit) as stopped:
            m3pc_online.main(settings(source, tmp_path / "run"))
    assert stopped.value.code == 143
    state = checkpoint.Checkpoints(tmp_path / "run", read_only=True)
    assert state.steps() == [46]
    m3pc_online.main(settings(source, tmp_path / "run"))
    assert digests(tmp_path / "run") == digests(finished)
    both = [records.read_jsonl(folder / "metrics.jsonl") for folder in (finished, tmp_path / "run")]
    assert both[0] == both[1]


class Broken(ongoing.Ongoing):
    """An environment that fails at its third step."""

    def step(self, action):
        outcome = super().step(action)
        if self.length < 3:
            return outcome
        self.length -= 1
        return outcome._replace(terminal=False, over=True, failure="RuntimeError: it is hot")


def test_environments_that_fail_again_and_again_end_a_run(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(explorer.ongoing, "Ongoing", Broken)
    with pytest.raises(UserError, match="3 episodes in a row ended by an error .*it is hot"):
        m3pc_online.main(settings(source, tmp_path / "run", environments=1, updates=0))
    assert "the episode is cut there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"explore": "m3pc_x"}, "explore has 'm3pc_x'; choose among bc"),
        ({"environments": 0}, "environments is 0; it must be at least 1"),
        ({"updates": -1}, "updates is -1; it must not be negative"),
        ({"steps": 0}, "steps is 0 environment steps"),
        ({"buffer__steps": 10}, "holds 10 steps, and an episode has up to 1000"),
        ({"buffer__episodes": 0}, "holds 0 episodes; give at least 1"),
    ],
)
def test_settings_that_cannot_be_leave_no_folder(source, tmp_path, overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        m3pc_online.main(settings(source, tmp_path / "run", **overrides))
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_critic_is_refused_where_none_may_be_made(drawn_run, tmp_path):
    with pytest.raises(UserError, match="has no critic, and make_critic is False; train one with"):
        m3pc_online.main(settings(drawn_run, tmp_path / "run", make_critic=False))
