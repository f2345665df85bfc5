"""What is measured of the machine."""

import gymnasium
import pytest

from experiments import machine


def test_the_simulation_is_stepped_as_often_as_is_counted(monkeypatch):
    stepped = []
    monkeypatch.setattr(machine.mujoco, "mj_step", lambda *_, nstep: stepped.append(nstep))
    assert machine.simulation_rate("HalfCheetah-v5", steps=7) > 0
    assert stepped == [5] * 7


def test_an_environment_that_hides_its_simulation_has_no_rate(monkeypatch):
    monkeypatch.setattr(machine.make, "make", lambda _: gymnasium.Env())
    assert machine.simulation_rate("Hopper-v5") is None


@pytest.mark.parametrize("size", [8, 32])
def test_products_have_a_rate(size):
    assert machine.matrix_product_rate(size, repeats=1) > 0
