"""Score the actors that `experiments.behaviours` left and keep the ladder of the built-in data.

python -m experiments.ladder --config=configs/ladder.py:hopper --config.out=FOLDER
"""

from ml_collections import config_dict

from mtm_jax.envs import registry
from mtm_jax.errors import UserError


def get_config(env="hopper"):
    if env not in registry.ENVS:
        raise UserError(f"unknown environment {env!r}; choose one of {', '.join(registry.ENVS)}")
    config = config_dict.ConfigDict()
    config.env = env
    config.run = f"runs/behaviours/{env}-seed0"  # the run folder of experiments.behaviours
    config.out = f"runs/ladder-{env}"  # where the kept actors and ladder.json are written
    config.scoring_steps = 10_000  # environment steps to score each actor by, in whole episodes
    config.final_steps = 50_000  # the same for the best few, from which the expert is chosen
    config.finalists = 4
    config.rungs = 8  # actors up to medium that are kept
    config.medium_fraction = 1 / 3  # of the expert's return
    config.seed = 0
    return config
