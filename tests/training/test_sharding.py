"""A training on several devices or hosts is the training on one, and so are its checkpoints."""

import dataclasses
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import sharded_program
import tiny_programs

from experiments.runtime import distributed
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint, records, trees
from mtm_jax.models import trajectory_model as model
from mtm_jax.training import dataset, pretrain, program, sharding


def environment(devices, **more):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"} | more


@pytest.mark.slow
def test_four_devices_train_as_one_and_one_reads_what_they_saved(root, tmp_path):
    argv = [sys.executable, "-m", "tests.sharded_program", str(tmp_path)]
    done = subprocess.run(argv, cwd=root, env=environment(4), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("the same on 4 devices\n")
    assert jax.device_count() == 1
    data = dataset.make_dataset(sharded_program.trajectories(), sharded_program.WINDOW)
    config = sharded_program.CONFIG
    network, stats = model.make_model(config.model), dataset.compute_stats(data)
    training = pretrain.make_training(config, network, stats)
    like = program.make_program(training).init(jax.random.key(1))
    state = checkpoint.Checkpoints(tmp_path, read_only=True).restore_train(1, like)
    with np.load(tmp_path / "expected.npz") as saved:
        for a, b in zip(saved.values(), jax.tree.leaves(trees.to_host(state)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_one_device_needs_no_mesh():
    assert sharding.make_mesh(sharded_program.CONFIG) is None


@pytest.mark.parametrize(("parts", "members", "multiple"), [(1, 1, 6), (8, 2, 24)])
def test_a_batch_that_the_devices_do_not_divide_is_refused(monkeypatch, parts, members, multiple):
    monkeypatch.setattr(sharding.jax, "device_count", lambda: 6)
    config = dataclasses.replace(sharded_program.CONFIG, micro_batches=parts)
    with pytest.raises(UserError, match=f"batch_size of 32 .* choose a multiple of {multiple}"):
        sharding.make_mesh(config, members)


def test_variables_of_other_processes_must_be_complete(monkeypatch):
    monkeypatch.setattr(distributed.jax.distributed, "initialize", lambda *_, **__: None)
    distributed.start([])
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1")
    with pytest.raises(UserError, match="set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES"):
        distributed.start([])


@pytest.mark.parametrize("yes", ["", "=True", "=t", "=1"])
def test_without_a_scheduler_it_is_said_what_to_set(monkeypatch, yes):
    def initialize(**options):
        raise ValueError("coordinator_address should be defined.")

    for name in distributed.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(distributed.jax.distributed, "initialize", initialize)
    with pytest.raises(UserError, match="cannot join the others .coordinator_address should be"):
        distributed.start([f"--config.distributed{yes}"])


@pytest.mark.slow
def test_two_processes_with_two_devices_train_as_one_process(tmp_path):
    source = tmp_path / "toy.npz"
    tiny_programs.write_source(source)
    keys = ("steps=4", "batch_size=8", "log_every=2", "model.dropout=0.0", "save_every=2")

    def start(folder, env, *more):
        program = tiny_programs.make("pretrain", source, tmp_path / folder)
        argv = [sys.executable, "-m", "experiments.pretrain"]
        argv += tiny_programs.flags((*program.keys, *keys, *more))
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(argv, cwd=tiny_programs.ROOT, env=env, **streams)

    def finish(processes):
        for process in processes:
            said = process.communicate(timeout=1800)[0]
            assert process.returncode == 0, said[-3000:]

    def together(*more):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
        envs = [environment(2, **shared, JAX_PROCESS_ID=str(k)) for k in range(2)]
        finish([start("two", env, *more) for env in envs])

    finish([start("one", environment(1))])
    together()
    rows = [records.read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("one", "two")]
    assert [row["step"] for row in rows[1]] == [2, 4]
    for one, two in zip(*rows, strict=True):
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_allclose(two[name], one[name], rtol=1e-3, err_msg=name)
    steps = [checkpoint.Checkpoints(tmp_path / n, read_only=True).steps() for n in ("one", "two")]
    assert steps == [[2, 4], [2, 4]]
