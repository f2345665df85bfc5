"""Two-stage inference: the states that a return asks for, then the action that leads to them.

For models that have seen many states and few actions (MTM section 4.4). Written for one window.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from mtm_jax.models.trajectory_model import Model
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import roles


def act(
    model: Model, params: dict, stats: roles.Stats, context: context_lib.Context, target: Array
) -> Array:
    """Choose an action for the current slot, which must not be the last of the window.

    1. Predict the later states from those so far and the return asked for; actions are hidden.
    2. Infer the action by inverse dynamics: states and earlier actions shown, returns hidden.

    Args:
        model, params, stats: the pretrained model.
        context: the window of recent history.
        target: return token to ask for, [].

    Returns:
        [A] in [-1, 1].
    """
    slots = jnp.arange(model.config.window)
    none, known = jnp.zeros_like(slots, bool), slots <= context.slot
    visible = {"states": known, "returns": ~none, "actions": none, "rewards": none}
    values = context_lib.window_values(context, target)
    outputs = roles.show(model, params, stats, values, visible)
    wanted = roles.decode(model, stats, outputs)["states"]
    states = jnp.where(known[:, None], context.states, wanted)
    return roles.inverse_dynamics(model, params, stats, states, context.actions, context.slot)
