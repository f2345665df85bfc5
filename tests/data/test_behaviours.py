import json
import logging
import subprocess
import sys
import time

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax import distributions
from mtm_jax.data import info as data_info
from mtm_jax.data.builtin import assembly, behaviours, collector, ladders, shard
from mtm_jax.data.minari import writer as minari_writer
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.models import critics

HOPPER = registry.ENVS["hopper"]
LADDER_STEPS = (100, 300, 400, 700)
NAME = "hopper-medium"


def make_actor(seed, obs_dim=11, action_dim=3, width=8):
    rng = np.random.default_rng(seed)
    sizes = [(obs_dim, width), (width, width), (width, 2 * action_dim)]
    arrays = {}
    for k, (rows, columns) in enumerate(sizes):
        arrays[f"layer_{k}/kernel"] = rng.normal(0, 0.3, (rows, columns)).astype(np.float32)
        arrays[f"layer_{k}/bias"] = rng.normal(0, 0.1, columns).astype(np.float32)
    return arrays | {"step": np.int64(LADDER_STEPS[seed])}


@pytest.fixture
def actors(tmp_path):
    """A ladder of four random actors: the third is medium, the last is expert."""
    folder = tmp_path / "actors"
    folder.mkdir()
    entries = []
    for k, step in enumerate(LADDER_STEPS):
        entries.append({"file": f"actor_{step:08d}.npz", "step": step})
        np.savez(folder / entries[-1]["file"], **make_actor(k))
    index = {"env_id": "Hopper-v5", "seed": 0, "ladder": entries}
    index |= {"medium": entries[2]["file"], "expert": entries[3]["file"]}
    (folder / "ladder.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def ladder(actors):
    return ladders.load(actors, HOPPER)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MTM_JAX_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(behaviours, "_SHARD_STEPS", 150)
    return tmp_path / "cache"


@pytest.fixture
def inline(monkeypatch):
    """Sample in this process, which saves starting others."""
    monkeypatch.setattr(collector, "collect", lambda tasks, *_: [shard.sample(t) for t in tasks])


@pytest.fixture
def no_collecting(monkeypatch):
    def refuse(*_):
        raise AssertionError("nothing may be collected here")

    return lambda: monkeypatch.setattr(collector, "collect", refuse)


def task(actors, steps=300, limit=1000, seed=0, key=(0,)):
    return shard.Task(str(actors / "actor_00000400.npz"), "Hopper-v5", limit, steps, seed, key)


def assert_equal(one, other):
    for name in shard.Episodes._fields:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def differ(one, other):
    return one.rewards.shape != other.rewards.shape or (one.rewards != other.rewards).any()


# --- the actor and one shard ---


def test_actor_samples_like_the_network_that_was_trained(actors):
    layers = shard.load_actor(actors / "actor_00000400.npz")
    rng = np.random.default_rng(1)
    obs, noise = rng.normal(size=(5, 11)), rng.normal(size=(5, 3))
    mlp = {f"layer_{k}": {"kernel": w, "bias": b} for k, (w, b) in enumerate(layers)}
    network = critics.TanhNormalActor(3, (8, 8))
    dist = network.apply({"params": {"mlp": mlp}}, jnp.asarray(obs, jnp.float32))
    expected, _ = distributions.push_forward(dist, noise)
    found = shard.act(layers, obs.astype(np.float32), noise.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_recorded_steps_happen_again_in_the_environment(actors):
    episodes = shard.sample(task(actors))
    env = gymnasium.make("Hopper-v5").unwrapped
    env.reset(seed=0)
    ends = np.cumsum(episodes.lengths) - 1
    following = np.roll(episodes.observations, -1, axis=0)
    following[ends] = episodes.final_observations
    for row in np.random.default_rng(0).integers(0, len(episodes.rewards), 40):
        before = episodes.observations[row].astype(np.float64)
        env.set_state(np.append(0.0, before[:5]), before[5:])
        obs, reward, terminal, _, _ = env.step(episodes.actions[row])
        np.testing.assert_allclose(obs, following[row], atol=2e-3)
        np.testing.assert_allclose(reward, episodes.rewards[row], atol=2e-3)
        assert terminal == episodes.terminals[row]


def test_a_shard_depends_on_its_task_alone(actors):
    first = shard.sample(task(actors))
    assert_equal(first, shard.sample(task(actors)))
    assert differ(first, shard.sample(task(actors, seed=1)))
    assert differ(first, shard.sample(task(actors, key=(1,))))


def test_an_action_does_not_depend_on_the_order_of_summation(actors):
    # Of 256 units, because that is where processors round differently.
    rng = np.random.default_rng(0)
    layers = tuple(
        (rng.normal(size=shape) / 16, rng.normal(size=shape[1]))
        for shape in ((11, 256), (256, 256), (256, 6))
    )
    obs = rng.normal(size=(500, 11)).astype(np.float32)
    noise = rng.normal(size=(500, 3)).astype(np.float32)
    order = rng.permutation(256)
    (w0, b0), (w1, b1), (w2, b2) = layers
    shuffled = ((w0[:, order], b0[order]), (w1[order][:, order], b1[order]), (w2[order], b2))
    np.testing.assert_array_equal(shard.act(layers, obs, noise), shard.act(shuffled, obs, noise))
    assert all(w.dtype == np.float64 for w, _ in shard.load_actor(task(actors).actor))


def test_used_environments_change_nothing(actors):
    pool = {}
    shard.sample(task(actors, seed=3), pool=pool)
    assert_equal(shard.sample(task(actors), pool=pool), shard.sample(task(actors)))
    assert len(pool["Hopper-v5"].envs) == shard.SLOTS


def test_a_shard_holds_whole_episodes_and_no_more_than_it_needs(actors):
    episodes = shard.sample(task(actors, steps=300))
    assert episodes.lengths.sum() - episodes.lengths[-1] < 300 <= episodes.lengths.sum()
    assert np.flatnonzero(episodes.terminals).tolist() == (np.cumsum(episodes.lengths) - 1).tolist()


def test_the_time_limit_ends_episodes_without_a_terminal(actors):
    episodes = shard.sample(task(actors, steps=100, limit=4))
    assert set(episodes.lengths) == {4}
    assert not episodes.terminals.any()


class ScriptedEnv:
    """Its k-th episode, counted over all environments, has the k-th scripted length."""

    started = 0
    lengths = np.random.default_rng(0).choice([1, 2, 40, 90], 1000)

    unwrapped = property(lambda self: self)

    def reset(self):
        self.number, self.steps = ScriptedEnv.started, 0
        ScriptedEnv.started += 1
        return np.full(11, self.number, np.float32), {}

    def step(self, action):
        self.steps += 1
        done = self.steps == ScriptedEnv.lengths[self.number]
        return np.full(11, self.number, np.float32), 1.0, done, False, {}


@pytest.mark.parametrize("steps", [1, 45, 700, 3000])
def test_episodes_are_kept_in_the_order_of_starting_however_long(actors, monkeypatch, steps):
    monkeypatch.setattr(ScriptedEnv, "started", 0)
    monkeypatch.setattr(shard.make, "make", lambda _: ScriptedEnv())
    episodes = shard.sample(task(actors, steps=steps))
    count = int(np.searchsorted(np.cumsum(ScriptedEnv.lengths), steps)) + 1
    np.testing.assert_array_equal(episodes.lengths, ScriptedEnv.lengths[:count])
    np.testing.assert_array_equal(episodes.final_observations[:, 0], np.arange(count))


# --- recipes ---


def quotas(ladder, level, steps):
    return [[(s.step, n) for s, n in p.quotas] for p in ladders.plan(ladder, level, steps)]


def test_medium_and_expert_come_from_one_actor_each(ladder):
    assert quotas(ladder, "medium", 1000) == [[(400, 1000)]]
    assert quotas(ladder, "expert", 1000) == [[(700, 1000)]]
    assert quotas(ladder, "medium-expert", 1001) == [[(400, 500)], [(700, 501)]]


def test_replay_weighs_actors_by_the_training_steps_before_them(ladder):
    assert quotas(ladder, "medium-replay", 1000) == [[(100, 250), (300, 500), (400, 250)]]
    assert sum(n for _, n in quotas(ladder, "medium-replay", 997)[0]) == 997


def scripted(lengths, first):
    """Whole episodes whose observations count rows from `first` on."""
    rows = first + np.arange(sum(lengths), dtype=np.float32)
    ends = np.cumsum(lengths) - 1
    terminals = np.zeros(len(rows), bool)
    terminals[ends] = True
    finals = rows[ends][:, None] + 0.5
    return shard.Episodes(rows[:, None], rows[:, None], rows, terminals, np.array(lengths), finals)


def test_shards_join_into_whole_episodes_and_one_cut():
    shards = [scripted([4, 4, 4], 0), scripted([3, 3, 9], 100), scripted([6, 6], 200)]
    joined = assembly.take(shards, [10, 6, 8])
    # 12 of 10 steps, then 3 towards 16, then 9 towards 24
    assert joined.lengths.tolist() == [4, 4, 4, 3, 3, 6]
    rows = [*range(12), *range(100, 106), *range(200, 206)]
    assert joined.rewards.tolist() == rows
    assert joined.final_observations[-1] == 205.5
    cut = assembly.take(shards, [10, 6, 6])
    assert cut.lengths.tolist() == [4, 4, 4, 3, 3, 4]
    assert cut.rewards.tolist() == rows[:22]
    assert cut.final_observations[-1] == 204
    assert not cut.terminals[-1]
    assert cut.terminals[:-4].sum() == 5


def test_a_shard_whose_share_is_used_up_adds_nothing():
    shards = [scripted([9], 0), scripted([2], 100), scripted([5], 200)]
    assert assembly.take(shards, [5, 2, 4]).rewards.tolist() == [*range(9), 200, 201]


# --- data sets ---


@pytest.mark.parametrize("level", registry.LEVELS)
def test_a_data_set_has_exactly_the_steps_asked_for(actors, inline, level):
    data = behaviours.load(f"hopper-{level}", 700, actors=actors, progress=False)
    assert len(data.rewards) == data.lengths.sum() == 700
    ends = np.cumsum(data.lengths) - 1
    half = [ends[np.flatnonzero(ends == 349)[0]]] if level == "medium-expert" else []
    cut = np.setdiff1d(ends, np.flatnonzero(data.terminals))
    assert set(cut) <= {*half, 699}
    starts = data.observations[data.starts]
    assert len(np.unique(starts, axis=0)) == len(starts)  # no episode is there twice
    assert data.info.env_id == "Hopper-v5"
    assert data.info.source == "builtin"


def test_medium_expert_is_medium_and_then_expert(actors, inline):
    both = behaviours.load("hopper-medium-expert", 600, actors=actors, progress=False)
    medium = behaviours.load("hopper-medium", 300, actors=actors, progress=False)
    expert = behaviours.load("hopper-expert", 300, actors=actors, progress=False)
    np.testing.assert_array_equal(
        both.observations, np.concatenate([medium.observations, expert.observations])
    )


def test_the_number_of_processes_changes_nothing(actors, tmp_path, monkeypatch):
    one = behaviours.load(NAME, 600, actors=actors, workers=1, progress=False)
    monkeypatch.setenv("MTM_JAX_DATA", str(tmp_path / "other"))
    three = behaviours.load(NAME, 600, actors=actors, workers=3, progress=False)
    assert_equal(one, three)


def test_another_seed_gives_other_data(actors, inline):
    one, two = (behaviours.load(NAME, 300, s, actors, progress=False) for s in (0, 1))
    assert differ(one, two)


def test_stored_data_are_used_again(actors, inline, no_collecting, caplog):
    first = behaviours.load(NAME, 300, actors=actors, progress=False)
    no_collecting()
    with caplog.at_level(logging.INFO, "mtm_jax"):
        second = behaviours.load(NAME, 300, actors=actors, progress=False)
    assert_equal(first, second)
    assert "using the stored data set" in caplog.text
    assert str(behaviours.folder(NAME, 300, 0)) in caplog.text


def test_data_of_another_actor_or_simulator_are_collected_again(
    actors, inline, monkeypatch, caplog
):
    first = behaviours.load(NAME, 300, actors=actors, progress=False)
    np.savez(actors / "actor_00000400.npz", **make_actor(0))
    second = behaviours.load(NAME, 300, actors=actors, progress=False)
    assert differ(first, second)
    assert "made with other actors" in caplog.text
    monkeypatch.setattr(behaviours, "_version", lambda package: "99")
    behaviours.load(NAME, 300, actors=actors, progress=False)
    assert "made with other mujoco, gymnasium" in caplog.text


def test_damaged_data_are_collected_again(actors, inline, caplog):
    first = behaviours.load(NAME, 300, actors=actors, progress=False)
    file = behaviours.folder(NAME, 300, 0) / "data" / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:-1])
    assert_equal(first, behaviours.load(NAME, 300, actors=actors, progress=False))
    assert "collecting hopper-medium again: " in caplog.text
    assert "is damaged" in caplog.text


