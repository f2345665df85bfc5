"""Train TD3 on recorded data, on raw states or on features of a pretrained model, and evaluate it.

variant=td3      as MTM trains it on exploratory data (appendix E): no target actor, no delay
variant=td3_bc   TD3+BC (Fujimoto & Gu, NeurIPS 2021), a baseline for data of any behaviour

python -m experiments.td3 --config=configs/td3.py:hopper-medium,variant=td3_bc
python -m experiments.td3 --config=configs/td3.py:walker_run-explore --config.seeds=3
python -m experiments.td3 --config=configs/td3.py:walker_run-explore --config.features.run=RUN
"""

from ml_collections import config_dict

from configs import common

unset = config_dict.placeholder
# Keys that NAME decides together with others, and how NAME says them.
NAME_KEYS = {
    "env": "ENV",
    "preset": "ENV,preset=small|paper",
    "variant": "ENV,variant=td3|td3_bc",
}


def get_config(name="hopper-medium"):
    env, options = common.parse(name, preset=("auto", "small", "paper"), variant=("td3", "td3_bc"))
    preset, variant = common.choose(options["preset"]), options["variant"]
    config = config_dict.ConfigDict()
    config.env = env  # data set: <env>-<level>
    config.preset = preset  # size of the networks and length of the training: small or paper
    config.variant = variant  # td3, or td3_bc, which also clones behaviour
    config.source = "builtin"  # builtin, d4rl, minari, minari:<id> or the path of a file or folder
    config.seed = 0  # seed of the initial parameters, batches and noise
    config.seeds = 1  # runs to train in one program, with seeds seed, seed + 1, ...
    config.out = ""  # run folder; empty: runs/td3/<data set>-<variant>-<preset>-seed<seed>

    # Data
    config.data = config_dict.ConfigDict()
    config.data.steps = unset(int)  # steps of built-in or ExORL data to use; unset: all
    config.data.clip_actions = False  # True: accept and clip data with many actions out of bounds
    config.data.train_fraction = 0.95  # share of the episodes to train on, as other programs do
    config.data.split_seed = 0  # seed of the choice of held-out episodes

    # What actor and critics see
    config.features = config_dict.ConfigDict()
    config.features.run = ""  # run folder of the model whose encoder they see by; empty: raw states
    config.features.kind = "states"  # what is encoded: states, or pairs with the action for critics
    config.features.finetuned = False  # learn the encoder further

    # Networks and updates
    config.td3 = config_dict.ConfigDict()
    config.td3.hidden = (1024, 1024)  # widths of the hidden layers
    config.td3.bounded = True  # LayerNorm and tanh after the first layer, otherwise ReLU
    config.td3.discount = 0.99  # discount of future rewards
    config.td3.unit = unset(float)  # scale of the values while learning; unset: from the data
    config.td3.learning_rate = 1e-4  # learning rate of Adam
    config.td3.polyak = 0.01  # step size of the targets
    config.td3.batch_size = 1024  # transitions of an update
    config.td3.noise = 0.2  # standard deviation of the noise on actions, which are in [-1, 1]
    config.td3.noise_clip = 0.3  # largest noise on an action
    config.td3.actor_noise = True  # also on the actions that the actor learns by
    config.td3.actor_value = "least"  # of the twin critics, for the actor: least or first
    config.td3.target_actor = False  # targets act by a slow copy of the actor
    config.td3.policy_delay = 1  # critic updates for each update of the actor and the targets
    config.td3.alpha = unset(float)  # TD3+BC's weight of values; 0 clones; unset: values alone
    config.steps = 100_000  # updates of the training

    # Logging and checkpoints
    config.log_every = 500  # updates between rows of metrics; they run in one compiled call
    config.save_every = 5_000  # updates between checkpoints
    config.use_older = False  # continue from an older checkpoint where the newest is damaged

    # Evaluation
    config.eval = config_dict.ConfigDict()
    config.eval.episodes = 20  # episodes after the training
    config.eval.seed = 1_000  # environments are reset with this seed, seed + 1, ...
    config.eval.every = 0  # updates between evaluations on the way, rows of metrics; 0: none
    config.eval.episodes_on_the_way = 5  # episodes of each of these

    config.lock().update_from_flattened_dict(VARIANTS[variant] | PRESETS[variant, preset])
    return config


# What differs from the values above; where tables name the same key, the later table counts.
VARIANTS = {
    "td3": {},
    "td3_bc": {
        "td3.hidden": (256, 256),
        "td3.bounded": False,
        "td3.learning_rate": 3e-4,
        "td3.polyak": 0.005,
        "td3.batch_size": 256,
        "td3.noise_clip": 0.5,
        "td3.actor_noise": False,
        "td3.actor_value": "first",
        "td3.target_actor": True,
        "td3.policy_delay": 2,
        "td3.alpha": 2.5,
    },
}
# The small presets are for two CPU cores.
PRESETS = {
    ("td3", "small"): {
        "td3.hidden": (256, 256),
        "td3.learning_rate": 3e-4,
        "td3.batch_size": 256,
        "data.steps": 200_000,
        "steps": 20_000,
    },
    ("td3", "paper"): {"td3.unit": 1.0},
    ("td3_bc", "small"): {
        "td3.hidden": (128, 128),
        "td3.polyak": 0.01,
        "data.steps": 200_000,
        "steps": 30_000,
    },
    ("td3_bc", "paper"): {"td3.unit": 1.0, "steps": 1_000_000, "save_every": 50_000},
}
