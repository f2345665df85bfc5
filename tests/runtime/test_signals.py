"""The first signal lets a loop finish its step, a second one ends the program."""

import os
import signal
import subprocess
import sys

import pytest

from experiments.runtime import signals

NUMBERS = (signal.SIGTERM, signal.SIGINT)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_noted_and_the_loop_goes_on(number):
    before = signal.getsignal(number)
    with signals.interruptible() as interrupted:
        assert not interrupted
        os.kill(os.getpid(), number)
        assert interrupted
        assert interrupted.exit_code == 128 + number
    assert signal.getsignal(number) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_leaving_says_how_to_continue(capsys):
    interrupted = signals.Interrupted()
    signals.leave(interrupted, 5)
    interrupted.note(signal.SIGTERM)
    interrupted.note(signal.SIGINT)
    with pytest.raises(SystemExit) as stopped:
        signals.leave(interrupted, 5)
    assert stopped.value.code == 143
    said = "stopped after step 5, which is saved; the same command continues\n"
    assert capsys.readouterr().err == said
    with pytest.raises(SystemExit):
        signals.leave(interrupted, 0, "update")
    said = "stopped before the first update; the same command starts again\n"
    assert capsys.readouterr().err == said


# Between two steps, and within a call that does not come back to Python.
LOOPS = {
    "steps": "while True: time.sleep(0.01)",
    "one call": "threading.Lock().acquire(); l = threading.Lock(); l.acquire(); l.acquire()",
}


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_second_signal_ends_the_program_at_once(root, number, loop):
    program = f"""
import threading, time
from experiments.runtime import signals
with signals.interruptible() as interrupted:
    print("begun", flush=True)
    {LOOPS[loop]}
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    process.send_signal(number)
    assert process.wait(timeout=20) == 128 + number
    process.stdout.close()


def test_outside_of_a_loop_the_first_signal_ends_the_program(root):
    program = """
import time
from experiments.runtime import signals
with signals.terminable():
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        print("cleaned", flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begun\n"
    process.terminate()
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (143, "cleaned\n", "terminated\n")
