"""One command follows a task's motion by every method, draws it and measures the parts."""

import shutil

import numpy as np
import pytest

from experiments.m3pc_goal import __main__ as m3pc_goal
from experiments.m3pc_goal import reaching
from experiments.runtime import cli
from mtm_jax.agents import pretrained
from mtm_jax.config import GoalConfig
from mtm_jax.data import goal_files
from mtm_jax.envs.goals import waypoints
from mtm_jax.errors import UserError
from mtm_jax.io import records
from mtm_jax.plots import goal_video
from mtm_jax.plots import goals as goal_plots


def settings(run, *, task="hopper-wiggle", **overrides):
    given = {"run": run, "eval.episodes": 2, "steps": 12, "reach.windows": 0, "video": False}
    given |= {k.replace("__", "."): v for k, v in overrides.items()}
    argv = [f"--config.{k}={v}" for k, v in given.items()]
    return cli.parse([f"--config=configs/m3pc_goal.py:{task}", *argv], "configs/m3pc_goal.py")


def test_every_method_gets_a_row_and_the_figures_are_drawn(drawn_run, tmp_path):
    run = shutil.copytree(drawn_run, tmp_path / "run")
    m3pc_goal.main(settings(run, spacing=3, aim__ahead=2))
    out = run / "goals" / "hopper-wiggle"
    rows = records.read_jsonl(out / "results.jsonl")
    assert [row["method"] for row in rows] == ["m3pc_goal", "goal_mask"]
    assert rows[0]["settings"]["motion"] == {"frequency": 0.25, "amplitude": 0.05}
    assert (rows[0]["settings"]["spacing"], rows[0]["settings"]["aim"]["ahead"]) == (3, 2)
    assert rows[0]["target_return"] is None and rows[0]["metrics"]["mean_length"] == 12
    assert 0 < rows[0]["metrics"]["tracking_error"] < 1
    assert {p.name for p in out.glob("*.png")} == {"tracking.png", "visited.png", "filmstrip.png"}
    again = records.read_jsonl(run / "results.jsonl") if (run / "results.jsonl").exists() else []
    assert not [row for row in again if row["experiment"] == "m3pc_goal"]


def test_a_file_of_goals_takes_the_place_of_the_motion(drawn_run, tmp_path):
    agent = pretrained.load(drawn_run)
    states = np.tile(np.asarray(agent.stats["states"].mean), (4, 1))
    goal_files.save(waypoints.make(states).only(1), tmp_path / "own.npz")
    config = settings(drawn_run, goals=tmp_path / "own.npz")
    motion = m3pc_goal.following.motion_of(agent, config)
    found = m3pc_goal.following.goals_of(agent, motion, config)
    assert m3pc_goal.following.settings(config, found)["given"] == [1]
    assert len(found.steps) == 4 and motion.shape == (13, 11)
    goal_files.save(waypoints.make(states).only(2), tmp_path / "own.npz")
    with pytest.raises(UserError, match="own.npz leaves dimension 1 free, the torso angle"):
        m3pc_goal.following.motion_of(agent, config)


def test_recorded_actions_reach_what_was_recorded(drawn_run, monkeypatch):
    """In a simulator of the data's own dynamics nothing but rounding is left of the error."""
    agent = pretrained.load(drawn_run)
    env = reaching.make.make(agent.info.env_id).unwrapped
    env.reset(seed=0)
    values = {"states": [], "actions": [], "rewards": []}
    rng, obs = np.random.default_rng(0), env._get_obs()
    for _ in range(8):
        action = rng.uniform(-0.5, 0.5, 3).astype(np.float32)
        values["states"].append(np.float32(obs))
        values["actions"].append(action)
        obs, reward = env.step(action)[:2]
        values["rewards"].append(np.float32([reward]))
    values = {k: np.stack(x)[None] for k, x in values.items()}
    errors = [reaching.ends(agent, values, 3, way, GoalConfig()) for way in reaching.WAYS]
    assert errors[0] < 1e-3 < min(errors[1:])
    found = reaching.first_decision(agent, values, 3, GoalConfig())
    assert found["start"] > 0 and found["path"] > 0 and found["action_id"] != found["action_path"]


def test_principal_components_keep_the_directions_of_the_data():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(200, 2)) * [3.0, 1.0] @ rng.normal(size=(2, 5))
    found = goal_plots.principal(plane)(plane)
    assert found.shape == (200, 2)
    spread = ((plane - plane.mean(0)) / plane.std(0)).var(0).sum()
    assert found.var(0).sum() == pytest.approx(spread)
    assert found[:, 0].var() > found[:, 1].var()


def test_a_video_shows_a_method_beside_the_other(tmp_path):
    import imageio.v3 as imageio

    obs = np.tile(np.float32([1.25, *np.zeros(10)]), (5, 1))
    moved = np.where(np.arange(11) == 2, -0.5, obs)
    path = goal_video.video(
        {"m3pc_goal": obs, "goal_mask": moved}, obs, "Hopper-v5", tmp_path / "a.gif", 3
    )
    frames = imageio.imread(path)
    left, right = np.split(frames[-1], 2, axis=1)
    assert len(frames) == 3 and (left != right).any()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"eval__methods": "('rcbc',)"}, "choose among m3pc_goal, goal_mask, bc"),
        ({"steps": 1}, "steps is 1; give at least 2"),
        ({"spacing": 9}, "goals are up to 9 steps apart"),
        ({"aim__ahead": 0}, "goal ahead is 0"),
        ({"given": "(11,)"}, r"dimensions \[11\] were named"),
        ({"goals": "gone.npz"}, "gone.npz"),
        ({"motion__frequency": -1.0}, "frequency is -1.0"),
        ({"reach__distances": "(0,)"}, r"reach.distances are \(0,\)"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_runs(drawn_run, overrides, says):
    with pytest.raises(UserError, match=says):
        m3pc_goal.main(settings(drawn_run, **overrides))
    assert not (drawn_run / "goals").exists()


def test_a_task_of_another_environment_is_refused(drawn_run):
    config = settings(drawn_run, task="walker-split")
    with pytest.raises(UserError, match="a task of walker2d, and the run was trained on hopper"):
        m3pc_goal.main(config)
