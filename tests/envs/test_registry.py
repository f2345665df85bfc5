"""The registry agrees with the environments, and names what it does not know."""

import numpy as np
import pytest

from mtm_jax.envs import make, registry
from mtm_jax.errors import UserError

IDS = [(spec, env_id) for spec in registry.ENVS.values() for env_id in spec.env_ids]
LIMITS = {"AdroitHandPen-v1": 200}  # D4RL and the papers stop the pen after 100 steps


@pytest.mark.parametrize(("spec", "env_id"), IDS, ids=[env_id for _, env_id in IDS])
def test_specs_agree_with_the_environments(spec, env_id):
    env = make.make(env_id)
    assert env.observation_space.shape == (spec.obs_dim,)
    assert env.action_space.shape == (spec.action_dim,)
    assert set(env.action_space.low) == {spec.action_low}
    assert set(env.action_space.high) == {spec.action_high}
    assert env.spec.max_episode_steps == LIMITS.get(env_id, spec.max_episode_steps)
    assert env.reset(seed=0)[0].shape == (spec.obs_dim,)
    env.close()


def test_every_suite_is_there():
    suites = {spec.suite for spec in registry.ENVS.values()}
    assert suites == {"gymnasium", "adroit", "walker", "robomimic"}
    assert all(name == spec.name for name, spec in registry.ENVS.items())


BUILTIN = [(env, level) for env, spec in registry.ENVS.items() for level in spec.levels]


@pytest.mark.parametrize(("env", "level"), BUILTIN)
def test_names_of_builtin_data_are_split_into_environment_and_level(env, level):
    assert registry.parse_name(f"{env}-{level}") == (registry.ENVS[env], level)


@pytest.mark.parametrize("env", registry.ENVS)
def test_names_of_other_sources_may_have_any_level(env):
    for level in ("human", "medium-replay-v2", ""):
        name = f"{env}-{level}" if level else env
        assert registry.split_name(name) == (registry.ENVS[env], level)


@pytest.mark.parametrize("env", [e for e, spec in registry.ENVS.items() if not spec.levels])
def test_environments_without_builtin_data_are_named(env):
    for name in (f"{env}-medium", env):
        with pytest.raises(UserError, match=f"no built-in data of {env}, only of hopper, .*path"):
            registry.parse_name(name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ant-medium", "unknown environment 'ant'.*hopper, walker2d, halfcheetah"),
        ("hopper", "unknown level ''.*hopper-medium-replay"),
        ("hopper-mediocre", "unknown level 'mediocre'.*hopper-medium"),
        ("", "unknown environment ''"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(name, says):
    with pytest.raises(UserError, match=says):
        registry.parse_name(name)


@pytest.mark.parametrize(("spec", "env_id"), IDS, ids=[env_id for _, env_id in IDS])
def test_ids_lead_back_to_their_environment(spec, env_id):
    assert registry.spec_of_id(env_id) is spec
    assert spec in registry.specs_recorded_in(env_id)


@pytest.mark.parametrize("env_id", ["Hopper-v3", "AdroitHandPenSparse-v1", "Lift", ""])
def test_no_other_id_is_ever_made(env_id):
    with pytest.raises(UserError, match=f"'{env_id}' is not allowed.*Hopper-v4"):
        registry.spec_of_id(env_id)
    with pytest.raises(UserError, match=f"'{env_id}' is not allowed"):
        make.make(env_id)


@pytest.mark.parametrize(
    ("env_id", "names"),
    [
        ("AdroitHandPen-v1", ["pen", "pen_dense"]),
        ("AdroitHandDoorSparse-v1", ["door", "door_dense"]),
        ("door-v0", ["door", "door_dense"]),
        ("mtm_jax/AdroitDoorCompletion-v1", ["door"]),
        ("mtm_jax/WalkerRun-v0", ["walker_run"]),
        ("Lift", ["lift"]),
    ],
)
def test_recordings_are_read_by_every_environment_they_fit(env_id, names):
    assert [spec.name for spec in registry.specs_recorded_in(env_id)] == names


def test_recordings_of_anything_else_are_read_by_none():
    assert registry.specs_recorded_in("Ant-v5") == ()


def test_scores_are_0_for_random_and_100_for_expert_returns():
    for spec in registry.ENVS.values():
        returns = [spec.reference_min, spec.reference_max]
        np.testing.assert_allclose(registry.normalized_score(spec, returns), [0.0, 100.0])


def test_the_score_of_the_hand_counts_steps_at_the_goal():
    for name, steps in (("pen", 100), ("door", 200)):  # those of MTM's table A.2
        assert registry.ENVS[name].max_episode_steps == steps
        assert registry.normalized_score(registry.ENVS[name], np.array([61.0])) == [61.0]


@pytest.mark.parametrize(
    ("name", "env_id", "level"),
    [
        ("Hopper-v4", "Hopper-v4", ""),
        ("Hopper-v5-medium-replay", "Hopper-v5", "medium-replay"),
        ("hopper-v5", "Hopper-v5", ""),
        ("Walker2d-v4_mine", "Walker2d-v4", "mine"),
        ("AdroitHandPen-v1-human", "AdroitHandPen-v1", "human"),
        ("walker_run-v0", "mtm_jax/WalkerRun-v0", ""),
    ],
)
def test_a_name_may_ask_for_a_version(name, env_id, level):
    assert registry.asked_id(name) == env_id
    assert registry.split_name(name) == (registry.spec_of_id(env_id), level)


@pytest.mark.parametrize(
    "name", ["hopper", "hopper-medium-v2", "hopper_medium-v2", "lift-v1", "x-v1"]
)
def test_a_version_of_data_is_none_of_an_environment(name):
    assert registry.asked_id(name) is None


@pytest.mark.parametrize("name", ["Hopper-v3", "hopper-v2-medium", "Hopper-v55", "HOPPER-v6"])
def test_a_version_that_is_not_here_is_refused_with_what_to_write(name):
    with pytest.raises(
        UserError, match="of hopper, which is not here; write Hopper-v5 or Hopper-v4"
    ):
        registry.split_name(name)


def test_builtin_data_are_of_one_version():
    hopper = registry.ENVS["hopper"]
    assert registry.parse_name("Hopper-v5-medium") == (hopper, "medium")
    with pytest.raises(
        UserError, match="asks for Hopper-v4, but .* in Hopper-v5; write hopper-med"
    ):
        registry.parse_name("Hopper-v4-medium")
    with pytest.raises(UserError, match="unknown environment 'Hopper'.*did you mean hopper"):
        registry.split_name("Hopper-v4", versions=False)
