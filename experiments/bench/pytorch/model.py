"""The masked trajectory model in plain PyTorch, which `experiments.bench` compares ours with.

It consists of PyTorch's own `TransformerEncoder` layers. One mask applies to a whole batch, so that
gathering the visible tokens for the encoder is a single indexing operation. Parameters have the
names of the released models, so that `mtm_jax.agents.torch_import` can read them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mtm_jax import distributions
from mtm_jax.config import ModelConfig
from mtm_jax.models import positions
from mtm_jax.types import ModalitySpec


class TanhNormal(NamedTuple):
    """Like `mtm_jax.distributions.TanhNormal`; fields [..., A]."""

    loc: Tensor
    log_std: Tensor


class ActionHead(nn.Module):
    """Predict location and squashed log standard deviation: [..., C] -> TanhNormal [..., A]."""

    def __init__(self, width: int, features: int):
        super().__init__()
        self.mu, self.log_std = nn.Linear(width, features), nn.Linear(width, features)

    def forward(self, x: Tensor) -> TanhNormal:
        low, high = distributions.LOG_STD_MIN, distributions.LOG_STD_MAX
        squashed = torch.tanh(self.log_std(x).float()) + 1.0
        return TanhNormal(self.mu(x).float(), low + 0.5 * (high - low) * squashed)


class Peer(nn.Module):
    """The model of a configuration with continuous tokens and a TanhNormal of the actions."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        specs, width = config.modalities, config.width
        self.encoder_embed_dict = nn.ModuleDict(
            {m.name: nn.Linear(m.features, width) for m in specs}
        )
        self.decoder_embed_dict = nn.ModuleDict({m.name: nn.Linear(width, width) for m in specs})
        self.encoder_per_dim_encoding = _parameters(specs, 1, 1, 1, width)
        self.decoder_per_dim_encoding = _parameters(specs, 1, 1, 1, width)
        self.mask_token_dict = _parameters(specs, 1, 1, width)
        self.encoder = _stack(config, config.encoder_layers)
        self.decoder = _stack(config, config.decoder_layers)
        self.output_head_dict = nn.ModuleDict({m.name: _head(m, width) for m in specs})
        at_slots = np.asarray(positions.make_positions(config))[None, :, None]
        self.register_buffer("pos_embed", torch.tensor(at_slots))

    def forward(
        self, tokens: dict[str, Tensor], visible: Tensor, read: Sequence[str] = ()
    ) -> dict[str, Tensor | TanhNormal]:
        """Predict windows.

        Args:
            tokens: modality -> [B, T, D]; hidden tokens may have any finite value.
            visible: indices of the visible tokens of all windows, modality by modality, [V].
            read: modalities to predict; all by default.

        Returns:
            Modality -> [B, T, D], or a TanhNormal of [B, T, A].
        """
        x = self._join(tokens, self.encoder_embed_dict, self.encoder_per_dim_encoding)
        encoded = self.encoder(x[:, visible])
        window = self.config.window
        masks = [self.mask_token_dict[m].expand(1, window, -1) for m in self._names()]
        every = torch.cat(masks, 1).to(encoded.dtype).repeat(len(x), 1, 1)
        every[:, visible] = encoded
        parts = dict(zip(self._names(), every.split(window, 1), strict=True))
        x = self._join(parts, self.decoder_embed_dict, self.decoder_per_dim_encoding)
        decoded = dict(zip(self._names(), self.decoder(x).split(window, 1), strict=True))
        return {m: self.output_head_dict[m](decoded[m]) for m in read or self._names()}

    def _names(self) -> list[str]:
        return [m.name for m in self.config.modalities]

    def _join(
        self, parts: dict[str, Tensor], embed: nn.ModuleDict, modality: nn.ParameterDict
    ) -> Tensor:
        at_slots = self.pos_embed[:, :, 0]
        return torch.cat(
            [embed[m](parts[m]) + modality[m][:, :, 0] + at_slots for m in self._names()], 1
        )


def indices(visible: dict[str, np.ndarray], names: Sequence[str]) -> Tensor:
    """Convert a mask, modality -> [T], to the indices that `Peer` takes, [V]."""
    return torch.tensor(np.flatnonzero(np.concatenate([visible[m] for m in names])))


def _parameters(specs: Sequence[ModalitySpec], *shape: int) -> nn.ParameterDict:
    return nn.ParameterDict({m.name: nn.Parameter(torch.zeros(shape)) for m in specs})


def _stack(config: ModelConfig, layers: int) -> nn.TransformerEncoder:
    make = functools.partial(nn.TransformerEncoderLayer, config.width, config.heads)
    layer = make(
        config.ffn_multiplier * config.width,
        dropout=config.dropout,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
    norm = nn.LayerNorm(config.width)
    return nn.TransformerEncoder(layer, layers, norm, enable_nested_tensor=False)


def _head(spec: ModalitySpec, width: int) -> nn.Module:
    if spec.head == "tanh_normal":
        return ActionHead(width, spec.features)
    layers = (
        nn.LayerNorm(width),
        nn.Linear(width, width),
        nn.GELU(),
        nn.Linear(width, spec.features),
    )
    return nn.Sequential(*layers)
