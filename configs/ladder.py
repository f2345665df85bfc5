"""Keep a ladder of the actors that `experiments.behaviours` left, for the built-in data.

python -m experiments.ladder --config=configs/ladder.py:hopper --config.out=FOLDER
python -m experiments.ladder --config=configs/ladder.py:walker  # of the run that explores
"""

from ml_collections import config_dict

from mtm_jax.errors import UserError

# Ladder -> how it differs from the others.
LADDERS = {
    "hopper": {"env": "hopper"},
    "walker2d": {"env": "walker2d", "medium_fraction": 0.45, "scoring_steps": 5_000},
    "halfcheetah": {"env": "halfcheetah", "medium_fraction": 0.4, "scoring_steps": 5_000},
    "walker": {"env": "walker_run", "roles": False, "rungs": 10},
}


def get_config(name="hopper"):
    if name not in LADDERS:
        raise UserError(f"unknown ladder {name!r}; choose one of {', '.join(LADDERS)}")
    config = config_dict.ConfigDict()
    config.env = name
    config.run = f"runs/behaviours/{name}-seed0"  # the run folder of experiments.behaviours
    config.out = f"runs/ladder-{name}"  # where the kept actors and ladder.json are written
    config.roles = True  # whether one actor is medium and one expert; False for an explorer's run
    config.scoring_steps = 10_000  # environment steps to score each actor by, in whole episodes
    config.final_steps = 50_000  # the same for the best few, from which the expert is chosen
    config.finalists = 4  # how many these are
    config.rungs = 8  # actors up to medium that are kept; without roles, of the whole training
    config.medium_fraction = 1 / 3  # of the expert's return
    config.seed = 0
    config.update(LADDERS[name])
    return config
