"""Representations: the encoder's output for a state, or a state and an action (MTM section 4.5)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mtm_jax import tokens
from mtm_jax.agents import inputs
from mtm_jax.agents.pretrained import Pretrained
from mtm_jax.errors import UserError
from mtm_jax.models.trajectory_model import Model, make_model
from mtm_jax.training import td3

KINDS = ("states", "pairs")  # what is encoded for a critic: states, or states with actions


def encode(
    agent: Pretrained, states: Any, actions: Any = None, *, params: dict | None = None
) -> Array:
    """Encode states, or states with actions, into features for other learners.

        features = mtm_jax.encode(agent, obs)
        features = mtm_jax.encode(agent, obs, actions)

    It can be called inside of `jax.jit` and `jax.vmap`, and differentiated in reverse mode with
    respect to states, actions and parameters.

    Args:
        agent: the pretrained model.
        states: observations, [..., S].
        actions: in the environment's units, [..., A].
        params: parameters in place of the agent's, such as `agent.params` as they are learnt on.

    Returns:
        [..., C], C being the model's width; with actions [..., 2 C], the features of the state and
        of the action, each in view of the other. Discrete tokens have C for each dimension.

    Raises:
        UserError: the model has no actions, a width is another, or a value is not finite.
    """
    given = {"states": states} if actions is None else {"states": states, "actions": actions}
    check_model(agent, given)
    read = {name: _read(agent, name, value) for name, value in given.items()}
    if len({value.shape[:-1] for value in read.values()}) > 1:
        raise UserError(
            f"the states have shape {read['states'].shape} and the actions "
            f"{read['actions'].shape}; give one action for each state"
        )
    if actions is not None:
        read["actions"] = agent.from_environment(read["actions"])
    params = agent.params if params is None else params
    return features(agent.model, params, agent.stats, read)


@functools.partial(jax.jit, static_argnames="model")
def features(
    model: Model, params: dict, stats: Mapping[str, tokens.Stats], values: Mapping[str, Array]
) -> Array:
    """Encode a single step, which lies in the first slot of the window.

    Args:
        model: the pretrained model.
        params: its parameters, or those that `encoder_params` keeps.
        stats: of its tokens.
        values: modality -> [..., D] raw, actions in [-1, 1].

    Returns:
        [..., sum P C], the modalities in the model's order.
    """
    specs = tuple(m for m in model.config.modalities if m.name in values)
    # The first slot of any window is the same: nothing else is visible, so nothing else is needed.
    small = make_model(dataclasses.replace(model.config, modalities=specs, window=1))
    step = {m.name: values[m.name][..., None, :] for m in specs}
    lead = step[specs[0].name].shape[:-1]
    encoded = small.encode(
        params,
        tokens.encode_modalities(specs, stats, step),
        {m.name: jnp.ones(lead, bool) for m in specs},
    )
    return jnp.concatenate([x.reshape(*lead[:-1], -1) for x in encoded.values()], axis=-1)


def encoder_params(params: dict) -> dict:
    """Keep what `features` needs of a model's parameters."""
    unused = ("decoder_embed", "head")
    return {k: v for k, v in params.items() if k != "decoder" and not k.startswith(unused)}


def td3_features(agent: Pretrained, kind: str, finetuned: bool = False) -> td3.Features:
    """Show TD3 what the model makes of states, and its critics, of states with actions.

    Args:
        agent: the pretrained model.
        kind: "states": critics see features of the state and the action as it is; "pairs": features
            of both (MTM appendix E).
        finetuned: learn the encoder further.

    Raises:
        UserError: the model lacks a modality.
    """
    check_model(agent, ("states", "actions") if kind == "pairs" else ("states",))
    encoded = functools.partial(_features_of, agent)

    def of_states(params: dict, obs: Array) -> Array:
        return encoded(params, {"states": obs})

    def of_pairs(params: dict, obs: Array, actions: Array) -> Array:
        if kind == "pairs":
            return encoded(params, {"states": obs, "actions": actions})
        return jnp.concatenate([of_states(params, obs), actions], axis=-1)

    return td3.Features(of_states, of_pairs, encoder_params(agent.params), finetuned)


def _features_of(agent: Pretrained, params: dict, values: Mapping[str, Array]) -> Array:
    return features(agent.model, params, agent.stats, values)


def check_model(agent: Pretrained, names: Any) -> None:
    """Refuse to encode what a model does not know.

    Raises:
        UserError: the model lacks a modality.
    """
    known = [m.name for m in agent.model.config.modalities]
    for name in names:
        if name not in known:
            raise UserError(
                f"the model of {agent.info.name} has no {name}, its tokens are {', '.join(known)}; "
                + ("encode states alone" if name == "actions" else "choose another model")
            )


def _read(agent: Pretrained, name: str, value: Any) -> Any:
    """Hold an argument to the width of the model's tokens and, outside of jit, to finite values."""
    traced = isinstance(value, jax.core.Tracer)
    value = value if traced else inputs.numbers(value, f"the {name}")
    width = len(agent.stats[name].mean)
    if value.ndim == 0 or value.shape[-1] != width:
        raise UserError(
            f"the {name} have shape {value.shape}; the last axis must be {width}, as in "
            f"{agent.info.name}, which the model was trained on"
        )
    if not traced and not np.isfinite(value).all():
        first = tuple(np.argwhere(~np.isfinite(value))[0].tolist())
        raise UserError(f"the {name} are not finite: {value[first]} at {first}")
    return value
