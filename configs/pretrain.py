"""Pretrain a masked trajectory model and evaluate it as a policy.

The model, masks and loss of M3PC (Wen et al., ICLR 2025, table 4), or, with variant=mtm, those of
MTM (Wu et al., ICML 2023, table C.2).

python -m experiments.pretrain --config=configs/pretrain.py:hopper-medium
python -m experiments.pretrain --config=configs/pretrain.py:hopper-medium,variant=mtm
python -m experiments.pretrain --config=configs/pretrain.py:hopper-medium,role=world
python -m experiments.pretrain --config=configs/pretrain.py:walker2d-expert,preset=paper

preset   machine          result
small    two CPU cores    hopper-medium, seeds 0 to 2: bc 38.9, 37.0, 38.8, rcbc 51.4, 45.8, 48.3
base     one H200         walker2d-medium-replay, seed 0, 10 000 steps: bc 22.2, rcbc 59.6
paper    one GPU          not trained to the end yet

Means of 20 episodes: results/pretrain/hopper_medium_three_seeds.jsonl, results/gpu/base_h200.jsonl.
More scores are in docs/results.md.
"""

from ml_collections import config_dict

from configs import common
from mtm_jax import masks
from mtm_jax.data import info as data_info

unset = config_dict.placeholder
# Keys that NAME decides together with others, and how NAME says them.
NAME_KEYS = {
    "env": "ENV",
    "preset": "ENV,preset=small|base|paper",
    "variant": "ENV,variant=m3pc|mtm",
    "role": "ENV,role=unified|prompts|policy|world|goals",
}


def get_config(name="hopper-medium"):
    env, options = common.parse(
        name,
        preset=("auto", "small", "base", "paper"),
        variant=("m3pc", "mtm"),
        role=tuple(ROLES),
    )
    preset, variant, role = common.choose(options["preset"]), options["variant"], options["role"]
    spec = data_info.find_env(env)

    config = config_dict.ConfigDict()
    config.env = env  # data set: <env>-<level>
    config.preset = preset  # size of the model and length of the training: small, base or paper
    config.variant = variant  # m3pc: distributions of actions, and rewards; mtm: squared errors
    config.role = role  # roles to train for: unified or prompts (all), policy, world or goals
    config.source = "builtin"  # builtin, d4rl, minari, minari:<id> or the path of a file or folder
    config.seed = 0  # seed of the initial parameters, batches, masks and dropout
    config.seeds = 1  # runs to train in one program, with seeds seed, seed + 1, ...
    config.sweep = config_dict.ConfigDict()
    config.sweep.learning_rate = ()  # train one run for each, instead of optim.learning_rate
    config.sweep.entropy_target = ()  # train one run for each, instead of loss.entropy_target
    config.out = ""  # run folder; empty: runs/pretrain/<data set>-<variant>-<preset>-seed<seed>

    # Data
    config.data = config_dict.ConfigDict()
    config.data.steps = unset(int)  # steps of built-in or ExORL data to use; unset: all
    config.data.clip_actions = False  # True: accept and clip data with many actions out of bounds
    config.data.train_fraction = 0.95  # share of the episodes to train on; the rest is held out
    config.data.split_seed = 0  # seed of the choice of held-out episodes
    config.data.episodes_fraction = 1.0  # share of the training episodes to use
    config.data.actions_fraction = 1.0  # share of these that keep their actions
    config.data.rewards = True  # False: a model of states and actions, without returns and rewards
    config.data.labelled_share = 0.0  # share of windows with actions in a batch; 0: as in the data
    config.data.state_noise = 0.0  # standard deviation of noise on visible states, in their std

    # Model
    config.model = config_dict.ConfigDict()
    config.model.window = 8  # steps of a window (T)
    config.model.width = 512  # width of the transformer (C)
    config.model.heads = 4  # attention heads
    config.model.encoder_layers = 2  # transformer blocks that read the visible tokens
    config.model.decoder_layers = 1  # transformer blocks that predict all tokens
    config.model.dropout = 0.1  # dropout rate during training
    config.model.compute_dtype = "auto"  # float32, bfloat16; auto: bfloat16 on accelerators only
    config.model.positions = "orthogonal"  # slot embedding: orthogonal slots, or as released
    config.model.remat = False  # rematerialise layers: less memory, a third more computation
    config.model.bins = 0  # bins per dimension of discrete tokens (mtm only); 0: continuous tokens

    # Masks
    config.masks = config_dict.ConfigDict()
    patterns = dict.fromkeys((*masks.TRAINING_DISTRIBUTIONS, *masks.PROMPTS), 0.0)
    patterns["random_autoregressive"] = 1.0
    config.masks.patterns = config_dict.ConfigDict(patterns)  # weight among the training masks
    config.masks.fractions = FRACTIONS  # visible shares of random masks, one drawn per modality
    weights = config_dict.ConfigDict(MODALITY_WEIGHTS[variant])
    config.masks.modality_weights = weights  # weight for drawing the autoregressive token from it

    # Loss; all of these belong to the action distributions of variant m3pc.
    config.loss = config_dict.ConfigDict()
    config.loss.entropy_constraint = True  # bound the entropy from below; False: likelihood only
    config.loss.entropy_target = -3.0  # lower bound of the entropy, in nats (beta in equation 2)
    config.loss.entropy_reduction = "joint"  # entropy of the joint action, or per_dimension
    config.loss.entropy_samples = 4  # samples for the estimate of the entropy
    config.loss.initial_sigma = 0.1  # Lagrange multiplier of the entropy bound at the start
    config.loss.sigma_learning_rate = 1e-4  # learning rate of the Lagrange multiplier

    # Optimiser
    config.batch_size = 2048  # windows of a gradient step
    config.micro_batches = 1  # parts in which a batch is computed: less memory, the same step
    config.steps = 140_000  # gradient steps
    config.prng = "threefry"  # generator of dropout and noise: threefry, or rbg, which costs less
    config.optim = config_dict.ConfigDict()
    config.optim.learning_rate = 1e-4  # learning rate of AdamW after the warm-up
    config.optim.warmup_fraction = 2 / 7  # share of the steps that warm up; papers: 40 000 steps
    config.optim.schedule = "cosine"  # learning rate after the warm-up: cosine to zero, or constant
    config.optim.weight_decay = 0.005  # weight decay, applied to matrices only
    config.optim.b2 = 0.999  # decay rate of the running average of squared gradients
    config.optim.clip_norm = 0.0  # largest norm of the gradient; 0: no clipping
    config.optim.average = 0.999  # decay rate of an average of the parameters, which acts; 0: none

    # Logging and checkpoints
    config.log_every = 100  # steps between rows of metrics; they run in one compiled call
    config.validate_every = 2_000  # steps between validations on held-out episodes
    config.save_every = 2_000  # steps between checkpoints
    config.keep_best = 0  # checkpoints to keep besides the newest two: the best by keep_metric
    config.keep_metric = "valid/train_masks/actions"  # a metric of metrics.jsonl; lower is better
    config.use_older = False  # continue from an older checkpoint where the newest is damaged
    config.debug_batch = ""  # file in the debug folder of a run: repeat that step and diagnose it
    config.distributed = False  # train in the several processes that a scheduler has started
    config.wandb_project = ""  # Weights & Biases project to log to as well; empty: none

    # Evaluation
    config.eval = config_dict.ConfigDict()
    config.eval.methods = ("bc", "rcbc")  # methods to evaluate: bc, rcbc
    config.eval.episodes = 20  # episodes of each method
    config.eval.seed = 1_000  # environments are reset with this seed, seed + 1, ...
    config.eval.target_fraction = 1.0  # return to aim for: 0 is the data's mean, 1 its best
    config.eval.history = 4  # past steps in view

    suite = SUITES.get(spec.suite if spec else "", {})
    config.lock().update_from_flattened_dict(
        VARIANTS[variant] | suite | PRESETS[preset] | ROLES[role]
    )
    return config


