"""Parameters for tests in which every array must matter: what a model draws, plus noise."""

import jax


def noisy_params(model, scale=0.2):
    """The parameters that `model` draws, each array with noise; biases and gains included."""

    @jax.jit
    def draw():
        leaves, tree = jax.tree.flatten(model.init(jax.random.key(0)))
        keys = jax.random.split(jax.random.key(1), len(leaves))
        noise = [scale * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
        return jax.tree.unflatten(tree, [x + n for x, n in zip(leaves, noise, strict=True)])

    return draw()
