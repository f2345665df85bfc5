"""Train one environment's behaviour ladder with SAC (two CPU cores, about an hour for hopper).

    python -m experiments.behaviours --config=configs/behaviours.py:hopper
"""

from ml_collections import config_dict

TOTAL_STEPS = {"hopper": 800_000, "walker2d": 1_500_000, "halfcheetah": 1_500_000}


def get_config(env="hopper"):
    config = config_dict.ConfigDict()
    config.env = env
    config.seed = 0
    config.out = f"runs/behaviours-{env}"
    config.total_steps = TOTAL_STEPS.get(env, 1_000_000)  # environment steps
    config.num_envs = 8
    config.steps_per_phase = 25  # steps of each environment between two update phases
    config.updates_per_step = 0.5  # gradient updates per environment step
    config.random_steps = 10_000  # uniform actions before learning starts
    config.snapshot_every = 10_000  # environment steps between two actors of the ladder
    config.replay_capacity = 1_000_000
    config.sac = config_dict.ConfigDict()
    config.sac.hidden = (256, 256)
    config.sac.learning_rate = 3e-4
    config.sac.batch_size = 256
    config.sac.discount = 0.99
    config.sac.polyak = 0.005
    config.sac.target_entropy_per_dim = 1.0
    return config
