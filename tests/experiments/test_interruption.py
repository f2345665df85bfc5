"""The real programs, interrupted by a signal, end as if they had not been."""

import signal
import time

import pytest
import tiny_programs

from mtm_jax.io import checkpoint


def wait_for(path, process):
    while not (path.exists() and path.read_bytes().count(b"\n")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def last_step(program):
    return checkpoint.Checkpoints(program.folder, read_only=True).steps()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number"),
    [("pretrain", signal.SIGTERM), ("critic", signal.SIGINT), ("behaviours", signal.SIGTERM)],
)
def test_an_interrupted_program_ends_bit_for_bit_like_an_undisturbed_one(
    tmp_path, monkeypatch, name, number
):
    # As users start them: without XLA's fusion emitters, one of the flags that make tests compile
    # faster, SAC's program computes NaN.
    monkeypatch.setenv("XLA_FLAGS", "")
    source = tmp_path / "mine.npz"
    tiny_programs.write_source(source)
    undisturbed = tiny_programs.make(name, source, tmp_path / "undisturbed")
    code, said = undisturbed.run()
    assert code == 0, said
    program = tiny_programs.make(name, source, tmp_path / "interrupted")
    process = program.start()
    wait_for(program.folder / "metrics.jsonl", process)
    process.send_signal(number)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 128 + number
    assert "which is saved; the same command continues" in said.splitlines()[-1]
    reached = last_step(program)
    assert 0 < reached < last_step(undisturbed)
    code, said = program.run()
    assert code == 0 and f"continuing from step {reached}" in said
    assert program.ending() == undisturbed.ending()
