"""Building blocks: multilayer perceptron and pre-norm transformer stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flax import linen as nn
from jax import Array


class MLP(nn.Module):
    """Dense layers of the given widths with an activation between them: [..., D] -> [..., widths[-1]]."""

    widths: Sequence[int]
    activation: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i, width in enumerate(self.widths):
            x = nn.Dense(width, name=f"layer_{i}")(x)
            if i + 1 < len(self.widths):
                x = self.activation(x)
        return x
