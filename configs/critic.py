"""Train a critic for a pretraining run, which guides the plans of M3PC-Q.

Implicit Q-learning (IQL, Kostrikov et al., ICLR 2022) with the settings of M3PC (table 4).

python -m experiments.critic --config=configs/critic.py:hopper-medium
python -m experiments.critic --config.run=runs/pretrain/hopper-medium-m3pc-small-seed0

Preset small: 30 000 updates of 1.6 ms on two CPU cores (results/bench-cpu.json), after loading the
data. On hopper-medium its plans score 57.5, where rcbc scores 44.5 (means of three seeds,
results/m3pc_offline/hopper_medium.jsonl).
"""

from ml_collections import config_dict

from configs import common

unset = config_dict.placeholder
NAME_KEYS = common.RUN_NAME_KEYS


def get_config(name=""):
    config = config_dict.ConfigDict()
    common.name_run(config, name)
    config.seeds = 1  # runs with seeds seed, seed + 1, ... whose critics train in one program

    # Model and loss
    config.critic = config_dict.ConfigDict()
    config.critic.hidden = unset(tuple)  # widths of the hidden layers; unset: by preset
    config.critic.members = 2  # members of the Q ensemble
    config.critic.least_of = 0  # members drawn for the least Q that V learns from; 0: all
    config.critic.layer_norm = False  # normalise the hidden layers of Q and V
    config.critic.terminals = False  # also learn how probably a state ends the episode
    config.critic.expectile = 0.7  # expectile of Q that V learns; 0.9 for manipulation
    config.critic.discount = unset(float)  # discount of future rewards; unset: by preset
    config.critic.unit = unset(float)  # scale of the values while learning; unset: from the data
    config.critic.policy = False  # also learn the policy of IQL
    config.critic.policy_temperature = 3.0  # factor of the advantages in it; 0: clones behaviour

    # Optimiser
    config.critic.steps = unset(int)  # updates of the training; unset: by preset
    config.critic.batch_size = 256  # transitions of an update
    config.critic.learning_rate = 3e-4  # learning rate of Adam
    config.critic.polyak = unset(float)  # step size of the target Q; unset: by preset

    # Logging and checkpoints
    config.log_every = 500  # updates between rows of metrics; they run in one compiled call
    config.save_every = 5_000  # updates between checkpoints
    config.use_older = False  # continue from an older checkpoint where the newest is damaged
    return config


# What a value that is unset becomes, by the preset of the run that the critic is for. The discount
# of table 4 is 0.99; plans guided by a critic that looks only 100 steps ahead fall earlier.
PRESETS = {
    "small": {"hidden": (128, 128), "discount": 0.997, "steps": 30_000, "polyak": 0.02},
    "base": {"hidden": (256, 256), "discount": 0.997, "steps": 200_000, "polyak": 0.005},
    "paper": {"hidden": (256, 256), "discount": 0.997, "steps": 1_000_000, "polyak": 0.005},
}
