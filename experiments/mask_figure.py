"""Draw which tokens the model sees in training and under every prompt (docs/mask_patterns.png)."""

from experiments.runtime import cli
from mtm_jax.plots import figures


def main(config):
    """Write the figure and print where it is."""
    print(figures.mask_patterns(config.out, config.window, config.slot))


if __name__ == "__main__":
    cli.run(main)
