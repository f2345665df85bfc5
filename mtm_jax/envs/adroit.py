"""Pen and door of the Adroit hand with the papers' reward: 1 for each step that ends at the goal.

Importing this module registers them, and gymnasium-robotics' own ids, with gymnasium.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import gymnasium
import numpy as np

from mtm_jax.envs import registry

_LOG = logging.getLogger("mtm_jax")
# What gymnasium-robotics always prints of the dense rewards, which these tasks do not use.
_KNOWN_NOTICE = "reward functions were updated"


def _register_robotics() -> None:
    """Import gymnasium-robotics; what it prints goes to the log."""
    printed = io.StringIO()
    ignored = warnings.catch_warnings(action="ignore", category=DeprecationWarning)
    with contextlib.redirect_stderr(printed), ignored:
        import gymnasium_robotics

    gymnasium.register_envs(gymnasium_robotics)
    for line in filter(None, printed.getvalue().splitlines()):
        level = logging.DEBUG if _KNOWN_NOTICE in line else logging.WARNING
        _LOG.log(level, "gymnasium-robotics: %s", line)


class TaskCompletion(gymnasium.Env):
    """A task of the hand; the reward is 1.0 for a step that ends at the goal, otherwise 0.0.

    It is no wrapper, because `unwrapped` would lead past it to the other reward.

    Attributes:
        hand: the environment of gymnasium-robotics underneath.
    """

    metadata = {"render_modes": ["human", "rgb_array", "depth_array"], "render_fps": 100}

    def __init__(self, hand_id: str, **kwargs):
        """Make the environment `hand_id`; the other arguments go to it."""
        self.hand = gymnasium.make(hand_id, disable_env_checker=True, **kwargs).unwrapped
        self.observation_space = self.hand.observation_space
        self.action_space = self.hand.action_space
        self.render_mode = self.hand.render_mode

    @property
    def np_random(self) -> np.random.Generator:
        """The generator that resets draw from."""
        return self.hand.np_random

    @np_random.setter
    def np_random(self, generator: np.random.Generator) -> None:
        self.hand.np_random = generator

    @property
    def np_random_seed(self) -> int:
        """The seed of `np_random`; -1 where the generator was given."""
        return self.hand.np_random_seed

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Draw a target for the pen, or a place for the door."""
        return self.hand.reset(seed=seed, options=options)

    def step(self, action: np.ndarray):
        """Step the hand; `info["success"]` says the same as the reward."""
        obs, _, terminated, truncated, info = self.hand.step(action)
        return obs, float(info["success"]), terminated, truncated, info

    def render(self):
        """Draw the scene in the chosen mode."""
        return self.hand.render()

    def close(self) -> None:
        """Close the windows."""
        self.hand.close()


_register_robotics()
for _name in ("pen", "door"):
    gymnasium.register(
        registry.ENVS[_name].builtin_id,
        entry_point=f"{__name__}:TaskCompletion",
        max_episode_steps=registry.ENVS[_name].max_episode_steps,
        kwargs={"hand_id": f"AdroitHand{_name.title()}Sparse-v1"},
    )
