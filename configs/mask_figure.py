"""The figure of mask patterns in the README (a few seconds).

python -m experiments.mask_figure
"""

from ml_collections import config_dict


def get_config():
    config = config_dict.ConfigDict()
    config.out = "docs/mask_patterns.png"  # PNG file
    config.window = 8  # steps shown
    config.slot = 3  # the current step of the prompts
    return config
