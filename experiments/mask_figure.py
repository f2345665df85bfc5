"""Draw which tokens are visible in training and under every prompt (docs/mask_patterns.png)."""

from experiments.runtime import cli
from mtm_jax.plots import mask_patterns


def main(config):
    """Draw the figure and print its path."""
    print(mask_patterns.draw(config.out, config.window, config.slot))


if __name__ == "__main__":
    cli.run(main)
