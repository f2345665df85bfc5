import logging
import pathlib
import zipfile

import numpy as np
import pytest

from mtm_jax.data import archives, own
from mtm_jax.errors import UserError

LENGTHS = (5, 7, 4)
ENDS = np.cumsum(LENGTHS) - 1


def at(*rows):
    return np.isin(np.arange(16), rows)


def make(*leave_out, **changes):
    """16 steps in 3 episodes of 4 observations and 2 actions; the second ended by itself."""
    count = np.concatenate([100.0 * k + np.arange(n) for k, n in enumerate(LENGTHS)])
    arrays = {
        "observations": np.tile(count[:, None], (1, 4)),
        "next_observations": np.tile(count[:, None] + 1, (1, 4)),
        "actions": np.random.default_rng(0).uniform(-1, 1, (16, 2)),
        "rewards": np.arange(16.0),
        "terminals": at(ENDS[1]),
        "timeouts": at(ENDS[0], ENDS[2]),
    } | changes
    return {key: value for key, value in arrays.items() if key not in leave_out}


def test_arrays_become_episodes_of_an_environment_that_nobody_knows():
    made = own.from_arrays(make())
    assert made.lengths.tolist() == list(LENGTHS)
    assert np.flatnonzero(made.terminals).tolist() == [11]
    assert made.final_observations[:, 0].tolist() == [5, 107, 204]
    for key in ("observations", "actions", "rewards"):
        array = getattr(made, key)
        np.testing.assert_array_equal(array, make()[key].astype(np.float32))
        assert array.dtype == np.float32
    assert (made.info.name, made.info.source, made.info.env_id) == ("custom", "arrays", "")
    assert made.info.max_episode_steps == 7
    assert (made.info.action_low, made.info.action_high) == ((-1.0,) * 2, (1.0,) * 2)
    assert not made.available


@pytest.mark.parametrize(
    ("arrays", "terminals"),
    [
        (make("terminals", lengths=LENGTHS), []),
        (make("terminals", "timeouts", lengths=np.array(LENGTHS)), []),
        (make("timeouts", lengths=LENGTHS), [11]),
        (make("terminals", "timeouts", episode_ends=at(*ENDS)), []),
        (make("timeouts", episode_ends=at(4, 15)), [11]),
        (make("timeouts"), [11]),  # by jumps of next_observations
        (make("timeouts", "next_observations", terminals=at(*ENDS)), list(ENDS)),
    ],
)
def test_any_of_four_arrays_says_where_episodes_end(arrays, terminals):
    made = own.from_arrays(arrays)
    assert made.lengths.tolist() == list(LENGTHS)
    assert np.flatnonzero(made.terminals).tolist() == terminals


def test_terminals_alone_and_a_time_limit_cut_the_rest():
    arrays = make("timeouts", "next_observations")
    assert own.from_arrays(arrays).lengths.tolist() == [12, 4]
    made = own.from_arrays(arrays, max_episode_steps=5)
    assert made.lengths.tolist() == [5, 5, 2, 4]
    assert made.info.max_episode_steps == 5


def test_a_cut_episode_and_one_of_a_single_step_are_kept_and_said(caplog):
    with caplog.at_level(logging.INFO, "mtm_jax"):
        arrays = make("next_observations", timeouts=at(0, ENDS[0]), terminals=at())
        made = own.from_arrays(arrays)
    assert made.lengths.tolist() == [1, 4, 11]
    assert not made.terminals.any()
    assert "data set custom: the last episode is cut" in caplog.text


def test_without_rewards_the_data_say_so():
    made = own.from_arrays(make("rewards"))
    assert {m: has.tolist() for m, has in made.available.items()} == {
        "rewards": [False] * 3,
        "returns": [False] * 3,
    }
    assert not made.rewards.any()


def test_without_next_observations_the_last_ones_are_unknown():
    assert np.isnan(own.from_arrays(make("next_observations")).final_observations).all()


