"""Writing: guarded blocks, resuming, one writer, full disks, kills."""

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actkit.errors import DiskFullError, IncompleteStoreError, InputError, LayerError, StoreError
from actkit.store import (
    StorePlan,
    create_store,
    open_store,
    plan_layer,
    plan_store,
    resume_store,
    store_from_arrays,
    verify_store,
)
from actkit.store_chunks import ChunkTable

N, BLOCK = 11, 4


@pytest.fixture
def plan(tmp_path):
    layers = (
        plan_layer("conv", (3, 5, 5), None, N, BLOCK, chunk_bytes=500),
        plan_layer("fc", (40,), None, N, BLOCK, "float16", chunk_bytes=100),
    )
    return StorePlan(
        path=tmp_path / "s.zarr",
        ids=tuple(f"s{k}" for k in range(N)),
        labels={"category": np.array(["a", "b"] * 5 + ["a"])},
        layers=layers,
        block=BLOCK,
        attrs={"network": "toy", "stimuli": "f00", "seed": 0},
        identity="abc",
    )


def block_of(plan, index):
    start, stop = plan.block_rows(index)
    return {
        layer.name: np.random.default_rng([index, k]).standard_normal((stop - start, *layer.shape), dtype=np.float32)
        for k, layer in enumerate(plan.layers)
    }


def write(writer, indices=None):
    if "fc" in {layer.name for layer in writer.plan.layers} and writer.centre("fc") is None:
        writer.set_centre("fc", block_of(writer.plan, 0)["fc"].mean(0))
    for index in writer.pending if indices is None else indices:
        writer.write_block(index, block_of(writer.plan, index), {"batch": 2})


def whole(plan):
    with create_store(plan, overwrite=True) as writer:
        write(writer)
        writer.complete()
    return files_of(plan.path)


def files_of(path):
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_blocks_in_any_order_give_the_same_bytes(plan):
    expected = whole(plan)
    with create_store(plan, overwrite=True) as writer:
        write(writer, [2, 0, 1])
        store = writer.complete()
    assert files_of(plan.path) == expected
    assert store.notes == [{"first": 0, "last": 2, "note": {"batch": 2}}]
    assert not [name for name in expected if "journal" in name or "reserve" in name or "partial" in name]
    assert np.array_equal(store.rows("conv", 4, 8), block_of(plan, 1)["conv"].reshape(4, -1))


def test_an_incomplete_store_says_so_and_can_be_looked_at(plan):
    with create_store(plan) as writer:
        write(writer, [1])
        assert writer.done == {1}
        assert writer.pending == (0, 2)
        with pytest.raises(StoreError, match="lacks 2 of 3 blocks"):
            writer.complete()
    with pytest.raises(IncompleteStoreError, match=r"1 of 3 blocks are written.*resume=True.*allow_incomplete=True"):
        open_store(plan.path)
    store = open_store(plan.path, allow_incomplete=True)
    assert "incomplete" in repr(store)
    assert "1 of 3 blocks" in store.info()
    assert np.array_equal(store.rows("conv", 4, 8), block_of(plan, 1)["conv"].reshape(4, -1))
    faults = verify_store(plan.path)
    assert [fault.what for fault in faults] == ["says that the store is incomplete: 1 of 3 blocks are written"]


def test_resume_goes_on_and_gives_the_same_bytes(plan):
    expected = whole(plan)
    with create_store(plan, overwrite=True) as writer:
        write(writer, [0])
    # What a kill leaves: a torn chunk, half a block, a file being replaced, a torn journal line.
    conv = plan.path / "conv" / "activation"
    (conv / "c.1.0.0.0").write_bytes(b"torn")
    (conv / "c.2.0.0.0").write_bytes((conv / "c.0.0.0.0").read_bytes())
    (plan.path / "zarr.json.partial").write_bytes(b"{")
    with open(plan.path / "journal.jsonl", "ab") as journal:
        journal.write(b'{"block": 1, "identity": "abc", "note": {}')
    with resume_store(plan) as writer:
        assert writer.done == {0}
        assert writer.notes() == {0: {"batch": 2}}
        assert sorted(file.name for file in conv.iterdir()) == sorted(
            ["zarr.json", *(f"c.0.{j}.0.0" for j in range(3))]
        )
        np.testing.assert_array_equal(writer.centre("fc"), block_of(plan, 0)["fc"].mean(0))
        write(writer)
        writer.complete()
    assert files_of(plan.path) == expected


