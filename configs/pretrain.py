"""Pretrain a masked trajectory model and evaluate it as a policy.

python -m experiments.pretrain --config=configs/pretrain.py:hopper-medium
python -m experiments.pretrain --config=configs/pretrain.py:walker2d-expert,preset=paper
python -m experiments.pretrain --config=configs/pretrain.py:hopper-medium,variant=mtm
python -m experiments.pretrain --config=configs/pretrain.py:hopper-medium,role=world
"""

from ml_collections import config_dict

from configs import common
from mtm_jax.data import info as data_info

# Keys that the name decides together with others, and how the name says them.
NAME_KEYS = {
    "env": "ENV",
    "preset": "ENV,preset=small|base|paper",
    "variant": "ENV,variant=m3pc|mtm",
    "role": "ENV,role=unified|prompts|policy|world",
}

FRACTIONS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)  # of each modality that are visible

# Suite of environments -> what its papers set differently.
DIFFERENCES = {"adroit": {"masks.fractions": (0.4, *FRACTIONS)}}  # MTM appendix C


def get_config(name="hopper-medium"):
    env, options = common.parse(
        name,
        preset=("auto", "small", "base", "paper"),
        variant=("m3pc", "mtm"),
        role=tuple(common.ROLES),
    )
    preset = common.choose(options["preset"])
    mtm = options["variant"] == "mtm"

    config = config_dict.ConfigDict()
    config.env = env  # <env>-<level>
    config.preset = preset  # small, base or paper; the name decides it
    config.variant = options["variant"]  # m3pc: TanhNormal actions and rewards; mtm: squared errors
    config.role = options["role"]  # prompts: under those of test time; policy, world: one
    config.source = "builtin"  # builtin, d4rl, minari, minari:<id> or a path
    config.seed = 0
    config.seeds = 1  # trained in one program: seed, seed + 1, ...; each has its own run folder
    config.sweep = config_dict.ConfigDict()
    config.sweep.learning_rate = ()  # likewise, instead of optim.learning_rate
    config.sweep.entropy_target = ()  # likewise, instead of loss.entropy_target
    config.out = ""  # run folder; empty: runs/pretrain/<what is run>

    config.data = config_dict.ConfigDict()
    config.data.steps = 0  # steps of built-in data to collect, or of ExORL data to read; 0 = all
    config.data.clip_actions = False  # True: read data of which many actions exceed the bounds
    config.data.train_fraction = 0.95  # of the episodes
    config.data.split_seed = 0  # of the choice of held-out episodes
    config.data.actions_fraction = 1.0  # of the training episodes that keep their actions

    config.model = config_dict.ConfigDict()
    config.model.window = 4 if mtm else 8
    config.model.width = 512
    config.model.heads = 4  # of attention
    config.model.encoder_layers = 2  # transformer blocks that read visible tokens
    config.model.decoder_layers = 1  # transformer blocks that predict all tokens
    config.model.dropout = 0.1  # share of units that are left out in training
    config.model.compute_dtype = "auto"  # bfloat16 on accelerators, float32 on the CPU
    config.model.positions = "released"  # of the window slots; orthogonal: neighbours differ more
    config.model.remat = False  # True: less memory, a third more to compute
    config.model.bins = 0  # 0 = continuous tokens; else uniform bins per dimension (mtm only)

    config.masks = config_dict.ConfigDict()
    patterns = common.mask_patterns(random_autoregressive=1.0)
    config.masks.patterns = config_dict.ConfigDict(patterns)  # weights of these masks
    config.masks.fractions = FRACTIONS  # visible shares of random masks; one is drawn per modality
    weights = common.MTM_WEIGHTS if mtm else common.M3PC_WEIGHTS
    config.masks.modality_weights = config_dict.ConfigDict(weights)  # of the autoregressive token

    config.loss = config_dict.ConfigDict()
    config.loss.entropy_constraint = True  # False: likelihood alone
    config.loss.entropy_target = -3.0  # nats
    config.loss.entropy_reduction = "joint"  # or per_dimension, as the released code
    config.loss.entropy_samples = 4
    config.loss.initial_sigma = 0.1  # of the Lagrange multiplier that holds the entropy
    config.loss.sigma_learning_rate = 1e-4  # of that multiplier

    config.batch_size = 1024 if mtm else 2048  # MTM table C.2, M3PC table 4
    config.micro_batches = 1  # parts of a batch, computed in turn: the same step in less memory
    config.steps = 140_000  # gradient steps
    config.optim = config_dict.ConfigDict()
    config.optim.learning_rate = 1e-4  # of AdamW, after the warm-up
    config.optim.warmup_fraction = 2 / 7  # 40 000 of 140 000
    config.optim.weight_decay = 0.01 if mtm else 0.005
    config.optim.b2 = 0.999  # decay of the squared gradients' average
    config.optim.clip_norm = 0.0

    config.log_every = 100  # steps in one compiled call
    config.validate_every = 2_000  # steps
    config.save_every = 2_000  # steps between two checkpoints
    config.keep_best = (
        0  # checkpoints that are kept besides the newest two, for the best keep_metric
    )
    config.keep_metric = "valid/train_masks/actions"  # lower is better; metrics.jsonl names them
    config.use_older = False  # continue from the newest good checkpoint where the newest is damaged
    config.debug_batch = ""  # a file of a run's debug folder: repeat that step, say what is wrong
    config.distributed = False  # True: one training in several processes, as a scheduler started
    config.wandb_project = ""  # also log to this project of Weights & Biases

    config.eval = config_dict.ConfigDict()
    config.eval.methods = ("bc", "rcbc")  # ways to act: bc, rcbc
    config.eval.episodes = 20
    config.eval.seed = 1_000  # environments are reset with seed, seed + 1, ...
    config.eval.target_fraction = 1.0  # of the best return in the training data
    config.eval.history = 3 if mtm else 4  # past steps in view
    spec = data_info.find_env(env)
    if spec is not None:
        config.update_from_flattened_dict(DIFFERENCES.get(spec.suite, {}))
    if preset == "base":
        _base(config)
    if preset == "small":
        _small(config)
    config.masks.patterns.update(common.ROLES[config.role])
    return config


def _base(config):
    """One GPU, minutes."""
    config.model.width = 256
    config.batch_size = 1024
    config.steps = 20_000
    config.optim.learning_rate = 3e-4
    config.optim.warmup_fraction = 0.1
    config.optim.clip_norm = 1.0


def _small(config):
    """Two CPU cores, minutes."""
    config.data.steps = 200_000
    config.model.width = 64
    config.model.dropout = 0.0
    config.model.positions = "orthogonal"
    config.batch_size = 128
    config.steps = 6_000
    config.optim.learning_rate = 3e-3
    config.optim.warmup_fraction = 0.1
    config.optim.b2 = 0.98
    config.optim.clip_norm = 1.0
    config.log_every = 50
    config.validate_every = 500
    config.save_every = 500
