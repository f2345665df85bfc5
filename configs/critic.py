"""Train a critic (IQL) for a pretraining run, for plans that a critic guides.

python -m experiments.critic --config.run=runs/pretrain/hopper-medium-m3pc-small-seed0
python -m experiments.critic --config=configs/critic.py:hopper-medium,preset=small
"""

from ml_collections import config_dict

from configs import common

NAME_KEYS = common.RUN_NAME_KEYS


def get_config(name=""):
    config = config_dict.ConfigDict()
    common.name_run(config, name)
    config.seeds = 1  # runs of seed, seed + 1, ... whose critics are trained in one program
    config.critic = config_dict.ConfigDict()
    # Zero, or nothing: what the run's preset has, see experiments/critic.py.
    config.critic.steps = 0  # updates; 0: as the preset
    config.critic.discount = 0.0  # of later rewards; 0: as the preset
    config.critic.polyak = 0.0  # of the target Q; 0: as the preset
    config.critic.hidden = ()  # layer widths; empty: as the preset
    config.critic.expectile = 0.7  # M3PC table 4; 0.9 for manipulation
    config.critic.unit = 0.0  # values are learnt in it; 0: what the data's rewards add up to
    config.critic.learning_rate = 3e-4  # of Adam
    config.critic.batch_size = 256  # transitions of an update
    config.critic.members = 2  # of the Q ensemble
    config.critic.policy = False  # also learn IQL's own policy
    config.critic.policy_temperature = 3.0

    config.log_every = 500  # updates in one compiled call
    config.save_every = 5_000  # updates between two checkpoints
    config.use_older = False  # continue from the newest good checkpoint where the newest is damaged
    return config
