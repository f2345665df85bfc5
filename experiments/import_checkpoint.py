"""Convert a checkpoint that MTM or M3PC published (PyTorch) into model.json and params.npz.

    python -m experiments.import_checkpoint FILE.pt OUT
    python -m experiments.import_checkpoint --config.file=FILE.pt --config.out=OUT

Afterwards mtm_jax.load_model(OUT) returns (config, params). A checkpoint does not contain the
statistics of its data. Reading it needs torch, as no other program does: pip install torch
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import config_dict

from experiments.runtime import cli
from mtm_jax.agents import model_files, torch_import
from mtm_jax.errors import UserError


def main(config: config_dict.ConfigDict) -> None:
    """Read, convert, save."""
    if not config.file or not config.out:
        raise UserError(
            f"checkpoint file {config.file!r} and output folder {config.out!r} must both be given; "
            "write: python -m experiments.import_checkpoint FILE.pt OUT"
        )
    arrays = read_state_dict(config.file)
    model_config, params = torch_import.from_torch_state_dict(
        arrays, heads=config.heads, window=config.window
    )
    model_files.save_model(config.out, model_config, params)
    names = ", ".join(m.name for m in model_config.modalities)
    print(f"{config.out}: {names}; window {model_config.window}, width {model_config.width}")


def read_state_dict(path: str) -> dict[str, np.ndarray]:
    """Read the parameters of a checkpoint file without running code from it.

    Raises:
        UserError: torch is missing, or the file is not a PyTorch checkpoint.
    """
    try:
        import torch
    except ImportError:
        raise UserError("reading a .pt file needs torch; run: pip install torch") from None
    if not pathlib.Path(path).is_file():
        raise UserError(f"no checkpoint file {path}; give the path of a .pt file")
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise many kinds
        raise UserError(
            f"{path} is not a PyTorch file of arrays and plain numbers ({type(error).__name__}); "
            "give the .pt file that training saved, or save model.state_dict() alone"
        ) from error
    return {name: _to_numpy(path, name, value) for name, value in _parameters(loaded).items()}


def _numpy_scalars() -> list[Any]:
    """List what unpickles numpy numbers, as which released checkpoints store their best scores."""
    scalar = np._core.multiarray.scalar
    kinds = [np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType]
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *kinds]


def _parameters(loaded: Any) -> Mapping[str, Any]:
    """Find the state dict: the file itself, or an entry beside the state of the optimiser."""
    for key in ("model", "state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            return loaded[key]
    return loaded if isinstance(loaded, Mapping) else {}


def _to_numpy(path: str, name: str, value: Any) -> np.ndarray:
    if not hasattr(value, "detach"):
        raise UserError(
            f"{path}: {name!r} is a {type(value).__name__}, not a tensor; "
            "give a file that holds a state dict, alone or under 'model'"
        )
    return value.detach().float().numpy()


def spell_out(argv: Sequence[str]) -> list[str]:
    """Turn `FILE OUT ...` into `--config.file=FILE --config.out=OUT ...`."""
    if len(argv) >= 2 and not any(arg.startswith("-") for arg in argv[:2]):
        return [f"--config.file={argv[0]}", f"--config.out={argv[1]}", *argv[2:]]
    return list(argv)


if __name__ == "__main__":
    cli.run(main, argv=spell_out(sys.argv[1:]))
