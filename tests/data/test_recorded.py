"""What data say of their environment is compared with ours: taken over where exact, or refused."""

import json
import logging

import gymnasium
import h5py
import numpy as np
import pytest

from mtm_jax.data import info as data_info
from mtm_jax.data.d4rl import reader as d4rl
from mtm_jax.data.minari import metadata as minari_metadata
from mtm_jax.data.minari import reader as minari
from mtm_jax.data.recorded import environment, settings
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories


def spec_of(env_id="Hopper-v5", **changes):
    """What gymnasium says of an environment, changed."""
    return json.loads(gymnasium.spec(env_id).to_json()) | changes


def describe(stored, about=None, notes=None):
    metadata = {"env_spec": json.dumps(stored)}
    return minari_metadata.describe(
        "it", metadata, about, "x", "minari", [] if notes is None else notes
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kwargs": {"frame_skip": 4, "healthy_z_range": [0.7, np.inf], "render_mode": "rgb_array"}},
        {"kwargs": None, "additional_wrappers": None},
        {"additional_wrappers": [{"name": "RecordEpisodeStatistics"}, {"name": "Monitor"}]},
        {"entry_point": "gymnasium.envs.mujoco:HopperEnv", "reward_threshold": None},
    ],
)
def test_what_changes_nothing_is_not_mentioned(changes):
    notes = []
    info = describe(spec_of(**changes), None, notes)
    assert (info.env_id, info.max_episode_steps, notes) == ("Hopper-v5", 1000, [])


@pytest.mark.parametrize(
    ("env_id", "changes", "words"),
    [
        ("Hopper-v5", {"kwargs": {"frame_skip": 8}}, "frame_skip=8 where Hopper-v5 has 4"),
        (
            "Walker2d-v5",
            {"kwargs": {"terminate_when_unhealthy": False, "ctrl_cost_weight": 0}},
            "terminate_when_unhealthy=False where Walker2d-v5 has True, ctrl_cost_weight=0 where "
            "Walker2d-v5 has 0.001",
        ),
        (
            "Hopper-v5",
            {"kwargs": {"healthy_z_range": [0.5, 1.0]}},
            "healthy_z_range=[0.5, 1.0] where Hopper-v5 has (0.7, inf)",
        ),
        ("Hopper-v5", {"kwargs": {"frame_skip": True}}, "frame_skip=True where Hopper-v5 has 4"),
        ("Hopper-v4", {"kwargs": {"frame_skip": 8}}, "frame_skip=8 where Hopper-v4 has 'none'"),
        (
            "HalfCheetah-v5",
            {"additional_wrappers": [{"name": "NormalizeObservation"}, {"name": "ClipReward"}]},
            "the wrapper NormalizeObservation where HalfCheetah-v5 has none, the wrapper ClipRewa",
        ),
        ("Hopper-v5", {"entry_point": "mine:Hopper"}, "code 'mine:Hopper' where Hopper-v5 is gymn"),
    ],
)
def test_other_settings_are_refused_with_both_values(env_id, changes, words):
    with pytest.raises(UserError) as refused:
        describe(spec_of(env_id, **changes))
    text = str(refused.value)
    assert f"it was recorded in {env_id} with " in text and words in text
    assert text.endswith("give it a name that starts with custom")
    assert describe(spec_of(env_id, **changes), "custom-x") is None


def test_rewards_of_the_hand_may_be_of_either_kind_where_the_papers_take_their_place():
    stored = {"id": "AdroitHandDoor-v1", "kwargs": {"reward_type": "sparse"}}
    stored["max_episode_steps"] = 300  # as Minari's own
    info = describe(stored | {"additional_wrappers": [{"name": "SetInitialState"}]}, "door-human")
    assert (info.env_id[:18], info.max_episode_steps) == ("mtm_jax/AdroitDoor", 200)
    dense = {"kwargs": {"reward_type": "dense"}}
    assert describe(stored | dense, "door_dense-human").env_id == "AdroitHandDoor-v1"
    for sparse in (stored, {"id": "AdroitHandDoorSparse-v1"}):
        with pytest.raises(
            UserError, match="reward_type='sparse' where AdroitHandDoor-v1 has 'den"
        ):
            describe(sparse, "door_dense-human")