def test_resume_does_not_trust_what_is_not_on_disk(plan):
    expected = whole(plan)
    with create_store(plan, overwrite=True) as writer:
        write(writer, [0, 1])
    (plan.path / "conv" / "activation" / "c.1.0.0.0").unlink()
    with open(plan.path / "journal.jsonl", "ab") as journal:
        journal.write(b'{"block": 2, "identity": "another"}\n{"block": 9, "identity": "abc"}\n[3]\nnoise\n')
    with resume_store(plan) as writer:
        assert writer.done == {0}
        write(writer)
        writer.complete()
    assert files_of(plan.path) == expected
    with create_store(plan, overwrite=True) as writer:
        write(writer, [0, 1])
    (plan.path / "fc" / "centre" / "c.0").unlink()
    with resume_store(plan) as writer:
        assert writer.done == frozenset()  # no block of float16 means anything without its centre


def test_resume_of_nothing_of_a_torn_template_and_of_a_whole_store(plan):
    expected = whole(plan)
    shutil.rmtree(plan.path)
    torn = plan.path.with_name("s.zarr.partial")
    torn.mkdir()
    (torn / "zarr.json").write_bytes(b"{")
    with pytest.raises(StoreError, match="interrupted before the first block"):
        open_store(plan.path)
    with resume_store(plan) as writer:
        write(writer)
        writer.complete()
    assert files_of(plan.path) == expected
    assert not torn.exists()
    (plan.path / "journal.jsonl").write_bytes(b"left by a kill between the last two steps")
    with resume_store(plan) as writer:
        assert writer.pending == ()
        assert writer.complete().complete
        with pytest.raises(StoreError, match="is complete"):
            writer.write_block(0, {})
    assert files_of(plan.path) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identity": "xyz"}, r"it differs in: identity\. Use overwrite=True"),
        ({"attrs": {"network": "toy", "stimuli": "f00", "seed": 1}}, r"seed \(stored 0, now 1\)"),
        (
            {"attrs": {"network": "other", "seed": 0}, "identity": "z"},
            r"network .*; stimuli \(stored \"f00\", now null\)",
        ),
        ({"block": 8}, r"block \(stored 4, now 8\)"),
    ],
)
def test_resume_with_another_plan_names_what_differs(plan, change, message):
    with create_store(plan) as writer:
        write(writer, [0])
    before = files_of(plan.path)
    with pytest.raises(StoreError, match=message):
        resume_store(replace(plan, **change))
    assert files_of(plan.path) == before


def test_resume_with_other_layers_names_them(plan):
    create_store(plan).close()
    other = plan_layer("conv", (3, 5, 6), None, N, BLOCK)
    with pytest.raises(StoreError, match="shape, chunks or dtype of layer 'conv'"):
        resume_store(replace(plan, layers=(other, plan.layers[1])))
    with pytest.raises(StoreError, match=r"layers \(stored 2, now 1\)"):
        resume_store(replace(plan, layers=plan.layers[:1]))


def test_every_block_is_held_against_the_template(plan):
    good = block_of(plan, 0)
    with create_store(plan) as writer:
        with pytest.raises(StoreError, match=r"centre is not fixed; call set_centre\('fc'"):
            writer.write_block(0, good)
        writer.set_centre("fc", np.zeros(40))
        cases = [
            ({"conv": good["conv"]}, "lacks 1 of 2 planned layers, the first 'fc'"),
            ({**good, "cnov": good["conv"]}, "'cnov' is not planned; nearest: 'conv'"),
            ({**good, "conv": good["conv"][:3]}, r"\(3, 3, 5, 5\), the template says \(4, 3, 5, 5\)"),
            ({**good, "fc": good["fc"].astype(np.float64)}, "is float64, which would be rounded unasked"),
            ({**good, "fc": good["fc"].astype(np.int32)}, "is int32"),
            ({**good, "fc": good["fc"] + 1e6}, "beyond float16's 65504"),
        ]
        for arrays, message in cases:
            with pytest.raises(StoreError, match=message):
                writer.write_block(0, arrays)
        with pytest.raises(StoreError, match="block 3 is not in the plan"):
            writer.write_block(3, good)
        with pytest.raises(TypeError):
            writer.write_block(0, good, {"note": object()})
        assert writer.done == frozenset()
        assert not list(plan.path.rglob("activation/c.*"))  # nothing of a refused block stays
        writer.write_block(0, {**good, "conv": good["conv"].reshape(4, -1).astype(np.float16)})
        with pytest.raises(StoreError, match="already written"):
            writer.write_block(0, good)
    with pytest.raises(StoreError, match="is closed"):
        writer.write_block(1, good)


