"""Coverage of the walker's states, and the programs that keep and compare explorers."""

import dataclasses
import json

import numpy as np
import pytest

from configs import behaviours as behaviours_config
from configs import coverage as coverage_config
from configs import ladder as ladder_config
from experiments import behaviours, ladder
from experiments import coverage as coverage_program
from mtm_jax.data.builtin import collector, coverage, ladders, shard
from mtm_jax.envs import registry, walker_tasks
from mtm_jax.errors import UserError
from mtm_jax.io import records


def observation(height=0.0, torso=0.0, speed=0.0, right=0.0, left=0.0):
    """What the walker would see in a state given by positions and velocities."""
    state = np.zeros((1, 18))
    state[0, [0, 2, 3, 6, 10]] = height, torso, right, left, speed
    return walker_tasks.observations_of(state)


def test_coordinates_are_those_of_the_simulator():
    found = coverage.coordinates(observation(-0.2, 0.5, 2.0, 0.3, 1.1))
    np.testing.assert_allclose(found, [[1.1, 0.5, 2.0, 0.3, 1.1]], atol=1e-5)


def test_hip_angles_do_not_jump_where_the_torso_angle_does():
    found = coverage.coordinates(observation(torso=np.pi + 0.2, right=0.5, left=-0.3))
    np.testing.assert_allclose(found[0, 1:], [0.2 - np.pi, 0.0, 0.5, -0.3], atol=1e-5)


@pytest.mark.parametrize("change", ["height", "torso", "speed", "right", "left"])
def test_every_coordinate_separates_cells(change):
    step = {"height": -0.4}.get(change, 1.1)
    pair = np.concatenate([observation(), observation(**{change: step})])
    assert coverage.occupied(pair) == 2
    assert coverage.occupied(np.concatenate([pair, pair])) == 2


def test_states_beyond_the_grid_share_its_outer_cells():
    far = np.concatenate([observation(speed=s) for s in (8.5, 50.0, -4.5, -50.0)])
    numbers = coverage.cells(far)
    assert numbers[0] == numbers[1] != numbers[2] == numbers[3]


def test_entropy_grows_with_the_spread_by_its_logarithm():
    points = np.random.default_rng(0).normal(size=(400, 24))
    narrow, wide = (coverage.particle_entropy(points * s) for s in (1.0, 3.0))
    assert wide - narrow == pytest.approx(np.log(3.0), abs=1e-9)


def test_entropy_is_the_mean_log_distance_to_the_neighbour():
    points = np.zeros((4, 24))
    points[:, 14] = 0.0, 1.0, 3.0, 7.0
    expected = np.mean(np.log([1.0, 1.0, 2.0, 4.0]))
    assert coverage.particle_entropy(points, neighbour=1) == pytest.approx(expected)
    expected = np.mean(np.log([3.0, 2.0, 3.0, 6.0]))
    assert coverage.particle_entropy(points, neighbour=2) == pytest.approx(expected)


def test_entropy_is_finite_where_states_repeat_and_depends_on_the_seed_of_its_draw():
    points = np.random.default_rng(0).normal(size=(300, 24))
    assert np.isfinite(coverage.particle_entropy(np.zeros((50, 24))))
    one, again, other = (coverage.particle_entropy(points, 100, seed=s) for s in (0, 0, 1))
    assert one == again != other


@pytest.mark.parametrize("shape", [(5, 17), (24,), (0, 24)])
def test_observations_of_others_are_refused(shape):
    with pytest.raises(UserError, match=r"walker observations, \[n, 24\]"):
        coverage.occupied(np.zeros(shape))


def test_too_few_states_for_the_entropy_are_refused():
    with pytest.raises(UserError, match="12 states have no neighbour number 12"):
        coverage.particle_entropy(np.zeros((12, 24)))


# --- the programs ---

RUN = registry.ENVS["walker_run"]


