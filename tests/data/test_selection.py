"""Splits are disjoint and complete, and a view keeps what an episode has with its episode."""

import dataclasses

import numpy as np
import pytest

from mtm_jax.data import selection
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories

LIMIT = 50


def make(lengths, limit=LIMIT, low=(-1.0,), high=(1.0,), **available):
    """Every field of a step encodes its episode and its place in it."""
    episode = np.repeat(np.arange(len(lengths)), lengths)
    step = np.concatenate([np.arange(n) for n in lengths])
    last = step == np.repeat(lengths, lengths) - 1
    return Trajectories(
        observations=np.stack([episode, step], axis=1).astype(np.float32),
        actions=((100 * episode + step) / 2000.0)[:, None].astype(np.float32),
        rewards=(100.0 * episode + step).astype(np.float32),
        terminals=last & (episode % 2 == 0),
        lengths=np.array(lengths),
        final_observations=np.stack([np.arange(len(lengths)), lengths], 1).astype(np.float32),
        info=DataInfo("hopper-test", "test", "Hopper-v5", limit, tuple(low), tuple(high)),
        available={m: np.array(has) for m, has in available.items()},
    )


def test_split_is_disjoint_and_complete():
    trajectories = make(tuple(range(2, 22)))
    parts = selection.split_episodes(trajectories, 0.8, seed=3, window=2)
    episodes = [set(part.observations[:, 0].astype(int)) for part in parts]
    assert [len(e) for e in episodes] == [16, 4]
    assert episodes[0] | episodes[1] == set(range(20))
    for part in parts:
        index = part.observations[part.starts, 0].astype(int)
        np.testing.assert_array_equal(part.lengths, trajectories.lengths[index])
        np.testing.assert_array_equal(part.final_observations[:, 0], index)
        np.testing.assert_array_equal(part.observations[part.starts, 1], 0.0)


