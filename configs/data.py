"""List, inspect, collect, convert and download data sets.

python -m experiments.data list
python -m experiments.data inspect hopper-medium
python -m experiments.data collect hopper --config.results=FILE
"""

from ml_collections import config_dict

from mtm_jax.errors import UserError

NAME_KEYS = {"action": "ACTION"}


def get_config(action="list"):
    if action not in ACTIONS:
        raise UserError(f"unknown action {action!r}; choose one of {', '.join(ACTIONS)}")
    config = config_dict.ConfigDict()
    config.action = action
    ACTIONS[action](config)
    return config


def _list(config):
    config.source = ""  # only these: builtin, d4rl or minari


def _inspect(config):
    config.source = ""  # the same as SOURCE
    config.name = ""  # <env>-<level>, where SOURCE does not tell the environment
    config.steps = 0  # of built-in data; 0 = the usual size
    config.seed = 0  # of built-in data
    config.clip_actions = False  # True: read data of which many actions exceed the bounds
    config.figure = "runs/data/NAME.png"  # histograms; NAME is filled in, empty = none


def _collect(config):
    config.name = ""  # the same as NAME: <env>-<level>, <env> for all of its levels, or all
    config.steps = 0  # environment steps of each data set; 0 = the usual size
    config.seed = 0  # of every random number
    config.workers = 0  # processes; 0 = one per core
    config.actors = ""  # folder with a ladder.json; empty = the actors of this package
    config.results = ""  # file to append one JSON row per data set to; empty = none
    config.figure = ""  # PNG file for histograms of the returns; empty = none


def _convert(config):
    config.source = ""  # the same as SOURCE
    config.dataset_id = ""  # the same as DATASET_ID, such as mine/hopper/medium-v0
    config.name = ""  # <env>-<level>, where SOURCE does not tell the environment
    config.steps = 0  # of built-in data; 0 = the usual size
    config.seed = 0  # of built-in data
    config.clip_actions = False  # True: read data of which many actions exceed the bounds
    config.root = ""  # folder that ids are looked up in; empty = minari/ in the cache


def _download(config):
    config.source = ""  # the same as SOURCE: d4rl:NAME or minari:ID


ACTIONS = {
    "list": _list,
    "inspect": _inspect,
    "collect": _collect,
    "convert": _convert,
    "download": _download,
}
