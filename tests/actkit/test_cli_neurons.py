"""The commands for recorded neurons, from a store and a recording on disk to results, figures and units."""

import numpy as np
import pytest
import torch
import xarray as xr
from click.testing import CliRunner

import actkit
from actkit.cli import cli
from actkit.recordings_neurons import from_trials


def call(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve units of a layer, and three neurons that are noisy copies of units 2, 5 and 9."""
    folder = tmp_path_factory.mktemp("neurons")
    rng = np.random.default_rng(0)
    ids = [f"s{i:02d}" for i in range(60)]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(8, 12))
    kinds = {"kind": np.arange(60) % 3}
    stimuli = actkit.Stimuli.from_array(rng.normal(size=(60, 8)).astype(np.float32), ids, kinds)
    store = actkit.extract(actkit.Network(module, input_shape=(8,)), stimuli, layers=["0"], store=folder / "acts.zarr")
    units = store["0"].values
    shown = np.repeat(np.arange(60), 5)
    counts = units[shown][:, [2, 5, 9]] + 0.1 * rng.normal(size=(300, 3))
    recording = from_trials(counts, [ids[i] for i in shown])
    recording.rename("response").to_netcdf(folder / "neurons.nc")
    return folder


def test_ceiling_matching_and_encoding_from_the_shell(folder, tmp_path):
    reliability, matched, units = (tmp_path / name for name in ("rho.nc", "match.nc", "units.yaml"))
    done = call("ceiling", folder / "neurons.nc", "--out", reliability, "--figure", tmp_path / "rho")
    assert done.exit_code == 0, done.output
    assert (actkit.load(reliability).reliability > 0.9).all()
    assert (tmp_path / "rho.svg").exists()
    options = ["--reliability", reliability, "--quiet", "--figure", tmp_path / "figure"]
    done = call(
        "match", folder / "acts.zarr", folder / "neurons.nc", "--out", matched, "--units", units, "--labels", "kind",
        "--n-permutations", 19, *options,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    result = actkit.load(matched)
    assert (result.unit.isel(layer=0).transpose("neuron", "fold").values == np.array([[2], [5], [9]])).all()
    assert result.attrs["null"] == "within_category"
    assert (result.r_corrected > 0.95).all()
    assert "units.yaml: 3 of 0" in done.output
    text = units.read_text()
    assert all(f"{unit}" in text for unit in (2, 5, 9))
    done = call("encode", folder / "acts.zarr", folder / "neurons.nc", "--out", tmp_path / "enc.nc", *options)
    assert done.exit_code == 0, done.output
    assert (actkit.load(tmp_path / "enc.nc").r > 0.9).all()


def test_decoding_neurons_and_transfer_from_the_shell(folder, tmp_path):
    recording = xr.open_dataarray(folder / "neurons.nc").load()
    ids = [int(name[1:]) for name in recording["stimulus"].values]
    tuned = recording + 5 * (np.arange(3) == np.array(ids)[:, None, None] % 3)
    tuned = tuned.assign_coords(kind=("stimulus", np.array(ids) % 3), half=("stimulus", np.array(ids) // 3 % 2))
    tuned.rename("response").to_netcdf(tmp_path / "tuned.nc")
    chosen = ["--classifier", "nearest_centroid", "--n-draws", "2", "--folds", "2"]
    done = call(
        "decode", tmp_path / "tuned.nc", "--label", "kind", "--condition", "half", "--sizes", "1", "--sizes", "3",
        *chosen, "--out", tmp_path / "kinds.nc", "--figure", tmp_path / "kinds",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    result = actkit.load(tmp_path / "kinds.nc")
    assert result.attrs["analysis"] == "decoding_neurons"
    assert result["size"].values.tolist() == [1, 3]
    assert float(result["across"][-1]) > 0.9
    assert (tmp_path / "kinds.png").exists()
    done = call(
        "decode", folder / "acts.zarr", "--label", "kind", "--sizes", "4", *chosen, "--out", tmp_path / "units.nc",
        "--quiet",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert actkit.load(tmp_path / "units.nc")["curve"].shape == (1, 1, 2)
    matched = tmp_path / "match.nc"
    done = call(
        "match", folder / "acts.zarr", folder / "neurons.nc", "--out", matched, "--n-permutations", 0, "--quiet"
    )
    assert done.exit_code == 0, done.output
    named = recording.assign_coords(kind=("stimulus", np.array(ids) % 3))
    named.rename("response").to_netcdf(tmp_path / "named.nc")
    done = call(
        "transfer", folder / "acts.zarr", tmp_path / "named.nc", "--match", matched, "--labels", "kind",
        "--n-permutations", 3, "--out", tmp_path / "transfer.nc", "--figure", tmp_path / "transfer",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert actkit.load(tmp_path / "transfer.nc").sizes["permutation"] == 3
    assert (tmp_path / "transfer.svg").exists()


def test_options_of_the_other_kind_of_data_are_refused_and_shared_ones_stand_once(folder, tmp_path):
    out = ("--out", tmp_path / "x.nc")
    done = call("ceiling", folder / "neurons.nc", "--compare", "pearson", *out)
    assert done.exit_code == 1
    assert "--compare does not belong to a recording of neurons" in done.output
    done = call("decode", folder / "acts.zarr", "--label", "kind", "--trials", "pseudo", *out)
    assert done.exit_code == 1
    assert "--trials does not belong to a store" in done.output
    done = call("decode", folder / "neurons.nc", "--label", "kind", "--memory", "1GB", *out)
    assert "--memory does not belong to a recording of neurons" in done.output
    help_text = " ".join(call("decode", "--help").output.split())
    assert "[default: logistic (stores), svm (neurons)]" in help_text
    assert help_text.count("--penalty FLOAT") == 1
    assert "Neurons: What training never sees" in help_text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nothing.nc", "there is no file 'nothing.nc'"),
        ("cowley", "names no recording; write DATASET:VARIABLE"),
        ("rendered_faces:parameter", "nearest: 'parameters'"),
        ("rendered_faces:parameters", "has 'neuron' among them"),
    ],
)
def test_what_is_no_recording_is_refused(folder, data, message, tmp_path):
    done = call("match", folder / "acts.zarr", data, "--out", tmp_path / "x.nc")
    assert done.exit_code == 1
    assert message in done.output
    assert not (tmp_path / "x.nc").exists()
