"""The training step in plain PyTorch, as a competent user would write it.

Data on the device, fused AdamW, and bfloat16 by autocast on CUDA. torch.compile is not used: on the
CPU it needs a C++ compiler, which users may lack.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import jax
import numpy as np
import torch
from torch import Tensor

from experiments.bench.pytorch import model as torch_model
from experiments.bench.pytorch.model import Peer, TanhNormal
from mtm_jax import distributions, masks
from mtm_jax.config import LossConfig, MaskConfig, PretrainConfig

_DRAWN = 1024  # masks from which typical ones are chosen


def device() -> str:
    """Name the device that PyTorch computes on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def prepare() -> None:
    """Use all cores, and on CUDA the matmul precision of jax; call it on the timing thread."""
    torch.set_num_threads(os.cpu_count())
    torch.set_float32_matmul_precision("high" if device() == "cuda" else "highest")


@contextlib.contextmanager
def precision(compute_dtype: str) -> Iterator[None]:
    """Compute in bfloat16 if that is the compute type."""
    with torch.autocast(device(), torch.bfloat16, enabled=compute_dtype == "bfloat16"):
        yield


def typical_masks(config: MaskConfig, window: int, names: list[str], count: int) -> list[Tensor]:
    """Draw masks whose numbers of visible tokens are the mid-quantiles of their distribution."""
    keys = jax.random.split(jax.random.key(0), _DRAWN)
    drawn = jax.jit(jax.vmap(lambda key: masks.draw(key, config, window, names)))(keys)
    drawn = {m: np.asarray(drawn[m]) for m in names}
    order = np.argsort(sum(drawn[m].sum(-1) for m in names))
    chosen = order[((np.arange(count) + 0.5) / count * _DRAWN).astype(int)]
    each = [{m: drawn[m][k] for m in names} for k in chosen]
    return [torch_model.indices(mask, names).to(device()) for mask in each]


def training(
    settings: PretrainConfig, values: dict[str, np.ndarray], starts: np.ndarray, steps: int
) -> Callable[[], float]:
    """Make a function that takes `steps` training steps on windows of a data set.

    Args:
        settings: model, masks, losses and optimiser.
        values: modality -> [N, D], normalised.
        starts: first row of every window, [W].
        steps: steps per call, each with a mask of its own.
    """
    config, optim = settings.model, settings.optim
    peer = Peer(config).to(device())
    start = float(np.log(settings.loss.initial_sigma))
    sigma = torch.tensor(start, device=device(), requires_grad=True)
    optimizer = torch.optim.AdamW(
        _groups(peer, optim.weight_decay), optim.learning_rate, (optim.b1, optim.b2), fused=True
    )
    dual = torch.optim.Adam([sigma], settings.loss.sigma_learning_rate)
    data = {m.name: _on_device(values[m.name]) for m in config.modalities}
    rows, slots = _on_device(starts), torch.arange(config.window, device=device())
    shown = typical_masks(settings.masks, config.window, list(data), steps)

    def step(visible: Tensor) -> Tensor:
        first = rows[torch.randint(len(rows), (settings.batch_size,), device=device())]
        index = first[:, None] + slots
        tokens = {m: x[index] for m, x in data.items()}
        with precision(config.compute_dtype):
            outputs = peer(tokens, visible)
        total, entropy = loss(settings.loss, outputs, tokens, visible, sigma.exp().detach())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        dual.zero_grad()
        (sigma.exp() * (entropy.detach() - settings.loss.entropy_target)).backward()
        dual.step()
        return total.detach()

    return lambda: float(torch.stack([step(visible) for visible in shown]).sum())


def loss(
    config: LossConfig,
    outputs: dict[str, Tensor | TanhNormal],
    tokens: dict[str, Tensor],
    visible: Tensor,
    sigma: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the loss of `mtm_jax.training.objective` without padded steps, and the entropy."""
    total, entropy = torch.zeros((), device=visible.device), None
    window, names = next(iter(tokens.values())).shape[1], list(tokens)
    seen = torch.zeros(len(names) * window, device=visible.device)
    seen[visible] = 1.0
    for name, shown in zip(names, seen.split(window), strict=True):
        output, target = outputs[name], tokens[name]
        if isinstance(output, TanhNormal):
            nll, entropy, error = action_losses(config, output, target, 1.0 - shown)
            total = total + (error.mean(-1) * shown).mean() + nll - sigma * entropy
        else:
            total = total + (output.float() - target).square().mean()
    return total, entropy


def action_losses(
    config: LossConfig, dist: TanhNormal, actions: Tensor, hidden: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return negative log-likelihood and entropy of hidden actions, squared errors [B, T, A]."""
    limit = distributions.ACTION_LIMIT
    weights = hidden / (hidden.sum() * len(actions)).clamp(min=1.0)
    pre_tanh = torch.atanh(actions.clamp(-limit, limit))
    nll = -(log_prob(dist, pre_tanh).sum(-1) * weights).sum()
    noise = torch.randn(config.entropy_samples, *dist.loc.shape, device=hidden.device)
    sampled = log_prob(dist, dist.loc + dist.log_std.exp() * noise).mean(0)
    entropy = -(sampled.sum(-1) * weights).sum()
    return nll, entropy, (torch.tanh(dist.loc) - actions).square()


def log_prob(dist: TanhNormal, pre_tanh: Tensor) -> Tensor:
    """Return the log density of `tanh(pre_tanh)` per dimension."""
    z = (pre_tanh - dist.loc) * torch.exp(-dist.log_std)
    log_normal = -0.5 * z.square() - dist.log_std - 0.5 * np.log(2.0 * np.pi)
    softplus = torch.nn.functional.softplus(-2.0 * pre_tanh)
    return log_normal - 2.0 * (np.log(2.0) - pre_tanh - softplus)


def _groups(peer: Peer, weight_decay: float) -> list[dict]:
    """Apply weight decay to matrices only, like `mtm_jax.training.optim`."""
    matrices = [p for p in peer.parameters() if p.ndim == 2]
    others = [p for p in peer.parameters() if p.ndim != 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _on_device(x: np.ndarray) -> Tensor:
    return torch.tensor(np.asarray(x)).to(device())
