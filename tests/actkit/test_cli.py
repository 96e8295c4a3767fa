"""The command line: light help, one clean message for an error, each step alone and all of them in a chain."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from actkit.cli import _COMMANDS, cli
from actkit.cli_network import parse_pairs
from actkit.recordings import rdm_dataset
from actkit.results import load, save
from actkit.store import open_store, store_from_arrays

N = 8


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def command(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the console script itself."""
    script = Path(sys.executable).with_name("actkit")
    return subprocess.run([script, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for i in range(N):
        Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(folder / f"p{i}.png")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    rng = np.random.default_rng(2)
    kinds = np.array(["a", "b"] * 6)
    base = rng.normal(size=(12, 5)) + (kinds == "a")[:, None] * 3
    arrays = {"early": rng.normal(size=(12, 5)), "late": base}
    path = tmp_path / "acts.zarr"
    arrays = {name: values.astype(np.float32) for name, values in arrays.items()}
    store_from_arrays(path, arrays, ids=[f"s{i}" for i in range(12)], labels={"kind": kinds})
    return path


def test_help_lists_every_command_and_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom actkit.cli import cli\ntry:\n    cli.main(['--help'])\nexcept SystemExit as end:\n"
        "    assert end.code == 0\n"
        "heavy = {'torch', 'xarray', 'numpy', 'pydantic', 'pandas', 'matplotlib', 'zarr', 'sklearn', 'yaml'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "HEAVY []" in done.stdout
    for name, _, line in _COMMANDS:
        assert f"  {name} " in done.stdout
        assert line.split()[0] in done.stdout


@pytest.mark.parametrize("name", [name for name, _, _ in _COMMANDS])
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    result = call(name, "--help")
    assert result.exit_code == 0, result.output
    assert f"actkit {name}" in result.output.partition("Example")[2]


def test_version() -> None:
    assert call("--version").output == f"actkit, version {version('actkit')}\n"


def test_a_mistyped_command_or_option_is_a_usage_error_with_the_nearest() -> None:
    result = call("extrct")
    assert result.exit_code == 2
    assert "no command 'extrct'; nearest: 'extract'" in result.output
    assert call("store", "info").exit_code == 2


def test_an_error_is_one_message_without_a_traceback_unless_asked(tmp_path: Path) -> None:
    quiet = command("store", "info", "nothing.zarr", cwd=tmp_path)
    assert quiet.returncode == 1
    assert quiet.stderr.startswith("Error: there is no store at nothing.zarr")
    assert "Traceback" not in quiet.stderr
    assert quiet.stdout == ""
    loud = command("store", "info", "nothing.zarr", "--traceback", cwd=tmp_path)
    assert loud.returncode == 1
    assert "Traceback" in loud.stderr


def test_a_reader_that_leaves_does_no_harm(tmp_path: Path, pictures: Path) -> None:
    script = Path(sys.executable).with_name("actkit")
    done = subprocess.run(
        ["bash", "-c", f"{script} layers pixels | true; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("actkit.study.run", stopped)
    result = call("run", "demo")
    assert result.exit_code == 130
    assert "the same command goes on from there" in result.output


def test_layers_are_listed_in_execution_order() -> None:
    result = call("layers", "pixels", "--select", "nope.*")
    assert result.exit_code == 1
    assert "nope" in result.output
    result = call("layers", "gabor", "-o", "size=16", "-o", "frequencies=[2, 4]", "-o", "grid=4")
    assert result.exit_code == 0, result.output
    assert "output" in result.output
    assert "12 x 4 x 4" in result.output


def test_pairs_are_yaml_and_what_is_no_pair_is_a_usage_error() -> None:
    assert parse_pairs(("a=3", "b=[x, y]", "c-d=null", "e=a=b")) == {"a": 3, "b": ["x", "y"], "c_d": None, "e": "a=b"}
    result = call("layers", "pixels", "-o", "size")
    assert result.exit_code == 2
    assert "'size' is not KEY=VALUE" in result.output
    result = call("layers", "pixels", "-o", "sise=4")
    assert result.exit_code == 1
    assert "unknown option 'sise'; nearest: 'size'" in result.output


def test_the_chain_extract_rdm_rsa_report(tmp_path: Path, pictures: Path) -> None:
    acts, rdms, out = tmp_path / "acts.zarr", tmp_path / "rdms.nc", tmp_path / "rsa.nc"
    planned = call("extract", "pixels", pictures, "--store", acts, "-o", "size=6", "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert not acts.exists()
    result = call("extract", "pixels", pictures, "--store", acts, "-o", "size=6", "--quiet")
    assert result.exit_code == 0, result.output
    assert f"{N} stimuli, 1 layers" in result.output
    assert call("rdm", acts, "--method", "euclidean", "--out", rdms).exit_code == 0
    made = load(rdms)
    assert made.attrs["measure"] == "euclidean"
    rng = np.random.default_rng(0)
    people = made["dissimilarity"].values + rng.normal(0, 0.1, (6, made.sizes["pair"]))
    ids = made["stimulus"].values
    save(rdm_dataset(people, [f"s{i}" for i in range(6)], "subject", ids, "x", "people"), tmp_path / "people.nc")
    # As the variables of data sets come: with the attribute that says what kind of variable they are.
    save(rdm_dataset(people[:1], ["shipped"], "model", ids, "x", "models", kind="rdm"), tmp_path / "models.nc")
    options = ["--n-draws", "10", "--n-permutations", "20", "--compare", "pearson"]
    figure = ("--figure", tmp_path / "rsa.svg", "--model", tmp_path / "models.nc")
    result = call("rsa", rdms, tmp_path / "people.nc", *options, "--out", out, *figure)
    assert result.exit_code == 0, result.output
    assert json.loads(load(out).attrs["options"])["n_draws"] == 10
    assert load(out)["kind"].values.tolist() == ["layer", "model"]
    assert (tmp_path / "rsa.png").exists()
    result = call("report", out, rdms, "--out", tmp_path / "report.html", "--title", "A title of ours")
    assert result.exit_code == 0, result.output
    assert "A title of ours" in (tmp_path / "report.html").read_text()


def test_ceiling_fits_partials_and_commonality(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    n, ids = 15, [f"i{k}" for k in range(15)]
    parts = rng.random((3, n * (n - 1) // 2))
    people = parts[:2].sum(axis=0) + 0.2 * rng.normal(size=(6, parts.shape[1]))
    save(rdm_dataset(people, [f"s{i}" for i in range(6)], "subject", ids, "x", "people"), tmp_path / "people.nc")
    save(rdm_dataset(parts, ["a", "b", "c"], "layer", ids, "x", "net"), tmp_path / "net.nc")
    save(rdm_dataset(parts[:1], ["m"], "model", ids, "x", "models"), tmp_path / "models.nc")
    data = tmp_path / "people.nc"

    result = call("ceiling", data, "--compare", "pearson", "--out", tmp_path / "ceiling.nc")
    assert result.exit_code == 0, result.output
    assert 0.5 < float(load(tmp_path / "ceiling.nc")["ceiling_lower"]) < 1

    options = ["--compare", "pearson", "--n-draws", "20", "--n-permutations", "0", "--quiet"]
    fitted = call(
        "rsa", tmp_path / "net.nc", data, *options, "--weighted", tmp_path / "net.nc", "--choose-layer",
        "--out", tmp_path / "fitted.nc",
    )  # fmt: skip
    assert fitted.exit_code == 0, fitted.output
    mean = load(tmp_path / "fitted.nc")["mean"].to_series()
    assert list(mean.index) == ["net/a", "net/b", "net/c", "net: weighted", "net/chosen layer"]
    assert mean["net: weighted"] > mean["net/chosen layer"]

    freed = call(
        "rsa", tmp_path / "net.nc", data, *options, "--partial", tmp_path / "models.nc", "--out", tmp_path / "freed.nc"
    )
    assert freed.exit_code == 0, freed.output
    assert np.isnan(load(tmp_path / "freed.nc")["mean"][0])  # the layer that is the control

    sets = ["--set", f"net={tmp_path / 'net.nc'}", "--set", f"model={tmp_path / 'models.nc'}"]
    divided = call("commonality", data, *sets, "--n-draws", "20", "--out", tmp_path / "parts.nc")
    assert divided.exit_code == 0, divided.output
    assert call("commonality", data, "--set", "net", "--out", tmp_path / "x.nc").exit_code == 1


def test_similarity_and_repetitions(store: Path, tmp_path: Path) -> None:
    result = call("similarity", store, "--out", tmp_path / "cka.nc", "--figure", tmp_path / "cka.svg", "--quiet")
    assert result.exit_code == 0, result.output
    cka = load(tmp_path / "cka.nc")["similarity"].values
    np.testing.assert_allclose(np.diagonal(cka), 1, atol=1e-6)
    assert (tmp_path / "cka.png").exists()
    # The same store twice: no noise between its repetitions, so that crossnobis is the squared distance.
    options = ["--repetitions", "noise", "--folds", "repetition", "--noise", "none", "--quiet"]
    result = call("rdm", store, store, "--method", "crossnobis", *options, "--out", tmp_path / "crossnobis.nc")
    assert result.exit_code == 0, result.output
    call("rdm", store, "--method", "sqeuclidean", "--out", tmp_path / "plain.nc", "--quiet")
    crossed, plain = (load(tmp_path / name)["dissimilarity"].values for name in ("crossnobis.nc", "plain.nc"))
    np.testing.assert_allclose(crossed, plain, rtol=1e-4)
    refused = call("rdm", store, "--method", "crossnobis", "--folds", "repetition", "--out", tmp_path / "x.nc")
    assert refused.exit_code == 1
    assert "declare repetitions" in refused.output


def test_rsa_names_what_its_data_could_be(tmp_path: Path) -> None:
    save(rdm_dataset(np.arange(3.0)[None], ["a"], "layer", ["x", "y", "z"], "m", "n"), tmp_path / "rdms.nc")
    for data, message in (("judgements", "neither a file nor DATASET:VARIABLE"), ("digit:x", "nearest: 'digits'")):
        result = call("rsa", tmp_path / "rdms.nc", data, "--out", tmp_path / "rsa.nc")
        assert result.exit_code == 1
        assert message in result.output


def test_decode(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "decoding.nc"
    result = call(
        "decode", store, "--label", "kind", "--folds", "3", "--classifier", "nearest_centroid", "--out", out, "--quiet"
    )
    assert result.exit_code == 0, result.output
    assert float(load(out)["accuracy"].sel(layer="late")) > 0.9


def test_store_verify_ends_with_1_when_a_byte_is_wrong(store: Path) -> None:
    result = call("store", "verify", store)
    assert (result.exit_code, "sound" in result.output) == (0, True), result.output
    chunk = next(
        path
        for path in sorted((store / "late" / "activation").rglob("*"))
        if path.is_file() and path.name != "zarr.json"
    )
    content = bytearray(chunk.read_bytes())
    content[3] ^= 1
    chunk.write_bytes(content)
    result = call("store", "verify", store)
    assert result.exit_code == 1
    assert "late" in result.output
    assert "1 fault" in result.output


def test_store_info_and_tree(store: Path) -> None:
    assert open_store(store).n_stimuli == 12
    assert "12" in call("store", "info", store).output
    tree = call("store", "tree", store).output
    assert tree.index("early") < tree.index("late")


def test_data_list_show_check_and_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTKIT_DATA", str(tmp_path))
    assert "rendered_faces" in call("data", "list").output
    assert "n_identities" in call("data", "show", "rendered_faces").output
    assert call("data", "check", "kriegeskorte2008_92images").exit_code == 1
    assert call("data", "check", "digits").exit_code == 0
    fetched = call("data", "fetch", "digits")
    assert fetched.exit_code == 0
    assert "needs no files" in fetched.output
    result = call("data", "show", "digitss")
    assert result.exit_code == 1
    assert "nearest: 'digits'" in result.output


def test_run_shows_its_plan_and_says_what_is_wrong_with_a_study(tmp_path: Path, pictures: Path) -> None:
    study = tmp_path / "mine.yaml"
    study.write_text("study: mine\nnetworks: [pixels]\nstimuli: pictures\nreport: false\n")
    result = call("run", study, "--dry-run", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "record pixels" in result.output
    assert not (tmp_path / "out").exists()
    result = call("run", study, "--out", tmp_path / "out", "--quiet")
    assert result.exit_code == 0, result.output
    assert f"Results: {tmp_path / 'out'}" in result.output
    study.write_text("study: mine\nnetwork: [pixels]\nstimuli: pictures\n")
    result = call("run", study)
    assert result.exit_code == 1
    assert "Error: mine.yaml: " in result.output
    assert "unknown option 'network'; nearest: 'networks'" in result.output
