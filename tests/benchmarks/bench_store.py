"""Throughput of the activation store against raw file I/O, and a kill test of any length.

Run ``python tests/benchmarks/bench_store.py`` (``--help`` for sizes). All ways are interleaved, repeated and reported
as medians, with the ratio to the raw way of the same round.

* raw write: ``write()`` of the same bytes, in the same order of files and 4 MiB pieces, each block synced as the
  store syncs it; ``no sync`` beside it.
* raw read: ``readinto`` of the same files into fresh memory, so that both pay for the pages they fill.
* cold: the page cache of the files is dropped first (``posix_fadvise``), so that the disk is measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import mmap
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from actkit.store import (
    ActivationStore,
    StorePlan,
    create_store,
    open_store,
    plan_layer,
    plan_store,
    resume_store,
    verify_store,
)
from actkit.store_layout import using_zarr

CHUNK = 4 * 2**20


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes, its result dropped inside."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def chunk_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("c.*"))


def drop_cache(files: list[Path]) -> None:
    """Forget the cached pages of files."""
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def raw_write(folder: Path, blocks: list[np.ndarray], sync: bool) -> None:
    """One file per 4 MiB, as many bytes as the blocks have, synced block by block."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for index, block in enumerate(blocks):
        data = memoryview(block).cast("B")
        for k, start in enumerate(range(0, len(data), CHUNK)):
            with open(folder / f"{index}.{k}", "wb", buffering=0) as handle:
                handle.write(data[start : start + CHUNK])
                if sync:
                    os.fsync(handle.fileno())


def raw_one_file(path: Path, blocks: list[np.ndarray], sync: bool) -> None:
    """One long file, written in 4 MiB pieces, synced once a block."""
    with open(path, "wb", buffering=0) as handle:
        for block in blocks:
            data = memoryview(block).cast("B")
            for start in range(0, len(data), CHUNK):
                handle.write(data[start : start + CHUNK])
            if sync:
                os.fsync(handle.fileno())


