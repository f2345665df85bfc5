"""An episode can be left and taken up again, whatever the simulator keeps inside."""

import gymnasium
import numpy as np
import pytest

from mtm_jax.envs import ongoing
from mtm_jax.errors import UserError

LIMIT = 30


def make():
    return gymnasium.make("Pendulum-v1", disable_env_checker=True)


class Odd(gymnasium.Wrapper):
    """Fails at one step, gives a bad reward at another, or drifts with everything it has done."""

    count = 0

    def __init__(self, fails_at=None, bad_at=None, drift=0.0):
        super().__init__(make())
        self._fails_at, self._bad_at, self._drift = fails_at, bad_at, drift

    def step(self, action):
        Odd.count += 1
        if Odd.count == self._fails_at:
            raise RuntimeError("the motor is hot")
        obs, reward, *rest = self.env.step(action)
        return obs + self._drift * Odd.count, np.nan if Odd.count == self._bad_at else reward, *rest


def actions(count):
    return np.random.default_rng(0).uniform(-1, 1, (count, 1)).astype(np.float32)


def test_a_restored_environment_goes_on_as_the_other_one():
    one, other = ongoing.Ongoing(make, LIMIT), ongoing.Ongoing(make, LIMIT)
    one.reset(3)
    for action in actions(7):
        one.step(action)
    assert other.load(one.state())
    for action in actions(5):
        np.testing.assert_array_equal(one.step(action).obs, other.step(action).obs)
    assert other.length == 12 and other.seed == 3


def test_the_time_limit_ends_an_episode_without_a_terminal():
    env = ongoing.Ongoing(make, 4)
    env.reset(0)
    outcomes = [env.step(action) for action in actions(4)]
    assert [o.over for o in outcomes] == [False] * 3 + [True]
    assert not any(o.terminal for o in outcomes)


def test_an_environment_that_does_not_repeat_itself_is_noticed_and_its_record_kept():
    env = ongoing.Ongoing(lambda: Odd(drift=0.1), LIMIT)
    env.reset(0)
    for action in actions(3):
        env.step(action)
    state = env.state()
    assert not env.load(state)
    np.testing.assert_array_equal(env.obs, state["obs"])
    assert env.length == 3


def test_an_error_ends_the_episode_before_its_step():
    Odd.count = 0
    env = ongoing.Ongoing(lambda: Odd(fails_at=3), LIMIT)
    env.reset(0)
    outcomes = [env.step(action) for action in actions(3)]
    assert outcomes[-1].over and outcomes[-1].failure == "RuntimeError: the motor is hot"
    assert env.length == 2 and np.isfinite(env.reset(1)).all()


def test_a_reward_that_is_not_finite_is_refused():
    Odd.count = 0
    env = ongoing.Ongoing(lambda: Odd(bad_at=2), LIMIT)
    env.reset(5)
    env.step(actions(1)[0])
    with pytest.raises(UserError, match="step 1 of the episode with seed 5 gave the reward nan"):
        env.step(actions(1)[0])
