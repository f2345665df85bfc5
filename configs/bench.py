"""Time training and acting on this machine (about five minutes on two CPU cores, half compiling).

python -m experiments.bench
"""

from ml_collections import config_dict

from experiments import presets


def get_config():
    config = config_dict.ConfigDict()
    config.widths = (64, 128, 512)  # of the models to time
    config.encoder_layers = 2  # of every model
    config.around = (128,)  # those at which horizons, environments and m3pc_q's candidates vary
    config.compared = (128, 512)  # those at which planning without pruning is timed as well
    config.candidates = (1, 5, 25, 125, 625, 2500)  # of a plan
    config.horizons = (1, 2, 4)  # steps of a plan
    config.environments = (1, 4, 16)  # decisions per call
    standard = ("candidates", "history", "horizon")
    config.plan = config_dict.ConfigDict({key: presets.PLAN[key] for key in standard})
    config.batch_size = 128  # of a training step
    config.seconds = 1.0  # for each row, but see repeats
    config.repeats = 5  # calls of each row at least; the median counts
    config.longest = 10.0  # s; leave out what takes longer a call at the rate of matrix products
    config.results = ""  # file; by default results/bench-DEVICE.json
    config.figure = ""  # PNG file: the time of a decision against the candidates
    return config