def raw_past_cache(folder: Path, blocks: list[np.ndarray]) -> None:
    """One file per 4 MiB by direct I/O, several at a time, as the disk likes it: what it can take at most."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()

    def one(index: int, k: int, piece: memoryview) -> None:
        handle = os.open(folder / f"{index}.{k}", os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o666)
        try:
            os.write(handle, piece)
            os.fsync(handle)
        finally:
            os.close(handle)

    with ThreadPoolExecutor(8) as pool:
        for index, block in enumerate(blocks):
            data = memoryview(block).cast("B")
            starts = range(0, len(data) - len(data) % CHUNK, CHUNK)
            for _ in pool.map(one, [index] * len(starts), range(len(starts)), [data[s : s + CHUNK] for s in starts]):
                pass


def aligned_copy(block: np.ndarray) -> np.ndarray:
    """The same numbers in memory that begins on a page."""
    memory = np.frombuffer(mmap.mmap(-1, block.nbytes), block.dtype).reshape(block.shape)
    memory[...] = block
    return memory


def store_write(path: Path, blocks: list[np.ndarray], dtype: str, past_cache: bool = False) -> None:
    rows, units = blocks[0].shape
    ids = [str(k) for k in range(sum(len(block) for block in blocks))]
    plan = plan_store(path, {"layer": ((units,), ("unit",))}, ids, block=rows, dtype=dtype)  # type: ignore[arg-type]
    with create_store(plan, overwrite=True) as writer:
        writer.past_cache = past_cache
        if dtype == "float16":
            writer.set_centre("layer", blocks[0].mean(0))
        for index, block in enumerate(blocks):
            writer.write_block(index, {"layer": block})
        writer.complete()


def zarrs_write(path: Path, blocks: list[np.ndarray], chunks: tuple[int, int]) -> None:
    """The same array through zarr and zarrs, which sync nothing."""
    import zarr
    from zarr.codecs import Crc32cCodec

    shutil.rmtree(path, ignore_errors=True)
    rows = len(blocks[0])
    with using_zarr():
        array = zarr.create_array(
            path,
            shape=(rows * len(blocks), blocks[0].shape[1]),
            chunks=chunks,
            dtype="float32",
            compressors=[Crc32cCodec()],
            filters=None,
            fill_value=float("nan"),
        )
    for index, block in enumerate(blocks):
        array[index * rows : (index + 1) * rows] = block


def raw_read(files: list[Path], nbytes: int) -> np.ndarray:
    """All bytes of some files into one fresh array."""
    out = np.empty(nbytes, np.uint8)
    view, at = memoryview(out), 0
    for file in files:
        with open(file, "rb", buffering=0) as handle:
            at += handle.readinto(view[at : at + CHUNK + 64])
    return out


def zarrs_read(path: Path) -> np.ndarray:
    import zarr

    with using_zarr():
        array = zarr.open_array(path, mode="r")
    return array[...]


def table(title: str, nbytes: int, times: dict[str, list[float]], reference: str) -> dict[str, float]:
    """Print medians, throughput and the median of the ratios to the reference of the same round."""
    print(f"\n{title} ({nbytes / 1e6:.0f} MB, median of {len(times[reference])})")
    ratios = {}
    for name, seconds in times.items():
        ratio = statistics.median(r / s for r, s in zip(times[reference], seconds, strict=True))
        ratios[name] = ratio
        rate = nbytes / 1e9 / statistics.median(seconds)
        print(f"  {name:<34}{rate:8.2f} GB/s {ratio:8.2f} of {reference}")
    return ratios


def measure(folder: Path, megabytes: int, rows: int, repeats: int, cold: bool) -> dict[str, object]:
    """All throughputs in one folder."""
    units = 65536
    n_blocks = max(2, megabytes * 1_000_000 // (rows * units * 4))
    # Each block is its own memory, as the output of a network is.
    blocks = [
        aligned_copy(np.random.default_rng(k).standard_normal((rows, units), dtype=np.float32)) for k in range(n_blocks)
    ]
    nbytes = sum(block.nbytes for block in blocks)
    store_path, zarr_path, raw_folder, raw_file = (folder / name for name in ("s.zarr", "z.zarr", "raw", "raw.bin"))
    store_write(store_path, blocks, "float32")
    chunks = open_store(store_path).chunks("layer")
    ways: dict[str, Callable[[], object]] = {
        "raw write": lambda: raw_write(raw_folder, blocks, True),
        "store": lambda: store_write(store_path, blocks, "float32"),
        "raw, one file": lambda: raw_one_file(raw_file, blocks, True),
        "raw, no sync": lambda: raw_write(raw_folder, blocks, False),
        "zarrs, no sync": lambda: zarrs_write(zarr_path, blocks, chunks),  # type: ignore[arg-type]
    }
    results: dict[str, object] = {}
    results["write"] = table("write", nbytes, interleaved(ways, repeats), "raw write")
    past = {
        "raw write": lambda: raw_past_cache(raw_folder, blocks),
        "store": lambda: store_write(store_path, blocks, "float32", past_cache=True),
    }
    try:
        results["write past the cache"] = table(
            "write past the page cache", nbytes, interleaved(past, repeats), "raw write"
        )
    except OSError as error:
        print(f"\nthis file system has no direct I/O ({error.strerror})")

    raw_write(raw_folder, blocks, True)
    raws = sorted(raw_folder.iterdir())
    store = open_store(store_path)
    width = store.chunks("layer")[1]
    some = 2 * width
    columns = [store_path / "layer" / "activation" / f"c.{i}.{j}" for i in range(n_blocks) for j in range(2)]
    budget = max(64 * 2**20, 3 * n_blocks * rows * width * 4)
    reads: dict[str, Callable[[], object]] = {
        "raw read": lambda: raw_read(raws, nbytes),
        "rows(): the whole layer": lambda: store.rows("layer"),
        "row_blocks()": lambda: drain(store.row_blocks("layer", budget)),
        "unit_blocks()": lambda: drain(store.unit_blocks("layer", budget)),
        "store[layer].values": lambda: store["layer"].values,
        "zarrs [...]": lambda: zarrs_read(zarr_path),
        "verify_store()": lambda: verify_store(store_path),
    }
    results["warm"] = table("warm read of everything", nbytes, interleaved(reads, repeats), "raw read")
    part = len(columns) * rows * width * 4
    column_reads: dict[str, Callable[[], object]] = {
        "raw read": lambda: raw_read(raws[: len(columns)], part),
        "units(): two chunk columns": lambda: store.units("layer", 0, some),
    }
    results["columns"] = table("warm read of some units", part, interleaved(column_reads, repeats), "raw read")
    if cold:
        everything = [*raws, *chunk_files(store_path), *chunk_files(zarr_path)]
        cold_reads = {name: reads[name] for name in ("raw read", "rows(): the whole layer", "unit_blocks()")}
        times = interleaved(cold_reads, repeats, before=lambda: drop_cache(everything))
        results["cold"] = table("cold read of everything", nbytes, times, "raw read")
    half: dict[str, Callable[[], object]] = {
        "raw write": lambda: raw_write(raw_folder, blocks, True),
        "store, float16": lambda: store_write(store_path, blocks, "float16"),
    }
    results["float16"] = table(
        "write centred float16 (bytes of float32)", nbytes, interleaved(half, repeats), "raw write"
    )
    halved = open_store(store_path)
    half_reads: dict[str, Callable[[], object]] = {
        "raw read": lambda: raw_read(raws, nbytes),
        "rows(), float16 decoded": lambda: halved.rows("layer"),
    }
    results["float16 read"] = table("read centred float16", nbytes, interleaved(half_reads, repeats), "raw read")
    return results


def interleaved(
    ways: dict[str, Callable[[], object]], repeats: int, before: Callable[[], None] | None = None
) -> dict[str, list[float]]:
    """Every way once per round, so that a disturbance meets them all."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            if before is not None:
                before()
            times[name].append(timed(way))
    return times


