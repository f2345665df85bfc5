"""Map recorded actions to the bounds of the environment that they are evaluated in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtm_jax.data.recorded import environment, settings
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo

_ROUNDING = 1e-5  # of an action; nearer bounds are the same
Bounds = tuple[np.ndarray, np.ndarray]  # the least and the greatest action, [A] each


def rescaled_from(
    what: str,
    stored: Mapping[str, Any],
    bounds: Bounds | None,
    info: DataInfo,
    notes: list[str],
) -> Bounds | None:
    """Find the bounds that recorded actions are to be mapped from, to those of `info`.

    Args:
        what: the data, for messages.
        stored: see `settings.agree`.
        bounds: of the recorded actions; None where unknown.
        info: how the data are to be evaluated.
        notes: gets a sentence where they are to be mapped.

    Returns:
        The bounds, which a RescaleAction of the recording explains; None where they are the same.

    Raises:
        UserError: the bounds differ and nothing explains it.
    """
    rescaled = settings.RESCALE in settings.wrapper_names(what, stored)
    if bounds is None and rescaled:
        bounds = _rescale_bounds(what, stored, len(info.action_low))
    if bounds is None or len(bounds[0]) != len(info.action_low):  # validation compares dimensions
        return None
    ours = np.array(info.action_low), np.array(info.action_high)
    if all(np.allclose(b, o, rtol=0, atol=_ROUNDING) for b, o in zip(bounds, ours, strict=True)):
        return None
    if not rescaled or not (bounds[0] < bounds[1]).all():
        raise UserError(
            f"{what}: its actions have the bounds {_text(bounds)}, and those of {info.env_id} "
            f"{_text(ours)}, and no RescaleAction explains it; {environment.ELSEWHERE}"
        )
    notes.append(
        f"actions were rescaled to {_text(bounds)} by {settings.RESCALE}; they are mapped to the "
        f"{_text(ours)} of {info.env_id}"
    )
    return bounds


def _rescale_bounds(what: str, stored: Mapping, dims: int) -> Bounds:
    wrapper = next(w for w in stored["additional_wrappers"] if w.get("name") == settings.RESCALE)
    try:
        given = [wrapper["kwargs"][key] for key in ("min_action", "max_action")]
        low, high = (np.broadcast_to(np.asarray(b, np.float64), dims) for b in given)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{what}: nothing says which bounds its {settings.RESCALE} had; write its action_space"
        ) from error
    return low, high


def _text(bounds: Bounds) -> str:
    low, high = (np.unique(np.round(bound, 6)) for bound in bounds)
    if len(low) == len(high) == 1:
        return f"[{low[0]:g}, {high[0]:g}]"
    return f"{bounds[0].tolist()} to {bounds[1].tolist()}"


def rescale(actions: np.ndarray, bounds: Bounds, info: DataInfo) -> np.ndarray:
    """Map actions [N, A] from `bounds` to those of `info`, float32."""
    low, high = bounds
    ours = np.array(info.action_low), np.array(info.action_high)
    return np.float32(ours[0] + (actions - low) * ((ours[1] - ours[0]) / (high - low)))