def test_an_environment_brings_its_dimensions_limit_and_bounds():
    hopper = {"observations": np.zeros((16, 11)), "actions": np.zeros((16, 3))}
    made = own.from_arrays(make("next_observations", **hopper), "mine", "hopper")
    assert (made.info.name, made.info.env_id) == ("hopper-mine", "Hopper-v5")
    assert made.info.max_episode_steps == 1000
    named = own.from_arrays(make("next_observations", **hopper), "hopper-mine", "Hopper-v4")
    assert (named.info.name, named.info.env_id) == ("hopper-mine", "Hopper-v4")
    with pytest.raises(UserError, match="actions has 2 dimensions but Hopper-v5 has 3"):
        own.from_arrays(make(), env="hopper")
    with pytest.raises(UserError, match="unknown environment 'hoper'.*did you mean hopper"):
        own.from_arrays(make(), env="hoper")
    with pytest.raises(UserError, match="brings its own .* leave out action_low, or"):
        own.from_arrays(make(), env="hopper", action_low=-1)
    with pytest.raises(UserError, match="that of the environment hopper; give env='hopper' if"):
        own.from_arrays(make(), "hopper-mine")


def test_bounds_are_needed_where_actions_leave_the_unit_box(caplog):
    actions = make()["actions"] * 2
    actions[3] = [-1.75, 2.5]
    with pytest.raises(UserError, match=r"actions range from -1.\d* to 2.5, .* give action_low"):
        own.from_arrays(make(actions=actions))
    made = own.from_arrays(make(actions=actions), action_low=-3, action_high=[3.0, 4.0])
    assert (made.info.action_low, made.info.action_high) == ((-3.0, -3.0), (3.0, 4.0))
    with caplog.at_level(logging.WARNING, "mtm_jax"):
        made = own.from_arrays(make(actions=actions), action_low=-2, action_high=2)
    assert made.actions[3].tolist() == [-1.75, 2.0]
    assert "clipped 1 of 32 action values" in caplog.text
    assert "0.5 outside" in caplog.text


