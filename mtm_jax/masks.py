"""Masks: the distributions of training and the prompts of inference. True = visible.

Everything is written for one window of T steps; callers vmap over samples. A mask is a dict
modality -> bool [T]; that of a prompt covers all MODALITIES, and callers select theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax.config import MaskConfig
from mtm_jax.errors import UserError
from mtm_jax.types import MODALITIES

# Names of the inference prompts, see `prompt`.
PROMPTS = ("rcbc", "bc", "fd", "rp", "id", "pi", "goal")
# The modalities that each prompt is meant to predict.
PREDICTS = {
    "rcbc": ("actions",),
    "bc": ("actions",),
    "fd": ("states", "returns", "rewards"),
    "rp": ("returns", "rewards"),
    "id": ("actions",),
    "pi": ("states",),
    "goal": ("actions",),
}
TRAINING_DISTRIBUTIONS = ("random_autoregressive", "random")


def prompt(
    name: str, i: Array | int, window: int, goal: Array | int | None = None
) -> dict[str, Array]:
    """Build an inference prompt (MTM section 3.3, M3PC figure 2).

    rcbc  states 0..i, actions 0..i-1, every return   -> actions
    bc    states 0..i, actions 0..i-1                 -> actions
    fd    states 0..i, every action                   -> later states, rewards, returns
    rp    every state and action                      -> rewards, returns
    id    every state, actions 0..i-1                 -> actions
    pi    states 0..i and the goal, actions 0..i-1    -> the states between
    goal  the same visibility as pi                   -> actions (the single-mask baseline)

    Args:
        name: one of PROMPTS.
        i: slot of the current step, 0 <= i < window; may be traced.
        window: T.
        goal: slot of the goal, i < goal < window; may be traced. None: the last slot.

    Returns:
        modality -> bool [T].
    """
    if name not in PROMPTS:
        raise ValueError(f"unknown prompt {name!r}; choose one of {', '.join(PROMPTS)}")
    slots = jnp.arange(window)
    none, every = jnp.zeros(window, bool), jnp.ones(window, bool)
    past, past_and_now = slots < i, slots <= i
    to_goal = past_and_now | (slots == (window - 1 if goal is None else goal))
    states = {"rp": every, "id": every, "pi": to_goal, "goal": to_goal}.get(name, past_and_now)
    actions = {"fd": every, "rp": every}.get(name, past)
    returns = every if name == "rcbc" else none
    return {"states": states, "returns": returns, "actions": actions, "rewards": none}


def random_subset(key: Array, window: int, fractions: Sequence[float]) -> Array:
    """Show a uniformly chosen subset of `floor(window * fraction)` slots, bool [T].

    The fraction is drawn from `fractions`.
    """
    fraction_key, order_key = jax.random.split(key)
    counts = jnp.array([int(window * f + 1e-6) for f in fractions])
    count = jax.random.choice(fraction_key, counts)
    return jax.random.permutation(order_key, window) < count


def random(
    key: Array, window: int, fractions: Sequence[float], modalities: Sequence[str] = MODALITIES
) -> dict[str, Array]:
    """Draw an independent random subset for each modality (the ablation of MTM figure 4)."""
    keys = jax.random.split(key, len(modalities))
    subsets = jax.vmap(lambda k: random_subset(k, window, fractions))(keys)  # [M, T]
    return dict(zip(modalities, subsets, strict=True))


def random_autoregressive(
    key: Array,
    window: int,
    fractions: Sequence[float],
    modality_weights: Mapping[str, float],
) -> dict[str, Array]:
    """Draw MTM's random autoregressive mask (MTM section 3.2).

    On top of random subsets, a token (m*, p) and all that follow it in the autoregressive order
    are hidden: modalities at or after m* from step p on, earlier ones from step p + 1 on.
    If every action is visible, the last is hidden, so that there is an action to predict.

    Args:
        key: random key.
        window: T.
        fractions: visible fractions of the random subsets.
        modality_weights: modality -> weight of m*; its keys are the modalities in use.

    Returns:
        modality -> bool [T], over the keys of `modality_weights`.
    """
    modalities = [m for m in MODALITIES if m in modality_weights]
    subset_key, modality_key, step_key = jax.random.split(key, 3)
    visible = random(subset_key, window, fractions, modalities)
    weights = jnp.array([modality_weights[m] for m in modalities])
    star = jax.random.categorical(modality_key, jnp.log(weights))
    step = jax.random.randint(step_key, (), 0, window)
    slots = jnp.arange(window)
    for rank, m in enumerate(modalities):
        first_hidden = jnp.where(rank >= star, step, step + 1)
        visible[m] = visible[m] & (slots < first_hidden)
    if "actions" in visible:
        last = slots == window - 1
        visible["actions"] = visible["actions"] & ~(visible["actions"].all() & last)
    return visible


def draw(
    key: Array, config: MaskConfig, window: int, modalities: Sequence[str]
) -> dict[str, Array]:
    """Draw one training mask from the configured mixture.

    Prompts draw their current slot i uniformly from 0..T-1. A modality without a weight is never
    m*, but is hidden like the others according to its place in the order.

    Returns:
        modality -> bool [T], over `modalities`.

    Raises:
        UserError: the configuration names an unknown pattern, or gives no modality a weight.
    """
    _check(config, modalities)
    pattern_key, slot_key, mask_key = jax.random.split(key, 3)
    i = jax.random.randint(slot_key, (), 0, window)
    weights = {m: dict(config.modality_weights).get(m, 0.0) for m in modalities}
    candidates = [
        _pattern(name, mask_key, i, config, window, modalities, weights)
        for name, _ in config.patterns
    ]
    if len(candidates) == 1:
        return candidates[0]
    log_weights = jnp.log(jnp.array([w for _, w in config.patterns]))
    choice = jax.random.categorical(pattern_key, log_weights)
    return {m: jnp.stack([c[m] for c in candidates])[choice] for m in modalities}


def _check(config: MaskConfig, modalities: Sequence[str]) -> None:
    known = TRAINING_DISTRIBUTIONS + PROMPTS
    for name, _ in config.patterns:
        if name not in known:
            raise UserError(f"unknown mask pattern {name!r}; choose among {', '.join(known)}")
    if not any(w > 0 for m, w in config.modality_weights if m in modalities):
        raise UserError(
            f"mask modality_weights are {dict(config.modality_weights)}, but the modalities are "
            f"{tuple(modalities)}; give at least one of these a positive weight"
        )


def _pattern(
    name: str,
    key: Array,
    i: Array,
    config: MaskConfig,
    window: int,
    modalities: Sequence[str],
    weights: Mapping[str, float],
) -> dict[str, Array]:
    if name == "random_autoregressive":
        return random_autoregressive(key, window, config.fractions, weights)
    if name == "random":
        return random(key, window, config.fractions, modalities)
    full = prompt(name, i, window)
    return {m: full[m] for m in modalities}


def hide_missing(visible: Mapping[str, Array], available: Mapping[str, Array]) -> dict[str, Array]:
    """Hide the modalities that a sample lacks (heteromodal data, MTM section 4.3).

    Args:
        visible: modality -> bool [..., T].
        available: modality -> bool [...]; a modality that is not named is available.
    """
    return {m: v & available[m][..., None] if m in available else v for m, v in visible.items()}