def test_two_processes_that_collect_at_once_both_end_well(actors, monkeypatch, caplog):
    def while_another_is_faster(tasks, *_):
        results = [shard.sample(t) for t in tasks]
        monkeypatch.setattr(collector, "collect", lambda *_: results)
        behaviours.load(NAME, 300, actors=actors, progress=False)
        return results

    monkeypatch.setattr(collector, "collect", while_another_is_faster)
    with caplog.at_level(logging.INFO, "mtm_jax"):
        data = behaviours.load(NAME, 300, actors=actors, progress=False)
    assert "another process stored hopper-medium first" in caplog.text
    assert len(data.rewards) == 300
    folder = behaviours.folder(NAME, 300, 0)
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("fault", [OSError("no space left"), KeyboardInterrupt()])
def test_a_failed_collection_leaves_nothing(actors, inline, monkeypatch, fault):
    def fail(trajectories, name, folder, extra):
        (folder / "data").mkdir()
        raise fault

    monkeypatch.setattr(minari_writer, "write_files", fail)
    with pytest.raises((UserError, KeyboardInterrupt)) as error:
        behaviours.load(NAME, 100, actors=actors, progress=False)
    assert list(behaviours.folder(NAME, 100, 0).parent.iterdir()) == []
    if isinstance(fault, OSError):
        assert "(no space left); set MTM_JAX_DATA" in str(error.value)


