"""Simulators of `experiments.plan_signal`: put back to a moment, they try candidates out."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from mtm_jax.agents import pretrained as agent_lib
from mtm_jax.envs import make, simulator
from mtm_jax.errors import UserError
from mtm_jax.io import progress
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import roles


class Moment(NamedTuple):
    """A state on the way of the policy, in the simulator and in the planner's window."""

    state: np.ndarray  # as MuJoCo packs it
    context: context_lib.Context  # leading axis 1


class Real(NamedTuple):
    """What N candidates did; once an episode is over nothing moves, and nothing is earned."""

    states: np.ndarray  # [N, h, S], that each step of the horizon starts from
    rewards: np.ndarray  # [N, h], of these steps
    returns: np.ndarray  # [N], until the policy that went on was stopped


class Simulators:
    """Environments side by side, with the policy's windows; nothing is reset."""

    def __init__(self, agent: agent_lib.Agent, count: int, seed: int, target_fraction: float = 1.0):
        """Begin an episode in each of `count` environments; see `ask` for the target.

        Raises:
            UserError: the environment cannot be put into a given state.
        """
        self._agent = agent
        self.envs = [make.make(agent.info.env_id).unwrapped for _ in range(count)]
        if not isinstance(getattr(self.envs[0], "data", None), mujoco.MjData):
            raise UserError(
                f"{agent.info.env_id} cannot be put into a given state, so candidates cannot be "
                "tried out in it; use a run of a MuJoCo environment of gymnasium"
            )
        seeds = np.random.SeedSequence(seed).generate_state(count).tolist()
        obs = np.stack([env.reset(seed=s)[0] for env, s in zip(self.envs, seeds, strict=True)])
        self.alive = np.ones(count, bool)
        self.ask(target_fraction)
        choose = functools.partial(roles.act, agent.model, agent.params, agent.stats)
        self._choose = jax.jit(jax.vmap(choose, in_axes=(0, None)))
        extend = functools.partial(context_lib.extend, history=agent.history)
        self._extend = jax.jit(jax.vmap(extend))
        dims, window = len(agent.info.action_low), agent.model.config.window
        begin = functools.partial(context_lib.begin, action_dim=dims, window=window)
        self.contexts = jax.vmap(begin)(jnp.asarray(obs, jnp.float32))

    def ask(self, target_fraction: float) -> None:
        """Let the policy ask for this fraction of the best return in the training data."""
        target = self._agent.target_return(target_fraction)
        self._target = jnp.float32(target / self._agent.info.max_episode_steps)

    def put(self, moment: Moment) -> None:
        """Bring all environments to one state."""
        for env in self.envs:
            simulator.set_physics_state(env, moment.state)
        self.alive[:] = True
        count = len(self.envs)
        self.contexts = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), moment.context)

    def moment(self, e: int) -> Moment:
        """Note the present state of one environment."""
        state = simulator.physics_state(self.envs[e])
        return Moment(state, jax.tree.map(lambda x: x[e : e + 1], self.contexts))

    def policy(self) -> np.ndarray:
        """Ask the return-conditioned policy, [E, A] in [-1, 1]."""
        return np.asarray(self._choose(self.contexts, self._target))

    def observations(self) -> np.ndarray:
        """Return the present states, [E, S]."""
        return np.asarray(self.contexts.states)[np.arange(len(self.envs)), self.contexts.slot]

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Step those that still run; return the rewards, [E], zero where an episode is over."""
        rewards = np.zeros(len(self.envs), np.float32)
        obs = self.observations()
        raw = self._agent.to_environment(actions)
        for e in np.flatnonzero(self.alive):
            obs[e], rewards[e], terminal, _, _ = self.envs[e].step(raw[e])
            self.alive[e] = not terminal
        self.contexts = self._extend(self.contexts, actions, rewards, obs)
        return rewards


def reach(
    agent: agent_lib.Agent,
    count: int,
    first_step: int,
    last_step: int,
    seed: int,
    target_fraction: float = 1.0,
) -> list[Moment]:
    """Let the policy act in one environment per moment until a random step of the episode.

    Args:
        agent: whose policy acts.
        count: moments; fewer are returned where episodes end before.
        first_step, last_step: of the episode, between which the moments are.
        seed: of the episodes and the steps.
        target_fraction: that the policy asks for.

    Raises:
        UserError: a number is out of range, or no episode was long enough.
    """
    if count < 1 or not agent.history <= first_step < last_step:
        raise UserError(
            f"{count} moments from step {first_step} up to step {last_step} were asked for; give "
            f"at least one, a first step from {agent.history} on, when the window is full, and a "
            "last step after it"
        )
    stops = np.random.default_rng(seed).integers(first_step, last_step, count)
    simulators, moments = Simulators(agent, count, seed, target_fraction), []
    with progress.progress(int(stops.max()), "reaching states") as bar:
        for step in range(int(stops.max()) + 1):
            for e in np.flatnonzero((stops == step) & simulators.alive):
                moments.append(simulators.moment(int(e)))
            simulators.step(simulators.policy())
            bar.update(step)
    if not moments:
        raise UserError(
            f"all {count} episodes ended before their step was reached; lower "
            f"--config.last_step={last_step}"
        )
    return moments


def execute(
    simulators: Simulators, moment: Moment, candidates: np.ndarray, steps_after: int
) -> Real:
    """Execute the actions of each candidate, [N, h, A], and the policy's after them."""
    simulators.put(moment)
    states, rewards = [], []
    for n in range(candidates.shape[1]):
        states.append(simulators.observations())
        rewards.append(simulators.step(candidates[:, n]))
    later = [simulators.step(simulators.policy()) for _ in range(steps_after)]
    returns = np.sum(rewards + later, axis=0, dtype=np.float64)
    return Real(np.stack(states, 1), np.stack(rewards, 1), returns)
