"""Convert a published MTM or M3PC checkpoint (seconds).

    python -m experiments.import_checkpoint file.pt OUT

It needs torch, and nothing else does: pip install torch
"""

from ml_collections import config_dict


def get_config():
    config = config_dict.ConfigDict()
    config.file = ""  # the checkpoint, a .pt file
    config.out = ""  # the folder to write
    config.heads = 4  # attention heads, which no parameter tells
    config.window = 0  # steps; 0 = as in the checkpoint's pos_embed
    return config
