"""Recording end to end: right values, one pass, clear errors, nothing left behind."""

import json
import logging
import threading

import numpy as np
import psutil
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from actkit.errors import ActkitError, InputError, LayerError, StimulusError, StoreError
from actkit.extractors import pipeline
from actkit.extractors.record import RecordOptions, extract, plan_extraction
from actkit.network import Network
from actkit.stimuli import Stimuli
from actkit.store import open_store

IMAGES = np.random.default_rng(0).random((23, 3, 12, 12), dtype=np.float32)
IDS = [f"img{i:02d}" for i in range(len(IMAGES))]


class Net(nn.Module):
    """In-place ReLU called twice, ``out += identity``, a late layer that fails on demand."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(6, 4)
        self.passes, self.rows = 0, 0

    def forward(self, x):
        self.passes += 1
        self.rows += len(x)
        x = self.relu(self.conv1(x))
        y = self.conv2(x)
        y += x
        return self.head(self.relu(y).mean((2, 3)))

    def expected(self, x):
        with torch.no_grad():
            a = F.conv2d(x, self.conv1.weight, self.conv1.bias)
            b = F.conv2d(F.relu(a), self.conv2.weight, self.conv2.bias, padding=1)
            c = F.relu(b + F.relu(a))
            d = F.linear(c.mean((2, 3)), self.head.weight, self.head.bias)
        return {"conv1": a, "relu@0": F.relu(a), "conv2": b, "relu@1": c, "head": d, "output": d}


@pytest.fixture
def net():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Network(Net().eval(), name="small", input_shape=(3, 12, 12))


@pytest.fixture
def stimuli():
    return Stimuli.from_array(IMAGES, ids=IDS, labels={"half": ["a"] * 11 + ["b"] * 12})


def small(**more):
    """Several blocks of several batches."""
    return {"batch": 3, "memory": "150kB", **more}


# -- values ------------------------------------------------------------------------------------------


def test_every_layer_equals_the_functional_computation(net, stimuli, tmp_path):
    store = extract(net, stimuli, tmp_path / "a.zarr", **small())
    assert store.layers == ("conv1", "relu@0", "conv2", "relu@1", "head", "output")
    assert list(store.ids) == IDS
    assert store.block == 6
    assert store["conv1"].dims == ("stimulus", "channel", "y", "x")
    for name, values in net.module.expected(torch.from_numpy(IMAGES)).items():
        np.testing.assert_allclose(store.rows(name), values.flatten(1).numpy(), atol=1e-6, err_msg=name)


def test_bytes_do_not_depend_on_threads_or_order_of_asking(net, stimuli, tmp_path):
    a = extract(net, stimuli, tmp_path / "a.zarr", **small(layers=["head", "conv1"]))
    b = extract(net, stimuli, tmp_path / "b.zarr", **small(layers=["conv1", "head"], workers=3))
    assert a.layers == b.layers == ("conv1", "head")
    assert a.identity == b.identity
    for name in a.layers:
        assert np.array_equal(a.rows(name), b.rows(name))


def test_one_pass_records_all_layers_and_stops_after_the_last(net, stimuli, tmp_path):
    ran = []
    handle = net.module.head.register_forward_hook(lambda *_: ran.append(1))
    extract(net, stimuli, tmp_path / "a.zarr", **small(layers="relu@0"))
    passes_before_run = net.module.passes - len(range(0, 23, 3))
    assert len(ran) == 2  # only the two dry runs that list layers went past relu@0
    assert passes_before_run < 15
    handle.remove()


def test_float16_keeps_the_difference_from_the_first_blocks_mean(net, stimuli, tmp_path):
    store = extract(net, stimuli, tmp_path / "a.zarr", **small(dtype="float16"))
    exact = net.module.expected(torch.from_numpy(IMAGES))["conv1"].flatten(1).numpy()
    assert store.dtype("conv1") == np.float16
    worst = np.abs(store.rows("conv1") - exact).max()
    assert 0 < worst < 2**-11 * np.abs(exact - exact[:6].mean(0)).max() * 1.1
    import zarr

    centre = zarr.open_array(tmp_path / "a.zarr" / "conv1" / "centre", mode="r")[:]
    np.testing.assert_allclose(centre.ravel(), exact[:6].mean(0), atol=1e-6)


@pytest.mark.parametrize("reduce", ["mean", "max", "l2"])
def test_channel_summaries(net, stimuli, tmp_path, reduce):
    store = extract(net, stimuli, tmp_path / "a.zarr", **small(reduce=reduce))
    full = net.module.expected(torch.from_numpy(IMAGES))["conv2"].flatten(2)
    plain = {"mean": full.mean(2), "max": full.amax(2), "l2": full.square().sum(2).sqrt()}[reduce]
    np.testing.assert_allclose(store.rows("conv2"), plain.numpy(), atol=1e-5)
    assert store.dims("conv2") == ("unit",)
    assert store.layer_attrs("conv2")["reduced"] == reduce
    assert store.layer_attrs("conv2")["original_shape"] == [6, 10, 10]
    assert store.layer_attrs("head")["reduced"] == "none"


def test_projection_states_its_bound_and_does_not_depend_on_the_batch(net, stimuli, tmp_path):
    a = extract(net, stimuli, tmp_path / "a.zarr", layers="conv2", reduce="projection", components=40, batch=3)
    b = extract(net, stimuli, tmp_path / "b.zarr", layers="conv2", reduce="projection", components=40, batch=8)
    np.testing.assert_allclose(a.rows("conv2"), b.rows("conv2"), atol=1e-5)
    attrs = a.layer_attrs("conv2")
    assert (a.n_units("conv2"), attrs["reduced"], attrs["projection_seed"]) == (40, "projection", 0)
    assert "Johnson-Lindenstrauss" in attrs["projection_bound"]
    c = extract(net, stimuli, tmp_path / "c.zarr", layers="conv2", reduce="projection", components=40, seed=1)
    assert not np.allclose(a.rows("conv2"), c.rows("conv2"))


def test_pca_is_that_of_the_stated_stimuli(net, stimuli, tmp_path):
    options = small(layers=["conv2", "head"], reduce="pca", components=3, fit_stimuli=15, seed=4)
    store = extract(net, stimuli, tmp_path / "a.zarr", **options)
    chosen = store.attrs["pca_fit_stimuli"]
    assert len(chosen) == 15
    assert chosen == sorted(chosen)
    full = net.module.expected(torch.from_numpy(IMAGES))["conv2"].flatten(1).numpy().astype(np.float64)
    rows = [IDS.index(name) for name in chosen]
    u, s, vt = np.linalg.svd(full[rows] - full[rows].mean(0), full_matrices=False)
    signs = np.sign(u[np.abs(u).argmax(0), np.arange(len(s))])[:3]
    np.testing.assert_allclose(store.rows("conv2"), (full - full[rows].mean(0)) @ vt[:3].T * signs, atol=1e-4)
    ratio = store.layer_attrs("conv2")["explained_variance_ratio"]
    np.testing.assert_allclose(ratio, (s**2 / (s**2).sum())[:3], atol=1e-5)


def test_pca_says_when_it_cannot_be_fitted(net, stimuli, tmp_path):
    with pytest.raises(InputError, match="components=30 principal components cannot be found from 23 stimuli"):
        extract(net, stimuli, tmp_path / "a.zarr", reduce="pca", components=30)
    with pytest.raises(InputError, match=r"the principal axes of 6 layers take .*memory='30kB'"):
        extract(net, stimuli, tmp_path / "a.zarr", reduce="pca", memory="30kB", batch=1)


def test_outputs_that_are_not_plain_float_maps(tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.swap, self.top, self.cube = Swap(), Top(), Cube()

        def forward(self, x):
            self.cube(x)
            return self.top(self.swap(x))

    class Swap(nn.Module):
        def forward(self, x):
            return {"tokens": x.transpose(0, 1).double(), "n": 3}

    class Top(nn.Module):
        def forward(self, x):
            return x["tokens"].sum(2).argmax(0)

    class Cube(nn.Module):
        def forward(self, x):
            return x[:, :, None, None, :]

    x = np.random.default_rng(1).random((5, 4, 6)).astype(np.float32)
    store = extract(Odd().eval(), x, tmp_path / "a.zarr", batch=2)
    np.testing.assert_allclose(store.rows("swap"), x.reshape(5, -1), rtol=1e-6)
    assert store.layer_attrs("swap")["original_shape"] == [4, 6]
    note = store.layer_attrs("swap")["output_note"]
    assert (
        note
        == "first tensor (item 'tokens') of a dict of 2; batch axis 1 moved to the front; float64 recorded as float32"
    )
    assert np.array_equal(store.rows("top")[:, 0], x.sum(2).argmax(1))
    assert store.layer_attrs("cube")["original_shape"] == [4, 1, 1, 6]


def test_single_stimuli_and_bare_modules(net, tmp_path):
    store = extract(net.module, IMAGES[:1], tmp_path / "a.zarr", layers="head")
    expected = net.module.expected(torch.from_numpy(IMAGES[:1]))["head"]
    np.testing.assert_allclose(store.rows("head"), expected.numpy(), atol=1e-6)


def test_channels_last_gives_the_same_to_rounding_and_is_undone(net, stimuli, tmp_path):
    store = extract(net, stimuli, tmp_path / "a.zarr", **small(channels_last=True))
    expected = net.module.expected(torch.from_numpy(IMAGES))["relu@1"]
    np.testing.assert_allclose(store.rows("relu@1"), expected.flatten(1).numpy(), atol=1e-5)
    assert net.module.conv1.weight.is_contiguous()


# -- the plan ----------------------------------------------------------------------------------------


def test_the_plan_is_known_before_anything_is_written(net, stimuli, tmp_path):
    plan = plan_extraction(net, stimuli, tmp_path / "a.zarr", **small())
    assert not (tmp_path / "a.zarr").exists()
    assert [layer.name for layer in plan.layers][:2] == ["conv1", "relu@0"]
    assert plan.block % plan.attrs["batch"] == 0
    assert "relu@1" in str(plan)
    store = extract(net, stimuli, tmp_path / "a.zarr", **small())
    assert store.identity == plan.identity


def test_block_and_batch_follow_the_memory(net, stimuli, tmp_path):
    each = 4 * (4 * 600 + 8)
    plan = plan_extraction(net, stimuli, tmp_path / "a.zarr", memory=str(2 * 5 * each), batch=8)
    assert (plan.attrs["batch"], plan.block) == (5, 5)
    plan = plan_extraction(net, stimuli, tmp_path / "a.zarr", memory=str(2 * 5 * each), batch=2)
    assert (plan.attrs["batch"], plan.block) == (2, 4)
    plan = plan_extraction(net, stimuli, tmp_path / "a.zarr")
    assert plan.attrs["batch"] <= 23 <= plan.block
    with pytest.raises(InputError, match=r"one stimulus gives 9.63 kB in 6 layers.*reduce='mean'"):
        plan_extraction(net, stimuli, tmp_path / "a.zarr", memory="10kB")


def test_provenance_is_complete_and_names_no_place(net, stimuli, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/home/someone/bin/actkit", "extract", "/home/someone/acts.zarr", "--batch", "3"])
    attrs = extract(net, stimuli, tmp_path / "a.zarr", **small()).attrs
    expected = {"schema", "network", "network_source", "weights_sha256", "preprocessing", "preprocessing_sha256"}
    expected |= {"stimuli", "stimuli_fingerprint", "stimuli_order", "layers_asked", "versions", "device", "dtype"}
    assert expected | {"seed", "batch", "block", "command", "reduce"} <= set(attrs)
    assert attrs["command"] == "actkit extract acts.zarr --batch 3"
    assert attrs["versions"]["torch"] == torch.__version__
    assert "/home" not in json.dumps(attrs)
    assert str(tmp_path) not in json.dumps(attrs)


def test_sizes_and_layers_may_be_written_as_text():
    options = RecordOptions(layers="a.*", types="Conv2d", memory="1GB")
    assert (options.layers, options.types) == (["a.*"], ["Conv2d"])
    with pytest.raises(ValueError, match="is not a size"):
        RecordOptions(memory="plenty")


# -- asking again ------------------------------------------------------------------------------------


def test_a_complete_store_is_returned_without_running_the_network(net, stimuli, tmp_path):
    first = extract(net, stimuli, tmp_path / "a.zarr", **small())
    passes = net.module.passes
    second = extract(net, stimuli, tmp_path / "a.zarr", **small(workers=2, nan="keep"))
    assert net.module.passes == passes
    assert first.identity == second.identity


def test_the_same_layers_asked_in_other_words(net, stimuli, tmp_path):
    first = extract(net, stimuli, tmp_path / "a.zarr", **small(layers=["conv1", "conv2"]))
    rows = net.module.rows
    second = extract(net, stimuli, tmp_path / "a.zarr", **small(layers="conv*"))
    assert first.identity == second.identity
    assert net.module.rows == rows  # the layers are remembered from the first time


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("weights", r"differs in weights\. Give another path"),
        ("preprocessing", r"differs in preprocessing\."),
        ("stimuli", r"differs in stimuli\."),
        ("order", r"differs in stimuli\."),
        ("layers", r"differs in layers \(4 fewer\)"),
        ("options", r"differs in option dtype \('float32', now 'float16'\)"),
        ("batch", r"option batch \(3, now 2\)"),
        ("lesion", r"differs in architecture\."),
    ],
)
def test_what_differs_is_named(net, stimuli, tmp_path, change, words):
    extract(net, stimuli, tmp_path / "a.zarr", **small())
    options = small()
    if change == "weights":
        net.module.head.bias.data[0] += 1
    elif change == "preprocessing":
        net.preprocess = lambda row: torch.from_numpy(row + 1)
    elif change == "stimuli":
        changed = IMAGES.copy()
        changed[7, 0, 0, 0] += 1
        stimuli = Stimuli.from_array(changed, ids=IDS, labels=stimuli.labels)
    elif change == "order":
        stimuli = stimuli[::-1]
    elif change == "layers":
        options["layers"] = ["conv1", "head"]
    elif change == "options":
        options["dtype"] = "float16"
    elif change == "batch":
        options["batch"] = 2
    elif change == "lesion":
        net.module.conv1.register_forward_hook(lambda module, args, output: output * torch.arange(6.0)[:, None, None])
    with pytest.raises(StoreError, match=words):
        extract(net, stimuli, tmp_path / "a.zarr", **options)
    store = extract(net, stimuli, tmp_path / "a.zarr", **options, overwrite=True)
    assert store.complete


def test_a_store_from_elsewhere_is_not_touched(net, stimuli, tmp_path):
    from actkit.store import store_from_arrays

    store_from_arrays(tmp_path / "a.zarr", {"x": np.zeros((3, 2))})
    with pytest.raises(StoreError, match=r"was not recorded by actkit\.extract"):
        extract(net, stimuli, tmp_path / "a.zarr")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError):
        extract(net, stimuli, tmp_path / "b", overwrite=True)
    assert (tmp_path / "b" / "thesis.txt").exists()


def test_changed_labels_are_pointed_out(net, stimuli, tmp_path):
    extract(net, stimuli, tmp_path / "a.zarr", **small())
    other = Stimuli.from_array(IMAGES, ids=IDS, labels={"half": ["b"] * 23, "set": ["x"] * 23})
    with pytest.warns(UserWarning, match="the stimulus labels half, set are not those it was recorded with"):
        extract(net, other, tmp_path / "a.zarr", **small())


# -- what goes wrong ---------------------------------------------------------------------------------


def interrupted(net, stimuli, path, at=12, **options):
    """Record and stop after some stimuli with KeyboardInterrupt."""

    def stop(done, total):
        if done >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(net, stimuli, path, progress=stop, **options)


def test_an_interrupted_recording_goes_on_and_ends_in_the_same_values(net, stimuli, tmp_path):
    whole = extract(net, stimuli, tmp_path / "a.zarr", **small())
    net.module.train()
    interrupted(net, stimuli, tmp_path / "b.zarr", **small())
    assert net.module.training
    assert not any(len(m._forward_hooks) for m in net.module.modules())
    assert not open_store(tmp_path / "b.zarr", allow_incomplete=True).complete
    with pytest.raises(StoreError, match="resume=True goes on with it"):
        extract(net, stimuli, tmp_path / "b.zarr", **small(resume=False))
    seen = []
    resumed = extract(net, stimuli, tmp_path / "b.zarr", progress=lambda done, total: seen.append(done), **small())
    assert seen[0] > 3  # blocks that were written are not run again
    assert seen[-1] == 23
    for name in whole.layers:
        assert np.array_equal(whole.rows(name), resumed.rows(name))


@pytest.mark.parametrize("reduce", ["none", "pca"])
def test_an_interrupted_float16_recording_keeps_its_centre(net, stimuli, tmp_path, reduce):
    options = small(dtype="float16", reduce=reduce, components=None if reduce == "none" else 4)
    whole = extract(net, stimuli, tmp_path / "a.zarr", **options)
    interrupted(net, stimuli, tmp_path / "b.zarr", at=18, **options)
    resumed = extract(net, stimuli, tmp_path / "b.zarr", **options)
    for name in whole.layers:
        assert np.array_equal(whole.rows(name), resumed.rows(name)), name


def test_a_float16_recording_cut_off_between_centre_and_first_block(net, stimuli, tmp_path, monkeypatch):
    from actkit.store import StoreWriter

    whole = extract(net, stimuli, tmp_path / "a.zarr", **small(dtype="float16"))
    monkeypatch.setattr(StoreWriter, "write_block", lambda *_: (_ for _ in ()).throw(OSError(5, "gone")))
    with pytest.raises(OSError, match="gone"):
        extract(net, stimuli, tmp_path / "b.zarr", **small(dtype="float16"))
    monkeypatch.undo()
    resumed = extract(net, stimuli, tmp_path / "b.zarr", **small(dtype="float16"))
    assert np.array_equal(whole.rows("conv1"), resumed.rows("conv1"))


def test_an_incomplete_store_of_another_recording_is_not_continued(net, stimuli, tmp_path):
    interrupted(net, stimuli, tmp_path / "b.zarr", **small())
    with pytest.raises(StoreError, match="option batch"):
        extract(net, stimuli, tmp_path / "b.zarr", **small(batch=2))


class Hungry(nn.Module):
    """Raises out-of-memory above some batch size."""

    def __init__(self, most, error):
        super().__init__()
        self.scale, self.most, self.error, self.sizes = nn.ReLU(inplace=True), most, error, []

    def forward(self, x):
        x = self.scale(x)  # in place: a retry must not see what the failed pass did
        x += 1
        if len(x) > self.most:
            raise self.error
        self.sizes.append(len(x))
        return x


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["gpu", "cpu"],
)
def test_out_of_memory_halves_the_batch_and_says_so(stimuli, tmp_path, caplog, error):
    net = Network(Hungry(3, error), input_shape=(3, 12, 12))
    with caplog.at_level(logging.WARNING, logger="actkit"):
        store = extract(net, stimuli, tmp_path / "a.zarr", layers="output", batch=16)
    assert [record.message.split(" (")[0] for record in caplog.records] == [
        "out of memory with a batch of 16 at stimulus 0; going on with 8",
        "out of memory with a batch of 8 at stimulus 0; going on with 4",
        "out of memory with a batch of 4 at stimulus 0; going on with 2",
    ]
    np.testing.assert_allclose(store.rows("output"), IMAGES.reshape(23, -1) + 1, atol=1e-6)
    assert max(net.module.sizes[-11:]) == 2
    note = store.notes[0]["note"]
    assert note["batch"] == 2
    assert note["out_of_memory"][0] == {"from_row": 0, "batch": 8}


def test_out_of_memory_on_a_single_stimulus_is_an_error(stimuli, tmp_path, monkeypatch):
    net = Network(Hungry(99, MemoryError("no room")), input_shape=(3, 12, 12))
    from actkit.extractors import record

    real = record._run

    def starve(*args):
        net.module.most = 0
        return real(*args)

    monkeypatch.setattr(record, "_run", starve)
    with pytest.raises(ActkitError, match=r"runs out of memory on a single stimulus \('img00'\): no room"):
        extract(net, stimuli, tmp_path / "a.zarr", layers="output", batch=4)
    assert not open_store(tmp_path / "a.zarr", allow_incomplete=True).complete


def test_other_errors_of_the_network_come_through(net, stimuli, tmp_path):
    def fail(module, args):
        if net.module.rows > 20:
            raise RuntimeError("a bug in the network")

    handle = net.module.conv2.register_forward_pre_hook(fail)
    with pytest.raises(Exception, match="a bug in the network"):
        extract(net, stimuli, tmp_path / "a.zarr", **small())
    handle.remove()
    assert threads() == 0


def threads():
    """Decoding and writing threads that still run."""
    return sum(thread.name.startswith(("actkit-decode", "actkit-write")) for thread in threading.enumerate())


class Breaks(nn.Module):
    """NaN where the image says so."""

    def __init__(self, value):
        super().__init__()
        self.bad, self.value = nn.Identity(), value

    def forward(self, x):
        flag = x[:, 0, 0, 0] == 7
        y = x.clone()
        y[flag, 0, 1, 1] = self.value
        return self.bad(y)


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NaN"), (float("inf"), "infinite")])
def test_activations_that_are_not_finite_name_layer_and_stimuli(tmp_path, value, word):
    images = IMAGES.copy()
    images[[12, 13, 20], 0, 0, 0] = 7
    stimuli = Stimuli.from_array(images, ids=IDS)
    net = Network(Breaks(value), input_shape=(3, 12, 12))
    pattern = rf"layer 'bad' of 'Breaks' gives {word} activations for the stimuli 'img12', 'img13' \(1 of 432 units"
    with pytest.raises(LayerError, match=pattern):
        extract(net, stimuli, tmp_path / "a.zarr", batch=5, memory="40kB")
    kept = extract(net, stimuli, tmp_path / "a.zarr", batch=5, memory="40kB", nan="keep")
    assert np.isfinite(kept.rows("bad")).all(1).sum() == 20


def test_large_finite_values_are_not_taken_for_infinite(tmp_path):
    x = np.full((4, 50), 3e38, dtype=np.float32)  # their sum overflows
    x[:, 0] = [1, 2, 3, 4]
    store = extract(nn.Identity(), x, tmp_path / "a.zarr")
    assert np.array_equal(store.rows("output"), x)


def test_a_stimulus_that_cannot_be_preprocessed_is_named(net, stimuli, tmp_path):
    def preprocess(row):
        if np.array_equal(row, IMAGES[14]):
            raise ZeroDivisionError("empty image")
        return torch.from_numpy(row.copy())

    net.preprocess = preprocess
    with pytest.raises(StimulusError, match="stimulus 'img14' cannot be preprocessed for 'small': empty image"):
        extract(net, stimuli, tmp_path / "a.zarr", **small())
    assert threads() == 0


def test_stimuli_of_another_shape_are_named(tmp_path):
    def preprocess(row):
        return torch.from_numpy(row[:, : 12 if row[0, 0, 0] != IMAGES[9, 0, 0, 0] else 11].copy())

    with pytest.raises(StimulusError, match=r"stimulus 'img09' has shape \(3, 11, 12\) after preprocessing"):
        extract(Network(nn.ReLU(), preprocess), Stimuli.from_array(IMAGES, ids=IDS), tmp_path / "a.zarr", batch=4)


def test_a_layer_whose_shape_follows_the_stimulus_is_refused(tmp_path):
    class Crop(nn.Module):
        def forward(self, x):
            return x[..., : 12 if len(x) < 4 else 11]

    net = Network(nn.Sequential(Crop()), input_shape=(3, 12, 12))
    with pytest.raises(LayerError, match=r"layer '0' gives shape \(8, 3, 12, 11\).*the plan says \(8, 3, 12, 12\)"):
        extract(net, IMAGES, tmp_path / "a.zarr", batch=8)


def test_an_error_of_the_writer_surfaces_and_the_store_can_be_resumed(net, stimuli, tmp_path, monkeypatch):
    from actkit.store import StoreWriter

    real = StoreWriter.write_block

    def failing(self, index, arrays, note=None):
        if index == 1:
            raise OSError(5, "the disk went away")
        return real(self, index, arrays, note)

    monkeypatch.setattr(StoreWriter, "write_block", failing)
    rows = net.module.rows
    with pytest.raises(OSError, match="the disk went away"):
        extract(net, stimuli, tmp_path / "a.zarr", **small())
    assert net.module.rows - rows < 23 + 30  # it did not run to the end first
    monkeypatch.undo()
    assert extract(net, stimuli, tmp_path / "a.zarr", **small()).complete
    assert threads() == 0


def test_layers_that_do_not_exist_or_never_run(net, stimuli, tmp_path):
    with pytest.raises(LayerError, match="no layer 'conv3' in Net; nearest: 'conv2', 'conv1'"):
        extract(net, stimuli, tmp_path / "a.zarr", layers="conv3")
    net.module.idle = nn.Linear(2, 2)
    with pytest.raises(LayerError, match="'idle' exists in Net but never runs"):
        extract(net, stimuli, tmp_path / "a.zarr", layers="idle")
    assert not (tmp_path / "a.zarr").exists()


def test_empty_sets_are_refused(net, stimuli, tmp_path):
    with pytest.raises(StimulusError):
        extract(net, stimuli[:0], tmp_path / "a.zarr")


# -- leaving nothing behind --------------------------------------------------------------------------


def test_state_of_the_network_is_restored(net, stimuli, tmp_path):
    net.module.train()
    net.module.conv1.eval()
    extract(net, stimuli, tmp_path / "a.zarr", **small())
    assert net.module.training
    assert net.module.relu.training
    assert not net.module.conv1.training
    assert not any(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.module.modules())
    assert torch.is_grad_enabled()
    assert threads() == 0
    loss = net.module(torch.from_numpy(IMAGES[:2])).sum()
    loss.backward()  # the network can still be trained
    assert net.module.conv1.weight.grad is not None


def test_at_most_two_buffers_and_few_batches_are_held(net, stimuli, tmp_path, monkeypatch):
    made = []
    real = pipeline.Buffer.__init__

    def counted(self, recipes, rows, pin):
        made.append(rows)
        real(self, recipes, rows, pin)

    monkeypatch.setattr(pipeline.Buffer, "__init__", counted)
    extract(net, stimuli, tmp_path / "a.zarr", **small())
    assert made == [6, 6]


def test_memory_does_not_grow_with_the_number_of_stimuli(tmp_path):
    """Resident memory stays where it is after the first blocks, while 150 MB go to disk."""
    net = Network(nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(inplace=True)), input_shape=(1, 32, 32))
    base = Stimuli.from_array(np.random.default_rng(0).random((8, 1, 32, 32), dtype=np.float32))
    stimuli = Stimuli(base._source, [f"{i:05d}" for i in range(2400)], {}, _rows=np.arange(2400) % 8)
    process, resident = psutil.Process(), []
    options = {"layers": ["0"], "memory": "8MB", "batch": 20}
    extract(net, stimuli, tmp_path / "a.zarr", lambda *_: resident.append(process.memory_info().rss), **options)
    settled = resident[len(resident) // 8]
    assert max(resident) - settled < 30e6


@pytest.mark.skipif(pipeline._glibc() is None, reason="needs the GNU C library, not tuned from outside")
def test_the_heap_is_kept_while_a_network_runs():
    """Passes that allocate and free the same outputs fault no page twice."""
    resource = pytest.importorskip("resource")

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            kept = [torch.ones(2**21) for _ in range(3)]  # three outputs of 8 MiB, freed together
            del kept
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with pipeline.steady_heap():
        faults()
        assert faults() < 1000  # of the 60,000 pages that they have


def test_progress_is_told_to_a_function(net, stimuli, tmp_path):
    seen = []
    extract(net, stimuli, tmp_path / "a.zarr", progress=lambda done, total: seen.append((done, total)), **small())
    assert seen == [(done, 23) for done in (3, 6, 9, 12, 15, 18, 21, 23)]


def test_a_progress_bar_shows_rate_and_time_left(net, stimuli, tmp_path, capsys):
    extract(net, stimuli, tmp_path / "a.zarr", progress=True, **small())
    shown = capsys.readouterr().err
    assert "small" in shown
    assert "23" in shown
    assert "stimuli/s" in shown


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("reduce", ["none", "l2", "projection", "pca"])
def test_cuda_agrees_with_the_cpu_and_the_network_comes_back(net, stimuli, tmp_path, reduce):
    options = small(reduce=reduce, components=4 if reduce in ("pca", "projection") else None)
    a = extract(net, stimuli, tmp_path / "a.zarr", device="cpu", **options)
    b = extract(net, stimuli, tmp_path / "b.zarr", device="cuda", **options)
    assert net.device.type == "cpu"
    for name in a.layers:
        np.testing.assert_allclose(a.rows(name), b.rows(name), atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_nan_on_a_cuda_device_is_found(tmp_path):
    images = IMAGES.copy()
    images[12, 0, 0, 0] = 7
    net = Network(Breaks(float("nan")), input_shape=(3, 12, 12))
    with pytest.raises(LayerError, match="'img12'"):
        extract(net, Stimuli.from_array(images, ids=IDS), tmp_path / "a.zarr", batch=5, memory="40kB", device="cuda")
