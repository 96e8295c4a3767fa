"""Kill extractions with SIGKILL at random moments, resume each, and compare all bytes with an uninterrupted one.

    python tests/benchmarks/kill_extractions.py --kills 50 --seed 0

Each extraction runs in a process of its own, is killed once at a moment drawn uniformly over its duration (hashing,
plan, trial run, template, blocks, completion), and is then run again to the end. Prints how far the killed ones had
come, and how many stores ended in the same bytes; the exit status is 1 if one did not.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType


def record(store: str, n: int) -> None:
    """Record a small network: many blocks of few stimuli, in float16 so that centres are written too."""
    import numpy as np
    import torch
    from torch import nn

    from actkit.extractors.record import extract
    from actkit.network import Network
    from actkit.stimuli import Stimuli

    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.Flatten()
    )
    images = np.random.default_rng(0).random((n, 3, 24, 24), dtype=np.float32)
    stimuli = Stimuli.from_array(images, labels={"even": [i % 2 for i in range(n)]})
    network = Network(module.eval(), name="small", input_shape=(3, 24, 24))
    extract(network, stimuli, store, memory="500kB", batch=4, dtype="float16", chunk="64kB")


def serve(n: int) -> None:
    """Import once, then fork one process for each store named on standard input: no kill is spent on imports."""
    import actkit.extractors.record
    import actkit.store  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                record(line.strip(), n)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)  # without the server's own clean-up
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


class Extractions:
    """Starts extractions in processes of their own, and kills them.

    Parameters
    ----------
    n : int
        Stimuli in each extraction.
    """

    def __init__(self, n: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, __file__, "--serve", "--n", str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __enter__(self) -> Extractions:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.server.communicate()

    def run(self, store: Path, kill_after: float | None = None) -> tuple[int, float]:
        """Record, and kill the process after so many seconds; the exit status and the seconds it ran."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(f"{store}\n")
        self.server.stdin.flush()
        child = int(self.server.stdout.readline())
        begun = time.monotonic()
        if kill_after is not None:
            time.sleep(kill_after)
            with suppress(ProcessLookupError):  # it may have ended
                os.kill(child, signal.SIGKILL)
        return int(self.server.stdout.readline()), time.monotonic() - begun


def digest(store: Path) -> str:
    """One hash over names and contents of all files of a store."""
    total = hashlib.sha256()
    for file in sorted(path for path in store.rglob("*") if path.is_file()):
        total.update(str(file.relative_to(store)).encode() + b"\0" + file.read_bytes())
    return total.hexdigest()


def state(store: Path) -> str:
    """How far a killed extraction had come."""
    if not store.exists():
        return "template not finished" if list(store.parent.glob("*.partial")) else "nothing written yet"
    journal = store / "journal.jsonl"
    if not journal.exists():
        return "store complete"
    blocks = sum('"block"' in line for line in journal.read_text(errors="replace").splitlines())
    return f"{blocks:2d} blocks in the journal"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--n", type=int, default=160, help="stimuli in each extraction")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.n)
        return 0
    base = Path(tempfile.mkdtemp())
    try:
        with Extractions(args.n) as extractions:
            return kill_many(extractions, base, args.kills, args.seed)
    finally:
        shutil.rmtree(base)


def kill_many(extractions: Extractions, base: Path, kills: int, seed: int) -> int:
    """Kill and resume so many extractions; 0 if all ended in the same bytes."""
    durations = []
    for name in ("warm", "whole", "again"):
        status, seconds = extractions.run(base / name / "acts.zarr")
        if status:
            raise SystemExit("the uninterrupted extraction failed")
        durations.append(seconds)
    duration = sum(durations[1:]) / 2
    expected = digest(base / "whole" / "acts.zarr")
    print(f"uninterrupted: {duration:.2f} s, sha256 {expected[:16]}…")
    print(f"uninterrupted again: same bytes: {digest(base / 'again' / 'acts.zarr') == expected}")
    rng, same, late = random.Random(seed), 0, 0
    states: Counter[str] = Counter()
    for kill in range(kills):
        store = base / f"kill{kill}" / "acts.zarr"
        status, _ = extractions.run(store, kill_after=rng.random() * duration)
        late += status != -signal.SIGKILL
        came = state(store)
        states[came] += 1
        status, _ = extractions.run(store)
        right = status == 0 and digest(store) == expected
        same += right
        if not right:
            print(f"  extraction {kill} (killed with: {came}): exit status {status} after resuming, or other bytes")
        if store.parent.exists():
            shutil.rmtree(store.parent)
    for words, count in sorted(states.items()):
        print(f"  {count:3d} killed with {words}")
    print(f"{kills} extractions killed at random moments ({late} had just ended): {same} resumed to the same bytes")
    return 0 if same == kills else 1


if __name__ == "__main__":
    sys.exit(main())
