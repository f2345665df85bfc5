"""Acting: `make_actor` turns a pretrained model into a policy for many environments at once.

A method says how to act. Whatever the method, the result is one `Actor`; it keeps nothing, what an
episode has shown goes in and comes out as a `Memory`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mtm_jax.agents import observations, planner
from mtm_jax.agents.pretrained import Pretrained
from mtm_jax.config import PlanConfig
from mtm_jax.errors import UserError
from mtm_jax.models.trajectory_model import Model
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import forward, roles


class Memory(NamedTuple):
    """What an actor knows of the running episodes."""

    contexts: context_lib.Context  # of each environment, leading axis E
    decisions: int  # made so far; the next one draws from a key of its own


@dataclasses.dataclass(frozen=True)
class Actor:
    """A policy for E environments.

    `begin` and `act` are what a rollout needs; they are `start` or `observe`, then `decide`.
    Actions are [E, A] in [-1, 1], rewards [E], observations [E, S].

    Attributes:
        agent: the model, or the first of several that act together.
        history: past steps in view.
        key: of all random draws.
        decider: chooses actions; see `planner.Decider`.
    """

    agent: Pretrained
    history: int
    key: Array
    decider: planner.Decider

    def begin(self, obs: np.ndarray) -> tuple[np.ndarray, Memory]:
        """Choose the first actions of episodes that start with `obs`."""
        return self.decide(self.start(obs))

    def act(
        self, memory: Memory, actions: np.ndarray, rewards: np.ndarray, obs: np.ndarray
    ) -> tuple[np.ndarray, Memory]:
        """Choose actions after a step: `actions` as executed, their rewards and what followed."""
        return self.decide(self.observe(memory, actions, rewards, obs))

    def start(self, obs: np.ndarray, decisions: int = 0) -> Memory:
        """Remember the first observations of episodes.

        Args:
            obs: [E, S].
            decisions: made in earlier episodes, so that this one has draws of its own.

        Raises:
            UserError: see `observations.batch`.
        """
        obs = observations.batch(obs, self.agent)
        return Memory(self._windows.begin(obs), decisions)

    def observe(
        self, memory: Memory, actions: np.ndarray, rewards: np.ndarray, obs: np.ndarray
    ) -> Memory:
        """Remember a step: `actions` as executed, their rewards and what followed.

        Raises:
            UserError: see `observations.batch`.
        """
        obs = observations.batch(obs, self.agent)
        contexts = self._windows.extend(memory.contexts, actions, rewards, obs)
        return memory._replace(contexts=contexts)

    def decide(self, memory: Memory) -> tuple[np.ndarray, Memory]:
        """Choose actions for the present observations.

        Raises:
            UserError: planning met a value that is not finite.
        """
        actions = self.decider.decide(memory.contexts, self._key_of(memory))
        return actions, memory._replace(decisions=memory.decisions + 1)

    def explain(self, memory: Memory) -> forward.Plan:
        """Show the plans that `decide` would act on, with a leading axis E on every field."""
        return self.decider.explain(memory.contexts, self._key_of(memory))

    def _key_of(self, memory: Memory) -> Array:
        return jax.random.fold_in(self.key, memory.decisions)

    @property
    def _windows(self) -> Windows:
        action_dim, window = len(self.agent.info.action_low), self.agent.model.config.window
        return compiled_windows(action_dim, window, self.history)


def make_actor(
    agent: Pretrained,
    method: str = "rcbc",
    *,
    plan: PlanConfig | None = None,
    target_fraction: float = 1.0,
    seed: int = 0,
    explore: bool = False,
    world: Pretrained | None = None,
) -> Actor:
    """Make a policy for many environments.

    Args:
        agent: the pretrained model.
        method: one of `METHODS`: "bc", "rcbc", "m3pc_m" or "m3pc_q".
        plan: how to plan, for methods that do; by default `planner.plan_config(method)`.
        target_fraction: return to ask for; see `Pretrained.target_return`.
        seed: of the draws: candidates of plans, and actions under `explore`.
        explore: draw actions instead of taking the mode, or the expectation over a plan's
            candidates.
        world: another model, which predicts what the candidates of plans lead to.

    Raises:
        UserError: there is no such method, or the model cannot act by it.
    """
    check_method(method)
    if explore:
        _check_distribution(agent)
    decider = METHODS[method](
        agent, method, plan=plan, target_fraction=target_fraction, explore=explore, world=world
    )
    return Actor(agent, decider.history, jax.random.key(seed), decider)


def make_group_actor(
    agents: Sequence[Pretrained], method: str = "rcbc", *, target_fraction: float = 1.0
) -> Actor:
    """Make one policy of several models: the first acts in the first E environments, and so on.

    Args:
        agents: models of one configuration, trained on one data set.
        method: "rcbc" or "bc".
        target_fraction: return to ask for; see `Pretrained.target_return`.

    Raises:
        UserError: the method plans, or the models differ in more than their parameters.
    """
    first, *others = agents
    if not others:
        return make_actor(first, method, target_fraction=target_fraction)
    for other in others:
        if (other.model.config, other.info, other.history) != (
            *(first.model.config, first.info, first.history),
        ):
            raise UserError("models that act together must be of one configuration and data set")
    if method not in roles.POLICIES:
        raise UserError(
            f"models act together by {' or '.join(roles.POLICIES)} only, not by {method!r}"
        )
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(agent.params for agent in agents))
    choose = compiled_group_prompt(first.model, method, len(agents))
    decider = _prompted_decider(choose, params, first, _target(first, method, target_fraction))
    return Actor(first, first.history, jax.random.key(0), decider)


class Windows(NamedTuple):
    """Compiled `planning.context` for E environments."""

    begin: Callable[[np.ndarray], context_lib.Context]
    extend: Callable[..., context_lib.Context]


# Programs are kept, so that all actors of a model share what has been compiled.


@functools.lru_cache(maxsize=64)
def compiled_windows(action_dim: int, window: int, history: int) -> Windows:
    """Compile the windows of actors that keep `history` past steps."""
    begin = functools.partial(context_lib.begin, action_dim=action_dim, window=window)
    extend = functools.partial(context_lib.extend, history=history)
    return Windows(jax.jit(jax.vmap(begin)), jax.jit(jax.vmap(extend)))


@functools.lru_cache(maxsize=64)
def compiled_prompt(model: Model, method: str, explore: bool) -> Callable[..., Array]:
    """Compile decisions by a prompt: (params, stats, contexts, target, key) -> [E, A]."""

    def choose(
        params: dict, stats: dict, contexts: context_lib.Context, target: Array, key: Array
    ) -> Array:
        act = functools.partial(roles.act, model, params, stats, prompt=method)
        if not explore:
            return jax.vmap(lambda context: act(context, target))(contexts)
        keys = jax.random.split(key, contexts.slot.shape[0])
        return jax.vmap(lambda context, key: act(context, target, key=key))(contexts, keys)

    return jax.jit(choose)


@functools.lru_cache(maxsize=64)
def compiled_group_prompt(model: Model, method: str, members: int) -> Callable[..., Array]:
    """Compile the same for several models, whose parameters are stacked; [M E, A]."""
    choose = compiled_prompt(model, method, explore=False)

    def together(
        params: dict, stats: dict, contexts: context_lib.Context, target: Array, key: Array
    ) -> Array:
        parts = jax.tree.map(lambda x: x.reshape(members, -1, *x.shape[1:]), contexts)
        actions = jax.vmap(choose, in_axes=(0, None, 0, None, None))(
            params, stats, parts, target, key
        )
        return jax.lax.collapse(actions, 0, 2)

    return jax.jit(together)


def by_prompt(
    agent: Pretrained,
    method: str,
    *,
    plan: PlanConfig | None,
    target_fraction: float,
    explore: bool,
    world: Pretrained | None,
) -> planner.Decider:
    """Act by behaviour cloning, conditioned on a return under "rcbc".

    Raises:
        UserError: a plan or a world model is given, which this method has no use for.
    """
    if plan is not None or world is not None:
        given = "a plan" if plan is not None else "a world model"
        raise UserError(
            f"{method} does not plan, and {given} was given; "
            f"choose {' or '.join(planner.GUIDANCE)}, or leave it out"
        )
    choose = compiled_prompt(agent.model, method, explore)
    target = _target(agent, method, target_fraction)
    return _prompted_decider(choose, agent.params, agent, target)


def _target(agent: Pretrained, method: str, target_fraction: float) -> Array:
    return jnp.zeros(()) if method == "bc" else agent.target_token(target_fraction)


def _prompted_decider(
    choose: Callable[..., Array], params: dict, agent: Pretrained, target: Array
) -> planner.Decider:
    def decide(contexts: context_lib.Context, key: Array) -> np.ndarray:
        return np.asarray(choose(params, agent.stats, contexts, target, key))

    def explain(contexts: context_lib.Context, key: Array) -> Any:
        raise UserError("this actor does not plan, so there are no plans to explain")

    return planner.Decider(agent.history, decide, explain)


# Method -> what makes its decider.
METHODS: dict[str, Callable[..., planner.Decider]] = {
    **dict.fromkeys(roles.POLICIES, by_prompt),
    **dict.fromkeys(planner.GUIDANCE, planner.by_planning),
}


def check_method(method: str) -> None:
    """Refuse a method that does not exist.

    Raises:
        UserError: it names those that do.
    """
    if method not in METHODS:
        raise UserError(f"{method!r} is not a policy; choose one of {', '.join(METHODS)}")


def _check_distribution(agent: Pretrained) -> None:
    head = next(m.head for m in agent.model.config.modalities if m.name == "actions")
    if head != "tanh_normal":
        raise UserError(
            f"this model predicts single actions (head {head!r}), so a seed draws nothing; "
            "leave the seed out"
        )
