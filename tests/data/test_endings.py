"""Episodes end where the data say it, however they say it, or the contradiction is said."""

import logging

import h5py
import numpy as np
import pytest

from mtm_jax.data import endings, own
from mtm_jax.data.d4rl import reader as d4rl
from mtm_jax.data.minari import reader as minari
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories

LENGTHS = (5, 7, 4, 9, 3, 8, 6, 2, 10, 5)
ROWS = sum(LENGTHS)
LAST = np.cumsum(LENGTHS) - 1
TERMINAL = LAST[[1, 4, 8]]


def at(*rows):
    return np.isin(np.arange(ROWS), rows)


def recording(**marks):
    """Ten episodes of hopper; every one is a walk of its own."""
    rng = np.random.default_rng(0)
    walks = [np.cumsum(rng.normal(size=(n + 1, 11)), axis=0) for n in LENGTHS]
    return {
        "observations": np.concatenate([walk[:-1] for walk in walks]).astype(np.float32),
        "next_observations": np.concatenate([walk[1:] for walk in walks]).astype(np.float32),
        "actions": rng.uniform(-1, 1, (ROWS, 3)).astype(np.float32),
        "rewards": rng.normal(size=ROWS).astype(np.float32),
    } | marks


ENDED, CUT = at(*TERMINAL), at(*set(LAST) - set(TERMINAL))
# Every name, alone where it tells both kinds of ends, else with one for the other kind.
WAYS = {
    "terminals": {"terminals": ENDED, "timeouts": CUT},
    "terminations": {"terminations": ENDED, "timeouts": CUT},
    "timeouts": {"timeouts": CUT | ENDED, "terminals": ENDED},
    "truncations": {"terminations": ENDED, "truncations": CUT},
    "dones": {"dones": ENDED | CUT, "truncations": CUT},
    "episode_ends": {"episode_ends": ENDED | CUT, "terminals": ENDED},
    "lengths": {"lengths": np.array(LENGTHS), "terminals": ENDED},
    "dones and terminals": {"dones": ENDED | CUT, "terminals": ENDED},
    "all": {
        "terminals": ENDED,
        "terminations": ENDED,
        "timeouts": CUT,
        "truncations": CUT,
        "dones": ENDED | CUT,
        "episode_ends": ENDED | CUT,
        "lengths": np.array(LENGTHS),
    },
}


def as_npz(folder, arrays):
    np.savez(folder / "hopper.npz", **arrays)
    return own.read(folder / "hopper.npz")


def as_hdf5(folder, arrays):
    with h5py.File(folder / "hopper.hdf5", "w") as file:
        for key, array in arrays.items():
            file[key] = array
    return d4rl.read(folder / "hopper.hdf5")


def as_minari(folder, arrays):
    """Write one group for each episode, with the flags that are there."""
    info = DataInfo("hopper-x", "a test", "Hopper-v5", 1000, (-1.0,) * 3, (1.0,) * 3)
    fields = {key: arrays[key] for key in ("observations", "actions", "rewards")}
    finals = arrays["next_observations"][LAST]
    lengths = np.array(LENGTHS)
    written = minari.write(
        Trajectories(
            **fields, terminals=at(), lengths=lengths, final_observations=finals, info=info
        ),
        "mine/hopper-v0",
        folder,
    )
    metadata = written / "data/metadata.json"
    metadata.write_text(metadata.read_text().replace('"sha256"', '"checksum"'))
    with h5py.File(written / "data/main_data.hdf5", "a") as file:
        for k, (end, steps) in enumerate(zip(LAST, LENGTHS, strict=True)):
            group = file[f"episode_{k}"]
            del group["terminations"], group["truncations"]
            for key in endings.FLAGS:
                if key in arrays:
                    group[key] = arrays[key][end + 1 - steps : end + 1]
    return minari.read(written)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("write", [as_npz, as_hdf5, as_minari])
@pytest.mark.parametrize("successors", [True, False])
def test_the_same_episodes_are_read_however_their_ends_are_written(
    tmp_path, write, way, successors, caplog
):
    arrays = recording(**WAYS[way])
    if write is not as_minari and not successors:
        del arrays["next_observations"]
    read = write(tmp_path, arrays)
    assert read.lengths.tolist() == list(LENGTHS)
    np.testing.assert_array_equal(read.terminals, ENDED)
    for key in ("observations", "actions", "rewards"):
        np.testing.assert_array_equal(getattr(read, key), arrays[key])
    if successors:
        expected = arrays["next_observations"][LAST]
        np.testing.assert_array_equal(read.final_observations, expected)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("name", endings.FLAGS)
@pytest.mark.parametrize("write", [as_npz, as_hdf5])
def test_one_array_alone_tells_all_ends(tmp_path, write, name):
    arrays = recording(**{name: at(*LAST)})
    del arrays["next_observations"]
    read = write(tmp_path, arrays)
    assert read.lengths.tolist() == list(LENGTHS)
    by_environment = name in ("terminals", "terminations", "dones")
    np.testing.assert_array_equal(read.terminals, at(*LAST) if by_environment else at())


