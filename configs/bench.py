"""Time training, acting and the rest on this machine (a quarter of an hour on two CPU cores).

python -m experiments.bench
python -m experiments.bench --config.sections="('training','decisions')"
"""

from ml_collections import config_dict

from configs import common


def get_config():
    config = config_dict.ConfigDict()
    config.sections = (
        *("presets", "seeds", "training", "critic", "decisions", "collection", "peer", "parts"),
    )  # what to time
    config.compute_dtypes = ("auto",)  # float32, bfloat16; auto: bfloat16 on accelerators only
    config.presets = ("auto",)  # small, base, paper; auto: small on the CPU, else all
    config.seeds = (2, 3, 5)  # in one program, beside one
    config.encoder_layers = 2  # of all models but the presets'

    config.training = config_dict.ConfigDict()
    config.training.widths = (64, 128, 128, 256, 512)  # each with its batch; others vary the first
    config.training.batches = (128, 256, 64, 64, 64)  # windows of a step
    config.training.other_batches = (32, 64, 256, 512)  # at the first width
    config.training.other_windows = (4, 16, 32)  # steps of a window, likewise
    config.training.steps = 4  # of a call
    config.critic = config_dict.ConfigDict()
    config.critic.widths = (256, 64, 128)  # of the hidden layers, at the first batch
    config.critic.batches = (256, 64, 1024)  # at the first width

    config.widths = (64, 128, 512)  # of the models that decide
    config.around = (128,)  # those at which horizons, environments and m3pc_q's candidates vary
    config.compared = (128, 512)  # those at which planning without pruning is timed as well
    config.candidates = (1, 5, 25, 125, 625, 2500)  # of a plan
    config.horizons = (1, 2, 4)  # steps of a plan
    config.environments = (1, 4, 16)  # decisions per call
    standard = ("candidates", "history", "horizon")
    config.plan = config_dict.ConfigDict({key: common.PLAN[key] for key in standard})

    config.collection_steps = 40_000  # of the environment
    config.peer = config_dict.ConfigDict()  # timed beside PyTorch, where it is installed
    config.peer.decisions = (128, 512)  # widths
    config.peer.widths = (128, 512)  # of training steps, each with its batch
    config.peer.batches = (256, 64)
    config.parts = config_dict.ConfigDict()  # of training steps and decisions
    config.parts.widths = (64, 128, 512)
    config.parts.batches = (128, 256, 64)

    config.seconds = 1.0  # for each row, but see repeats
    config.repeats = 5  # calls of each row at least; the median counts
    config.patience = 10.0  # s, after which three calls are enough
    config.longest = 5.0  # s; leave out what takes longer a call at the rate of matrix products
    config.results = ""  # file; by default results/bench-DEVICE.json
    config.stored = ""  # a file of results: print its table and time nothing
    config.figure = ""  # PNG file: the time of a decision against the candidates
    return config
