"""What looks wrong in data that can be read: a warning of the logger "mtm_jax" says it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from mtm_jax.data import info as data_info
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo

_LOG = logging.getLogger("mtm_jax")
_PART = 4096  # rows that are looked at before all are
CONSTANT = 1e-4  # tokens.MIN_SCALE, which would need jax: what varies less is not normalised
_NEAR = 1e-3  # of the range between the bounds; clipping by so much changes nothing
# Suite -> share of all action values, and of those of one dimension, that may lie beyond a bound.
# The hand clips its actions itself, and people's demonstrations often exceed them.
_SHARES = {"adroit": (0.25, 1.0)}
_SHARE = (0.05, 0.2)
ALLOW_CLIPPING = (
    "--config.data.clip_actions=True for a training, --config.clip_actions=True for "
    "experiments.data, clip_actions=True in Python"
)
_FEW = 5  # values, which may be any share of a tiny data set
_REAL_LIMIT = ("gymnasium", "walker")  # suites in which no demonstration runs on


def warn(what: str, arrays: Mapping[str, np.ndarray], info: DataInfo) -> None:
    """Say what actions, rewards and terminals of checked data look like, where it looks wrong.

    Args:
        what: the data, for messages.
        arrays: actions [N, A], rewards [N], terminals [N] bool and lengths [episodes].
        info: where the data come from.
    """
    least, most = float(arrays["rewards"].min()), float(arrays["rewards"].max())
    if 0 < most - least < CONSTANT * min(1.0, max(-least, most)):
        _LOG.warning(
            "%s: rewards lie between %.9g and %.9g and look constant to a model; subtract what "
            "they have in common",
            *(what, least, most),
        )
    if whole_numbers(arrays["actions"]):
        _LOG.warning(
            "%s: every action is a whole number, as those of a discrete environment are; they are "
            "taken for continuous ones, which is wrong if they are choices among alternatives",
            what,
        )
    ended = terminals_at_limit(arrays["terminals"], arrays["lengths"], info)
    if ended:
        _LOG.warning(
            "%s: all %d episodes that reach the time limit of %d steps are marked as terminal "
            "there; nothing is bootstrapped after a terminal step, so mark them as timeouts if the "
            "limit ended them",
            *(what, ended, info.max_episode_steps),
        )


def whole_numbers(actions: np.ndarray) -> bool:
    """Whether actions take several values, all of them whole numbers."""
    for part in (actions[:_PART], actions):
        if not np.array_equal(part, np.round(part)):
            return False
    return bool(actions.min() < actions.max())


def terminals_at_limit(terminals: np.ndarray, lengths: np.ndarray, info: DataInfo) -> int:
    """Count the episodes of the time limit's length if all of them are terminal, else 0."""
    at_limit = terminals[np.cumsum(lengths) - 1][lengths == info.max_episode_steps]
    spec = data_info.spec_of(info)
    # The longest of demonstrations, or of data without a limit, may well have been terminal.
    least = 1 if spec is not None and spec.suite in _REAL_LIMIT else 2
    return len(at_limit) if len(at_limit) >= least and at_limit.all() else 0


def without_resets(what: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Take what follows a last step for unknown where it is the next episode's first observation.

    Environments that reset themselves return the reset in place of the last observation.

    Args:
        what: the data, for messages.
        arrays: observations [N, S], final_observations [episodes, S] and lengths [episodes].

    Returns:
        [episodes, S] final observations; NaN where unknown.
    """
    finals, lengths = arrays["final_observations"], arrays["lengths"]
    following = arrays["observations"][np.cumsum(lengths)[:-1]]  # [episodes - 1, S]
    reset = np.isclose(finals[:-1], following, rtol=1e-5, atol=1e-6).all(axis=1)
    if not reset.any():
        return finals
    _LOG.warning(
        "%s: in %d of %d episodes the observation after the last step (from next_observations) is "
        "the first of the next episode, which a reset has drawn; it is taken for unknown",
        *(what, reset.sum(), len(lengths)),
    )
    kept = finals.copy()
    kept[:-1][reset] = np.nan
    return kept


def clip(what: str, actions: np.ndarray, info: DataInfo, any_number: bool = False) -> np.ndarray:
    """Clip actions [N, A] to the bounds in `info`, and say how many and how far.

    Args:
        what: the data, for messages.
        actions: [N, A] float32.
        info: whose bounds they are.
        any_number: whether more than a few may lie beyond them.

    Raises:
        UserError: more do, and may not.
    """
    low, high = np.float32(info.action_low), np.float32(info.action_high)
    excess = np.maximum(actions - high, low - actions)  # [N, A], positive = beyond a bound
    outside = excess > 0
    if not outside.any():
        return actions
    if not any_number:
        _check_shares(what, actions, excess > _NEAR * (high - low), info)
    _LOG.warning(
        "%s: clipped %d of %d action values to the bounds of %s; the farthest lay %.3g outside",
        *(what, outside.sum(), actions.size, info.env_id or info.name, excess.max()),
    )
    return np.clip(actions, low, high)


def _check_shares(what: str, actions: np.ndarray, beyond: np.ndarray, info: DataInfo) -> None:
    """Refuse actions that were recorded in another unit, or in another environment."""
    spec = data_info.spec_of(info)
    of_all, of_one = _SHARES.get("" if spec is None else spec.suite, _SHARE)
    shares = beyond.mean(axis=0)  # [A]
    if beyond.sum() <= _FEW or (beyond.mean() <= of_all and shares.max() <= of_one):
        return
    worst = int(shares.argmax())
    raise UserError(
        f"{what}: {beyond.mean():.0%} of the action values lie beyond the bounds of "
        f"{info.env_id or info.name}; those of dimension {worst} range from "
        f"{actions[:, worst].min():.4g} to {actions[:, worst].max():.4g}, and its bounds are "
        f"{info.action_low[worst]:g} and {info.action_high[worst]:g}; rescale them, or have them "
        f"clipped: {ALLOW_CLIPPING}"
    )