def drain(blocks: object) -> None:
    for _, _, block in blocks:  # type: ignore[attr-defined]
        del block


def peak_memory(store: ActivationStore, max_bytes: int) -> None:
    """Bytes that streaming a layer adds to the process, against what was allowed."""
    code = (
        "import sys, resource\n"
        "from actkit.store import open_store\n"
        "store = open_store(sys.argv[1]); way = sys.argv[2]; allowed = int(sys.argv[3])\n"
        "list(store.rows('layer', 0, 1)[:0]); store.ids\n"
        "with open('/proc/self/clear_refs', 'w') as handle: handle.write('5')\n"
        "def kb(key): return int(next(l for l in open('/proc/self/status') if l.startswith(key)).split()[1])\n"
        "before = kb('VmRSS')\n"
        "for start, stop, block in getattr(store, way)('layer', allowed): del block\n"
        "print((kb('VmHWM') - before) * 1024)\n"
    )
    for way in ("row_blocks", "unit_blocks"):
        run = subprocess.run(
            [sys.executable, "-c", code, str(store.path), way, str(max_bytes)],
            capture_output=True,
            text=True,
            check=True,
        )
        print(f"  {way}(max_bytes={max_bytes / 1e6:.0f} MB) added {int(run.stdout) / 1e6:.0f} MB")


# ---------------------------------------------------------------------------------------------------------------
# Killing
# ---------------------------------------------------------------------------------------------------------------


def small_plan(path: Path) -> StorePlan:
    """A store of several blocks and layers, small enough to be written fifty times."""
    layers = (
        plan_layer("conv", (6, 9, 9), None, 23, 4, "float32", 8192),
        plan_layer("fc", (700,), None, 23, 4, "float16", 2048),
        plan_layer("block.1/tokens", (5, 33), None, 23, 4, "float32", 1024),
    )
    labels = {"category": np.array([f"c{k % 3}" for k in range(23)])}
    return StorePlan(path, tuple(f"s{k}" for k in range(23)), labels, layers, 4, {"network": "toy"}, "identity")


def small_block(plan: StorePlan, index: int) -> dict[str, np.ndarray]:
    """The same numbers whenever a block is computed."""
    start, stop = plan.block_rows(index)
    return {
        layer.name: np.random.default_rng([index, k]).standard_normal((stop - start, *layer.shape), dtype=np.float32)
        for k, layer in enumerate(plan.layers)
    }


