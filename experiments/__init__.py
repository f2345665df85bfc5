"""The programs: each module here is a command, `python -m experiments.NAME`."""

import sys

if sys.argv[:1] == ["-m"]:  # Python is about to run one of them
    from experiments.runtime import startup

    startup.begin()