@pytest.mark.parametrize("limit", [20, 20.0, 5000])
def test_the_time_limit_of_the_recording_is_taken_over(limit):
    notes = []
    info = describe(spec_of(max_episode_steps=limit), None, notes)
    assert info.max_episode_steps == data_info.time_limit(info) == limit
    assert f"a time limit of {limit:g} steps where Hopper-v5 has 1000" in notes[0]


def test_the_time_limit_of_the_hand_is_the_papers_unless_shorter():
    stored = {"id": "AdroitHandPen-v1", "max_episode_steps": 200}
    info = describe(stored)
    assert info.max_episode_steps == data_info.time_limit(info) == 100
    assert data_info.time_limit(describe(stored | {"max_episode_steps": 50})) == 50


def test_a_recording_without_a_limit_is_said():
    notes = []
    assert describe(spec_of(max_episode_steps=None), None, notes).max_episode_steps == 1000
    assert notes[0].startswith("recorded without a time limit; it is evaluated under the 1000")


@pytest.mark.parametrize("limit", [0, -2, 2.5, 1e300, "many", [1, 2], float("nan"), 2**40])
def test_limits_that_are_none_are_refused(limit):
    with pytest.raises(UserError, match="max_episode_steps is .*; it must be a whole number of st"):
        describe(spec_of(max_episode_steps=limit))


@pytest.mark.parametrize("stored", ["5", '"Hopper-v5"', "{", "[]", 5, {"id": "Hopper-v5"}])
def test_a_spec_that_describes_nothing_is_refused(stored):
    with pytest.raises(
        UserError, match="its env_spec is .* describes no environment; leave it out"
    ):
        minari_metadata.describe("it", {"env_spec": stored}, "hopper-x", "x", "minari", [])


@pytest.mark.parametrize("part", [{"kwargs": [1]}, {"additional_wrappers": {"name": "x"}}])
def test_a_spec_of_other_parts_is_refused(part):
    with pytest.raises(UserError, match="env_spec"):
        describe(spec_of(**part))


@pytest.mark.parametrize(
    ("stored", "name", "env_id"),
    [
        ("Hopper-v5", None, "Hopper-v5"),
        ("Hopper-v4", "hopper-x", "Hopper-v4"),
        ("Hopper-v4", "Hopper-v4-x", "Hopper-v4"),
        ("Hopper-v3", "hopper-x", "Hopper-v4"),
        ("Hopper-v2", None, "Hopper-v4"),
        ("MyHopper-v0", "hopper-x", "Hopper-v5"),
        ("MyHopper-v0", "Hopper-v4-x", "Hopper-v4"),
        ("AdroitHandPen-v1", "AdroitHandPen-v1", "AdroitHandPen-v1"),
    ],
)
def test_the_version_is_the_recorded_one_or_its_equal(stored, name, env_id):
    notes = []
    found = environment.choose_env("it", stored, name, lambda spec: spec.builtin_id, notes)[1]
    assert found == env_id
    assert len(notes) == (found != stored)
    assert all(stored in note and env_id in note for note in notes)


@pytest.mark.parametrize(
    ("stored", "name", "words"),
    [
        (
            "Hopper-v5",
            "Hopper-v4",
            "in Hopper-v5, and 'Hopper-v4' asks for Hopper-v4; name Hopper-v5",
        ),
        ("Hopper-v4", "hopper-v5-x", "in Hopper-v4, and 'hopper-v5-x' asks for Hopper-v5; name"),
        (
            "Hopper-v3",
            "Hopper-v5",
            "in Hopper-v3, and 'Hopper-v5' asks for Hopper-v5; name Hopper-v4",
        ),
        ("Hopper-v6", "hopper-x", "in Hopper-v6, and only Hopper-v5 and Hopper-v4 are here"),
        ("Hopper-v6", None, "only Hopper-v5 and Hopper-v4 are here"),
        (
            "Ant-v5",
            None,
            "environment id 'Ant-v5' is not allowed; data of these are read: Hopper-v5",
        ),
        ("evil:Hopper-v5", None, "'evil:Hopper-v5' is not allowed"),
        ("Hopper-v5", "walker2d-x", "in Hopper-v5, which is not the walker2d of 'walker2d-x'"),
    ],
)
def test_another_version_or_environment_is_refused(stored, name, words):
    with pytest.raises(UserError, match=words):
        environment.choose_env("it", stored, name, lambda spec: spec.builtin_id, [])


LOW, HIGH = np.array([-5.0, 0.0, -1.0]), np.array([5.0, 1.0, 3.0])


