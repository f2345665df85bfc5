"""Tabulate results of several runs.

python -m experiments.report --config.results=results/m3pc_offline
"""

from ml_collections import config_dict


def get_config():
    config = config_dict.ConfigDict()
    config.results = ""  # a file of results, or a folder of such files
    config.baseline = "rcbc"  # the method that the others are compared with
    config.figure = ""  # PNG file of a bar chart; empty: none
    return config