def test_a_folder_that_cannot_be_written_is_noticed_first(
    actors, no_collecting, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MTM_JAX_DATA", str(tmp_path / "file"))
    no_collecting()
    with pytest.raises(UserError, match="cannot write to the data folder .*set MTM_JAX_DATA"):
        behaviours.load(NAME, 100, actors=actors, progress=False)


def test_a_killed_collection_leaves_nothing_and_no_processes(actors, root):
    # The worker inherits this program's stdout, so the pipe ends only when both are gone.
    program = f"""
import functools, os, subprocess
from mtm_jax.data.builtin import behaviours
subprocess.Popen = functools.partial(subprocess.Popen, pass_fds=[os.dup(1)])
behaviours.load({NAME!r}, 10_000_000, actors={str(actors)!r}, workers=1)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout.readline()  # the worker has said how far it is
    parent.kill()
    parent.communicate(timeout=20)
    assert not behaviours.folder(NAME, 10_000_000, 0).exists()


@pytest.fixture
def sampled(monkeypatch):
    """Count the shards that workers sample."""
    counted, receive = [], collector._receive
    monkeypatch.setattr(collector, "_receive", lambda *a: counted.append(1) or receive(*a))
    return counted


def test_finished_shards_are_kept_and_damaged_ones_sampled_again(actors, tmp_path, sampled):
    tasks = [task(actors, steps=60, key=(k,)) for k in range(4)]
    first = collector.collect(tasks, 1, "x", False, tmp_path / "kept")
    assert len(sampled) == 4
    (tmp_path / "kept/shard_00001.npz").unlink()
    damaged = tmp_path / "kept/shard_00002.npz"
    damaged.write_bytes(damaged.read_bytes()[:-50])
    second = collector.collect(tasks, 1, "x", False, tmp_path / "kept")
    assert len(sampled) == 6
    for one, other in zip(first, second, strict=True):
        assert_equal(one, other)


def test_a_folder_that_another_process_removes_ends_no_collection(actors, tmp_path, monkeypatch):
    def removed_meanwhile(*_):
        raise FileNotFoundError

    monkeypatch.setattr(collector.os, "replace", removed_meanwhile)
    (episodes,) = collector.collect([task(actors, steps=20)], 1, "x", False, tmp_path / "kept")
    assert len(episodes.rewards) >= 20


def test_a_full_disk_is_said_in_a_sentence(actors, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(collector.os, "replace", full)
    with pytest.raises(UserError, match="No space left on device.*MTM_JAX_DATA"):
        collector.collect([task(actors, steps=20)], 1, "x", False, tmp_path / "kept")


def test_a_killed_collection_continues_where_it_stopped(actors, root, sampled, tmp_path):
    program = f"""
from mtm_jax.data.builtin import behaviours
behaviours._SHARD_STEPS = 150
behaviours.load({NAME!r}, 4500, actors={str(actors)!r}, workers=1, progress=False)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=root)
    folder = behaviours.folder(NAME, 4500, 0)
    while len(kept := list(folder.parent.glob(".partial-*/shard_*.npz"))) < 2:
        assert parent.poll() is None
        time.sleep(0.01)
    parent.kill()
    parent.wait(timeout=20)
    assert not folder.exists()
    continued = behaviours.load(NAME, 4500, actors=actors, progress=False)
    assert len(sampled) <= 30 - len(kept)
    assert not list(folder.parent.glob(".partial-*"))
    whole = [shard.sample(t) for t in shard_tasks(actors, 4500)]
    assert_equal(continued, assembly.take(whole, [150] * 30))


