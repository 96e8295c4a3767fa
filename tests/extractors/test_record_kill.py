"""SIGKILL at random moments: a resumed recording has the bytes of an uninterrupted one.

``tests/benchmarks/kill_extractions.py`` does the same fifty times and prints what it found.
"""

import importlib.util
import random
import signal
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")


@pytest.fixture(scope="module")
def tools():
    file = Path(__file__).parent.parent / "benchmarks" / "kill_extractions.py"
    spec = importlib.util.spec_from_file_location("kill_extractions", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_kills_and_resumes_give_the_same_bytes(tools, tmp_path):
    """One store killed over and over until it is done, and several killed once."""
    rng = random.Random(5)
    with tools.Extractions(n=40) as extractions:
        whole = tmp_path / "whole" / "acts.zarr"
        assert extractions.run(whole)[0] == 0
        (status, duration), again = extractions.run(tmp_path / "again" / "acts.zarr"), tmp_path / "again" / "acts.zarr"
        assert status == 0
        assert tools.digest(again) == tools.digest(whole)
        killed = 0

        def kill(store, low, high):
            """Kill a recording at a random moment; one that was done sooner says how fast the machine is by now."""
            nonlocal killed, duration
            status, ran = extractions.run(store, kill_after=rng.uniform(low, high) * duration)
            killed += status == -signal.SIGKILL
            duration = duration if status else min(duration, ran) / 2

        store = tmp_path / "often" / "acts.zarr"
        for _ in range(3):
            kill(store, 0.2, 0.6)
        assert extractions.run(store)[0] == 0
        assert tools.digest(store) == tools.digest(whole)
        for i in range(3):
            store = tmp_path / f"once{i}" / "acts.zarr"
            kill(store, 0.1, 0.6)
            assert extractions.run(store)[0] == 0
            assert tools.digest(store) == tools.digest(whole)
        assert killed >= 3
