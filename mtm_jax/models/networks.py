"""Building blocks: linear layers, the multilayer perceptron, activation and normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

# U(+-1/sqrt(fan_in)), the initial scale of the released models.
fan_in_uniform = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


@jax.custom_vjp
def product(x: Array, kernel: Array) -> Array:
    """Multiply `x @ kernel`, [..., D] by [D, C]; differentiable in reverse mode.

    The kernel's gradient contracts all leading axes in one product of rows. The derived one
    would write a transposed copy of the activations, which takes longer than the product.
    """
    return x @ kernel


def _product_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ kernel, (x, kernel)


def _product_backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = saved
    rows, grad_rows = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
    grad_kernel = jax.lax.dot_general(rows, grad_rows, (((0,), (0,)), ((), ())))
    return grad @ kernel.T, grad_kernel


product.defvjp(_product_forward, _product_backward)


def _dot_general(x: Array, kernel: Array, dimension_numbers: tuple, precision: object) -> Array:
    return product(x, kernel)


def dense(
    features: int,
    name: str,
    kernel_init: nn.initializers.Initializer = fan_in_uniform,
    dtype: jnp.dtype = jnp.float32,
) -> nn.Dense:
    """Make a linear layer: [..., D] -> [..., features]."""
    return nn.Dense(
        features, kernel_init=kernel_init, dtype=dtype, dot_general=_dot_general, name=name
    )


class MLP(nn.Module):
    """Dense layers of the given widths, activated between them: [..., D] -> [..., widths[-1]]."""

    widths: Sequence[int]
    activation: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i, width in enumerate(self.widths):
            x = dense(width, f"layer_{i}")(x)
            if i + 1 < len(self.widths):
                x = self.activation(x)
        return x


def gelu(x: Array) -> Array:
    """Compute the exact GELU, x Phi(x), through the error function."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * np.float32(np.sqrt(0.5))))


def layer_norm(name: str) -> nn.Module:
    """LayerNorm computed in float32."""
    return nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32, use_fast_variance=False, name=name)