def shard_tasks(actors, steps):
    spec_ladder = ladders.load(actors, HOPPER)
    info = data_info.of_env(HOPPER, "Hopper-v5", NAME, "builtin")
    return behaviours._shards(ladders.plan(spec_ladder, "medium", steps)[0], info, 0)


def test_an_explorer_gives_every_actor_its_share(actors):
    spec = registry.ENVS["walker_run"]
    for k, step in enumerate(LADDER_STEPS):
        np.savez(actors / f"actor_{step:08d}.npz", **make_actor(k, spec.obs_dim, spec.action_dim))
    index = json.loads((actors / "ladder.json").read_text())
    index = {"env_id": registry.ENVS["walker_stand"].builtin_id, "ladder": index["ladder"]}
    (actors / "ladder.json").write_text(json.dumps(index))
    explorer = ladders.load(actors, spec)
    assert explorer.env_id == spec.builtin_id
    (section,) = ladders.plan(explorer, "explore", 1000)
    assert [s.step for s, _ in section.quotas] == list(LADDER_STEPS)
    assert sum(quota for _, quota in section.quotas) == 1000
    with pytest.raises(UserError, match="of mtm_jax/WalkerStand-v0, not of hopper"):
        ladders.load(actors, HOPPER)


def test_a_worker_that_fails_says_why(actors):
    bad = task(actors)._replace(env_id="Absent-v0")
    began = time.monotonic()
    says = r"(?s)exit code 1: .*'Absent-v0' is not allowed"
    with pytest.raises(collector.WorkerError, match=says):
        collector.collect([bad, task(actors, steps=10**8)], 2, "x", progress=False)
    assert time.monotonic() - began < 30


