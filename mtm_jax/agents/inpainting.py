"""In-painting: any mask over any window, of which all other roles are cases (MTM section 3.3)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import Array

from mtm_jax.agents import inputs
from mtm_jax.agents.pretrained import Pretrained
from mtm_jax.errors import UserError
from mtm_jax.models.trajectory_model import Model
from mtm_jax.planning import roles


def inpaint(
    agent: Pretrained,
    values: Mapping[str, Any],
    visible: Mapping[str, Any],
    reconstruct: bool = False,
) -> dict[str, np.ndarray]:
    """Predict every token of a window from those that are visible.

        found = mtm_jax.inpaint(agent, {"states": states}, {"states": known})

    Policies, world models and inverse dynamics models are masks: states and actions of the past and
    every return, for example, act as return-conditioned behaviour cloning does.

    Args:
        agent: the pretrained model.
        values: modality -> [t, D] or a batch [B, t, D]: states, actions and rewards in the
            environment's units, returns as return tokens (the average reward still to come). The
            t steps are the first of the model's window, at most all of it. Hidden values have no
            influence, and may be NaN; a modality that is not named is hidden.
        visible: modality -> [t] or [B, t] bool, True = visible; a modality that is not named is
            hidden.
        reconstruct: also predict what is visible; otherwise it is returned as it was given.

    Returns:
        modality -> [t, D], or [B, t, D] if any argument is a batch, for every modality of the
        model, in the same units; actions within their bounds.

    Raises:
        UserError: the model has no such modality; a shape does not fit; a visible value is not
            finite; or there are more steps than the window has slots.
    """
    given = {name: inputs.numbers(x, f"values[{name!r}]") for name, x in values.items()}
    shown = {name: _flags(name, x) for name, x in visible.items()}
    steps, rows = _check(agent, given, shown)
    given, shown = _windows(agent, given, shown, steps, 1 if rows is None else rows)
    raw = {m: agent.from_environment(x) if m == "actions" else x for m, x in given.items()}
    found = fill_in(agent.model, agent.params, agent.stats, raw, shown)
    found = {m: np.asarray(x) for m, x in found.items()}
    if "actions" in found:
        found["actions"] = agent.to_environment(found["actions"])
    if not reconstruct:  # here, so that no conversion of units rounds them
        found = {m: np.where(shown[m][..., None], given[m], x) for m, x in found.items()}
    return {m: x[0, :steps] if rows is None else x[:, :steps] for m, x in found.items()}


@functools.partial(jax.jit, static_argnames="model")
def fill_in(
    model: Model,
    params: dict,
    stats: roles.Stats,
    values: Mapping[str, Array],
    visible: Mapping[str, Array],
) -> dict[str, Array]:
    """Predict all tokens of B windows, modality -> [B, T, D] raw; see `roles.inpaint`."""
    return jax.vmap(functools.partial(roles.inpaint, model, params, stats))(values, visible)


def _windows(
    agent: Pretrained, values: Mapping, visible: Mapping, steps: int, rows: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Complete both to whole windows of every modality, [B, T, D] and [B, T]; the rest is hidden.

    A short episode looks the same in training.
    """
    window, given, shown = agent.model.config.window, {}, {}
    for spec in agent.model.config.modalities:
        name, dims = spec.name, len(agent.stats[spec.name].mean)
        given[name] = np.zeros((rows, window, dims), np.float32)
        shown[name] = np.zeros((rows, window), bool)
        given[name][:, :steps] = values.get(name, 0.0)
        shown[name][:, :steps] = visible.get(name, False)
    return given, shown


def _flags(name: str, x: Any) -> np.ndarray:
    """Read one modality's mask."""
    found = np.asarray(x)
    if found.dtype != bool or found.ndim not in (1, 2):
        raise UserError(
            f"visible[{name!r}] has shape {found.shape} and dtype {found.dtype}; give [t] or "
            "[B, t] booleans, True where the token is visible"
        )
    return found


def _check(
    agent: Pretrained, values: Mapping[str, np.ndarray], visible: Mapping[str, np.ndarray]
) -> tuple[int, int | None]:
    """Hold the arguments to the model and to each other; return t, and B if there is a batch."""
    if not values:
        raise UserError("values name no modality; give at least one, such as {'states': ...}")
    _check_names(agent, values, visible)
    for name, x in values.items():
        dims = len(agent.stats[name].mean)
        if x.ndim not in (2, 3) or x.shape[-1] != dims or x.size == 0:
            raise UserError(
                f"values[{name!r}] have shape {x.shape}; the model's {name} are {dims} wide, so "
                f"give [t, {dims}] or [B, t, {dims}]"
            )
    steps, rows = _sizes(values, visible)
    if steps > agent.model.config.window:
        raise UserError(
            f"values have {steps} steps, more than the model's window of "
            f"{agent.model.config.window}; give a part of them"
        )
    for name, shown in visible.items():
        wrong = ~np.isfinite(values[name]) & shown[..., None]
        if wrong.any():
            *_, step, dimension = np.argwhere(wrong)[0].tolist()
            raise UserError(
                f"values[{name!r}] are not finite at step {step}, dimension {dimension}, which is "
                "visible; hide it, or look for the cause where it was made"
            )
    return steps, rows


def _check_names(agent: Pretrained, values: Mapping, visible: Mapping) -> None:
    known = [m.name for m in agent.model.config.modalities]
    for what, names in (("values", values), ("visible", visible)):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise UserError(
                f"{what} name {unknown[0]!r}, which this model does not have; it has "
                f"{', '.join(known)}"
            )
    without = [name for name in visible if name not in values]
    if without:
        raise UserError(f"visible names {without[0]!r}, and values do not; give its values")


def _sizes(values: Mapping, visible: Mapping) -> tuple[int, int | None]:
    """Return the steps that all arguments share, and the rows of those that are a batch."""
    shapes = {f"values[{m!r}]": x.shape[:-1] for m, x in values.items()}
    shapes |= {f"visible[{m!r}]": x.shape for m, x in visible.items()}
    (first, shape), rows = next(iter(shapes.items())), {}
    for name, found in shapes.items():
        if found[-1] != shape[-1]:
            raise UserError(
                f"{name} has {found[-1]} steps and {first} has {shape[-1]}; give equally many"
            )
        rows |= {found[0]: name} if len(found) > 1 else {}
    if len(rows) > 1:
        told = " and ".join(f"{name} has {count}" for count, name in rows.items())
        raise UserError(f"batches differ in their windows: {told}; give equally many")
    return shape[-1], next(iter(rows), None)
