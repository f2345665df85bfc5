"""Select from the actors of experiments.behaviours those that the built-in data are collected with.

As in D4RL (Fu et al., 2020), medium has a third to a half of the expert's return; unlike there, it
scores alike sampled and in its mode, and replay data rise.

python -m experiments.ladder --config=configs/ladder.py:walker2d --config.out=FOLDER
python -m experiments.ladder --config=configs/ladder.py:hopper --config.run=RUN --config.actors=FILE
python -m experiments.ladder --config=configs/ladder.py:walker

Mean returns sampled and in the mode (mtm_jax/data/builtin/actors/*/ladder.json):

ladder            medium           expert
hopper        1315, 1242       3212, 3200
walker2d      2274, 2368       4398, 4357
halfcheetah   4455, 4648      11214, 11701

Hopper's expert is of another run than its other actors (seed 0; the others are of seed 1, with an
actor every 5000 steps).
"""

from ml_collections import config_dict

from mtm_jax.errors import UserError


def get_config(name="hopper"):
    if name not in LADDERS:
        raise UserError(f"unknown ladder {name!r}; choose one of {', '.join(LADDERS)}")
    config = config_dict.ConfigDict()
    config.env = name  # environment, or one of its tasks
    config.run = f"runs/behaviours/{name}-seed0"  # run folder of experiments.behaviours
    config.actors = ()  # further actors to choose among: files of other runs
    config.out = f"runs/ladder-{name}"  # folder for the selected actors and ladder.json
    config.seed = 0  # seed of the episodes in which actors are scored

    # Selection
    config.roles = True  # choose a medium and an expert actor; False for an explorer
    config.medium_fraction = 0.4  # share of the expert's return that medium should have
    config.agreement = 0.15  # largest difference of its returns sampled and in its mode, as a share
    config.rungs = 8  # actors to keep up to medium; without roles, over the whole training

    # Evaluation
    config.scoring_steps = 10_000  # environment steps to score each actor by, in whole episodes
    config.finalists = 4  # best actors to score again, more thoroughly
    config.final_steps = 50_000  # environment steps to score each of these by

    config.lock().update_from_flattened_dict(LADDERS[name])
    return config


# What differs from the values above.
LADDERS = {
    "hopper": {},
    "walker2d": {"medium_fraction": 0.45, "scoring_steps": 5_000},
    "halfcheetah": {"scoring_steps": 5_000},
    "walker": {"env": "walker_run", "roles": False, "rungs": 10},
}
