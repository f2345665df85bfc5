"""Train one environment's behaviour ladder with SAC (two CPU cores, half an hour for hopper).

python -m experiments.behaviours --config=configs/behaviours.py:hopper
"""

from ml_collections import config_dict

from mtm_jax.envs import registry
from mtm_jax.errors import UserError

TOTAL_STEPS = {"hopper": 600_000, "walker2d": 1_200_000, "halfcheetah": 2_000_000}


def get_config(env="hopper"):
    if env not in registry.ENVS:
        raise UserError(f"unknown environment {env!r}; choose one of {', '.join(registry.ENVS)}")
    config = config_dict.ConfigDict()
    config.env = env
    config.seed = 0
    config.out = ""  # run folder; empty: runs/behaviours/<env>-seed<seed>
    config.total_steps = TOTAL_STEPS[env]  # environment steps
    config.num_envs = 8
    config.steps_per_phase = 25  # steps of each environment between two update phases
    config.updates_per_step = 0.5  # gradient updates per environment step
    config.random_steps = 10_000  # uniform actions before learning starts
    config.snapshot_every = 10_000  # environment steps between two actors of the ladder
    config.replay_capacity = 1_000_000
    config.sac = config_dict.ConfigDict()
    config.sac.hidden = (256, 256)
    config.sac.learning_rate = 3e-4  # constant for half of the updates, then linear to zero
    config.sac.batch_size = 128
    config.sac.discount = 0.99
    config.sac.polyak = 0.005
    config.sac.actor_average = 0.001
    config.sac.target_entropy_per_dim = 1.0
    return config
