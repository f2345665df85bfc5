"""Time training and acting on this machine (a minute on two CPU cores).

python -m experiments.bench
"""

from ml_collections import config_dict


def get_config():
    config = config_dict.ConfigDict()
    config.widths = (64, 128)  # of the models to time
    config.batch_size = 128
    config.environments = 20  # decisions per call
    config.repeats = 7  # the median is printed
    return config
