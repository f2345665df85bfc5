"""What configuration files share: names with options, preset choice, mask mixtures."""

from __future__ import annotations

from ml_collections import config_dict

from mtm_jax import masks
from mtm_jax.envs import registry
from mtm_jax.errors import UserError

M3PC_WEIGHTS = {"states": 0.2, "returns": 0.1, "actions": 0.6, "rewards": 0.1}
MTM_WEIGHTS = {"states": 0.2, "returns": 0.1, "actions": 0.7}


def mask_patterns(**weights: float) -> dict[str, float]:
    """Weights of every pattern there is, zero unless named, so that each can be overridden."""
    names = (*masks.TRAINING_DISTRIBUTIONS, *masks.PROMPTS)
    unknown = sorted(set(weights) - set(names))
    if unknown:
        raise UserError(f"unknown mask patterns {unknown}; choose among {', '.join(names)}")
    return {name: float(weights.get(name, 0.0)) for name in names}


# What a model is trained for: everything, by random masks or mostly by the prompts of test time,
# which have probability zero under these; or one of the two parts of a planner (M3PC figure 6). A
# world model of its own has not seen the prompt rp: plan with readout=fd.
ROLES = {
    "unified": {},
    "prompts": mask_patterns(random_autoregressive=0.2, rcbc=0.2, bc=0.1, fd=0.4, id=0.05, pi=0.05),
    "policy": mask_patterns(rcbc=1.0),
    "world": mask_patterns(fd=1.0),
}

# How M3PC plans (table 4, but for xi: in standard deviations over the candidates, raw there).
PLAN = {
    "candidates": 625,  # N, plans to choose among
    "history": 4,  # past steps in view
    "horizon": 4,  # planned steps, the present one included
    "lambda_": 0.6,  # weight of longer n-step returns
    "current_state": "true",  # or reconstructed
    "convention": "equation3",  # or released
    "pruned": True,  # False: whole passes, the same numbers; reconstructed states need them
}
# What differs by what guides.
PLAN_M = {
    "discount": 0.99,  # gamma; of m3pc_q, nothing: the critic's
    "xi": 1.0,  # multiplies the utilities in the softmax
    "xi_unit": "std",  # standard deviations over the candidates, or raw
    "spread": 0.5,  # multiplies the standard deviations of the proposals
    "readout": "rp",  # rewards and returns from: fd, the forward pass; rp, a pass of their own
}


def plan_q() -> dict:
    """What M3PC-Q has instead; its discount is a reference, which copies of a dict would share."""
    return {
        "discount": config_dict.placeholder(float),
        "xi": 1.0,
        "xi_unit": "std",
        "spread": 1.0,
        "readout": "fd",
    }


def add_planning(config: config_dict.ConfigDict) -> None:
    """Add the keys of programs that evaluate plans."""
    config.eval = config_dict.ConfigDict()
    config.eval.episodes = 20
    config.eval.seed = 1_000  # environments are reset with seed, seed + 1, ...
    config.eval.target_fraction = 1.0  # of the best return in the training data
    config.world = ""  # run whose model answers what plans lead to; empty: the run's own
    config.plan = config_dict.ConfigDict(PLAN)
    config.m3pc_m = config_dict.ConfigDict(PLAN_M)  # instead, where M3PC-M plans
    config.m3pc_q = config_dict.ConfigDict(plan_q())  # instead, where M3PC-Q plans


# Keys of a configuration that NAME decides, and how NAME says them.
RUN_NAME_KEYS = {
    "env": "ENV",
    "preset": "ENV,preset=small|base|paper",
    "variant": "ENV,variant=m3pc|mtm",
}


def name_run(config: config_dict.ConfigDict, text: str) -> None:
    """Add the keys that say which run is meant; `text` is what configs/pretrain.py was given."""
    config.run = ""  # the run folder; empty: where configs/pretrain.py:NAME with these keys goes
    config.env = ""  # of the run that NAME stands for, like preset and variant
    config.preset = ""  # small, base or paper; of the run that NAME stands for
    config.variant = ""  # m3pc or mtm; of the run that NAME stands for
    config.source = "builtin"  # of the run that NAME stands for
    config.seed = 0  # of the run that NAME stands for
    if text:
        config.env, options = parse(
            text, preset=("auto", "small", "base", "paper"), variant=("m3pc", "mtm")
        )
        config.preset, config.variant = choose(options["preset"]), options["variant"]


def parse(name: str, **choices: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """Split `<env>-<level>[,option=value...]`; the first choice of an option is its default.

    Raises:
        UserError: an unknown environment, level, option or value.
    """
    env, *settings = name.split(",")
    if not env.startswith("custom"):  # data of an environment that is not in the registry
        registry.split_name(env)
    options = {key: values[0] for key, values in choices.items()}
    for setting in settings:
        key, _, value = setting.partition("=")
        if value not in choices.get(key, ()):
            known = ", ".join(f"{k}={'|'.join(v)}" for k, v in choices.items())
            raise UserError(f"unknown option {setting!r} in {name!r}; choose among {known}")
        options[key] = value
    return env, options


def choose(preset: str) -> str:
    """Resolve "auto": small on the CPU, paper on an accelerator."""
    if preset != "auto":
        return preset
    import jax  # starting a backend takes a second, which other presets need not wait for

    return "small" if jax.default_backend() == "cpu" else "paper"