def test_centres_are_fixed_once(plan):
    with create_store(plan) as writer:
        with pytest.raises(InputError, match="shape"):
            writer.set_centre("fc", np.zeros(3))
        with pytest.raises(InputError, match="not finite"):
            writer.set_centre("fc", np.full(40, np.nan))
        with pytest.raises(InputError, match="float32 and has no centre"):
            writer.set_centre("conv", np.zeros((3, 5, 5)))
        with pytest.raises(LayerError, match="nearest: 'fc'"):
            writer.set_centre("fc2", np.zeros(40))
        writer.set_centre("fc", np.ones(40))
        with pytest.raises(StoreError, match="already fixed"):
            writer.set_centre("fc", np.ones(40))


def test_only_a_store_is_ever_overwritten(plan, tmp_path):
    create_store(plan).close()
    with pytest.raises(StoreError, match="already exists"):
        create_store(plan)
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "zarr.json").write_text('{"attributes": {}}')
    precious = replace(plan, path=folder)
    with pytest.raises(StoreError, match="not an activation store"):
        create_store(precious, overwrite=True)
    with pytest.raises(StoreError, match="not an activation store"):
        resume_store(precious)
    assert (folder / "zarr.json").exists()
    create_store(plan, overwrite=True).close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos", "s.zarr"]


def test_a_second_writer_is_refused(plan):
    writer = create_store(plan)
    for attempt in (resume_store, lambda plan: create_store(plan, overwrite=True)):
        with pytest.raises(StoreError, match="another process is writing"):
            attempt(plan)
    code = (
        "import sys, pickle\n"
        "from actkit.store import resume_store\n"
        "from actkit.errors import StoreError\n"
        "try: resume_store(pickle.load(sys.stdin.buffer))\n"
        "except StoreError as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(plan), capture_output=True, cwd=plan.path.parent, check=True
    )
    assert b"another process is writing" in run.stdout
    write(writer)
    writer.complete()
    writer.close()
    assert verify_store(plan.path) == []


def test_a_killed_writer_leaves_no_lock(plan):
    create_store(plan).close()
    resume_store(plan).close()
    with resume_store(plan) as writer:
        write(writer)
        assert writer.complete().complete


def test_writing_from_another_thread(plan):
    with create_store(plan) as writer:
        thread = threading.Thread(target=write, args=(writer,))
        thread.start()
        thread.join()
        assert writer.complete().complete


@pytest.mark.parametrize("when", [0, 1, 5])
def test_a_disk_that_fills_up_is_said_and_survived(plan, monkeypatch, when):
    """The disk's own error, at the first, second and a later file of a block."""
    expected = whole(plan)
    writer = create_store(plan, overwrite=True)
    write(writer, [0])
    original, calls = os.writev, iter(range(10**9))

    def full(handle, buffers):
        if next(calls) >= when:
            os.write(handle, bytes(buffers[0])[:3])  # a torn file is left
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(handle, buffers)

    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(
        DiskFullError, match=r"s\.zarr needed .* more and .* are free\. What was finished is kept"
    ) as caught:
        writer.write_block(1, block_of(plan, 1))
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert writer.done == {0}
    assert not list(plan.path.rglob("c.1*"))
    writer.close()
    with resume_store(plan) as writer:
        write(writer)
        writer.complete()
    assert files_of(plan.path) == expected


def test_the_journal_has_room_on_a_full_disk(plan, monkeypatch):
    expected = whole(plan)
    writer = create_store(plan, overwrite=True)
    assert (plan.path / "reserve").stat().st_size > 1 << 20
    original = os.write

    def full(handle, content):
        if (plan.path / "reserve").exists() and content.startswith(b'{"block"'):
            original(handle, content[:5])
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(handle, content)

    monkeypatch.setattr(os, "write", full)
    write(writer, [0])
    assert not (plan.path / "reserve").exists()
    writer.close()
    monkeypatch.undo()
    with resume_store(plan) as writer:
        assert writer.done == {0}
        write(writer)
        writer.complete()
    assert files_of(plan.path) == expected