def test_a_worker_that_is_killed_from_outside_is_no_bug(actors, monkeypatch):
    popen = subprocess.Popen

    def killed(*args, **kwargs):
        process = popen(*args, **kwargs)
        process.kill()
        process.wait()
        return process

    monkeypatch.setattr(collector.subprocess, "Popen", killed)
    with pytest.raises(UserError, match=r"ended by signal 9 \(Killed\).*same command continues"):
        collector.collect([task(actors)], 1, "x", progress=False)


def test_workers_do_not_import_jax(root):
    program = (
        "import sys, mtm_jax.data.builtin.shard, mtm_jax.data.sources; print('jax' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("name", "steps", "seed", "words"),
    [
        ("hopper-novice", 10, 0, "unknown level 'novice'"),
        ("ant-medium", 10, 0, "unknown environment 'ant'"),
        (NAME, 0, 0, "with 0 steps is too small"),
        ("hopper-medium-expert", 1, 0, "ask for at least 2"),
        (NAME, 10, -1, "seed of hopper-medium is -1"),
    ],
)
def test_wrong_requests_are_refused(actors, name, steps, seed, words):
    with pytest.raises(UserError, match=words):
        behaviours.load(name, steps, seed, actors)


# --- ladders ---


def edit_index(actors, **changes):
    path = actors / "ladder.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"env_id": "Walker2d-v5"}, "a ladder of Walker2d-v5, not of hopper"),
        ({"env_id": "Evil-v0"}, "'Evil-v0' is not allowed"),
        ({"medium": "actor_1.npz"}, "chooses actor_1.npz"),
        ({"ladder": [{"file": "a.npz"}]}, r"missing or wrong entry \(KeyError\('step'\)\)"),
        ({"ladder": []}, "lists no actors"),
    ],
)
def test_a_wrong_index_is_refused(actors, changes, words):
    edit_index(actors, **changes)
    with pytest.raises(UserError, match=words):
        ladders.load(actors, HOPPER)


