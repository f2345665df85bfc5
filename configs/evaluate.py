"""Evaluate a pretrained run as a policy.

python -m experiments.evaluate --config.run=runs/pretrain/hopper-medium-m3pc-small-seed0
"""

from ml_collections import config_dict


def get_config():
    config = config_dict.ConfigDict()
    config.run = ""  # the run folder
    config.eval = config_dict.ConfigDict()
    config.eval.methods = ("bc", "rcbc")  # ways to act: bc, rcbc
    config.eval.episodes = 20
    config.eval.seed = 1_000  # environments are reset with seed, seed + 1, ...
    config.eval.target_fraction = 1.0  # of the best return in the training data
    return config
