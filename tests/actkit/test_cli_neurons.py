"""The commands for recorded neurons, from a store and a recording on disk to results, figures and units."""

import numpy as np
import pytest
import torch
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


def test_reliability_matching_and_encoding_from_the_shell(folder, tmp_path):
    reliability, matched, units = (tmp_path / name for name in ("rho.nc", "match.nc", "units.yaml"))
    done = call("reliability", folder / "neurons.nc", "--out", reliability, "--figure", tmp_path / "rho")
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


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nothing.nc", "there is no file 'nothing.nc'"),
        ("cowley", "names no recording; write DATASET:VARIABLE"),
        ("rendered_faces:parameter", "nearest: 'parameters'"),
        ("rendered_faces:parameters", "has 'neuron' among them"),
    ],
)
def test_what_is_no_recording_is_refused(data, message, tmp_path):
    done = call("reliability", data, "--out", tmp_path / "x.nc")
    assert done.exit_code == 1
    assert message in done.output
    assert not (tmp_path / "x.nc").exists()