def write(folder, actions, bounds, wrappers=()):
    """Write a Minari data set whose action space has these bounds."""
    rng, rows = np.random.default_rng(0), len(actions)
    info = DataInfo("hopper-x", "a test", "Hopper-v5", 1000, (-1.0,) * 3, (1.0,) * 3)
    data = Trajectories(
        observations=rng.normal(size=(rows, 11)).astype(np.float32),
        actions=np.float32(actions),
        rewards=np.zeros(rows, np.float32),
        terminals=np.zeros(rows, bool),
        lengths=np.array([rows]),
        final_observations=np.zeros((1, 11), np.float32),
        info=info,
    )
    space = gymnasium.spaces.Box(*np.float32(bounds))
    space = {"type": "Box", "shape": [3], "low": space.low.tolist(), "high": space.high.tolist()}
    wrappers = [{"name": name, "entry_point": "x:y", "kwargs": kwargs} for name, kwargs in wrappers]
    metadata = {"action_space": json.dumps(space)}
    metadata |= {"env_spec": json.dumps(spec_of(additional_wrappers=wrappers))}
    return minari.write(data, "x", folder, metadata)


def test_rescaled_actions_are_mapped_back_exactly(tmp_path, caplog):
    actions = np.random.default_rng(1).uniform(LOW, HIGH, (50, 3))
    wrapper = gymnasium.wrappers.RescaleAction(
        gymnasium.make("Hopper-v5"), *np.float32([LOW, HIGH])
    )
    expected = np.stack([wrapper.action(np.float32(action)) for action in actions])
    given = [("RescaleAction", {"min_action": -5, "max_action": 5})]  # the space knows better
    read = minari.read(write(tmp_path, actions, (LOW, HIGH), given))
    np.testing.assert_allclose(read.actions, expected, atol=1e-6)
    assert (read.info.action_low, read.info.action_high) == ((-1.0,) * 3, (1.0,) * 3)
    assert "actions were rescaled to [-5.0, 0.0, -1.0] to [5.0, 1.0, 3.0] by Resc" in caplog.text
    assert "mapped to the [-1, 1] of Hopper-v5" in caplog.text


def test_where_the_space_is_unbounded_the_wrapper_says_the_bounds(tmp_path):
    actions = np.random.default_rng(1).uniform(0, 1, (50, 3))
    unbounded = np.full(3, -np.inf), np.full(3, np.inf)
    given = [("RescaleAction", {"min_action": 0.0, "max_action": 1.0}), ("ClipAction", {})]
    read = minari.read(write(tmp_path / "a", actions, unbounded, given))
    np.testing.assert_allclose(read.actions, 2 * actions - 1, atol=1e-6)
    with pytest.raises(UserError, match="nothing says which bounds its RescaleAction had"):
        minari.read(write(tmp_path / "b", actions, unbounded, [("RescaleAction", None)]))


def test_actions_that_the_environment_clipped_are_clipped(tmp_path, caplog):
    unbounded = np.full(3, -np.inf), np.full(3, np.inf)
    actions = np.random.default_rng(1).normal(scale=2, size=(50, 3))
    read = minari.read(write(tmp_path, actions, unbounded, [("ClipAction", {})]))
    np.testing.assert_allclose(read.actions, np.clip(actions, -1, 1), atol=1e-6)
    assert "clipped" in caplog.text


def test_what_says_nothing_of_its_environment_is_taken_for_the_plain_one():
    notes = []
    info = minari_metadata.describe("it", {}, "hopper-x", "x", "minari", notes)
    assert info.env_id == "Hopper-v5"
    assert "taken for Hopper-v5 as it is, without wrappers and with default arg" in notes[0]


def test_other_bounds_that_nothing_explains_are_refused(tmp_path):
    folder = write(tmp_path, np.zeros((50, 3)), (2 * LOW / 5, HIGH))
    with pytest.raises(
        UserError, match=r"bounds \[-2.0, .* of Hopper-v5 \[-1, 1\], and no Rescale"
    ):
        minari.read(folder)
    info = minari.read(folder, "custom-x").info
    assert (info.action_low, info.action_high) == (
        (-2.0, 0.0, -0.4000000059604645),
        (5.0, 1.0, 3.0),
    )


