"""Printing ends no program: other encodings, closed pipes and full disks lose text, no results."""

import io
import subprocess
import sys

import pytest

from mtm_jax.io import console, results

ROW = {"dataset": "d", "method": "bc", "seed": 0, "normalized_scores": [1.0, 2.0], "metrics": {}}
ROW |= {"returns": [1.0, 2.0], "target_return": None}


def stream(encoding):
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", r"1 +/- 2 ... ---18 \xe9 \u4e16 \udcff"),
        ("latin-1", r"1 ± 2 ... ---18 é \u4e16 \udcff"),
        ("cp1252", r"1 ± 2 … ---18 é \u4e16 \udcff"),
        ("utf-8", r"1 ± 2 … ───▁█ é 世 \udcff"),
        ("utf-16", r"1 ± 2 … ───▁█ é 世 \udcff"),
    ],
)
def test_what_an_encoding_lacks_is_spelled(encoding, expected):
    assert console.spelled("1 ± 2 … ───▁█ é 世 \udcff", stream(encoding)) == expected


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_the_table_of_results_is_printed_in_every_encoding(monkeypatch, encoding):
    screen = stream(encoding)
    monkeypatch.setattr(sys, "stdout", screen)
    results.print_results([ROW])
    screen.flush()
    lines = screen.buffer.getvalue().decode(encoding).splitlines()
    sign = "+/-" if encoding == "ascii" else "±"
    row = next(line for line in lines if " bc " in line)
    assert f"1.5 {sign} 0.5" in row
    assert "\\x" not in "".join(lines) and "\\u" not in "".join(lines)


PROGRAM = """
import sys
from mtm_jax.io import console
with console.tolerant():
    for _ in range(3):
        print("x" * 100_000)
    print("done", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("sink", "said"),
    [("/dev/full", "output is lost from here on: [Errno 28] No space left on device\ndone\n")]
    + [("pipe", "done\n")],
)
def test_a_program_outlives_what_takes_its_output(root, sink, said):
    if sink == "pipe":
        reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
        reader.wait()
        target = reader.stdin
    else:
        target = open(sink, "wb")
    with target:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=root,
            stdout=target,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (0, said)


def test_the_streams_are_given_back(capsys):
    before = sys.stdout, sys.stderr
    with console.tolerant():
        assert isinstance(sys.stdout, console.Tolerant)
        with console.tolerant():  # a program within a program
            print("inner")
        print("outer")
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "inner\nouter\n"