def test_a_rounding_error_beyond_the_unit_box_needs_no_bounds():
    made = own.from_arrays(make(actions=np.full((16, 2), 1.0 + 1e-6)))
    assert made.info.action_high == (1.0, 1.0)
    assert made.actions.max() == 1.0


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-1.0, None, "give both, each a number or one for each of the 2"),
        ([-1.0] * 3, 1.0, "one for each of the 2 dimensions"),
        (1.0, -1.0, "each must be finite and the first below the second"),
        (-np.inf, 1.0, "each must be finite"),
        ("a", 1.0, "give both, each a number"),
        (True, 2.0, "give both, each a number"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(low, high, words):
    with pytest.raises(UserError, match=words):
        own.from_arrays(make(), action_low=low, action_high=high)


def test_unknown_arrays_are_named(caplog):
    with caplog.at_level(logging.WARNING, "mtm_jax"):
        own.from_arrays(make(infos=np.zeros(16), qpos=np.zeros(16)))
    assert "not used: infos, qpos; used are observations, actions" in caplog.text


def damaged(key, value):
    array = make()[key].copy()
    array[3] = value
    return make(**{key: array})


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (make("observations"), r"data set custom lacks observations \(it has next_obs"),
        (make("actions", "observations"), "lacks observations, actions"),
        (make("terminals", "timeouts"), "nothing says where episodes end; give one of terminals"),
        (make("timeouts", "next_observations", terminals=at()), "is ever set in 16 steps; add"),
        (make(rewards=np.zeros(15)), r"rewards has shape \[15\] and observations .* \[16, 4\]"),
        (make(rewards=np.zeros((16, 2))), r"rewards has shape \[16, 2\], expected 1"),
        (make(observations=np.zeros(16)), r"observations has shape \[16\], expected 2"),
        (make(timeouts=np.zeros((16, 2))), r"timeouts has shape \[16, 2\], expected 1"),
        (make(timeouts=np.full(16, 2)), "timeouts is 2 at row 0; every entry must be 0 or 1"),
        (make(episode_ends=np.full(16, np.nan)), "episode_ends is nan at row 0"),
        (make(terminals=at(2, 11), lengths=LENGTHS), "row 2 ends an episode by terminals"),
        (make(lengths=[5, 7, 5]), "lengths sum to 17 steps but there are 16 rows"),
        (make(lengths=[5, 11, 0]), "lengths must be one list of whole numbers, each at least 1"),
        (make(lengths=[5.0, 11.0]), "lengths must be one list of whole numbers"),
        (make(timeouts=at(3), lengths=LENGTHS), "row 3 ends an episode by .*timeouts.* not by len"),
        (damaged("observations", np.nan), "observations holds 4 NaN.* row 3"),
        (damaged("rewards", np.inf), "rewards holds 1 NaN.* row 3"),
        (damaged("actions", np.nan), "actions holds 2 NaN.* row 3"),
        (damaged("actions", np.inf), "actions holds 2 NaN, infinite.* row 3"),
        (make(timeouts=["no"] * 16), "timeouts has type <U2, expected numbers; convert it"),
        (make(observations=np.full((16, 4), None)), "observations has type object, expected num"),
        (make(actions=[[1.0], [1.0, 2.0]]), "actions is not one array .* end to end"),
        ({k: v[:0] for k, v in make().items()}, r"observations has shape \[0, 4\].* at least one"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays, words):
    with pytest.raises(UserError, match=words):
        own.from_arrays(arrays)


@pytest.mark.parametrize("limit", [0, -3, 2.5, np.array([1, 2]), 1e300, np.nan, np.inf, 2**70, "x"])
def test_a_time_limit_that_makes_no_sense_is_refused(limit):
    with pytest.raises(UserError, match="max_episode_steps is .*; it must be a whole number"):
        own.from_arrays(make(), max_episode_steps=limit)
    with pytest.raises(UserError, match="an episode has 7 steps, more than max_episode_steps of 6"):
        own.from_arrays(make(), max_episode_steps=6)


def test_a_file_is_read_like_its_arrays(tmp_path):
    path = tmp_path / "pendulum.npz"
    np.savez(path, **make())
    read = own.read(path)
    assert read.lengths.tolist() == list(LENGTHS)
    assert (read.info.name, read.info.source) == ("pendulum", str(path))
    assert own.read(path, "custom-x", "here").info.name == "custom-x"
    assert own.read(path, "custom-x", "here").info.source == "here"
    assert own.read(path, read.info).info == read.info
    with pytest.raises(UserError, match="cannot be told from 'hoper'"):
        own.read(path, "hoper")
    with pytest.raises(UserError, match="actions has 2 dimensions but Hopper-v5 has 3"):
        own.read(path, "hopper-mine")


def test_a_file_that_is_called_after_an_environment_is_of_it(tmp_path):
    hopper = {"observations": np.zeros((16, 11)), "actions": np.zeros((16, 3))}
    np.savez(tmp_path / "hopper_mine.npz", **make("next_observations", **hopper))
    assert own.read(tmp_path / "hopper_mine.npz").info.env_id == "Hopper-v5"


def test_a_file_may_bring_limit_and_bounds(tmp_path, caplog):
    settings = {"max_episode_steps": 20, "action_low": [-3.0, -3.0], "action_high": 3.0}
    np.savez(tmp_path / "x.npz", **make(actions=np.full((16, 2), 2.0)), **settings, infos=[1])
    with caplog.at_level(logging.WARNING, "mtm_jax"):
        info = own.read(tmp_path / "x.npz").info
    assert (info.max_episode_steps, info.action_low, info.action_high) == (
        20,
        (-3.0, -3.0),
        (3.0, 3.0),
    )
    assert "not used: infos;" in caplog.text


class Marker:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_a_pickle_in_a_file_is_never_executed(tmp_path, caplog):
    marker = np.array([Marker(tmp_path / "marker")], object)
    np.savez(tmp_path / "x.npz", **make(rewards=marker))
    with pytest.raises(UserError, match=r"x.npz cannot be read as npz \(Object arrays cannot"):
        own.read(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", **make(infos=marker))
    with caplog.at_level(logging.WARNING, "mtm_jax"):
        own.read(tmp_path / "x.npz")
    assert "not used: infos;" in caplog.text
    assert not (tmp_path / "marker").exists()


def test_missing_and_truncated_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        own.read(tmp_path / "absent.npz")
    path = tmp_path / "x.npz"
    np.savez(path, **make())
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match="x.npz cannot be read as npz .* damaged, incomplete"):
        own.read(path)


def declare_rows(path, shape):
    """Write an npz file whose observations declare a shape and hold nothing."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("observations.npy", member)


@pytest.mark.parametrize("shape", [(2**70, 4), (2**62, 2**62), (2**40,)])
def test_a_file_that_declares_more_rows_than_there_can_be_is_refused(tmp_path, shape):
    declare_rows(tmp_path / "x.npz", shape)
    with pytest.raises(UserError, match="x.npz cannot be read as npz .* damaged, incomplete"):
        own.read(tmp_path / "x.npz")


def test_arrays_of_adroit_have_the_rewards_of_the_papers():
    observations = np.zeros((4, 39), np.float32)
    observations[2:, 28] = 1.4  # rad, the hinge of an open door
    arrays = {"observations": observations, "actions": np.zeros((4, 28)), "lengths": [4]}
    arrays["rewards"] = np.full(4, 7.0)
    assert own.from_arrays(arrays, env="door").rewards.tolist() == [0, 1, 1, 1]
    assert own.from_arrays(arrays, env="door_dense").rewards.tolist() == [7] * 4


@pytest.mark.parametrize("kind", [bool, np.uint8])
def test_actions_may_be_of_any_number_type(kind):
    actions = np.array([[0], [1], [1]], kind)
    made = own.from_arrays({"observations": np.zeros((3, 2)), "actions": actions, "lengths": [3]})
    assert made.actions.dtype == np.float32 and made.actions[:, 0].tolist() == [0, 1, 1]


def test_files_that_unpack_to_far_more_than_their_size_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, **make("next_observations"), next_observations=np.zeros((50_000, 4)))
    with pytest.raises(UserError, match="next_observations"):  # small enough to be looked at
        own.read(path)
    monkeypatch.setattr(archives, "HARMLESS_BYTES", 2**10)
    with pytest.raises(UserError, match="x.npz unpacks to .* was made to exhaust memory"):
        own.read(path)


def test_files_of_plausible_size_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "HARMLESS_BYTES", 0)
    np.savez(tmp_path / "x.npz", **make())
    assert own.read(tmp_path / "x.npz").lengths.tolist() == list(LENGTHS)


def test_files_that_may_not_be_read_say_so(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "x.npz").touch()
    monkeypatch.setattr(pathlib.Path, "open", refuse)
    with pytest.raises(UserError, match="x.npz cannot be read .*; check its permissions"):
        archives.open_file(tmp_path / "x.npz")
    with pytest.raises(UserError, match="x.npz cannot be read .*; check its permissions"):
        with archives.opened(tmp_path / "x.npz"):
            pass
    with pytest.raises(UserError, match="there is no file"):
        archives.open_file(tmp_path / "absent.npz")


HOPPER = {"observations": np.zeros((16, 11)), "actions": np.zeros((16, 3))}


@pytest.mark.parametrize(
    ("file", "name", "env_id"),
    [
        ("x.npz", "hopper", "Hopper-v5"),
        ("x.npz", "Hopper-v4", "Hopper-v4"),
        ("x.npz", "hopper-v4-mine", "Hopper-v4"),
        ("Hopper-v4_mine.npz", None, "Hopper-v4"),
        ("hopper-v2.npz", None, "Hopper-v5"),  # the second version of the data
        ("Hopper-v4.npz", "Hopper-v5", "Hopper-v5"),
    ],
)
def test_data_are_evaluated_in_the_version_of_their_name(tmp_path, file, name, env_id):
    np.savez(tmp_path / file, **make("next_observations", **HOPPER))
    assert own.read(tmp_path / file, name).info.env_id == env_id


def test_a_version_that_is_not_here_is_refused(tmp_path):
    arrays = make("next_observations", **HOPPER)
    np.savez(tmp_path / "Hopper-v3.npz", **arrays)
    for name in (None, "Hopper-v3-mine", "hopper-v6"):
        with pytest.raises(
            UserError, match="which is not here; write Hopper-v5 or Hopper-v4 or ho"
        ):
            own.read(tmp_path / "Hopper-v3.npz", name)
    with pytest.raises(UserError, match="asks for version 3 of hopper"):
        own.from_arrays(arrays, env="Hopper-v3")
    with pytest.raises(UserError, match="called 'Hopper-v4-x' and env is 'hopper'; give env='Hop"):
        own.from_arrays(arrays, "Hopper-v4-x", "hopper")
    with pytest.raises(UserError, match="give env='Hopper-v4' if the data are from it"):
        own.from_arrays(arrays, "Hopper-v4-x")


def test_trailing_axes_of_length_1_are_dropped(tmp_path):
    plain = own.from_arrays(make())
    wide = {key: array[..., None] for key, array in make().items()}
    np.savez(tmp_path / "x.npz", **wide)
    for read in (own.from_arrays(wide), own.read(tmp_path / "x.npz")):
        for key in ("observations", "actions", "rewards", "terminals", "final_observations"):
            np.testing.assert_array_equal(getattr(read, key), getattr(plain, key))
        assert read.lengths.tolist() == list(LENGTHS)


def test_an_action_of_one_dimension_keeps_its_axis():
    actions = np.linspace(-1, 1, 16)[:, None]
    assert own.from_arrays(make(actions=actions)).actions.shape == (16, 1)
    assert own.from_arrays(make(actions=actions[..., None])).actions.shape == (16, 1)
