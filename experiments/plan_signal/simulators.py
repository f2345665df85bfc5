"""Simulators of `experiments.plan_signal`: reset to a moment, they execute candidates."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from mtm_jax.agents import acting, pretrained
from mtm_jax.agents.actor import Memory
from mtm_jax.envs import make, simulator
from mtm_jax.errors import UserError
from mtm_jax.io import progress


class Moment(NamedTuple):
    """A state that the policy reached: that of the simulator, and the actor's memory of it."""

    state: np.ndarray  # as MuJoCo packs it
    memory: Memory  # of one environment


class Real(NamedTuple):
    """What N candidates did; after the end of an episode states stay and rewards are zero."""

    states: np.ndarray  # [N, h, S], that each step of the horizon starts from
    rewards: np.ndarray  # [N, h], of these steps
    returns: np.ndarray  # [N], rewards of the candidate and of the policy after it


class Simulators:
    """Environments side by side, and the policy's memory of them; none is reset after its end."""

    def __init__(
        self, agent: pretrained.Pretrained, count: int, seed: int, target_fraction: float = 1.0
    ):
        """Begin an episode in each of `count` environments; for the target, see `ask`.

        Raises:
            UserError: the environment cannot be put into a given state.
        """
        self._agent = agent
        self.envs = [make.make(agent.info.env_id).unwrapped for _ in range(count)]
        if not isinstance(getattr(self.envs[0], "data", None), mujoco.MjData):
            raise UserError(
                f"{agent.info.env_id} cannot be put into a given state, so candidates cannot be "
                "executed from there; use a run of a MuJoCo environment of gymnasium"
            )
        seeds = np.random.SeedSequence(seed).generate_state(count).tolist()
        obs = np.stack([env.reset(seed=s)[0] for env, s in zip(self.envs, seeds, strict=True)])
        self.alive = np.ones(count, bool)
        self.ask(target_fraction)
        self.memory = self._policy.start(obs)

    def ask(self, target_fraction: float) -> None:
        """Condition the policy on this return; see `Pretrained.target_return`."""
        self._policy = acting.make_actor(self._agent, target_fraction=target_fraction)

    def put(self, moment: Moment) -> None:
        """Set all environments to one moment."""
        for env in self.envs:
            simulator.set_physics_state(env, moment.state)
        self.alive[:] = True
        count = len(self.envs)
        contexts = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), moment.memory.contexts)
        self.memory = moment.memory._replace(contexts=contexts)

    def moment(self, e: int) -> Moment:
        """Record the current state of one environment."""
        state = simulator.physics_state(self.envs[e])
        contexts = jax.tree.map(lambda x: x[e : e + 1], self.memory.contexts)
        return Moment(state, self.memory._replace(contexts=contexts))

    def policy(self) -> np.ndarray:
        """Choose the actions of the return-conditioned policy, [E, A] in [-1, 1]."""
        return self._policy.decide(self.memory)

    def observations(self) -> np.ndarray:
        """Return the current observations, [E, S]."""
        contexts = self.memory.contexts
        return np.asarray(contexts.states)[np.arange(len(self.envs)), contexts.slot]

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Step the episodes that still run; return rewards [E], zero where an episode is over."""
        rewards = np.zeros(len(self.envs), np.float32)
        obs = self.observations()
        raw = self._agent.to_environment(actions)
        for e in np.flatnonzero(self.alive):
            obs[e], rewards[e], terminal, _, _ = self.envs[e].step(raw[e])
            self.alive[e] = not terminal
        self.memory = self._policy.observe(self.memory, actions, rewards, obs)
        return rewards


def reach(
    agent: pretrained.Pretrained,
    count: int,
    first_step: int,
    last_step: int,
    seed: int,
    target_fraction: float = 1.0,
) -> list[Moment]:
    """Let the policy act in one environment per moment until a random step of the episode.

    Args:
        agent: whose policy acts.
        count: number of moments; fewer are returned if episodes end before theirs.
        first_step, last_step: range of the episode's steps to draw the moments from.
        seed: of the episodes and the steps.
        target_fraction: return to condition the policy on; see `Pretrained.target_return`.

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
