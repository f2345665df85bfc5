"""Convert a checkpoint that MTM or M3PC published (PyTorch) into model.json and params.npz.

python -m experiments.import_checkpoint FILE.pt OUT

Takes seconds. It needs torch, which no other program does: pip install torch
"""

from ml_collections import config_dict

unset = config_dict.placeholder


def get_config():
    config = config_dict.ConfigDict()
    config.file = ""  # checkpoint to convert, a .pt file
    config.out = ""  # folder to write
    config.heads = 4  # attention heads, which the checkpoint does not tell
    config.window = unset(int)  # steps of a window; unset: as many as the checkpoint has
    return config
