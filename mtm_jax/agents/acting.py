"""Acting: `make_actor` is the one way from a pretrained model and a method to a policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from numbers import Integral

import numpy as np

from mtm_jax.agents import goal_reaching, planner, pretrained, prompted, two_stage
from mtm_jax.agents.actor import Actor, Memory
from mtm_jax.agents.pretrained import Pretrained
from mtm_jax.config import GoalConfig, PlanConfig, PromptConfig
from mtm_jax.errors import UserError

# Method -> what makes its actor. A new method is one function and one row.
METHODS: dict[str, Callable[..., Actor]] = {
    "bc": prompted.by_prompt,
    "rcbc": prompted.by_prompt,
    **dict.fromkeys(planner.GUIDANCE, planner.by_planning),
    **dict.fromkeys(goal_reaching.METHODS, goal_reaching.by_goals),
    two_stage.METHOD: two_stage.by_two_stages,
}


def make_actor(
    agent: Pretrained,
    method: str = "rcbc",
    *,
    plan: PlanConfig | None = None,
    prompt: PromptConfig | None = None,
    target_fraction: float = 1.0,
    seed: int = 0,
    explore: bool = False,
    world: Pretrained | None = None,
    goals: goal_reaching.Given | None = None,
    aim: GoalConfig | None = None,
) -> Actor:
    """Make a policy for many environments.

    Args:
        agent: the pretrained model.
        method: "bc" or "rcbc" (behaviour cloning, "rcbc" conditioned on a return), "two_stage" (the
            states that a return asks for, then inverse dynamics), or planning:
            "m3pc_m" (guided by predicted returns), "m3pc_q" or "m3pc_v" (by a critic's values of
            steps or of states) or "m3pc_0" (by nothing, the control of the others); or towards
            goals, "m3pc_goal" (backward M3PC) or "goal_mask" (its baseline, a single mask).
        plan: how to plan, for methods that do; by default `planner.plan_config(method)`.
        prompt: how to act by a prompt, for "bc" and "rcbc"; by default `PromptConfig()`.
        target_fraction: return to ask for; see `Pretrained.target_return`.
        seed: of all draws: the candidates of plans, and actions that are drawn.
        explore: draw actions; otherwise they are what `prompt` says, the mode of the predicted
            distribution by default, or the expectation over the candidates of a plan.
        world: another model that predicts what the candidates of plans lead to; by default the
            agent's own.
        goals: of methods that act towards goals: `waypoints.Goals`, an array of states [W, S], one
            for each step from the first on, or an npz file of them.
        aim: how these methods aim; by default `GoalConfig()`.

    Raises:
        UserError: there is no such method, the model cannot act by it, or an argument is of the
            wrong kind.
    """
    if method not in tuple(METHODS):
        raise UserError(f"{method!r} is not a method of acting; choose one of {', '.join(METHODS)}")
    if plan is not None and not isinstance(plan, PlanConfig):
        raise UserError(f"the plan is a {type(plan).__name__}; give a mtm_jax.PlanConfig(...)")
    if prompt is not None and not isinstance(prompt, PromptConfig):
        kind = type(prompt).__name__
        raise UserError(f"the prompt is a {kind}; give a mtm_jax.PromptConfig(...)")
    if not isinstance(seed, Integral) or isinstance(seed, bool):
        raise UserError(f"the seed is {seed!r}; give a whole number")
    if aim is not None and not isinstance(aim, GoalConfig):
        raise UserError(f"the aim is a {type(aim).__name__}; give a mtm_jax.GoalConfig(...)")
    pretrained.check_fraction(target_fraction)
    towards = {"goals": goals, "aim": aim}
    if method not in goal_reaching.METHODS:
        if goals is not None or aim is not None:
            raise UserError(
                f"{method} acts towards no goals, and some were given; use m3pc_goal or goal_mask"
            )
        towards = {}
    return METHODS[method](
        *(agent, method),
        plan=plan,
        prompt=prompt,
        target_fraction=target_fraction,
        seed=int(seed),
        explore=explore,
        world=world,
        **towards,
    )


@dataclasses.dataclass(frozen=True)
class Group:
    """Actors side by side: the first acts in the first E environments, the next in the next E."""

    members: tuple[Actor, ...]

    def start(self, obs: np.ndarray) -> list[Memory]:
        """Begin episodes; see `Actor.start`."""
        return [actor.start(rows) for actor, rows in self._each(obs)]

    def decide(self, memory: list[Memory]) -> np.ndarray:
        """Choose the actions of all environments."""
        pairs = zip(self.members, memory, strict=True)
        actions = [actor.decide(own) for actor, own in pairs]  # all before the first is waited for
        return np.concatenate(actions)

    def observe(
        self, memory: list[Memory], actions: np.ndarray, rewards: np.ndarray, obs: np.ndarray
    ) -> list[Memory]:
        """Remember a step; see `Actor.observe`."""
        rows = zip(memory, self._each(actions, rewards, obs), strict=True)
        return [actor.observe(own, *step) for own, (actor, *step) in rows]

    def _each(self, *arrays: np.ndarray) -> list[tuple]:
        """Pair every member with its rows."""
        parts = (np.split(np.asarray(x), len(self.members)) for x in arrays)
        return list(zip(self.members, *parts, strict=True))


def make_group(
    agents: Sequence[Pretrained],
    method: str = "rcbc",
    *,
    prompt: PromptConfig | None = None,
    target_fraction: float = 1.0,
    seed: int = 0,
) -> Group:
    """Let several models act side by side.

    Args:
        agents: models that were trained on one data set.
        method, prompt, target_fraction, seed: see `make_actor`.

    Raises:
        UserError: the models are of different data, or one cannot act by this method.
    """
    for other in agents[1:]:
        if other.info != agents[0].info:
            raise UserError(
                "models that act side by side must be of one data set, and these are of "
                f"{agents[0].info} and of {other.info}"
            )
    settings = {"prompt": prompt, "target_fraction": target_fraction, "seed": seed}
    return Group(tuple(make_actor(agent, method, **settings) for agent in agents))