def test_an_index_points_at_its_own_folder_in_order(actors):
    entries = json.loads((actors / "ladder.json").read_text())["ladder"]
    edit_index(actors, ladder=entries[::-1])
    with pytest.raises(UserError, match="must be positive and increase"):
        ladders.load(actors, HOPPER)
    edit_index(actors, ladder=[*entries, {"file": "../x.npz", "step": 900}])
    with pytest.raises(UserError, match="'../x.npz'"):
        ladders.load(actors, HOPPER)


def test_missing_damaged_and_unfit_actors_are_refused(actors, tmp_path):
    with pytest.raises(UserError, match="no behaviour actors of hopper in .* train them with"):
        ladders.load(tmp_path, HOPPER)
    path = actors / "actor_00000300.npz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="actor_00000300.npz cannot be read"):
        ladders.load(actors, HOPPER)
    unfit = {k: np.zeros((3, 3)[: x.ndim], x.dtype) for k, x in make_actor(0).items()}
    np.savez(path, **unfit)
    with pytest.raises(UserError, match="maps 3 inputs to 3 outputs, but hopper needs 11 and 6"):
        ladders.load(actors, HOPPER)
    path.unlink()
    with pytest.raises(UserError, match="actor_00000300.npz of ladder.json is missing"):
        ladders.load(actors, HOPPER)


def test_every_environment_with_levels_brings_its_actors():
    for spec in registry.ENVS.values():
        if spec.levels:
            ladder = ladders.load(ladders.folder_of(spec), spec)
            assert all(ladders.plan(ladder, level, 1000) for level in spec.levels)
