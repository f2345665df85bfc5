import json
import logging

import h5py
import numpy as np
import pytest

from mtm_jax.data.robomimic import reader as robomimic
from mtm_jax.errors import UserError

DIMS = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2, "object": 10}


def make_demo(number, steps, success=2, **changes):
    """One demonstration that succeeds in its last `success` steps; row t holds 100 number + t."""
    rows = 100.0 * number + np.arange(steps)
    reached = np.arange(steps) >= steps - success
    demo = {
        "actions": np.full((steps, 7), 0.05 * number),
        "rewards": reached.astype(np.float64),
        "dones": (reached | (np.arange(steps) == steps - 1)).astype(np.int64),
        "states": np.zeros((steps, 32)),
    }
    for part, key in enumerate(DIMS):
        values = np.tile(rows[:, None] + 0.1 * part, (1, DIMS[key]))
        demo |= {f"obs/{key}": values, f"next_obs/{key}": values + 1}
    demo["obs/robot0_joint_vel"] = np.zeros((steps, 7))
    return {key: value for key, value in (demo | changes).items() if value is not None}


def save(folder, demos, masks=None, env="Lift", name="low_dim_v141.hdf5"):
    """Write demonstrations, number -> arrays; `env` None leaves the environment out."""
    path = folder / name
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        if env is not None:
            data.attrs["env_args"] = json.dumps({"env_name": env, "type": 1, "env_kwargs": {}})
        for number, demo in demos.items():
            for key, value in demo.items():
                data[f"demo_{number}/{key}"] = value
            data[f"demo_{number}"].attrs["num_samples"] = len(demo["actions"])
        for key, numbers in (masks or {}).items():
            file[f"mask/{key}"] = np.array([f"demo_{n}".encode() for n in numbers])
    return path


