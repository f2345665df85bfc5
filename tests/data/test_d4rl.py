import logging
import tracemalloc

import h5py
import numpy as np
import pytest

from mtm_jax.data import successors
from mtm_jax.data.d4rl import reader as d4rl
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo


def make_arrays(lengths=(5, 7, 4), terminal=(True, False, False), timeout=(False, True, False)):
    """Arrays in D4RL's layout; every episode starts at its own number times 100."""
    rows = sum(lengths)
    ends = np.cumsum(lengths) - 1
    count = np.concatenate([100.0 * k + np.arange(n) for k, n in enumerate(lengths)])
    arrays = {
        "observations": np.tile(count[:, None], (1, 11)).astype(np.float32),
        "next_observations": np.tile(count[:, None] + 1, (1, 11)).astype(np.float32),
        "actions": np.random.default_rng(0).uniform(-1, 1, (rows, 3)).astype(np.float32),
        "rewards": np.arange(rows, dtype=np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.zeros(rows, bool),
    }
    arrays["terminals"][ends] = terminal
    arrays["timeouts"][ends] = timeout
    return arrays


def save(folder, arrays, name="hopper-medium.hdf5"):
    with h5py.File(folder / name, "w") as file:
        for key, value in arrays.items():
            file[key] = value
    return folder / name


def without(arrays, *keys):
    return {key: value for key, value in arrays.items() if key not in keys}


def test_terminals_and_timeouts_end_episodes(tmp_path):
    arrays = make_arrays()
    read = d4rl.read(save(tmp_path, arrays))
    assert read.lengths.tolist() == [5, 7, 4]
    assert np.flatnonzero(read.terminals).tolist() == [4]
    for key in ("observations", "actions", "rewards"):
        np.testing.assert_array_equal(getattr(read, key), arrays[key])
    assert read.final_observations[:, 0].tolist() == [5.0, 107.0, 204.0]
    assert (read.info.name, read.info.env_id) == ("hopper-medium", "Hopper-v4")
    assert read.info.source == str(tmp_path / "hopper-medium.hdf5")


def test_cut_episode_at_the_end_is_kept_and_logged(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "mtm_jax"):
        read = d4rl.read(save(tmp_path, make_arrays()))
    assert read.lengths[-1] == 4
    assert not read.terminals[-1]
    assert "the last episode is cut" in caplog.text


def test_a_complete_file_is_not_called_cut(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "mtm_jax"):
        d4rl.read(save(tmp_path, make_arrays(timeout=(False, True, True))))
    assert caplog.text == ""


def test_missing_next_observations_leave_the_last_one_unknown(tmp_path):
    read = d4rl.read(save(tmp_path, without(make_arrays(), "next_observations")))
    assert read.lengths.tolist() == [5, 7, 4]
    assert np.isnan(read.final_observations).all()


def test_without_timeouts_jumps_end_episodes(tmp_path):
    arrays = without(make_arrays(terminal=(False,) * 3), "timeouts")
    read = d4rl.read(save(tmp_path, arrays))
    assert read.lengths.tolist() == [5, 7, 4]
    assert not read.terminals.any()


def test_without_timeouts_and_jumps_the_time_limit_ends_episodes(tmp_path):
    info = DataInfo("x", "a test", "Other-v0", 5, (-1.0,) * 3, (1.0,) * 3)
    arrays = without(make_arrays((3, 12, 4)), "timeouts", "next_observations")
    assert d4rl.read(save(tmp_path, arrays), info).lengths.tolist() == [3, 5, 5, 5, 1]


def test_with_timeouts_an_episode_beyond_the_time_limit_is_refused(tmp_path):
    info = DataInfo("x", "a test", "Other-v0", 5, (-1.0,) * 3, (1.0,) * 3)
    with pytest.raises(UserError, match="episode 1 has 12 steps, more than the time limit of 5"):
        d4rl.read(save(tmp_path, make_arrays((3, 12, 4))), info)


@pytest.mark.parametrize("keys", [(), ("timeouts", "next_observations")])
def test_a_file_without_ends_is_refused_unless_it_can_be_one_episode(tmp_path, keys):
    nothing = (False,)
    long = without(make_arrays((1001,), nothing, nothing), *keys)
    with pytest.raises(UserError, match=r"ever set in 1001 steps.*1000 steps; add timeouts"):
        d4rl.read(save(tmp_path, long))
    short = without(make_arrays((1000,), nothing, nothing), *keys)
    assert d4rl.read(save(tmp_path, short)).lengths.tolist() == [1000]


def test_a_given_name_goes_before_the_name_of_the_file(tmp_path):
    path = save(tmp_path, make_arrays(), "walker2d-mine.hdf5")
    assert d4rl.read(path, "hopper-medium").info.env_id == "Hopper-v4"
    with pytest.raises(UserError, match="actions has 3 dimensions but Walker2d-v4 has 6"):
        d4rl.read(path)


def test_an_unknown_environment_is_refused(tmp_path):
    path = save(tmp_path, make_arrays(), "hopperx.hdf5")
    with pytest.raises(UserError, match="cannot be told from 'hopperx'; give a name"):
        d4rl.read(path)


@pytest.mark.parametrize("key", ["observations", "actions", "rewards"])
def test_a_missing_array_is_named(tmp_path, key):
    with pytest.raises(UserError, match=f"lacks {key} "):
        d4rl.read(save(tmp_path, without(make_arrays(), key)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rewards": np.zeros(15)}, r"rewards has shape \[15\] and observations .* \[16, 11\]"),
        ({"timeouts": np.zeros((16, 2))}, r"timeouts has shape \[16, 2\], expected 1"),
        ({"next_observations": np.zeros((16, 10))}, r"next_observations .* \[16, 10\], expected"),
        ({"observations": np.zeros(16)}, r"observations has shape \[16\], expected 2|next_obs"),
        ({"rewards": ["a"] * 16}, "rewards has type object, expected numbers; convert it"),
        ({"timeouts": np.full(16, 2)}, "timeouts is 2 at row 0; every entry must be 0 or 1"),
        ({"terminals": np.full(16, np.nan)}, "terminals is nan at row 0"),
        ({"observations": np.zeros((0, 11))}, r"observations has shape \[0, 11\]|shape \[16"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        d4rl.read(save(tmp_path, make_arrays() | change))


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="at least one"):
        d4rl.read(save(tmp_path, {k: v[:0] for k, v in make_arrays().items()}))


def test_a_group_in_place_of_an_array_is_refused(tmp_path):
    path = save(tmp_path, without(make_arrays(), "actions"))
    with h5py.File(path, "a") as file:
        file.create_group("actions")
    with pytest.raises(UserError, match="actions is a group"):
        d4rl.read(path)


def test_missing_foreign_and_truncated_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        d4rl.read(tmp_path / "hopper-absent.hdf5")
    foreign = tmp_path / "hopper-foreign.hdf5"
    foreign.write_text("not HDF5")
    with pytest.raises(UserError, match="hopper-foreign.hdf5 cannot be read as HDF5"):
        d4rl.read(foreign)
    path = save(tmp_path, make_arrays())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="hopper-medium.hdf5 cannot be read as HDF5"):
        d4rl.read(path)


def test_nan_in_a_file_is_refused(tmp_path):
    arrays = make_arrays()
    arrays["rewards"][3] = np.nan
    with pytest.raises(UserError, match="rewards holds 1 NaN.* row 3"):
        d4rl.read(save(tmp_path, arrays))


@pytest.mark.parametrize("keys", [(), ("timeouts",)])
def test_next_observations_are_never_held_whole(tmp_path, keys):
    rows = 100_000
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(rows, 17))
    following = np.roll(observations, -1, axis=0)
    following[999::1000] += 1.0
    arrays = {
        "observations": observations,
        "next_observations": following,
        "actions": rng.uniform(-1, 1, (rows, 6)),
        "rewards": np.ones(rows),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.arange(1, rows + 1) % 1000 == 0,
    }
    path = save(tmp_path, without(arrays, *keys), "walker2d.hdf5")
    tracemalloc.start()
    read = d4rl.read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= 2 * (17 + 6 + 1) * 4 * rows
    assert read.lengths.tolist() == [1000] * 100
    np.testing.assert_array_equal(read.final_observations, np.float32(following[999::1000]))


def test_jumps_and_last_observations_are_found_across_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(successors, "_PART", 3)
    arrays = without(make_arrays((3, 2, 7), (False,) * 3, (False,) * 3), "timeouts")
    read = d4rl.read(save(tmp_path, arrays))
    assert read.lengths.tolist() == [3, 2, 7]
    assert read.final_observations[:, 0].tolist() == [3.0, 102.0, 207.0]


def test_an_environment_that_nobody_knows_takes_limit_and_bounds_from_the_data(tmp_path):
    path = save(tmp_path, make_arrays(), "custom-robot.hdf5")
    info = d4rl.read(path).info
    assert (info.name, info.env_id, info.max_episode_steps) == ("custom-robot", "", 7)
    assert (info.action_low, info.action_high) == ((-1.0,) * 3, (1.0,) * 3)
    assert d4rl.read(path, "custom", "here").info.source == "here"
    endless = make_arrays((2000,), (False,), (False,))
    with pytest.raises(UserError, match="is ever set in 2000 steps; add timeouts"):
        d4rl.read(save(tmp_path, endless), "custom")
    wide = make_arrays()
    wide["actions"] = wide["actions"] * 2
    with pytest.raises(UserError, match=r"actions range from .* give action_low"):
        d4rl.read(save(tmp_path, wide), "custom")


def test_float64_becomes_float32_and_actions_are_clipped(tmp_path, caplog):
    arrays = make_arrays()
    arrays = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in arrays.items()}
    arrays["actions"][2, 1] = -1.25
    with caplog.at_level(logging.WARNING, "mtm_jax"):
        read = d4rl.read(save(tmp_path, arrays))
    for key in ("observations", "actions", "rewards", "final_observations"):
        assert getattr(read, key).dtype == np.float32
    assert read.actions[2, 1] == -1.0
    assert "clipped 1 of 48 action values" in caplog.text
    assert "0.25 outside" in caplog.text


def test_an_episode_of_one_step_is_kept(tmp_path):
    assert d4rl.read(save(tmp_path, make_arrays((1, 7, 4)))).lengths.tolist() == [1, 7, 4]


def test_trailing_axes_of_length_1_are_dropped(tmp_path):
    arrays = make_arrays()
    plain = d4rl.read(save(tmp_path, arrays))
    wide = d4rl.read(save(tmp_path, {key: array[..., None] for key, array in arrays.items()}))
    for key in ("observations", "actions", "rewards", "terminals", "final_observations", "lengths"):
        np.testing.assert_array_equal(getattr(wide, key), getattr(plain, key))


def test_rewards_are_looked_at_before_they_are_rounded(tmp_path):
    with pytest.raises(UserError, match="largest reward is 1e-60, too small for float32"):
        d4rl.read(save(tmp_path, make_arrays() | {"rewards": np.full(16, 1e-60)}))
