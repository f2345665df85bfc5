"""The registry agrees with the environments, and names what it does not know."""

import warnings

import gymnasium
import numpy as np
import pytest

from mtm_jax.envs import registry
from mtm_jax.errors import UserError


@pytest.mark.parametrize("which", ["builtin_id", "d4rl_id"])
@pytest.mark.parametrize("name", registry.ENVS)
def test_specs_agree_with_the_environments(name, which):
    spec = registry.ENVS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        env = gymnasium.make(getattr(spec, which))
    assert env.observation_space.shape == (spec.obs_dim,)
    assert env.action_space.shape == (spec.action_dim,)
    assert set(env.action_space.low) == {spec.action_low}
    assert set(env.action_space.high) == {spec.action_high}
    assert env.spec.max_episode_steps == spec.max_episode_steps
    env.close()


@pytest.mark.parametrize("env", registry.ENVS)
@pytest.mark.parametrize("level", registry.LEVELS)
def test_names_are_split_into_environment_and_level(env, level):
    assert registry.parse_name(f"{env}-{level}") == (registry.ENVS[env], level)


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


def test_ids_lead_back_to_their_environment():
    for spec in registry.ENVS.values():
        assert registry.spec_of_id(spec.builtin_id) is registry.spec_of_id(spec.d4rl_id) is spec
    with pytest.raises(UserError, match="'Hopper-v3' is not allowed.*Hopper-v4"):
        registry.spec_of_id("Hopper-v3")


def test_scores_are_0_for_random_and_100_for_expert_returns():
    for spec in registry.ENVS.values():
        returns = [spec.reference_min, spec.reference_max]
        np.testing.assert_allclose(registry.normalized_score(spec, returns), [0.0, 100.0])
