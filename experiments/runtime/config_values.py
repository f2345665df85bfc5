"""What the values of a configuration may be, whichever key they belong to."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ml_collections import config_dict

from experiments.runtime import cli_help
from mtm_jax.errors import UserError

_LARGEST, _LARGEST_SEED = 2**31 - 1, 2**32 - 1  # jax counts in 32 bits, seeds have no sign
_LARGEST_FLOAT = 3e38  # of 32 bits


def check(config: config_dict.ConfigDict, defaults: Mapping[str, object]) -> None:
    """Refuse values of another type than the default's, and numbers that jax cannot represent.

    Args:
        config: as overridden.
        defaults: "a.b" -> the value before.

    Raises:
        UserError: it names the key and its value.
    """
    _check_tuples(config, defaults)
    _check_numbers(config)


def expected(flag: str, default: object) -> str:
    """Say which type a value must have."""
    if isinstance(default, type):  # a key without a value, see cli_help.flatten
        return f"{flag}: the value must be of type {default.__name__}"
    kind = type(default).__name__
    return f"{flag}: the value must be of type {kind}, like the default {default!r}"


def _check_tuples(config: config_dict.ConfigDict, defaults: Mapping[str, object]) -> None:
    """Hold the elements of a tuple to the types of its default's; ConfigDict does not."""
    for key, value in cli_help.flatten(config):
        default = defaults[key]
        if isinstance(default, tuple) and default:
            kinds = {type(v) for v in default}
            kinds |= {int} if float in kinds else set()
            if not {type(v) for v in value} <= kinds:
                raise UserError(expected(f"--config.{key}={value!r}", default))


def _check_numbers(config: config_dict.ConfigDict) -> None:
    """Refuse what is no number, and whole numbers beyond those that jax counts with."""
    for key, value in cli_help.flatten(config):
        largest = _LARGEST_SEED if key.endswith("seed") else _LARGEST
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and math.isnan(number):
                raise UserError(f"{key} is {value}; give a number")
            if isinstance(number, int) and abs(number) > largest:
                raise UserError(f"{key} is {value}; give a number of at most {largest}")
            if isinstance(number, float) and _LARGEST_FLOAT < abs(number) < math.inf:
                raise UserError(f"{key} is {value}; give a number of at most {_LARGEST_FLOAT:g}")
