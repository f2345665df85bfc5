"""Names with options, presets, variants and roles of the pages in configs/."""

import jax
import pytest
from ml_collections import config_dict

from configs import behaviours, common, critic, ladder, pretrain
from experiments.runtime import cli, config_files
from mtm_jax import masks
from mtm_jax.agents import planner
from mtm_jax.errors import UserError

CHOICES = {"preset": ("auto", "small"), "variant": ("m3pc", "mtm")}


def test_the_first_choice_is_the_default():
    expected = ("hopper-medium", {"preset": "auto", "variant": "m3pc"})
    assert common.parse("hopper-medium", **CHOICES) == expected


def test_options_follow_the_name():
    _, options = common.parse("walker2d-expert,variant=mtm,preset=small", **CHOICES)
    assert options == {"preset": "small", "variant": "mtm"}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hopper-medium,preset=huge", "unknown option 'preset=huge'.*preset=auto|small"),
        ("hopper-medium,size=3", "unknown option 'size=3'"),
        ("hopper-medium,preset", "unknown option 'preset'"),
        ("hopper-medium,", "unknown option ''"),
        ("ant-medium", "unknown environment 'ant'"),
    ],
)
def test_unknown_names_and_options_are_refused(name, says):
    with pytest.raises(UserError, match=says):
        common.parse(name, **CHOICES)


@pytest.mark.parametrize(("backend", "preset"), [("cpu", "small"), ("gpu", "paper")])
def test_auto_follows_the_device(monkeypatch, backend, preset):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert common.choose("auto") == preset
    assert common.choose("base") == "base"


def test_every_mask_pattern_can_be_overridden():
    patterns = pretrain.get_config().masks.patterns
    assert set(patterns) == {*masks.TRAINING_DISTRIBUTIONS, *masks.PROMPTS}
    assert {name for name, weight in patterns.items() if weight} == {"random_autoregressive"}


@pytest.mark.parametrize(
    ("page", "table"),
    [
        *[(pretrain, t) for t in ("VARIANTS", "SUITES", "PRESETS", "ROLES")],
        *[(behaviours, "LADDERS"), (ladder, "LADDERS")],
    ],
)
def test_a_table_with_an_unknown_key_is_refused(monkeypatch, page, table):
    wrong = dict.fromkeys(getattr(page, table), {"widht": 3})
    monkeypatch.setattr(page, table, wrong)
    with pytest.raises(KeyError, match="widht"):
        page.get_config("pen-human" if page is pretrain else "hopper")


def test_presets_of_the_critic_set_what_the_page_leaves_unset():
    unset = {k for k, v in critic.get_config().critic.items() if v is None} - {"unit"}
    assert unset and all(table.keys() == unset for table in critic.PRESETS.values())


@pytest.mark.parametrize("preset", ["small", "base", "paper"])
@pytest.mark.parametrize("variant", ["m3pc", "mtm"])
def test_presets_keep_the_papers_numbers_where_they_do_not_shrink_them(preset, variant):
    config = config_files.load(
        f"configs/pretrain.py:hopper-medium,preset={preset},variant={variant}"
    )
    assert config.preset == preset
    assert config.model.window == {"m3pc": 8, "mtm": 4}[variant]
    assert ("rewards" in config.masks.modality_weights) == (variant == "m3pc")
    assert config.eval.history < config.model.window
    if preset == "paper":
        assert (config.steps, config.optim.learning_rate) == (140_000, 1e-4)
        assert config.batch_size == {"m3pc": 2048, "mtm": 1024}[variant]
        assert config.optim.warmup_fraction * config.steps == pytest.approx(40_000)


@pytest.mark.parametrize("preset", ["small", "base", "paper"])
@pytest.mark.parametrize("role", pretrain.ROLES)
def test_a_role_decides_the_masks_of_every_preset(preset, role):
    name = f"configs/pretrain.py:hopper-medium,preset={preset},role={role}"
    patterns = config_files.load(name).masks.patterns
    assert sum(patterns.values()) == pytest.approx(1.0)
    prompts = {"random_autoregressive", "rcbc", "bc", "fd", "id", "pi"}
    expected = {"prompts": prompts, "policy": {"rcbc"}, "world": {"fd"}}
    expected["goals"] = {"random_autoregressive", "id", "pi"}
    shown = {name for name, weight in patterns.items() if weight}
    assert shown == expected.get(role, {"random_autoregressive"})


@pytest.mark.parametrize("method", planner.GUIDANCE)
def test_programs_plan_as_the_library_does(method):
    config = config_dict.ConfigDict()
    common.add_planning(config)
    assert planner.plan_config(method, **config.plan, **config[method]) == planner.plan_config(
        method
    )


def test_the_discount_of_one_program_is_not_that_of_another():
    first, second = config_dict.ConfigDict(), config_dict.ConfigDict()
    common.add_planning(first)
    common.add_planning(second)
    first.m3pc_q.discount = 0.5
    assert second.m3pc_q.discount is None


@pytest.mark.parametrize("key", ["env", "preset", "variant", "role"])
def test_what_the_name_decides_cannot_be_overridden_alone(key):
    with pytest.raises(UserError, match=rf"--config\.{key} would not change.*pretrain\.py:ENV"):
        cli.parse([f"--config.{key}=small"], "configs/pretrain.py:hopper-medium")


@pytest.mark.parametrize("name", ["hopper-mine", "door-human", "lift-mg", "custom-robot"])
def test_data_from_elsewhere_have_levels_of_their_own(name):
    assert common.parse(name, **CHOICES)[0] == name
