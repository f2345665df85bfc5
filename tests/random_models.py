"""Parameters for tests in which every array must matter: like those a model draws, plus noise."""

import jax
import jax.numpy as jnp
import numpy as np


def noisy_params(model, scale=0.2, seed=0):
    """Parameters like those that `model` draws, each array with noise; biases and gains included.

    Drawn by numpy: to have the model draw them, its every shape would be compiled.
    """
    random = np.random.default_rng(seed)

    def draw(path, like):
        name, shape = path[-1].key, like.shape
        drawn = np.full(shape, name == "scale", np.float32)
        if name == "kernel":
            bound = np.prod(shape[:-1]) ** -0.5  # of the inputs, as in the released models
            drawn = random.uniform(-bound, bound, shape)
        return jnp.asarray(drawn + scale * random.normal(size=shape), jnp.float32)

    return jax.tree.map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0)))
