"""Buffers of online finetuning hold what was put in, and draw from all of it alike."""

import jax
import numpy as np
import pytest
from test_pretrain import trajectories

from mtm_jax.agents import finetuner
from mtm_jax.errors import UserError
from mtm_jax.training import dataset, replay

LIMIT, S, A = 20, 3, 2


def episode(length, start=0, terminal=False):
    """States that count up from `start`, so that every one says where it is from."""
    obs = np.repeat(start + np.arange(length + 1.0)[:, None], S, axis=1)
    actions, rewards = np.full((length, A), 0.5), np.arange(length) + 1.0
    return finetuner.pad(obs[:-1], actions, rewards, obs[-1], terminal, LIMIT)


@pytest.fixture(scope="module")
def data():
    return dataset.make_dataset(trajectories(), 4)


def test_the_best_episodes_are_kept_and_the_worst_of_them_is_replaced_first(data):
    buffer = replay.best_episodes(data, 3, LIMIT)
    rewards = np.asarray(data.values["rewards"])[:, 0]
    totals = sorted(part.sum() for part in np.split(rewards, np.asarray(data.last_rows)[:-1] + 1))
    np.testing.assert_allclose(buffer.totals, totals[-3:], rtol=1e-5)
    buffer = replay.add_episode(buffer, episode(5))
    np.testing.assert_allclose(buffer.totals, [15.0, *totals[-2:]], rtol=1e-5)
    assert buffer.lengths[0] == 5 and buffer.place == 1


def test_offline_tokens_are_those_of_the_data_and_online_ones_are_computed_alike(data):
    buffer = replay.best_episodes(data, 10, LIMIT)
    place, start = int(np.argmax(buffer.totals)), int(buffer.lengths[0])
    tokens = np.asarray(buffer.values["returns"])[place, : int(buffer.lengths[place])]
    length = len(tokens)
    again = finetuner.pad(
        *(np.asarray(buffer.values[m])[place, :length] for m in ("states", "actions")),
        *(np.asarray(buffer.values["rewards"])[place, :length, 0], np.zeros(S), False, LIMIT),
    )
    added = replay.add_episode(buffer, again)
    found = np.asarray(added.values["returns"])[int(buffer.place), :length]
    np.testing.assert_allclose(found, tokens, rtol=1e-5, atol=1e-6)
    assert start > 0


def test_windows_are_drawn_uniformly_and_lie_within_one_episode():
    buffer = replay.empty_episodes(4, LIMIT, S, A)
    for length, start in ((2, 100), (7, 200), (10, 300)):
        buffer = replay.add_episode(buffer, episode(length, start))
    windows = replay.sample_windows(jax.random.key(0), buffer, 6000, 4)
    states, valid = np.asarray(windows.values["states"])[..., 0], np.asarray(windows.valid)
    first, counts = np.unique(states[:, 0], return_counts=True)
    assert first.tolist() == [100, *range(200, 204), *range(300, 307)]
    np.testing.assert_allclose(counts, 500, rtol=0.25)
    assert (valid.sum(1) == np.where(states[:, 0] == 100, 2, 4)).all()
    steps = np.minimum(np.arange(4), valid.sum(1, keepdims=True) - 1)
    np.testing.assert_array_equal(states, states[:, :1] + steps)


def test_steps_know_what_followed_and_the_oldest_are_replaced():
    ring = replay.empty_steps(LIMIT, LIMIT, S, A)
    for start, terminal in ((100, True), (200, False), (300, True)):
        ring = replay.add_steps(ring, episode(8, start, terminal))
    kept = jax.tree.map(np.asarray, ring.transitions)
    np.testing.assert_array_equal(kept.next_obs, kept.obs + 1)
    assert sorted(kept.obs[:, 0]) == [*range(104, 108), *range(200, 208), *range(300, 308)]
    assert sorted(kept.obs[kept.terminals == 1, 0]) == [107, 307]
    assert ring.count == LIMIT and ring.place == 24 % LIMIT


def test_half_of_a_batch_is_online_once_there_is_enough(data):
    ring = replay.add_steps(replay.empty_steps(50, LIMIT, S, A), episode(10, 500))
    for after, online in ((11, 0), (10, 8)):
        batch = replay.sample_transitions(jax.random.key(1), data, ring, 16, after)
        assert (batch.obs[:, 0] >= 500).sum() == online


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: replay.empty_steps(10, LIMIT, S, A), "holds 10 steps, and an episode has up to"),
        (lambda: replay.empty_episodes(0, LIMIT, S, A), "holds 0 episodes; give at least 1"),
        (lambda: episode(LIMIT + 1), "has 21 steps, more than the time limit of 20"),
    ],
)
def test_what_does_not_fit_is_refused(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()
