"""Collect one built-in data set (two CPU cores: about half a minute per 200 000 hopper steps).

python -m experiments.collect --config=configs/collect.py:hopper-medium
"""

from ml_collections import config_dict

# Sizes of D4RL's data sets, in environment steps.
STEPS = {"medium-replay": 400_000, "medium-expert": 2_000_000}


def get_config(name="hopper-medium"):
    config = config_dict.ConfigDict()
    config.name = name  # <env>-<level>: medium, medium-replay, medium-expert or expert
    config.steps = STEPS.get(name.partition("-")[2], 1_000_000)  # environment steps
    config.seed = 0  # of every random number
    config.workers = 0  # processes; 0 = one per core
    config.actors = ""  # folder with a ladder.json; empty = the actors of this package
    return config
