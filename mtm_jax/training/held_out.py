"""Errors of inverse and forward dynamics over a whole split (MTM section 4.3, tables 2 and A.1).

Every window is asked one question about its last two steps, whatever answers it: the action
between them, or the state after it. Errors are squared, in units of the data's variance.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mtm_jax import masks, tokens
from mtm_jax.config import MLPConfig
from mtm_jax.errors import UserError
from mtm_jax.models.trajectory_model import Model
from mtm_jax.training import dataset, losses, mlp, objective

# Question -> the role that answers it. Under the prompt "fd" the model also sees the last action,
# which was chosen in the state asked for, as it sees planned ones; "fd_alone" hides it.
QUESTIONS = {"id": "id", "fd": "fd", "fd_alone": "fd"}

Answer = Callable[[dict, dataset.Windows], Array]  # (params, windows) -> raw answers, [B, D]


def of_model(model: Model, stats: objective.Stats, question: str) -> Answer:
    """Answer by a trajectory model under the prompt of the role.

    Raises:
        UserError: the model lacks states or actions, or its window has no two steps.
    """
    specs = {m.name: m for m in model.config.modalities}
    window, role = model.config.window, QUESTIONS[question]
    missing = {"states", "actions"} - specs.keys()
    if missing or window < 2:
        why = f"it has no {min(missing)}" if missing else "its window is a single step"
        raise UserError(f"this model cannot answer {question!r}: {why}; train another one")
    modality, offset = mlp.PREDICTS[role]
    visible = masks.prompt(role, window - 2, window)
    if question == "fd_alone":
        visible["actions"] &= jnp.arange(window) < window - 1

    def answer(params: dict, windows: dataset.Windows) -> Array:
        rows = windows.valid.shape
        shown = {m: jnp.broadcast_to(visible[m], rows) for m in specs}
        batch = objective.mask_batch(model, stats, windows, shown)
        output = model.apply(params, batch.tokens, batch.visible)[modality]
        found = tokens.decode_prediction(specs[modality], stats[modality], output)
        found = found[:, window - 2 + offset]
        return jnp.clip(found, -1.0, 1.0) if modality == "actions" else found

    return answer


def of_mlp(config: MLPConfig, stats: objective.Stats) -> Answer:
    """Answer by an MLP, from the last two steps alone."""

    def answer(params: dict, windows: dataset.Windows) -> Array:
        pair = {m: x[:, -mlp.PAIR :] for m, x in windows.values.items()}
        return mlp.predict(config, stats, params, pair)

    return answer


def errors(
    answer: Answer,
    params: dict,
    stats: objective.Stats,
    question: str,
    data: dataset.Dataset,
    window: int,
    size: int = 1024,
) -> np.ndarray:
    """Measure the mean error of every episode that is as long as the window, [episodes].

    Args:
        answer: `of_model` or `of_mlp`.
        params: what it takes.
        stats: of the training split; they say what one unit of error is.
        question: one of `QUESTIONS`.
        data: the split, made for the same `window`.
        window: T, at least 2.
        size: windows that are answered at a time.

    Raises:
        UserError: no episode is as long as the window.
    """
    role = QUESTIONS[question]
    modality, offset = mlp.PREDICTS[role]

    @jax.jit
    def measure(params: dict, data: dataset.Dataset, index: Array) -> tuple[Array, Array]:
        windows = dataset.take_windows(data, index, window)
        true = tokens.encode(stats[modality], windows.values[modality][:, window - 2 + offset])
        found = tokens.encode(stats[modality], answer(params, windows))
        # Whole windows only: an episode that is shorter has no last two slots.
        pair = windows._replace(valid=windows.valid[:, -mlp.PAIR :])
        return losses.squared_error(found, true), mlp.counted(role, pair)

    count = data.window_starts.shape[0]
    index = [jnp.minimum(jnp.arange(size) + start, count - 1) for start in range(0, count, size)]
    parts = [measure(params, data, rows) for rows in index]
    error, known = (np.concatenate([np.asarray(p[k]) for p in parts])[:count] for k in range(2))
    if not known.any():
        raise UserError(
            f"no held-out episode has {window} steps, the model's window; hold out more of the "
            "data, or choose a shorter window"
        )
    return _episode_means(data, error, known)


def _episode_means(data: dataset.Dataset, error: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Average over the known windows of each episode, [W] -> [episodes that have some]."""
    episode = np.searchsorted(np.asarray(data.last_rows), np.asarray(data.window_starts))
    counts = np.bincount(episode[known])
    totals = np.bincount(episode[known], error[known])
    return totals[counts > 0] / counts[counts > 0]
