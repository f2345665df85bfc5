"""Planning by M3PC-M in plain PyTorch: full passes, all candidates in one batch."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import torch
from torch import Tensor

from experiments.bench.pytorch import model as torch_model
from experiments.bench.pytorch import training as torch_training
from experiments.bench.pytorch.model import Peer
from mtm_jax import masks, returns
from mtm_jax.config import ModelConfig, PlanConfig
from mtm_jax.planning import context as context_lib


def decision(
    config: ModelConfig, plan: PlanConfig, context: context_lib.Context, limit: int
) -> Callable[[], np.ndarray]:
    """Make a function that makes one decision in the middle of an episode.

    Args:
        config: the model; tokens are not normalised, as in the other programs.
        plan: options of the plan, guided by returns, with xi in standard deviations.
        context: full window of one environment.
        limit: time limit of an episode, in steps.
    """
    peer = Peer(config).to(torch_training.device()).eval()
    values = jax.tree.map(np.asarray, context_lib.window_values(context, np.float32(1.0)))
    values = {m: torch.tensor(x).to(torch_training.device()) for m, x in values.items()}
    slot, t = int(context.slot), int(context.t)
    proposing, answering = (
        prompt(config, name, slot, slot + plan.horizon).to(torch_training.device())
        for name in ("rcbc", "fd")
    )

    def decide() -> np.ndarray:
        with torch.inference_mode(), torch_training.precision(config.compute_dtype):
            actions = propose(peer, plan, values, proposing, slot)
            rewards, tokens = roll_out(peer, values, actions, answering, slot)
            scores = utilities(plan, rewards, tokens, t, limit)
            return choose(plan, scores, actions).cpu().numpy()

    return decide


def propose(
    peer: Peer, plan: PlanConfig, values: dict[str, Tensor], shown: Tensor, slot: int
) -> Tensor:
    """Draw candidates from the return-conditioned policy, [N, h, A]."""
    dist = peer({m: x[None] for m, x in values.items()}, shown, ("actions",))["actions"]
    loc, log_std = (x[0, slot : slot + plan.horizon] for x in dist)
    noise = torch.randn(plan.candidates, *loc.shape, device=loc.device)
    return torch.tanh(loc + plan.spread * log_std.exp() * noise)


def roll_out(
    peer: Peer, values: dict[str, Tensor], actions: Tensor, shown: Tensor, slot: int
) -> tuple[Tensor, Tensor]:
    """Predict the rewards and return tokens of the horizon, both [N, h]."""
    count, horizon, _ = actions.shape
    tokens = {m: x.expand(count, -1, -1) for m, x in values.items()}
    tokens["actions"] = tokens["actions"].clone()
    tokens["actions"][:, slot : slot + horizon] = actions
    outputs = peer(tokens, shown, ("rewards", "returns"))
    ahead = slice(slot, slot + horizon)
    return outputs["rewards"][:, ahead, 0].float(), outputs["returns"][:, ahead, 0].float()


def prompt(config: ModelConfig, name: str, slot: int, end: int) -> Tensor:
    """Index the visible tokens of a prompt, with actions before slot `end` only, [V]."""
    names = [m.name for m in config.modalities]
    visible = {m: np.array(x) for m, x in masks.prompt(name, slot, config.window).items()}
    visible["actions"][end:] = False
    return torch_model.indices(visible, names)


def utilities(plan: PlanConfig, rewards: Tensor, tokens: Tensor, t: int, limit: int) -> Tensor:
    """Average the n-step returns of each candidate (M3PC equation 3), [N]."""
    horizon = rewards.shape[1]
    left = np.maximum(np.asarray(returns.steps_left(t + np.arange(horizon), limit)), 0)
    values = tokens * torch.tensor(left, dtype=tokens.dtype, device=tokens.device)
    later = values[:, -1]
    for n in reversed(range(horizon - 1)):
        backed_up = rewards[:, n] + plan.discount * later
        later = (1.0 - plan.lambda_) * values[:, n] + plan.lambda_ * backed_up
    return later


def choose(plan: PlanConfig, scores: Tensor, actions: Tensor) -> Tensor:
    """Average the first actions of the candidates, weighted by a softmax of utilities, [A]."""
    standard = (scores - scores.mean()) / scores.std(correction=0)
    return torch.softmax(plan.xi * standard, 0) @ actions[:, 0]
