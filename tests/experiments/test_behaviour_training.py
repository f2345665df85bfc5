"""A behaviour training that was put on hold goes on to the last bit, without updates here."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import behaviours as behaviours_config
from experiments import behaviours
from experiments.runtime import runs
from experiments.training import behaviour_store, behaviour_trainer, environments
from mtm_jax.config import SACConfig
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint
from mtm_jax.training import sac

HOPPER = registry.ENVS["hopper"]
CAPACITY = 70
PHASE = 20  # steps of two environments


def settings(**changes):
    config = behaviours_config.get_config("hopper")
    config.random_steps, config.replay_capacity, config.snapshot_every = 10**6, CAPACITY, 40
    config.num_envs, config.steps_per_phase = 2, 10
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def learner():
    config = SACConfig(total_updates=10, hidden=(8, 8))
    algorithm = sac.make_sac(config, HOPPER.action_dim)
    return sac.init_state(jax.random.key(0), algorithm, HOPPER.obs_dim)


def fresh(learner):
    return behaviour_store.Training(
        learner=learner,
        replay=sac.empty_replay(CAPACITY, HOPPER.obs_dim, HOPPER.action_dim),
        envs=environments.Environments(HOPPER, 2, 0),
        rng=np.random.default_rng(0),
    )


def advance(training, phases):
    for _ in range(phases):
        behaviour_trainer.collect(training, PHASE, random=True)
    return training


def assert_same(one, other):
    assert one.done == other.done == int(one.replay.inserted) == int(other.replay.inserted)
    trees = [(t.replay.ring, t.envs.state(), t.envs.recent_return) for t in (one, other)]
    for a, b in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def held(learner, tmp_path_factory):
    """A run saved after steps 0, 60, 120 and 140; the replay buffer holds 70."""
    folder = tmp_path_factory.mktemp("held")
    store = behaviour_store.Store(folder)
    training = store.restore(fresh(learner))
    for phases in (3, 3, 1):
        store.save(advance(training, phases))
    return folder


def test_a_saved_training_goes_on_to_the_last_bit(held, learner):
    restored = behaviour_store.Store(held).restore(fresh(learner))
    undisturbed = advance(fresh(learner), 7)
    assert_same(restored, undisturbed)
    assert undisturbed.envs.recent_return > 0
    assert_same(advance(restored, 4), advance(undisturbed, 4))


def test_a_save_adds_only_what_is_new_and_drops_what_is_overwritten(held):
    names = sorted(f.name for f in (held / "replay").iterdir())
    # The older of the two checkpoints needs the steps 50 to 120.
    assert [n.removesuffix(".npz").split("-") for n in names] == [
        ["000000000000", "000000000060"],
        ["000000000060", "000000000120"],
        ["000000000120", "000000000140"],
    ]


def copied(held, tmp_path):
    import shutil

    shutil.copytree(held, tmp_path / "run")
    return tmp_path / "run"


def test_damaged_transitions_are_named_and_the_older_checkpoint_used(held, learner, tmp_path):
    folder = copied(held, tmp_path)
    newest = folder / "replay" / "000000000120-000000000140.npz"
    newest.write_bytes(newest.read_bytes()[:-9])
    with pytest.raises(checkpoint.Damaged, match="0140.npz is damaged.*of step 120: --config.use"):
        behaviour_store.Store(folder).restore(fresh(learner))
    store = behaviour_store.Store(folder)
    restored = store.restore(fresh(learner), use_older=True)
    assert_same(restored, advance(fresh(learner), 6))
    assert not newest.exists()
    store.save(advance(restored, 1))
    assert_same(behaviour_store.Store(folder).restore(fresh(learner)), advance(fresh(learner), 7))


def test_the_latest_observations_are_read_oldest_first(held, learner):
    training = behaviour_store.Store(held).restore(fresh(learner))
    again, seen = advance(fresh(learner), 5), []
    for _ in range(2):
        before = int(again.replay.inserted)
        advance(again, 1)
        slots = np.arange(before, before + 20) % CAPACITY
        seen.append(np.asarray(again.replay.ring.obs)[slots])
    found = behaviour_trainer.latest(training.replay, behaviour_trainer.snapshot_steps(settings()))
    np.testing.assert_array_equal(found, np.concatenate(seen))


def test_simulators_that_go_wrong_stop_the_run(learner, monkeypatch):
    training = advance(fresh(learner), 1)

    def broken(*args):
        batch = run(*args)
        return dataclasses.replace(batch, rewards=np.where(np.arange(20) == 7, np.nan, 0.0))

    run = behaviour_trainer.run_environments
    monkeypatch.setattr(behaviour_trainer, "run_environments", broken)
    with pytest.raises(UserError, match="simulators went wrong after step 20: rows 7 of its batch"):
        advance(training, 1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"save_every": 0}, "save_every is 0; it must be at least 1"),
        ({"snapshot_every": -1}, "snapshot_every is -1"),
        ({"replay_capacity": 39}, "replay_capacity is 39; it must be at least snapshot_every, 40"),
    ],
)
def test_wrong_settings_are_refused(changes, says):
    with pytest.raises(UserError, match=says):
        behaviours.check(settings(**changes))


def test_a_folder_with_actors_of_unknown_state_is_left_alone(tmp_path):
    config = settings(out=str(tmp_path / "run"))
    folder = behaviours.open_folder(config)
    (folder / "actors" / "actor_00000010.npz").write_text("")
    with pytest.raises(UserError, match="holds actors and no checkpoint to continue from"):
        behaviours.open_folder(config)
    (folder / "checkpoints" / "0").mkdir()
    assert behaviours.open_folder(config) == folder
    with pytest.raises(
        UserError, match="holds a different run: sac.discount is 0.99 there and 0.9"
    ):
        behaviours.open_folder(settings(out=config.out, sac={"discount": 0.9}))
    assert runs.read_config(folder)["sac"]["discount"] == 0.99