def test_any_other_failure_of_the_disk_keeps_its_own_name(plan, monkeypatch):
    def broken(self, i, j, values, past_cache):
        raise OSError(errno.EIO, "Input/output error")

    with create_store(plan) as writer:
        writer.set_centre("fc", np.zeros(40))
        monkeypatch.setattr(ChunkTable, "write", broken)
        with pytest.raises(OSError, match="Input/output error") as caught:
            writer.write_block(0, block_of(plan, 0))
        assert not isinstance(caught.value, DiskFullError)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    run = subprocess.run([mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, text=True)
    if run.returncode:
        pytest.skip(f"mounting a small tmpfs is not permitted here: {run.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_real_full_disk(small_disk, tmp_path):
    layers = {"a": ((50_000,), None), "b": ((20_000,), None)}
    plan = plan_store(small_disk / "s.zarr", layers, map(str, range(20)), block=2, identity="x")
    with pytest.raises(DiskFullError, match="nothing was written"):
        create_store(plan_store(small_disk / "t.zarr", layers, map(str, range(60)), block=2))
    writer = create_store(plan)
    (small_disk / "someone else's").write_bytes(bytes(3_500_000))
    with pytest.raises(DiskFullError, match=r"the disk is full: .*s\.zarr needed 560 kB more"):
        write(writer)
    written = len(writer.done)
    writer.close()
    assert 0 < written < plan.n_blocks
    assert len(list(plan.path.rglob("c.*"))) == 2 * written + 3  # whole blocks, the coordinates, nothing torn
    with pytest.raises(IncompleteStoreError, match=f"{written} of 10 blocks"):
        open_store(plan.path)
    (small_disk / "someone else's").unlink()
    with resume_store(plan) as writer:
        assert writer.done == frozenset(range(written))
        write(writer)
        writer.complete()
    assert verify_store(plan.path) == []
    elsewhere = replace(plan, path=tmp_path / "s.zarr")
    with create_store(elsewhere) as writer:
        write(writer)
        writer.complete()
    assert files_of(elsewhere.path) == files_of(plan.path)


def test_kills_at_random_moments(tmp_path):
    """Eight writers killed; ``ACTKIT_KILLS=50`` or the script's ``--kills`` runs more."""
    if not hasattr(os, "fork"):
        pytest.skip("killing forked writers needs a POSIX system")
    script = Path(__file__).parents[1] / "benchmarks" / "bench_store.py"
    memory = Path("/dev/shm")
    folder = memory if os.access(memory, os.W_OK) else tmp_path
    run = subprocess.run(
        [sys.executable, script, "--kills", os.environ.get("ACTKIT_KILLS", "8"), "--folder", folder],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr + run.stdout
    assert "equal the uninterrupted ones" in run.stdout


def test_spaces_and_absolute_paths_do_not_enter_the_bytes(plan, tmp_path):
    first = whole(plan)
    second = whole(replace(plan, path=tmp_path / "deeper folder" / "t.zarr"))
    assert first == second
    assert json.loads(first["zarr.json"])["attributes"]["identity"] == "abc"
    assert store_from_arrays(tmp_path / "u.zarr", {"fc": np.ones((3, 2))}).identity


def written_chunks(folder, past_cache):
    """A store with full, edge and small chunks, written one way or the other."""
    random = np.random.default_rng(3)
    shapes = {"wide": (20, 40, 50, 50), "small": (20, 7)}
    arrays = {name: random.normal(size=shape).astype("f4") for name, shape in shapes.items()}
    layers = {name: (values.shape[1:], None) for name, values in arrays.items()}
    plan = plan_store(folder / f"{past_cache}.zarr", layers, [str(k) for k in range(20)], block=8)
    with create_store(plan) as writer:
        assert writer.past_cache is False  # by default only where a store is large
        writer.past_cache = past_cache
        for index in range(plan.n_blocks):
            start, stop = plan.block_rows(index)
            writer.write_block(index, {name: values[start:stop] for name, values in arrays.items()})
        writer.complete()
    return {str(file.relative_to(plan.path)): file.read_bytes() for file in plan.path.rglob("*") if file.is_file()}


def test_writing_past_the_cache_gives_the_same_bytes(tmp_path):
    assert written_chunks(tmp_path, True) == written_chunks(tmp_path, False)


def test_a_file_system_without_direct_io_is_written_the_ordinary_way(tmp_path, monkeypatch):
    plain, refused = os.open, []

    def without(path, flags, *rest, **more):
        if flags & os.O_DIRECT:
            refused.append(path)
            raise OSError(errno.EINVAL, "Invalid argument")
        return plain(path, flags, *rest, **more)

    expected = written_chunks(tmp_path, False)
    monkeypatch.setattr(os, "open", without)
    assert written_chunks(tmp_path, True) == expected
    assert refused
