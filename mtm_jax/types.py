"""Vocabulary: modality names and their order, shape letters, and the data container of the host.

Shape letters: B batch, T window length, M modalities, P tokens per step, D features, C width,
S observation dims, A action dims, E environments, K Monte Carlo draws, N steps in a data set. In
models L tokens in a sequence, Q queries; in plans N candidates, h steps of the horizon.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:  # the data layer and its worker processes do not need jax
    from jax import Array

# Autoregressive order within one step (MTM section 3, M3PC section 4.1).
MODALITIES = ("states", "returns", "actions", "rewards")

# Modality -> [..., T, D] (continuous) or [..., T, P, D] (categorical, one-hot).
Tokens: TypeAlias = "Mapping[str, Array]"
# Modality -> [..., T], True = visible to the encoder.
Visible: TypeAlias = "Mapping[str, Array]"

Head = Literal["continuous", "tanh_normal", "categorical"]


@dataclasses.dataclass(frozen=True)
class ModalitySpec:
    """How one modality enters and leaves the model.

    Attributes:
        name: one of MODALITIES.
        features: D, the size of one token (bins, for a categorical one).
        tokens_per_step: P; 1 unless every dimension is a token of its own.
        head: what the decoder predicts.
    """

    name: str
    features: int
    tokens_per_step: int = 1
    head: Head = "continuous"


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """Where trajectories come from and how to act in their environment."""

    name: str  # e.g. "hopper-medium"
    source: str  # "builtin", "d4rl", "minari" or a path
    env_id: str  # the gymnasium id to evaluate in; "" where no simulator is known
    max_episode_steps: int  # the environment's time limit, H_max
    action_low: tuple[float, ...]  # [A], the environment's bounds
    action_high: tuple[float, ...]  # [A]


@dataclasses.dataclass(frozen=True)
class Trajectories:
    """Episodes on the host, end to end in storage order; N steps in all.

    Attributes:
        observations: [N, S] float32, what the agent saw before acting.
        actions: [N, A] float32, in the environment's units.
        rewards: [N] float32.
        terminals: [N] bool, True where the environment itself ended the episode (never a timeout).
        lengths: [episodes] int64, steps of each episode; they sum to N.
        final_observations: [episodes, S] float32 after the last step; a row of NaN where unknown.
        info: where the data come from.
        available: modality -> [episodes] bool, True where an episode has that modality;
            a modality that is not named is there in every episode.
        train: [episodes] bool, the split that the data set itself brings; None where it has none.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    lengths: np.ndarray
    final_observations: np.ndarray
    info: DataInfo
    available: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    train: np.ndarray | None = None

    @property
    def starts(self) -> np.ndarray:
        """Row of each episode's first step, [episodes] int64."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)

    @property
    def episode_returns(self) -> np.ndarray:
        """Undiscounted return of each episode, [episodes] float64."""
        return np.add.reduceat(self.rewards.astype(np.float64), self.starts)