def write_or_resume(path: Path) -> None:
    """What an extraction does, whether or not something is there already."""
    plan = small_plan(path)
    with resume_store(plan) as writer:
        if writer.pending and writer.centre("fc") is None:
            writer.set_centre("fc", small_block(plan, 0)["fc"].mean(0))
        for index in writer.pending:
            writer.write_block(index, small_block(plan, index), {"batch": 4})
        writer.complete()


def in_child(work: Callable[[], None]) -> int:
    """Fork, work, leave; the parent has used neither zarr nor threads, so that forking is safe here."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # the child must not go on as a second parent
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def die_at_call(number: int, path: Path) -> None:
    """Write the store, but die inside the given call that changes the disk, half of its bytes written."""
    count = itertools.count()

    def dying(original: Callable[..., object], half: bool) -> Callable[..., object]:
        def call(*args: object, **more: object) -> object:
            if next(count) == number:
                if half:
                    data = b"".join(bytes(part) for part in args[1])  # type: ignore[attr-defined]
                    os.write(args[0], data[: len(data) // 2])  # type: ignore[arg-type]
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **more)

        return call

    for name in ("writev", "fsync", "rename", "replace", "unlink", "mkdir", "ftruncate", "posix_fallocate"):
        setattr(os, name, dying(getattr(os, name), name == "writev"))
    write_or_resume(path)


def files_of(path: Path) -> dict[str, bytes]:
    """Every file under a folder with its bytes."""
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def kill(folder: Path, kills: int, seed: int) -> None:
    """Kill writers at random moments and in random calls; each store must end with the uninterrupted bytes.

    Raises
    ------
    SystemExit
        With what differs.
    """
    import zarr  # noqa: F401 (imported once here, used only in the children)

    started = time.perf_counter()
    path = folder / "store.zarr"
    if os.waitpid(in_child(lambda: write_or_resume(path)), 0)[1]:
        raise SystemExit("the uninterrupted run failed")
    took = time.perf_counter() - started
    expected = files_of(folder)
    rng = np.random.default_rng(seed)
    hit = rounds = 0
    while hit < kills:
        rounds += 1
        shutil.rmtree(path)
        for _ in range(int(rng.integers(1, 3))):
            if rng.random() < 0.5:
                number = int(rng.integers(0, 220))
                child = in_child(lambda number=number: die_at_call(number, path))  # type: ignore[misc]
            else:
                child = in_child(lambda: write_or_resume(path))
                time.sleep(float(rng.uniform(0, took)))
                os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
            if os.WIFEXITED(status) and os.WEXITSTATUS(status):
                raise SystemExit(f"round {rounds}: resuming failed")
            hit += os.WIFSIGNALED(status)
            if path.exists() and not os.WIFSIGNALED(status):
                break
        if os.waitpid(in_child(lambda: write_or_resume(path)), 0)[1]:
            raise SystemExit(f"round {rounds}: resuming failed")
        found = files_of(folder)
        if found != expected:
            names = [name for name in {*found, *expected} if found.get(name) != expected.get(name)]
            raise SystemExit(
                f"round {rounds}: {len(names)} files differ from the uninterrupted run: {sorted(names)[:5]}"
            )
    print(f"{hit} writers killed in {rounds} stores; all {len(expected)} files equal the uninterrupted ones")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where to write (a temporary folder)")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=64, help="stimuli per block")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-cold", action="store_true")
    parser.add_argument("--kills", type=int, default=0, help="run this many SIGKILL tests instead")
    parser.add_argument("--json", type=Path, default=None, help="write the ratios here")
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        if options.kills:
            kill(folder, options.kills, options.seed)
            return
        print(f"{os.cpu_count()} cores, {shutil.disk_usage(folder).free / 1e9:.0f} GB free")
        results = measure(folder, options.megabytes, options.rows, options.repeats, not options.no_cold)
        print("\npeak memory of streaming")
        shutil.rmtree(folder / "raw")
        peak_memory(open_store(folder / "s.zarr"), 100 * 10**6)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
