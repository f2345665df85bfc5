"""Windows stay inside episodes, all are equally likely, and statistics are over real steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax import distributions, returns, tokens
from mtm_jax.data import selection
from mtm_jax.errors import UserError
from mtm_jax.training import dataset
from mtm_jax.types import MODALITIES, DataInfo, Trajectories

LIMIT = 50
CASES = [((5, 9, 3, 12), 4), ((1, 1, 7), 7), ((6, 6), 1), ((2, 3, 4), 4)]


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


def all_windows(lengths, window):
    data = dataset.make_dataset(make(lengths), window)
    return dataset.take_windows(data, jnp.arange(data.window_starts.shape[0]), window)


@pytest.mark.parametrize(("lengths", "window"), CASES)
def test_windows_are_consecutive_steps_of_one_episode(lengths, window):
    windows = all_windows(lengths, window)
    episode, step = np.moveaxis(np.asarray(windows.values["states"]), -1, 0)  # [B, T]
    valid = np.asarray(windows.valid)
    assert (episode == episode[:, :1]).all()
    advances = np.minimum(np.arange(window), valid.sum(1, keepdims=True) - 1)
    np.testing.assert_array_equal(step, step[:, :1] + advances)
    assert (step < np.array(lengths)[episode.astype(int)]).all()


def test_windows_are_listed_as_often_as_they_are_repeated():
    plain = dataset.make_dataset(make((5, 9, 3)), 4)
    more = dataset.make_dataset(make((5, 9, 3)), 4, np.array([3, 1, 2]))
    starts, counts = np.unique(more.window_starts, return_counts=True)
    np.testing.assert_array_equal(starts, plain.window_starts)
    np.testing.assert_array_equal(counts, [3, 3, *[1] * 6, 2])
    np.testing.assert_array_equal(more.window_steps[more.window_starts == 14], [3, 3])


@pytest.mark.parametrize(("lengths", "window"), CASES)
def test_all_fields_of_a_slot_come_from_the_same_step(lengths, window):
    trajectories = make(lengths)
    values = all_windows(lengths, window).values
    episode, step = np.moveaxis(np.asarray(values["states"]).astype(int), -1, 0)
    rows = trajectories.starts[episode] + step
    np.testing.assert_allclose(values["rewards"][..., 0], trajectories.rewards[rows])
    np.testing.assert_allclose(values["actions"][..., 0], trajectories.actions[rows, 0], atol=1e-6)
    tokens = dataset.return_tokens(trajectories)
    np.testing.assert_allclose(values["returns"][..., 0], tokens[rows])


@pytest.mark.parametrize(("lengths", "window"), CASES)
def test_every_window_of_every_episode_is_indexed_once(lengths, window):
    windows = all_windows(lengths, window)
    found = [tuple(w) for w in np.asarray(windows.values["states"])[:, 0].astype(int)]
    starts = [(e, s) for e, n in enumerate(lengths) for s in range(max(n - window + 1, 1))]
    assert sorted(found) == starts


def test_short_episodes_are_padded_with_their_last_step_and_not_valid():
    windows = all_windows((2, 5), 4)
    np.testing.assert_array_equal(windows.valid[0], [True, True, False, False])
    np.testing.assert_array_equal(windows.values["states"][0, :, 1], [0, 1, 1, 1])
    assert windows.valid[1:].all()


def test_windows_are_drawn_uniformly():
    data, draws = dataset.make_dataset(make((5, 9, 3, 12)), 4), 20_000
    windows = dataset.sample_windows(jax.random.key(0), data, draws, 4)
    first = np.asarray(windows.values["states"])[:, 0].astype(int)
    _, counts = np.unique(first, axis=0, return_counts=True)
    total = data.window_starts.shape[0]
    assert len(counts) == total
    sigma = np.sqrt(draws / total)
    assert np.abs(counts - draws / total).max() < 5 * sigma


def test_sampling_compiles_once_for_new_keys_and_new_data():
    traces = []

    @jax.jit
    def sample(key, data):
        traces.append(None)
        return dataset.sample_windows(key, data, 8, 4)

    data, other = (dataset.make_dataset(make(n), 4) for n in ((5, 9), (9, 5)))
    for key, part in ((0, data), (1, data), (0, other)):
        compiled = sample(jax.random.key(key), part)
        expected = dataset.sample_windows(jax.random.key(key), part, 8, 4)
        jax.tree.map(np.testing.assert_array_equal, compiled, expected)
    assert len(traces) == 1


def test_return_tokens_equal_their_definition_per_episode():
    trajectories = make((5, 9, 1, 12))
    tokens = dataset.return_tokens(trajectories)
    for start, length in zip(trajectories.starts, trajectories.lengths, strict=True):
        part = slice(start, start + length)
        expected = returns.average_return_to_go(jnp.asarray(trajectories.rewards[part]), LIMIT)
        np.testing.assert_allclose(tokens[part], expected, rtol=1e-6)


def test_return_tokens_obey_the_recurrence():
    trajectories = make((7,))
    to_go = dataset.return_tokens(trajectories) * (LIMIT - np.arange(7))
    np.testing.assert_allclose(to_go - np.append(to_go[1:], 0.0), trajectories.rewards, atol=1e-4)


def test_an_episode_without_rewards_does_not_reach_the_next_ones():
    trajectories = make((3, 4, 5), rewards=[True, False, True])
    clean = dataset.return_tokens(trajectories)
    trajectories.rewards[3:7] = np.nan
    np.testing.assert_array_equal(dataset.return_tokens(trajectories), clean)
    assert np.isfinite(clean).all()


def test_statistics_are_over_real_steps_only():
    trajectories = make((2, 3, 9))  # two episodes are padded to windows of 6
    stats = dataset.compute_stats(dataset.make_dataset(trajectories, 6))
    for name, values in (("states", trajectories.observations), ("rewards", trajectories.rewards)):
        values = values.reshape(len(trajectories.rewards), -1).astype(np.float64)
        for field in ("mean", "std", "min", "max"):
            expected = getattr(values, field)(axis=0)
            np.testing.assert_allclose(getattr(stats[name], field), expected, rtol=1e-6)


@pytest.mark.parametrize("limit", [LIMIT, 10**6])
@pytest.mark.parametrize("unit", [1e-6, 1e-12, 1e6])
def test_rewards_and_returns_of_any_unit_reach_the_model(unit, limit):
    whole = make((8, 8, 8), limit)
    scaled = dataclasses.replace(whole, rewards=np.float32(unit) * whole.rewards)
    for m in ("rewards", "returns"):
        shown = []
        for trajectories in (whole, scaled):
            data = dataset.make_dataset(trajectories, 4)
            shown.append(tokens.encode(dataset.compute_stats(data)[m], data.values[m]))
        np.testing.assert_allclose(shown[1], shown[0], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(shown[1].std(), 1.0, rtol=1e-3)


def test_statistics_leave_out_episodes_without_the_modality():
    trajectories = make((4, 5, 6), rewards=[True, False, True])
    stats = dataset.compute_stats(dataset.make_dataset(trajectories, 4))
    present = np.delete(trajectories.rewards, slice(4, 9))
    np.testing.assert_allclose(stats["rewards"].mean, [present.mean()], rtol=1e-6)
    np.testing.assert_allclose(stats["rewards"].max, [present.max()])


def test_statistics_of_a_modality_that_is_nowhere_change_nothing():
    data = dataset.make_dataset(make((4, 5), rewards=[False, False]), 4)
    stats = dataset.compute_stats(data)["rewards"]
    assert (float(stats.mean[0]), float(stats.std[0])) == (0.0, 1.0)


def test_windows_say_which_modalities_they_have():
    data = dataset.make_dataset(make((4, 5), actions=[True, False], states=[True, True]), 4)
    windows = dataset.take_windows(data, jnp.arange(3), 4)
    assert set(windows.available) == {"actions"}
    np.testing.assert_array_equal(windows.available["actions"], [True, False, False])


def test_actions_are_rescaled_from_their_bounds():
    trajectories = make((3,), low=(-2.0,), high=(6.0,))
    trajectories.actions[:, 0] = (-2.0, 2.0, 6.0)
    limit = distributions.ACTION_LIMIT
    unit = dataset.rescale_actions(trajectories)
    np.testing.assert_allclose(unit[:, 0], [-limit, 0.0, limit], atol=1e-7)
    assert np.abs(unit).max() < 1.0


def test_a_window_longer_than_every_episode_is_refused():
    with pytest.raises(UserError, match="has 6 steps, which is less than the window of 7"):
        dataset.make_dataset(make((5, 6)), 7)


def test_an_episode_longer_than_the_limit_is_refused():
    with pytest.raises(UserError, match="has 9 steps, more than the limit of 8"):
        dataset.make_dataset(make((5, 9), limit=8), 4)


def test_all_modalities_are_there():
    assert tuple(dataset.make_dataset(make((5,)), 4).values) == MODALITIES


def test_dropped_actions_enter_neither_statistics_nor_windows():
    view = selection.keep_modality(make([8, 8, 8, 8]), "actions", 0.25, seed=0)
    data = dataset.make_dataset(view, 4)
    rows = np.repeat(view.available["actions"], view.lengths)
    expected = dataset.rescale_actions(view)[rows].mean(axis=0)
    np.testing.assert_allclose(dataset.compute_stats(data)["actions"].mean, expected, atol=1e-6)
    windows = dataset.sample_windows(jax.random.key(0), data, 64, 4)
    assert 0 < windows.available["actions"].sum() < 64


def all_transitions(trajectories):
    data = dataset.make_dataset(trajectories, 1)
    return dataset.take_transitions(data, jnp.arange(data.transitions.shape[0]))


def with_final(trajectories, known):
    final = np.where(np.array(known)[:, None], trajectories.final_observations, np.nan)
    return dataclasses.replace(trajectories, final_observations=final)


def steps_of(transitions):
    return [tuple(s) for s in np.asarray(transitions.obs).astype(int)]


def test_a_transition_leads_to_the_next_step_of_its_own_episode():
    trajectories = make((5, 1, 3, 1), low=(-2.0,), high=(2.0,))
    found = all_transitions(trajectories)
    assert steps_of(found) == [(e, s) for e, n in enumerate((5, 1, 3, 1)) for s in range(n)]
    np.testing.assert_array_equal(found.next_obs, found.obs + np.array([0, 1]))
    np.testing.assert_allclose(found.rewards, trajectories.rewards)
    np.testing.assert_allclose(found.actions, trajectories.actions / 2, atol=1e-6)
    np.testing.assert_array_equal(found.terminals, trajectories.terminals.astype(np.float32))


def test_without_a_final_observation_a_timeout_is_left_out_and_a_terminal_is_not():
    """Episodes 0 and 2 end by themselves."""
    found = all_transitions(with_final(make((3, 2, 2, 4)), [False, False, True, True]))
    steps = steps_of(found)
    assert (0, 2) in steps and (1, 1) not in steps
    assert len(steps) == 10
    assert np.isfinite(found.next_obs).all()
    going_on = np.asarray(found.terminals) == 0
    expected = np.asarray(found.obs) + np.array([0, 1])
    np.testing.assert_array_equal(np.asarray(found.next_obs)[going_on], expected[going_on])


@pytest.mark.parametrize("modality", ["actions", "rewards"])
def test_episodes_without_actions_or_rewards_have_no_transitions(modality):
    found = all_transitions(make((3, 4, 5), **{modality: [True, False, True]}))
    assert {episode for episode, _ in steps_of(found)} == {0, 2}
    assert dataset.make_dataset(make((3,), **{modality: [False]}), 1).transitions.shape == (0,)


def test_transitions_are_drawn_uniformly():
    trajectories = with_final(make((5, 9, 1, 2)), [True, False, True, True])
    data, draws = dataset.make_dataset(trajectories, 1), 20_000
    draw = jax.jit(dataset.sample_transitions, static_argnums=2)
    batch = draw(jax.random.key(0), data, draws)
    assert batch.obs.shape == batch.next_obs.shape == (draws, 2)
    assert batch.rewards.shape == batch.terminals.shape == (draws,)
    _, counts = np.unique(np.asarray(batch.obs), axis=0, return_counts=True)
    assert len(counts) == 16
    assert np.abs(counts - draws / 16).max() < 5 * np.sqrt(draws / 16)