# Visible shares of a random mask, and how often the autoregressive token is of which modality.
FRACTIONS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
MODALITY_WEIGHTS = {
    "m3pc": {"states": 0.2, "returns": 0.1, "actions": 0.6, "rewards": 0.1},
    "mtm": {"states": 0.2, "returns": 0.1, "actions": 0.7},
}

# What differs from the values above; where tables name the same key, the later table counts.
VARIANTS = {
    "m3pc": {},
    "mtm": {
        "model.window": 4,
        "batch_size": 1024,
        "optim.weight_decay": 0.01,
        "eval.history": 3,
    },
}
# MTM appendix C.
SUITES = {"adroit": {"masks.fractions": (0.4, *FRACTIONS)}}
PRESETS = {
    "small": {
        "data.steps": 200_000,
        "model.width": 64,
        "model.dropout": 0.0,
        "batch_size": 128,
        "steps": 6_000,
        "optim.learning_rate": 3e-3,
        "optim.warmup_fraction": 0.1,
        "optim.b2": 0.98,
        "optim.clip_norm": 1.0,
        "log_every": 50,
        "validate_every": 500,
        "save_every": 500,
    },
    "base": {
        "model.width": 256,
        "batch_size": 1024,
        "steps": 20_000,
        "optim.learning_rate": 3e-4,
        "optim.warmup_fraction": 0.1,
        "optim.clip_norm": 1.0,
    },
    "paper": {},
}
# Under random masks the prompts of test time hardly ever occur. A policy and a world model are the
# two parts of a planner (M3PC figure 6); such a world model has not seen the prompt rp: plan with
# readout=fd.
ROLES = {
    "unified": {},
    "prompts": {
        "masks.patterns.random_autoregressive": 0.2,
        "masks.patterns.rcbc": 0.2,
        "masks.patterns.bc": 0.1,
        "masks.patterns.fd": 0.4,
        "masks.patterns.id": 0.05,
        "masks.patterns.pi": 0.05,
    },
    "policy": {"masks.patterns.random_autoregressive": 0.0, "masks.patterns.rcbc": 1.0},
    "world": {"masks.patterns.random_autoregressive": 0.0, "masks.patterns.fd": 1.0},
    "goals": {
        "masks.patterns.random_autoregressive": 0.4,
        "masks.patterns.pi": 0.3,
        "masks.patterns.id": 0.3,
    },
}