def test_split_depends_on_the_seed_alone():
    trajectories = make((3,) * 20)
    first, again, other = (
        selection.split_episodes(trajectories, 0.5, seed, window=2)[0].observations[:, 0]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert set(first.astype(int)) != set(range(10))  # not in storage order


def test_split_leaves_an_episode_to_each_part():
    for fraction in (0.01, 0.99):
        parts = selection.split_episodes(make((3, 3, 3)), fraction, 0, window=2)
        assert min(len(part.lengths) for part in parts) == 1


@pytest.mark.parametrize(
    ("lengths", "fraction", "says"),
    [((5,), 0.9, "has 1 episode of 5 steps; .* 6 in all"), ((5, 5), 95.0, "95.0")],
)
def test_split_refuses(lengths, fraction, says):
    with pytest.raises(UserError, match=says):
        selection.split_episodes(make(lengths), fraction, 0, window=2)


def test_selection_keeps_availability_with_its_episode():
    picked = selection.select_episodes(
        make((2, 3, 4), actions=[True, False, True]), np.array([2, 1])
    )
    np.testing.assert_array_equal(picked.available["actions"], [True, False])
    np.testing.assert_array_equal(picked.observations[:, 0], [2, 2, 2, 2, 1, 1, 1])


def test_a_heteromodal_view_keeps_actions_in_a_seeded_fraction_of_the_episodes():
    whole = make([3, 4, 5, 6, 2, 3, 4, 5, 2, 6])
    views = {f: selection.keep_modality(whole, "actions", f, seed=1) for f in (0.01, 0.3, 1.0)}
    kept = {f: view.available["actions"] for f, view in views.items()}
    assert [int(k.sum()) for k in kept.values()] == [1, 3, 10]
    assert (kept[0.01] <= kept[0.3]).all()
    rows = np.repeat(kept[0.3], whole.lengths)
    np.testing.assert_array_equal(views[0.3].actions[rows], whole.actions[rows])
    assert not views[0.3].actions[~rows].any()
    np.testing.assert_array_equal(views[0.3].observations, whole.observations)
    other = selection.keep_modality(whole, "actions", 0.3, seed=2).available["actions"]
    assert (other != kept[0.3]).any()


def test_dropping_rewards_drops_the_returns_too():
    whole = make([3, 3])
    whole = dataclasses.replace(whole, rewards=whole.rewards + 1)
    view = selection.keep_modality(whole, "rewards", 0.5, seed=0)
    np.testing.assert_array_equal(view.available["rewards"], view.available["returns"])
    assert view.available["rewards"].sum() == 1
    kept = np.repeat(view.available["rewards"], view.lengths)
    assert view.rewards[kept].all() and not view.rewards[~kept].any()


@pytest.mark.parametrize(
    ("modality", "fraction", "says"),
    [
        ("states", 0.5, "'states' cannot be dropped; choose actions or rewards"),
        ("actions", 0.0, "fraction with actions is 0.0; it must lie in"),
        ("actions", 1.5, "fraction with actions is 1.5"),
    ],
)
def test_impossible_views_are_refused(modality, fraction, says):
    with pytest.raises(UserError, match=says):
        selection.keep_modality(make([3, 3]), modality, fraction, seed=0)


def test_a_split_that_the_data_bring_is_used_as_it_is():
    whole = dataclasses.replace(make([3, 4, 5, 6]), train=np.array([True, False, True, False]))
    train, valid = selection.split_episodes(whole, 0.75, seed=7, window=2)
    assert (train.lengths.tolist(), valid.lengths.tolist()) == ([3, 5], [4, 6])


@pytest.mark.parametrize(
    ("fraction", "steps", "train", "valid"),
    [(0.5, 100, 48, 48), (0.95, 100, 91, 5), (0.95, 15, 7, 4), (0.01, 12, 4, 4)],
)
def test_one_recording_is_split_in_time(fraction, steps, train, valid, caplog):
    whole, window = make((steps,), limit=200), 4
    first, second = selection.split_episodes(whole, fraction, 0, window)
    assert (first.lengths.tolist(), second.lengths.tolist()) == ([train], [valid])
    start = train + window
    assert start + valid == steps
    np.testing.assert_array_equal(first.final_observations, [[0, train]])
    np.testing.assert_array_equal(second.final_observations, whole.final_observations)
    for part, rows in ((first, slice(train)), (second, slice(start, steps))):
        for key in ("observations", "actions", "rewards", "terminals"):
            np.testing.assert_array_equal(getattr(part, key), getattr(whole, key)[rows])
    said = f"steps 0 to {train - 1} are for training and {start} to {steps - 1} for validation"
    assert said in caplog.text


def test_a_fraction_of_the_episodes_is_that_whose_actions_would_be_kept():
    trajectories = make(tuple(range(2, 22)))
    for fraction in (0.05, 0.3, 1.0):
        kept = selection.keep_episodes(trajectories, fraction, seed=4)
        view = selection.keep_modality(trajectories, "actions", fraction, seed=4)
        expected = np.flatnonzero(view.available["actions"])
        np.testing.assert_array_equal(kept.final_observations[:, 0], expected)


@pytest.mark.parametrize(
    ("fraction", "says"),
    [(0.02, r"0.02 leaves none of its 20 episodes; choose at least 0.05"), (0.0, "must lie in")],
)
def test_a_fraction_that_leaves_no_episode_is_refused(fraction, says):
    with pytest.raises(UserError, match=says):
        selection.keep_episodes(make(tuple(range(2, 22))), fraction, seed=0)


def test_episodes_with_a_modality_are_listed_as_often_as_their_share_asks():
    data = make((10, 30, 20), actions=(True, False, False))
    np.testing.assert_array_equal(selection.repeats(data, "actions", 0.5), [5, 1, 1])
    assert selection.repeats(data, "actions", 0.0) is None
    assert selection.repeats(make((10, 30)), "actions", 0.5) is None
    with pytest.raises(UserError, match="no episode of data set hopper-test has actions"):
        selection.repeats(make((10, 30), actions=(False, False)), "actions", 0.5)
    with pytest.raises(UserError, match=r"is 1.0; it must lie in \[0, 1\)"):
        selection.repeats(data, "actions", 1.0)
