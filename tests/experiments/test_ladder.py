"""Which actors of a run are kept for the built-in data."""

import pathlib

import pytest

from configs import ladder as page
from experiments import ladder
from mtm_jax.data.builtin import ladders
from mtm_jax.envs import registry
from mtm_jax.errors import UserError


def scored(step, sampled, mode=None):
    path = pathlib.Path(f"actor_{step}.npz")
    return ladder.Scored(path, step, sampled, sampled if mode is None else mode, 100.0)


def test_an_actor_whose_mode_scores_otherwise_cannot_be_medium():
    config = page.get_config("hopper")
    same, lower, higher = scored(1, 100.0, 86.0), scored(2, 100.0, 84.0), scored(3, 100.0, 116.0)
    assert ladder.agreeing([same, lower, higher], config) == [same]
    with pytest.raises(UserError, match=r"none of 2 .* actor_2.npz, with returns of 100 and 84"):
        ladder.agreeing([lower, higher._replace(mode_return=200.0)], config)


def test_replay_rises():
    medium = scored(9, 50.0)
    actors = [scored(k, r) for k, r in enumerate([5.0, 3.0, 20.0, 60.0, 30.0, 10.0, 40.0])]
    risen = ladder.rising(actors, medium)
    assert [s.mean_return for s in risen] == [5.0, 20.0]  # 60 is above medium, and what follows
    assert ladder.rising([], medium) == []


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_rungs_are_evenly_spaced_in_return(count):
    medium = scored(99, 100.0)
    actors = [scored(k, float(r)) for k, r in enumerate(range(0, 100, 5))]
    chosen = [s.mean_return for s in ladder.evenly(actors, medium, count)]
    assert len(chosen) == count and chosen == sorted(chosen) and chosen[0] == 0
    gaps = [b - a for a, b in zip(chosen, [*chosen[1:], 100.0], strict=True)]
    assert max(gaps) - min(gaps) <= 10
    assert ladder.evenly([], medium, count) == []


@pytest.mark.parametrize("name", ["hopper", "walker2d", "halfcheetah"])
def test_committed_ladders_rise_to_a_medium_that_scores_alike_in_its_mode(name):
    spec, _ = registry.split_name(name, versions=False)
    index = ladders._read_index(ladders.folder_of(spec), spec)
    entries = {entry["file"]: entry for entry in index["ladder"]}
    medium, expert = entries[index["medium"]], entries[index["expert"]]
    assert medium["mode_return"] == pytest.approx(medium["return"], rel=0.15)
    assert 0.25 < medium["score"] / expert["score"] < 0.55
    replay = [e["return"] for e in index["ladder"] if e["step"] <= medium["step"]]
    assert len(replay) >= 4 and replay == sorted(replay)
