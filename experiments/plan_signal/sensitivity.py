"""The sensitivity instrument of `experiments.plan_signal`: do predictions follow the actions?"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mtm_jax import tokens
from mtm_jax.agents import pretrained
from mtm_jax.config import PlanConfig
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import worlds
from mtm_jax.training import dataset, iql


def sensitivity(
    agent: pretrained.Pretrained, windows: dataset.Windows, plan: PlanConfig, seed: int
) -> dict[str, float]:
    """Compare predictions for held-out windows under true actions and under random ones.

    `*_error` is the root mean squared error of the prediction under the true actions, `*_shift` how
    far random actions move that prediction, `*_spread` how much the truth varies. States and return
    tokens are those of the last step of the horizon, rewards those of the step before it, the last
    one that a utility counts.
    """
    slot, h = plan.history, plan.horizon
    true = windows.values["actions"][:, slot : slot + h]
    other = jax.random.uniform(jax.random.key(seed), true.shape, minval=-1.0)
    predicted = predict(agent, windows, plan, jnp.stack([true, other], 1))
    last = slot + h - 1
    truths = {
        "states": tokens.encode(agent.stats["states"], windows.values["states"][:, last]),
        "rewards": windows.values["rewards"][:, max(last - 1, slot), 0],
        "returns": windows.values["returns"][:, last, 0],
    }
    found = {
        "states": tokens.encode(agent.stats["states"], predicted.states[:, :, -1]),
        "rewards": predicted.rewards[:, :, max(h - 2, 0)],
        "returns": predicted.return_tokens[:, :, -1],
    }
    rows = {}
    for name, truth in truths.items():
        rows |= {
            f"{name}_error": rms(found[name][:, 0] - truth),
            f"{name}_shift": rms(found[name][:, 1] - found[name][:, 0]),
            f"{name}_spread": rms(truth - truth.mean(0)),
        }
    if plan.guidance == "critic":
        now = windows.values["states"][:, slot]
        rows |= of_critic(agent.require_critic(), now, true[:, 0], other[:, 0])
    return rows


def predict(
    agent: pretrained.Pretrained, windows: dataset.Windows, plan: PlanConfig, actions: jax.Array
) -> worlds.Rollout:
    """Roll candidates out, [B, N, h, A], from the step of each window that ends its history."""
    slot = plan.history
    world = worlds.plain_world(agent.model, agent.params, agent.stats, plan, plan.horizon)

    @jax.jit
    @jax.vmap
    def one(values: Mapping[str, jax.Array], actions: jax.Array) -> worlds.Rollout:
        zero = jnp.zeros((), jnp.int32)
        context = context_lib.Context(
            values["states"], values["actions"], values["rewards"], zero + slot, zero
        )
        return world.rollout(context, actions)

    return one(windows.values, actions)


def of_critic(
    critic: iql.Critic, states: jax.Array, true: jax.Array, other: jax.Array
) -> dict[str, float]:
    """Compare a critic's values of two actions in each state.

    Its error is not known; `q_error` is how far the members of its ensemble differ.
    """
    q_true, q_other = (iql.q_values(critic.params, critic.stats, states, a) for a in (true, other))
    return {
        "q_error": rms(q_true[0] - q_true[-1]),
        "q_shift": rms(q_other.min(0) - q_true.min(0)),
        "q_spread": rms(q_true.min(0) - q_true.min(0).mean()),
    }


def rms(x: jax.Array) -> float:
    """Root mean square."""
    return float(jnp.sqrt(jnp.mean(jnp.square(x))))
