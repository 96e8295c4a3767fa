"""A killed ranking goes on to the same numbers."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from actkit.errors import InputError
from actkit.ranking import rank_units
from actkit.ranking_engine import Journal
from actkit.tasks import Task

SCRIPT = """
import time
import numpy as np
import torch
from actkit.ranking import rank_units
from actkit.tasks import Task

pause = 0.0  # seconds a forward pass; the process that is to be killed takes its time


class Slow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.relu = torch.nn.ReLU()
        self.head = torch.nn.Linear(12, 3)
        generator = torch.Generator().manual_seed(0)
        self.head.weight.data = torch.randn((3, 12), generator=generator)

    def forward(self, values):
        time.sleep(pause)
        return self.head(self.relu(values))


def task():
    values = torch.randn((40, 12), generator=torch.Generator().manual_seed(1))
    return Task("slow", values, np.arange(40) % 3, np.array([0, 1, 2]))


def run(folder):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Slow()
    return rank_units(
        module, "relu", task(), strategy="greedy", stop=0.5, method="hooks", images=20, block=1, resume=folder
    )
"""


def test_a_sweep_killed_by_the_system_resumes_to_the_same_numbers(tmp_path):
    script = tmp_path / "slow_sweep.py"
    script.write_text(SCRIPT)
    folder = tmp_path / "journal"
    code = f"import slow_sweep; slow_sweep.pause = 0.01; slow_sweep.run({str(folder)!r})"
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    try:
        for _ in range(6000):
            if len(list(folder.glob("*.npz"))) >= 8 or process.poll() is not None:
                break
            time.sleep(0.01)
        assert process.poll() is None, "the sweep ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    assert len(kept) >= 8

    spec = importlib.util.spec_from_file_location("slow_sweep", script)
    slow = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(slow)
    resumed = slow.run(folder)
    fresh = slow.run(None)
    assert resumed.drop_attrs().identical(fresh.drop_attrs())
    files = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    assert len(files) > len(kept)
    assert all(files[name] == stamp for name, stamp in kept.items()), "finished blocks were computed again"


class Tiny(torch.nn.Module):
    """A dense layer with ReLU and a head."""

    def __init__(self):
        super().__init__()
        self.relu = torch.nn.ReLU()
        self.head = torch.nn.Linear(20, 4)
        for number, parameter in enumerate(self.parameters()):
            parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))

    def forward(self, values):
        return self.head(self.relu(values))


def tiny_task(seed=1):
    values = torch.randn((200, 20), generator=torch.Generator().manual_seed(seed))
    return Task("tiny", values, np.arange(200) % 4, np.array([0, 1, 2, 3]))


@pytest.mark.parametrize("strategy", ["one_shot", "greedy", "racing", "shapley"])
def test_every_strategy_resumes_to_the_same_bits(tmp_path, monkeypatch, strategy):
    settings = {"strategy": strategy, "images": 50, "block": 10, "n_permutations": 4, "stop": 0.15}
    fresh = rank_units(Tiny(), "relu", [tiny_task()], **settings)
    real, written = Journal.block, []

    def interrupted(self, key, digest, compute):
        def counted():
            if len(written) == 6:
                raise KeyboardInterrupt
            written.append(key)
            return compute()

        return real(self, key, digest, counted)

    monkeypatch.setattr(Journal, "block", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rank_units(Tiny(), "relu", [tiny_task()], resume=tmp_path / "j", **settings)
    before = len(written)
    monkeypatch.setattr(Journal, "block", real)
    # A block damaged on disk is computed again.
    damaged = next(path for path in sorted((tmp_path / "j").glob("*.npz")) if "intact" not in path.name)
    damaged.write_bytes(damaged.read_bytes()[:40])
    resumed = rank_units(Tiny(), "relu", [tiny_task()], resume=tmp_path / "j", **settings)
    assert before == 6
    assert resumed.identical(fresh)
    again = rank_units(Tiny(), "relu", [tiny_task()], resume=tmp_path / "j", **settings)
    assert again.drop_attrs().identical(fresh.drop_attrs())


def test_a_journal_of_another_question_is_refused(tmp_path):
    folder = tmp_path / "j"
    rank_units(Tiny(), "relu", tiny_task(), resume=folder)
    with pytest.raises(InputError, match=r"journal of another sweep.*task tiny"):
        rank_units(Tiny(), "relu", tiny_task(seed=2), resume=folder)
    with pytest.raises(InputError, match=r"journal of another sweep.*options"):
        rank_units(Tiny(), "relu", tiny_task(), resume=folder, mode="zero", n_images=40)
    other = Tiny()
    other.head.bias.data[0] += 1
    with pytest.raises(InputError, match=r"journal of another sweep.*weights"):
        rank_units(other, "relu", tiny_task(), resume=folder)
    hooked = Tiny()
    hooked.relu.register_forward_hook(lambda _m, _i, output: output * 0.5)
    with pytest.raises(InputError, match=r"journal of another sweep.*architecture"):
        rank_units(hooked, "relu", tiny_task(), resume=folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="no journal of a sweep"):
        rank_units(Tiny(), "relu", tiny_task(), resume=tmp_path / "full")
    # What only reports differently may change.
    rank_units(Tiny(), "relu", tiny_task(), resume=folder, fraction=0.5, n_splits=2, per_image=True)