def write_actor(path, step):
    rng = np.random.default_rng(step)
    arrays = {"step": np.int64(step), "seed": np.int64(0)}
    for k, shape in enumerate([(24, 8), (8, 8), (8, 12)]):
        arrays |= {f"layer_{k}/kernel": rng.normal(size=shape).astype(np.float32)}
        arrays |= {f"layer_{k}/bias": np.zeros(shape[1], np.float32)}
    np.savez(path, **arrays)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The ladder of a run that explored, with seven actors."""

    def collect(tasks, *_, **__):
        seen = [np.tile(observation(), (60, 1)) for _ in tasks]
        for k, task in enumerate(tasks):  # actor k reaches k + 1 cells
            for turn in range(k):
                seen[k][turn] = observation(torso=0.7 * (turn + 1))
            seen[k][task.steps :] = observation(torso=-2.0)  # more than was asked for
        return [shard.Episodes(obs, *[None] * 5) for obs in seen]

    monkeypatch.setattr(collector, "collect", collect)
    (tmp_path / "run" / "actors").mkdir(parents=True)
    for step in range(10, 80, 10):
        write_actor(tmp_path / "run" / "actors" / f"actor_{step:08d}.npz", step)
    config = ladder_config.get_config("walker")
    config.run, config.out = str(tmp_path / "run"), str(tmp_path / "ladder")
    config.rungs, config.scoring_steps = 3, 50
    ladder.main(config)
    return tmp_path / "ladder"


def test_an_explorer_leaves_actors_of_all_its_training_without_roles(kept):
    index = json.loads((kept / "ladder.json").read_text())
    assert set(index) == {"env_id", "ladder"}
    assert all(entry["seed"] == 0 for entry in index["ladder"])
    assert [entry["step"] for entry in index["ladder"]] == [10, 40, 70]
    assert [entry["coverage"] for entry in index["ladder"]] == [1, 2, 3]
    read = ladders.load(kept, RUN)
    assert [s.path.name for s in read.snapshots] == [e["file"] for e in index["ladder"]]
    assert read.medium is read.expert is None


def test_both_sources_act_for_the_same_number_of_steps(kept, tmp_path, monkeypatch):
    short = dataclasses.replace(RUN, max_episode_steps=6)
    monkeypatch.setattr(coverage_program, "SPEC", short)
    config = coverage_config.get_config()
    config.actors, config.out = str(kept), str(tmp_path / "rows.jsonl")
    config.steps, config.num_envs = 28, 2
    coverage_program.main(config)
    rows = records.read_jsonl(tmp_path / "rows.jsonl")
    assert [(row["source"], row["steps"]) for row in rows] == [("random", 28), ("explorer", 28)]
    assert all(1 < row["cells"] <= 28 for row in rows)
    assert all(
        0 <= row[f"{t}/mean"] <= row[f"{t}/max"] <= 1 for row in rows for t in ("run", "walk")
    )


def test_every_actor_acts_for_its_share_in_whole_episodes(monkeypatch):
    def run_episodes(envs, layers, rng):
        numbers = np.full((10 * len(envs), 1), layers)
        return coverage_program.States(numbers, numbers)

    monkeypatch.setattr(coverage_program, "SPEC", dataclasses.replace(RUN, max_episode_steps=10))
    monkeypatch.setattr(coverage_program, "run_episodes", run_episodes)
    said = []
    states = coverage_program.act([None] * 2, [(1, 25), (2, 4)], None, said.append)
    assert states.physics[:, 0].tolist() == [1] * 25 + [2] * 4
    assert said == [20, 25, 29]


def test_the_explorer_is_configured_by_its_name():
    config = behaviours_config.get_config("walker")
    assert (config.env, config.reward, config.sac.decay_from) == ("walker_run", "rnd", 1.0)
    assert behaviours_config.get_config("hopper").reward == "environment"
    with pytest.raises(UserError, match="unknown ladder 'ant'; choose one of hopper"):
        behaviours_config.get_config("ant")
    config.reward = "fun"
    with pytest.raises(UserError, match="unknown reward 'fun'; choose environment or rnd"):
        behaviours.make_training(config, RUN)