def episode_numbers(trajectories):
    return (trajectories.observations[trajectories.starts, 0] // 100).astype(int).tolist()


def test_observations_are_hand_gripper_and_object_in_this_order(tmp_path):
    read = robomimic.read(save(tmp_path, {1: make_demo(1, 4)}))
    row = np.repeat([100.0, 100.1, 100.2, 100.3], list(DIMS.values()))
    np.testing.assert_allclose(read.observations[0], row, rtol=1e-6)
    np.testing.assert_allclose(read.final_observations[0], row + 4, rtol=1e-6)
    assert read.observations.dtype == read.actions.dtype == np.float32
    assert (read.info.name, read.info.env_id) == ("lift-low_dim_v141", "")
    assert read.info.action_high == (1.0,) * 7
    assert read.info.source == str(tmp_path / "low_dim_v141.hdf5")


def test_demonstrations_come_in_the_order_of_their_numbers(tmp_path):
    demos = {number: make_demo(number, number + 1) for number in (10, 2, 1)}
    read = robomimic.read(save(tmp_path, demos))
    assert read.lengths.tolist() == [2, 3, 11]
    assert episode_numbers(read) == [1, 2, 10]


def test_steps_after_success_are_kept_and_only_the_last_is_terminal(tmp_path):
    demo = make_demo(0, 5, success=3)
    assert demo["dones"].tolist() == [0, 0, 1, 1, 1]
    read = robomimic.read(save(tmp_path, {0: demo}))
    assert read.rewards.tolist() == [0, 0, 1, 1, 1]
    assert read.terminals.tolist() == [False] * 4 + [True]


def test_a_demonstration_without_success_was_cut_and_that_is_said(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "mtm_jax"):
        read = robomimic.read(save(tmp_path, {0: make_demo(0, 3, success=0), 1: make_demo(1, 1)}))
    assert read.terminals.tolist() == [False, False, False, True]
    assert "1 of 2 demonstrations are cut without success" in caplog.text


def test_an_undone_last_step_is_not_terminal(tmp_path):
    demo = make_demo(0, 3, dones=np.zeros(3, int))
    assert not robomimic.read(save(tmp_path, {0: demo})).terminals.any()


@pytest.mark.parametrize(
    ("rewards", "expected"), [([0.2, 0.7, 1.0, 1.3], [0, 0, 1, 1]), (None, [0, 0, 1, 1])]
)
def test_shaped_and_missing_rewards_become_success(tmp_path, rewards, expected):
    demo = make_demo(0, 4, rewards=None if rewards is None else np.array(rewards))
    read = robomimic.read(save(tmp_path, {0: demo}))
    assert read.rewards.tolist() == expected
    assert read.terminals[-1]


def test_without_next_observations_the_last_one_is_unknown(tmp_path):
    demo = {k: v for k, v in make_demo(0, 3).items() if not k.startswith("next_obs")}
    assert np.isnan(robomimic.read(save(tmp_path, {0: demo})).final_observations).all()


@pytest.mark.parametrize(
    ("masks", "train"),
    [
        ({"train": [0, 2], "valid": [1]}, [True, False, True]),
        ({"valid": [0]}, [False, True, True]),
        ({"better": [1]}, None),
        ({"train": [0, 1, 2]}, None),
    ],
)
def test_masks_become_the_split(tmp_path, masks, train):
    demos = {number: make_demo(number, 3) for number in range(3)}
    read = robomimic.read(save(tmp_path, demos, masks))
    assert (None if read.train is None else read.train.tolist()) == train


def test_a_filter_keeps_the_demonstrations_of_its_mask(tmp_path):
    demos = {number: make_demo(number, 3) for number in (0, 1, 2, 11)}
    path = save(tmp_path, demos, {"train": [0, 2], "valid": [1, 11], "better": [11, 2]})
    read = robomimic.read(path, filter_key="better")
    assert episode_numbers(read) == [2, 11]
    assert read.train.tolist() == [True, False]
    assert robomimic.read(path, filter_key="train").train is None
    with pytest.raises(UserError, match="no mask 'best'; choose one of better, train, valid"):
        robomimic.read(path, filter_key="best")
    with pytest.raises(UserError, match="no mask 'best'; choose one of none"):
        robomimic.read(save(tmp_path, demos), filter_key="best")


def test_masks_of_variable_strings_are_read_and_wrong_ones_refused(tmp_path):
    path = save(tmp_path, {0: make_demo(0, 3), 1: make_demo(1, 3)}, {"gone": [7]})
    with h5py.File(path, "a") as file:
        file["mask/some"] = ["demo_1"]
        file["mask/train"] = ["demo_0"]
        file["mask/valid"] = ["demo_0"]
    with pytest.raises(UserError, match="demo_0 is in mask/train and in mask/valid"):
        robomimic.read(path, filter_key="some")
    with pytest.raises(UserError, match="mask/gone lists demo_7, which is not in data"):
        robomimic.read(path, filter_key="gone")
    with h5py.File(path, "a") as file:
        del file["mask/valid"], file["mask/train"]
    assert episode_numbers(robomimic.read(path, filter_key="some")) == [1]


def test_the_environment_is_the_recorded_one(tmp_path):
    demo = make_demo(0, 3) | {f"{part}/object": np.zeros((3, 14)) for part in ("obs", "next_obs")}
    path = save(tmp_path, {0: demo}, env="PickPlaceCan")
    assert robomimic.read(path).info.name == "can-low_dim_v141"
    assert robomimic.read(path, "can-ph").info.name == "can-ph"
    info = robomimic.read(path, "custom").info
    assert info.name == "can-custom"
    assert robomimic.read(path, info).info == info
    other = save(tmp_path, {0: demo}, env="PickPlaceCan", name="square.hdf5")
    assert robomimic.read(other).info.name == "can-square"
    with pytest.raises(
        UserError, match="PickPlaceCan, which is not the lift of 'lift-ph'; name can"
    ):
        robomimic.read(path, "lift-ph")


def test_an_unknown_environment_is_refused(tmp_path):
    demos = {0: make_demo(0, 3)}
    with pytest.raises(UserError, match="in ToolHang; only Lift, PickPlaceCan, NutAssemblySquare"):
        robomimic.read(save(tmp_path, demos, env="ToolHang"), "lift-ph")
    path = save(tmp_path, demos, env=None)
    with pytest.raises(UserError, match="in an environment that it does not name"):
        robomimic.read(path)
    assert robomimic.read(path, "lift-ph").info.name == "lift-ph"


def test_actions_are_clipped_and_a_longer_demonstration_raises_the_limit(tmp_path, caplog):
    actions = np.zeros((501, 7))
    actions[0, 0] = -3.75
    with caplog.at_level(logging.WARNING, "mtm_jax"):
        read = robomimic.read(save(tmp_path, {0: make_demo(0, 501, actions=actions)}))
    assert read.actions[0, 0] == -1.0
    assert "clipped 1 of 3507 action values" in caplog.text
    assert "2.75 outside" in caplog.text
    assert read.info.max_episode_steps == 501


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dones": None}, "data/demo_0 lacks dones"),
        ({"obs/object": None}, "lacks obs/object; extract low-dimensional observations"),
        ({"next_obs/object": None}, "lacks next_obs/object"),
        ({"rewards": np.zeros(2)}, r"rewards has shape \[2\] and dones has shape \[3\]"),
        ({"obs/object": np.zeros((2, 10))}, r"obs/object has shape \[2, 10\]"),
        ({"obs/object": np.zeros(3)}, r"obs/object has shape \[3\].*2 dimension"),
        ({"obs/object": np.zeros((3, 14))}, r"next_obs has 19 numbers per step and obs has 23"),
        ({"dones": np.array([0, 2, 1])}, "dones is 2 at row 1; every entry must be 0 or 1"),
        ({"rewards": np.array([0, np.nan, 1])}, "rewards holds 1 NaN"),
        ({"obs/object": np.full((3, 10), np.inf)}, "observations holds 30 NaN, infinite"),
        ({"actions": ["a", "b", "c"]}, "actions has type object, expected numbers"),
        ({"actions/a": np.zeros(3), "actions": None}, "actions is a group"),
    ],
)
def test_a_demonstration_that_does_not_fit_is_refused(tmp_path, changes, words):
    demo = make_demo(0, 3) | {key: changes[key] for key in changes}
    demo = {key: value for key, value in demo.items() if value is not None}
    path = tmp_path / "lift.hdf5"
    with h5py.File(path, "w") as file:
        for key, value in demo.items():
            file[f"data/demo_0/{key}"] = value
    with pytest.raises(UserError, match=words):
        robomimic.read(path)