def test_data_of_no_environment_take_over_the_limit(tmp_path):
    folder = write(tmp_path, np.zeros((50, 3)), (-np.ones(3), np.ones(3)))
    assert minari.read(folder, "custom-x").info.max_episode_steps == 1000


def d4rl_file(folder, name="hopper-x.hdf5", scale=1.0, **attributes):
    """Write 40 steps of hopper with attributes of the file."""
    rng = np.random.default_rng(0)
    with h5py.File(folder / name, "w") as file:
        file["observations"], file["rewards"] = rng.normal(size=(40, 11)), np.zeros(40)
        file["actions"] = scale * rng.uniform(-1, 1, (40, 3))
        file["timeouts"] = np.arange(40) % 20 == 19
        file.attrs.update(attributes)
    return folder / name


@pytest.mark.parametrize(
    ("attributes", "name", "env_id"),
    [
        ({}, None, "Hopper-v4"),
        ({"env_id": "Hopper-v5"}, None, "Hopper-v5"),
        ({"env_id": b"Hopper-v5"}, "hopper-x", "Hopper-v5"),
        ({"env_name": "hopper-medium-v2"}, None, "Hopper-v4"),
        ({"env_id": "Hopper-v2"}, None, "Hopper-v4"),
        ({}, "Hopper-v5", "Hopper-v5"),
        ({"env_spec": '{"id": "Hopper-v5", "kwargs": {"frame_skip": 4}}'}, None, "Hopper-v5"),
        ({"action_low": -1.0, "action_high": 1.0}, None, "Hopper-v4"),
    ],
)
def test_attributes_of_a_d4rl_file_choose_among_the_versions(tmp_path, attributes, name, env_id):
    assert d4rl.read(d4rl_file(tmp_path, **attributes), name).info.env_id == env_id


def test_the_attributes_tell_where_the_name_does_not(tmp_path):
    info = d4rl.read(d4rl_file(tmp_path, "mine.hdf5", env_id="Hopper-v5")).info
    assert (info.name, info.env_id) == ("hopper-mine", "Hopper-v5")
    path = d4rl_file(tmp_path, "custom-mine.hdf5", env_id="Hopper-v5", frame_skip=9)
    assert d4rl.read(path).info.env_id == ""


@pytest.mark.parametrize(
    ("attributes", "name", "words"),
    [
        ({"env_id": "Hopper-v4"}, "Hopper-v5", "in Hopper-v4, and 'Hopper-v5' asks for Hopper-v5"),
        ({"env_id": "Walker2d-v4"}, "hopper", "in Walker2d-v4, which is not the hopper of"),
        ({"env_id": "Hopper-v5", "frame_skip": 2}, None, "frame_skip=2 where Hopper-v5 has 4"),
        ({"env_kwargs": '{"healthy_reward": 5}'}, None, "healthy_reward=5 where Hopper-v4 has 1.0"),
        ({"env_kwargs": "5"}, None, "attribute env_kwargs is '5', expected JSON of names"),
        ({"max_episode_steps": 1e300}, None, "max_episode_steps is 1e.300"),
        ({"action_low": [0.0] * 3, "action_high": [1.0] * 3}, None, r"bounds \[0, 1\], and those"),
    ],
)
def test_attributes_of_a_d4rl_file_that_contradict_are_refused(tmp_path, attributes, name, words):
    with pytest.raises(UserError, match=words):
        d4rl.read(d4rl_file(tmp_path, **attributes), name)


def test_a_d4rl_file_may_tell_its_limit_and_a_rescaling(tmp_path, caplog):
    wrapper = [{"name": "RescaleAction", "kwargs": {"min_action": -3, "max_action": 3}}]
    stored = json.dumps({"id": "Hopper-v5", "additional_wrappers": wrapper})
    path = d4rl_file(tmp_path, scale=3.0, env_spec=stored, max_episode_steps=20)
    with caplog.at_level(logging.WARNING, "mtm_jax"):
        read = d4rl.read(path)
    assert read.info.max_episode_steps == 20
    np.testing.assert_allclose(read.actions, d4rl.read(d4rl_file(tmp_path)).actions, atol=1e-6)
    assert "clipped" not in caplog.text


def test_wrappers_that_are_not_listed_are_taken_for_harmful():
    assert "NormalizeReward" not in settings._HARMLESS
    ours = set(gymnasium.wrappers.__all__)
    assert settings._HARMLESS - ours == {"Monitor", "DataCollector", "SetInitialState"}