def test_marks_of_shape_n_1_are_flags():
    wide = {key: mark[:, None] for key, mark in WAYS["all"].items()}
    read = own.from_arrays(recording(**wide), env="hopper")
    assert read.lengths.tolist() == list(LENGTHS)
    np.testing.assert_array_equal(read.terminals, ENDED)


def test_dones_on_the_time_limit_are_timeouts(caplog):
    def terminals(limit, *rows):
        found = endings.find("it", {"dones": at(*rows)}, np.zeros((ROWS, 1)), None, limit)
        return np.flatnonzero(found.terminals).tolist()

    assert terminals(10, 9, 13, 23, ROWS - 1) == [13, ROWS - 1]
    assert "2 on step 10 are taken for timeouts, and 2 others for terminals" in caplog.text
    assert terminals(None, 9, 13, 23) == [9, 13, 23]  # the last of 35 steps is the longest
    assert terminals(None, 9, 19, 29, 39, 49, 53) == [53]


def test_a_flag_that_others_contradict_is_refused():
    with pytest.raises(UserError, match="terminals is True and terminations is False at row 4;"):
        own.from_arrays(recording(terminals=at(4), terminations=at(5)))
    with pytest.raises(UserError, match="row 5 ends an episode by dones but not by lengths"):
        own.from_arrays(recording(lengths=np.array(LENGTHS), dones=at(5)))


def test_names_that_may_mean_ends_are_said_not_to_be_used(tmp_path, caplog):
    arrays = recording(**WAYS["dones"], done=at(4), is_last=at(4), episode_id=np.zeros(ROWS))
    as_hdf5(tmp_path, arrays | {"infos/truncated": at(4), "infos/qpos": np.zeros(ROWS)})
    assert "ends of episodes: done, episode_id, infos/truncated, is_last; rename" in caplog.text
    caplog.clear()
    as_minari(tmp_path, arrays)
    assert caplog.text == ""
    as_npz(tmp_path, arrays)
    assert "not used: done, is_last, episode_id; used are" in caplog.text
    only = recording(done=at(*LAST))
    for write in (as_npz, as_hdf5):
        with pytest.raises(UserError, match="nothing says where .*lengths; it has done, so rename"):
            write(tmp_path, only)


def test_weights_of_a_policy_are_not_taken_for_ends(tmp_path, caplog):
    policy = {"metadata/policy/last_fc/bias": np.zeros(3), "metadata/policy/fc0/weight": np.eye(2)}
    as_hdf5(tmp_path, recording(**WAYS["terminals"]) | policy | {"infos/qvel": np.zeros(ROWS)})
    assert caplog.text == ""


def jumping(*ends, terminals=()):
    """Read a recording whose timeouts are at `ends`, as lengths."""
    arrays = recording(timeouts=at(*ends), terminals=at(*terminals))
    return own.from_arrays(arrays, env="hopper")


@pytest.mark.parametrize("shift", [1, -1, 2])
def test_marks_near_a_jump_of_next_observations_are_moved_to_it(shift, caplog):
    read = jumping(*(LAST[:5] + shift), *LAST[5:])
    assert read.lengths.tolist() == list(LENGTHS)
    assert "jump at 5 steps that are not marked as ends, the first in row 4" in caplog.text
    assert "5 marks near such a jump are dropped" in caplog.text


def test_ends_that_nothing_marks_are_jumps_of_next_observations(caplog):
    assert jumping(LAST[3]).lengths.tolist() == list(LENGTHS)
    assert "jump at 8 steps" in caplog.text
    caplog.clear()
    assert jumping(*LAST).lengths.tolist() == list(LENGTHS)
    assert caplog.text == ""


def test_a_mark_far_from_every_jump_is_kept_beside_them():
    """Nothing is joined that something holds apart."""
    read = jumping(*LAST[:7], LAST[7] + 4, *LAST[8:])
    assert read.lengths.tolist() == [5, 7, 4, 9, 3, 8, 6, 2, 4, 6, 5]


def test_terminals_near_a_jump_are_refused():
    with pytest.raises(UserError, match="row 5 is marked as an end, but by next_observations an"):
        jumping(*LAST[1:], terminals=[LAST[0] + 1])


def test_rows_in_no_order_are_refused():
    order = np.random.default_rng(1).permutation(ROWS)
    arrays = {key: array[order] for key, array in recording(timeouts=at(*LAST)).items()}
    with pytest.raises(UserError, match=r"at \d+ of \d+ steps inside .* rows must be consecutive"):
        own.from_arrays(arrays)


def test_what_is_cut_without_timeouts_is_said(caplog):
    marks = {"terminals": at(LAST[1])}
    with caplog.at_level(logging.INFO, "mtm_jax"):
        found = endings.find("it", marks, recording()["observations"], None, 10)
    assert found.lengths.tolist() == [10, 2, 10, 10, 10, 10, 7]
    assert "nothing marks timeouts; episodes are cut 5 times at the limit of 10" in caplog.text
