"""Draw the figure of mask patterns in the README.

python -m experiments.mask_figure

Takes a few seconds.
"""

from ml_collections import config_dict


def get_config():
    config = config_dict.ConfigDict()
    config.out = "docs/mask_patterns.png"  # PNG file to write
    config.window = 8  # steps of the windows shown
    config.slot = 3  # current step of the prompts
    return config
