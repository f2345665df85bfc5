"""Acting towards goals: backward M3PC (`planning.backward`) and its baseline, a single mask."""

from __future__ import annotations

import functools
import logging
import os

import jax
import jax.numpy as jnp
import numpy as np

from mtm_jax.agents.actor import Actor, Memory
from mtm_jax.agents.pretrained import Pretrained, with_precision
from mtm_jax.config import GoalConfig, PlanConfig, PromptConfig
from mtm_jax.data import goal_files
from mtm_jax.envs import registry
from mtm_jax.envs.goals import waypoints
from mtm_jax.errors import UserError
from mtm_jax.models.trajectory_model import Model
from mtm_jax.planning import backward, roadmap, roles
from mtm_jax.planning import context as context_lib

_LOG = logging.getLogger("mtm_jax")
METHODS = ("m3pc_goal", "goal_mask")
FAR = 3.0  # standard deviations outside of the data's range, from which a goal is warned of
# What goals may be given as: see `read`.
Given = waypoints.Goals | roadmap.Roadmap | np.ndarray | str | os.PathLike


def by_goals(
    agent: Pretrained,
    method: str,
    *,
    goals: Given | None = None,
    aim: GoalConfig | None = None,
    plan: PlanConfig | None = None,
    prompt: PromptConfig | None = None,
    target_fraction: float = 1.0,
    seed: int = 0,
    explore: bool = False,
    world: Pretrained | None = None,
) -> Actor:
    """Act towards goals; no return is asked for. See `acting.make_actor`.

    Args:
        agent: the pretrained model; the actor keeps as many past steps as leave room for a goal.
        method: one of METHODS.
        goals: states to pass through; see `read`.
        aim: how to aim at them; by default `GoalConfig()`.
        plan, prompt, explore, world: left out; the action is the mode of the inferred one.
        target_fraction, seed: without effect.

    Raises:
        UserError: there are no goals, they do not suit the model, or something was given for which
            these methods have no use.
    """
    if goals is None:
        raise UserError(f"{method} needs goals; give goals=..., such as an array of states [W, S]")
    refuse(method, plan=plan, prompt=prompt, world=world, seed=seed if explore else None)
    config = GoalConfig() if aim is None else aim
    targets, complete = targets_of(agent, goals, config)
    agent = with_precision(agent, config.compute_dtype)
    how = {"method": method, "config": config, "complete": complete}

    def explain(memory: Memory) -> backward.Decision:
        model = agent.model, agent.params, agent.stats
        return choose(*model, memory.contexts, targets, **how)

    history = agent.model.config.window - 1 - config.ahead
    return Actor(agent, history, lambda memory: explain(memory).action, explain)


@functools.partial(jax.jit, static_argnames=("model", "method", "config", "complete"))
def choose(
    model: Model,
    params: dict,
    stats: roles.Stats,
    contexts: context_lib.Context,
    goals: backward.Waypoints | roadmap.Roadmap,
    *,
    method: str,
    config: GoalConfig,
    complete: bool,
) -> backward.Decision:
    """Choose actions for E environments: every field of the decision has a leading axis E.

    The goals are those of all environments, or with a leading axis E their own; see
    `backward.decide`.
    """

    def one(context: context_lib.Context, goals: backward.Waypoints) -> backward.Decision:
        how = {"method": method, "config": config, "complete": complete}
        return backward.decide(model, params, stats, context, goals, **how)

    own = 0 if isinstance(goals, backward.Waypoints) and goals.steps.ndim == 2 else None
    return jax.vmap(one, in_axes=(0, own))(contexts, goals)


def targets_of(
    agent: Pretrained, goals: Given, config: GoalConfig
) -> tuple[backward.Waypoints | roadmap.Roadmap, bool]:
    """Check goals and put them on the device; say whether all of their dimensions are given.

    Raises:
        UserError: see `check`.
    """
    if isinstance(goals, roadmap.Roadmap):
        return goals, True
    goals = read(goals)
    check(agent, goals, config)
    arrays = goals.states, goals.steps, goals.given
    return backward.Waypoints(*map(jnp.asarray, arrays)), goals.complete


def read(goals: Given) -> waypoints.Goals:
    """Take goals as they are, of an array of states [W, S], one for each step, or of a file."""
    if isinstance(goals, waypoints.Goals):
        return goals
    if isinstance(goals, str | os.PathLike):
        return goal_files.load(goals)
    return waypoints.make(goals)


def refuse(method: str, **given: object) -> None:
    """Refuse arguments of other methods.

    Raises:
        UserError: it names the first of them that was given.
    """
    for name, value in given.items():
        if value is not None:
            raise UserError(
                f"{method} acts by the mode of the action towards a goal and takes no {name}, and "
                "one was given; leave it out"
            )


def check(agent: Pretrained, goals: waypoints.Goals, config: GoalConfig) -> None:
    """Refuse goals that do not suit the model; warn of those far outside of its data.

    Raises:
        UserError: they are of another environment or width, or farther apart than the window
            reaches.
    """
    expected, window = len(agent.stats["states"].mean), agent.model.config.window
    name = agent.info.env_id and registry.spec_of_id(agent.info.env_id).name
    if goals.env and name and goals.env != name:
        raise UserError(f"these goals are for {goals.env}, and the model was trained on {name}")
    if goals.states.shape[1] != expected:
        raise UserError(
            f"goals have {goals.states.shape[1]} dimensions, and states of {agent.info.name} have "
            f"{expected}"
        )
    least, reach = config.ahead, window - 1 if config.reach is None else config.reach
    if not least <= reach < window:
        raise UserError(
            f"a goal {max(least, reach)} steps away has no slot in a window of {window}; "
            f"choose ahead and reach from 1 to {window - 1}"
        )
    # Seen from just after a goal, the next one to aim at may be that much farther away.
    if config.reach is None and goals.spacing + least - 1 > reach:
        raise UserError(
            f"goals are up to {goals.spacing} steps apart, and a window of {window} with "
            f"ahead={least} reaches {reach - least + 1}; give goals closer together, or "
            f"GoalConfig(reach={reach}) to aim at farther ones as if they were {reach} steps away"
        )
    warn_of_far(agent, goals)


def warn_of_far(agent: Pretrained, goals: waypoints.Goals) -> None:
    """Log the dimension in which a goal lies farthest outside of the data, if it is far."""
    stats = agent.stats["states"]
    low, high, std = (np.asarray(x) for x in (stats.min, stats.max, stats.std))
    beyond = np.maximum(low - goals.states, goals.states - high) / np.maximum(std, 1e-9)
    beyond = np.where(goals.given, beyond, -np.inf)
    w, d = np.unravel_index(beyond.argmax(), beyond.shape)
    if beyond[w, d] > FAR:
        _LOG.warning(
            "goal %d is %.3g in dimension %d, which lies between %.3g and %.3g in the data: the "
            "model has seen nothing like it",
            *(w, goals.states[w, d], d, low[d], high[d]),
        )
