"""Looks at one pretraining step tensor by tensor: what is not finite, and in which windows."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.runtime import cli
from experiments.training import nonfinite
from mtm_jax import tokens
from mtm_jax.config import PretrainConfig
from mtm_jax.errors import UserError
from mtm_jax.models import trajectory_model
from mtm_jax.training import dataset, objective, pretrain

SHOWN = 8


class Step(NamedTuple):
    """What a pretraining step needs besides its state and windows."""

    config: PretrainConfig
    model: trajectory_model.Model
    stats: Mapping[str, tokens.Stats]

    def examine(self, state: pretrain.TrainState, data: dataset.Dataset) -> nonfinite.Examined:
        """Draw the windows of the next step and say which of them are not finite."""
        size, window = self.config.batch_size, self.model.config.window
        key = pretrain.step_keys(state)[0]
        windows = dataset.sample_windows(key, data, size, window)
        count = data.values["states"].shape[0]
        numbered = dataclasses.replace(data, values={"rows": jnp.arange(count)[:, None]})
        rows = dataset.sample_windows(key, numbered, size, window).values["rows"][:, 0, 0]
        blamed = bad_windows(self.tensors(state, windows))
        arrays = {f"values/{m}": v for m, v in windows.values.items()} | {"rows": rows}
        arrays |= {f"available/{m}": v for m, v in windows.available.items()}
        return nonfinite.Examined(describe(blamed, rows), arrays | {"valid": windows.valid})

    def tensors(self, state: pretrain.TrainState, windows: dataset.Windows) -> dict[str, Any]:
        """Compute what a step computes: tokens, outputs, losses and gradients."""
        _, mask_key, *keys = pretrain.step_keys(state)
        dropout_key, noise_key = (pretrain.drawing_key(self.config, key) for key in keys)
        batch = objective.make_batch(mask_key, self.config, self.model, self.stats, windows)
        batch = objective.add_noise(noise_key, self.config, self.model, batch)
        sigma = pretrain.entropy_multiplier(self.config, state)

        @jax.jit
        def differentiate(params: dict) -> tuple[dict, tuple]:
            def total(params: dict) -> tuple[jax.Array, tuple]:
                outputs = self.model.apply(params, batch.inputs(), batch.visible, dropout_key)
                value, metrics = objective.loss(self.config, self.model, outputs, batch, sigma)
                return value, (outputs, metrics)

            return jax.grad(total, has_aux=True)(params)

        gradients, (outputs, metrics) = differentiate(state.params)
        return {
            "tokens": dict(batch.tokens),
            "parameters": state.params,
            "outputs": outputs,
            "losses": metrics,
            "gradients": gradients,
        }


def bad_windows(tensors: Mapping[str, Any]) -> np.ndarray:
    """Find the windows whose tokens are not finite, or else whose outputs are not."""
    for group in ("tokens", "outputs"):
        leaves = jax.tree.leaves(tensors[group])
        bad = [~np.isfinite(np.asarray(x, np.float32)).reshape(len(x), -1) for x in leaves]
        found = np.flatnonzero(np.concatenate(bad, axis=1).any(axis=1))
        if len(found):
            return found
    return np.zeros(0, int)


def describe(blamed: np.ndarray, rows: np.ndarray) -> str:
    """Say which windows of the batch are to blame and where in the data they begin."""
    if len(blamed) == 0:
        return "every window of the batch is finite by itself"
    if len(blamed) == len(rows):
        return f"all {len(rows)} windows of the batch are affected"
    shown = [f"{b} (training row {int(rows[b])})" for b in blamed[:SHOWN]]
    more = f" and {len(blamed) - SHOWN} more" if len(blamed) > SHOWN else ""
    return f"of the batch, windows {', '.join(shown)}{more} are not finite"


def replay(path: pathlib.Path, step: Step, like: pretrain.TrainState) -> None:
    """Repeat a stored step and print which tensors are not finite.

    Raises:
        UserError: the file cannot be read, or is of another model.
    """
    state, batch = nonfinite.read(path, like)
    windows = _windows(path, batch)
    tensors = step.tensors(state, windows)
    lines = [line for name, tree in tensors.items() for line in nonfinite.bad_arrays({name: tree})]
    cli.say(f"step {int(state.step) + 1}: {describe(bad_windows(tensors), batch['rows'])}")
    for line in lines or ["every tensor is finite"]:
        cli.say(f"  {line}")


def _windows(path: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dataset.Windows:
    def group(prefix: str) -> dict[str, jax.Array]:
        return {
            k.removeprefix(prefix): jnp.asarray(v) for k, v in batch.items() if k.startswith(prefix)
        }

    if not {"valid", "rows"} <= batch.keys():
        raise UserError(f"{path} holds no windows; give a file of a pretraining run's debug folder")
    return dataset.Windows(group("values/"), jnp.asarray(batch["valid"]), group("available/"))