def test_other_steps_than_declared_and_mixed_dimensions_are_refused(tmp_path):
    wide = make_demo(1, 3) | {f"{part}/object": np.zeros((3, 14)) for part in ("obs", "next_obs")}
    path = save(tmp_path, {0: make_demo(0, 3), 1: wide})
    with pytest.raises(UserError, match=r"observations of its demonstrations have \[19, 23\]"):
        robomimic.read(path)
    with h5py.File(path, "a") as file:
        file["data/demo_0"].attrs["num_samples"] = 4
    with pytest.raises(UserError, match="data/demo_0: num_samples is 4 but there are 3 rows"):
        robomimic.read(path)


def test_files_of_another_layout_are_refused(tmp_path):
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"] = np.zeros(3)
    with pytest.raises(UserError, match=r"lacks the group data \(it has observations\)"):
        robomimic.read(path)
    with pytest.raises(UserError, match="holds no demonstrations data/demo_<number>"):
        robomimic.read(save(tmp_path, {}))
    with pytest.raises(UserError, match="data/demo_0 has no steps; fetch"):
        robomimic.read(save(tmp_path, {0: make_demo(0, 0)}))


def test_missing_and_truncated_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        robomimic.read(tmp_path / "absent.hdf5")
    path = save(tmp_path, {0: make_demo(0, 3)})
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="low_dim_v141.hdf5 cannot be read as HDF5"):
        robomimic.read(path)


@pytest.mark.parametrize("key", ["data", "data/demo_0", "data/demo_0/obs", "mask", "mask/train"])
def test_parts_in_another_file_are_not_read(tmp_path, key):
    demos = {0: make_demo(0, 3), 1: make_demo(1, 3)}
    other = save(tmp_path, demos, masks={"train": [0]}, name="lift-secret.hdf5")
    path = save(tmp_path, demos, masks={"train": [0]}, name="lift.hdf5")
    with h5py.File(path, "a") as file:
        del file[key]
        file[key] = h5py.ExternalLink(str(other), key)
    with pytest.raises(UserError, match=f"hdf5: {key} is stored in another file; only"):
        robomimic.read(path, "lift-x")


def test_more_demonstrations_than_the_file_can_hold_are_refused(tmp_path):
    path = save(tmp_path, {0: make_demo(0, 3)})
    shapes = {"actions": (9000, 7), "rewards": (9000,), "dones": (9000,)}
    shapes |= {f"obs/{key}": (9000, dims) for key, dims in DIMS.items()}
    with h5py.File(path, "a") as file:
        for key, shape in shapes.items():
            file.create_dataset(f"data/demo_1/{key}", shape, "f8")  # never written
        for k in range(2, 50):
            file[f"data/demo_{k}"] = file["data/demo_1"]
    with pytest.raises(UserError, match="low_dim_v141.hdf5 declares .* no compression reaches"):
        robomimic.read(path)


