"""What is measured of the machine."""

import types

import gymnasium
import numpy as np
import pytest

from experiments.runtime import machine


def recording(rows):
    return np.zeros((rows, 17), np.float32), np.full((rows, 6), 0.5, np.float32)


def test_the_simulation_is_stepped_as_often_as_is_counted(monkeypatch):
    stepped = []
    monkeypatch.setattr(machine.mujoco, "mj_step", lambda *_, nstep: stepped.append(nstep))
    assert machine.simulation_rate("HalfCheetah-v5", *recording(7), stretches=2) > 0
    assert stepped == [5] * 14
    stepped.clear()
    machine.simulation_rate("HalfCheetah-v5", *recording(300), stretches=3)
    assert stepped == [5] * 300


def test_the_simulation_goes_through_the_recorded_states(monkeypatch):
    seen = []
    monkeypatch.setattr(
        machine.mujoco, "mj_step", lambda _, data, nstep: seen.append((data.qpos[1], *data.ctrl))
    )
    observations, actions = recording(120)
    observations[:, 0] = np.arange(120) / 100
    machine.simulation_rate("HalfCheetah-v5", observations, actions, stretches=2)
    assert [seen[0][0], seen[100][0]] == pytest.approx([0.0, 0.2])
    assert seen[0][1:] == (0.5,) * 6


def test_an_environment_that_hides_its_simulation_has_no_rate(monkeypatch):
    monkeypatch.setattr(machine.make, "make", lambda _: gymnasium.Env())
    assert machine.simulation_rate("Hopper-v5", *recording(7)) is None


@pytest.mark.parametrize("size", [8, 32])
def test_products_have_a_rate(size):
    assert machine.matrix_product_rate(size, repeats=1) > 0


def test_peak_memory_of_the_cpu_is_that_of_the_process():
    before = machine.peak_memory()["peak_process_memory_gb"]
    assert 0.05 < before < 1000
    held = np.ones(int(1.2e9 * before / 8) + 10_000_000)
    assert machine.peak_memory()["peak_process_memory_gb"] > before + 0.05
    assert held[-1] == 1.0
    assert machine.say_memory({"peak_process_memory_gb": 1.234}) == "peak process memory 1.23 GB"


def test_peak_memory_of_an_accelerator_is_what_the_device_says(monkeypatch):
    device = types.SimpleNamespace(memory_stats=lambda: {"peak_bytes_in_use": 2_500_000_000})
    monkeypatch.setattr(machine.jax, "local_devices", lambda: [device])
    assert machine.peak_memory() == {"peak_device_memory_gb": 2.5}