def test_trailing_axes_of_length_1_are_dropped(tmp_path):
    demo = make_demo(0, 4)
    plain = robomimic.read(save(tmp_path, {0: demo}))
    flags = {key: demo[key][:, None] for key in ("rewards", "dones")}
    wide = robomimic.read(save(tmp_path, {0: demo | flags}))
    for key in ("observations", "rewards", "terminals", "lengths"):
        np.testing.assert_array_equal(getattr(wide, key), getattr(plain, key))


def with_arguments(folder, arguments, demo=None):
    path = save(folder, {0: make_demo(0, 30) if demo is None else demo}, env=None)
    with h5py.File(path, "a") as file:
        file["data"].attrs["env_args"] = arguments
    return path


def arguments(**settings):
    return json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": settings})


@pytest.mark.parametrize("given", [5.0, "5", "{", '"Lift"', "[]", '{"env_name": 5}', "NaN"])
def test_arguments_that_name_no_environment_are_refused(tmp_path, given):
    with pytest.raises(
        UserError, match="env_args of data is .*, which names no environment; write"
    ):
        robomimic.read(with_arguments(tmp_path, given), "lift-x")


@pytest.mark.parametrize(
    "controller",
    [
        {"type": "OSC_POSE", "control_delta": False},
        {"body_parts": {"right": {"type": "OSC_POSE", "input_type": "absolute"}}},
    ],
)
def test_absolute_actions_are_refused_unless_they_may_be_clipped(tmp_path, controller, caplog):
    path = with_arguments(tmp_path, arguments(controller_configs=controller))
    with pytest.raises(UserError, match="poses .(control_delta is False|input_type is absolute)"):
        robomimic.read(path)
    robomimic.read(path, clip_actions=True)
    assert "unlike robomimic's own data" in caplog.text


def test_absolute_actions_are_refused_also_where_nothing_names_them(tmp_path):
    poses = np.tile([0.1, 0.1, 0.9, 3.0, -2.5, 1.5, 1.0], (30, 1))
    path = save(tmp_path, {0: make_demo(0, 30, actions=poses)})
    with pytest.raises(
        UserError, match="43% of the action .* dimension 3 range from 3 to 3, and its"
    ):
        robomimic.read(path)
    assert robomimic.read(path, clip_actions=True).actions[0, 3] == 1.0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"control_freq": 10}, "control_freq 10 (not 20)"),
        ({"robots": ["Sawyer"]}, "robots ['Sawyer'] (not 'Panda')"),
        (
            {"controller_configs": {"type": "JOINT_VELOCITY"}},
            "controller 'JOINT_VELOCITY' (not 'OS",
        ),
        ({"robots": ["Panda"], "control_freq": 20, "controller_configs": "OSC_POSE default"}, ""),
        (
            {"robots": "Panda", "controller_configs": {"type": "OSC_POSE", "control_delta": True}},
            "",
        ),
    ],
)
def test_what_is_unlike_robomimics_own_data_is_said(tmp_path, settings, says, caplog):
    robomimic.read(with_arguments(tmp_path, arguments(**settings)))
    assert says in caplog.text and bool(says) == ("unlike robomimic" in caplog.text)


def test_a_demonstration_that_jumps_is_cut_there(tmp_path, caplog):
    first, second = make_demo(1, 4, success=0), make_demo(2, 5)
    joined = {key: np.concatenate([first[key], second[key]]) for key in first}
    joined["dones"][3] = 0
    path = save(tmp_path, {0: joined, 1: make_demo(3, 3)}, {"train": [0], "valid": [1]})
    read = robomimic.read(path)
    assert read.lengths.tolist() == [4, 5, 3]
    assert read.train.tolist() == [True, True, False]
    assert read.terminals[np.cumsum(read.lengths) - 1].tolist() == [False, True, True]
    np.testing.assert_allclose(read.final_observations[:, 0], [104, 205, 303])
    assert "demo_0: next_observations jump at 1 steps" in caplog.text


def test_marks_that_are_not_used_are_named(tmp_path, caplog):
    demo = make_demo(0, 3, timeouts=np.zeros(3), truncated=np.zeros(3))
    robomimic.read(save(tmp_path, {0: demo}))
    assert "not used: timeouts; dones say which steps succeed" in caplog.text
    assert "may mean ends of episodes: truncated; rename" in caplog.text
