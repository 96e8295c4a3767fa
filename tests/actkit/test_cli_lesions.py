"""The commands of the lesion bridge: single units out of a network, a file of them, and back into the network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result

import actkit
from actkit import cli_lesions
from actkit.cli import cli
from actkit.ranking_engine import Journal
from actkit.units import UnitSet

LAYER = "features.relu2"
FACES = "faces={dataset: rendered_faces, n_identities: 3, n_exemplars: 12, size: 16, select: {split: test}}:identity"
DIGITS = "digits={dataset: digits, select: {split: test}}:digit"
FACES_OF = "faces={dataset: rendered_faces, n_identities: 3, n_exemplars: 4, size: 16}:identity"


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def said(*arguments: str | Path) -> str:
    """What a command that must work prints."""
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    return done.output


def refused(*arguments: str | Path, code: int = 1) -> str:
    """The message of a command that must fail cleanly."""
    done = call(*arguments)
    assert done.exit_code == code, done.output
    assert "Error: " in done.output
    assert "Traceback" not in done.output
    return done.output


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Images this small gain nothing from more threads, which on a busy machine wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options of a small network that is trained once."""
    settings = {
        "tasks": "{faces: {dataset: rendered_faces, n_identities: 3, n_exemplars: 12, size: 16}, digits: digits}",
        "size": "16",
        "channels": "[6, 10]",
        "units": "16",
        "epochs": "3",
        "cache": str(tmp_path_factory.mktemp("cache")),
    }
    return [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]


@pytest.fixture(scope="module")
def opened(network: list[str]) -> actkit.Network:
    values = dict(part.split("=", 1) for part in network[1::2])
    return actkit.open_network("dual_task_cnn", **{key: yaml.safe_load(value) for key, value in values.items()})


@pytest.fixture
def quick(opened: actkit.Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening the network reads all that it was trained on; most commands here need not do it again."""
    monkeypatch.setattr(cli_lesions, "open_", lambda *_: opened)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty digits as a table of pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    digits = actkit.load_data("digits").stimuli[:60]
    for row in range(len(digits)):
        digits[row].save(folder / f"d{row:02d}.png")
    lines = [f"d{row:02d}.png,{label}" for row, label in enumerate(digits.labels["digit"])]
    path = folder / "digits.csv"
    path.write_text("\n".join(["path,digit", *lines]) + "\n")
    return path


@pytest.fixture
def tasks(table: Path) -> list[str]:
    return ["--task", FACES, "--task", f"digits={table}:digit"]


def written(path: Path) -> UnitSet:
    return UnitSet.from_dict(yaml.safe_load(path.read_text()))


def test_the_loop_from_a_ranking_to_its_lesion(network: list[str], tmp_path: Path) -> None:
    tasks = ["--task", FACES, "--task", DIGITS]
    out, units = tmp_path / "ranking.nc", tmp_path / "digits.yaml"
    text = said(
        "rank", "dual_task_cnn", LAYER, *network, *tasks, "--out", out, "--units", units, "--of", "digits",
        "--fraction", "0.3", "-q",
    )  # fmt: skip
    ranking = actkit.load(out)
    best = ranking["unit"].values[np.argsort(ranking["rank"].sel(task="digits").values)]
    chosen = written(units)
    assert chosen.channel.tolist() == best[:3].tolist()
    assert chosen.shapes[LAYER] == (10, 8, 8)
    assert f"digits: first channels {', '.join(map(str, best[:5]))}; halves of the images share" in text
    assert "(chance 0.30)" in text
    assert f"{units}: 3 of {LAYER}" in text

    effect = tmp_path / "effect.nc"
    text = said("lesion", "dual_task_cnn", *network, *tasks, "--units", units, "--out", effect)
    lost = actkit.load(effect)
    assert lost.attrs["network"] == "dual_task_cnn"
    row = lost.sel(task="digits", columns="all")
    np.testing.assert_allclose(row["intact_loss"], ranking["intact_loss"].sel(task="digits"), rtol=1e-5)
    assert float(row["loss_increase"]) > 2 * float(row["loss_increase_se"]) > 0
    assert (
        f"digits, all outputs: accuracy {float(row.intact_accuracy):.3f} -> {float(row.lesioned_accuracy):.3f} "
        f"(drop {float(row.accuracy_drop):.3f} ± {float(row.accuracy_drop_se):.3f})"
    ) in text
    assert "faces, own outputs: accuracy" in text

    # One unit of the ranking is one lesion of the same size.
    first = tmp_path / "first.yaml"
    first.write_text(f"units: [{{layer: {LAYER}, channel: [{best[0]}]}}]\n")
    said("lesion", "dual_task_cnn", *network, *tasks, "--units", first, "--out", effect)
    alone = actkit.load(effect)["loss_increase"].sel(task="digits", columns="all")
    np.testing.assert_allclose(alone, ranking["loss_increase"].sel(task="digits", unit=best[0]), rtol=1e-4, atol=1e-6)


def test_the_loop_from_selectivity_to_a_lesion_by_the_mean(
    quick: None, opened: actkit.Network, table: Path, tmp_path: Path
) -> None:
    store, out, units = tmp_path / "acts.zarr", tmp_path / "s.nc", tmp_path / "units.yaml"
    actkit.extract(opened, actkit.as_stimuli(table), store=store, layers=[LAYER], progress=False)
    tasks = ["--task", f"digits={table}:digit"]
    select = ["selectivity", store, "--label", "digit", "--contrast", "3", "--out", out, "--units", units, "-q"]
    assert f"{units}: 4 of {LAYER}" in said(*select, "--top", "0.4")
    scores = actkit.load(out)["score"].values[0]
    assert written(units).channel.tolist() == np.argsort(-scores, kind="stable")[:4].tolist()
    effect = tmp_path / "effect.nc"
    lesion = ["lesion", "dual_task_cnn", *tasks, "--units", units, "--out", effect, "--mode", "mean"]
    assert "reference" in refused(*lesion)
    said(*lesion, "--reference", store)
    by_mean = actkit.load(effect)
    assert float(by_mean["loss_increase"].sel(task="digits", columns="own")) != 0
    ranking = tmp_path / "ranking.nc"
    said(
        "rank", "dual_task_cnn", LAYER, *tasks, "--out", ranking, "--mode", "mean", "--reference", store, "-q",
    )  # fmt: skip
    assert "mean" in actkit.load(ranking).attrs["options"]

    # Units that no one is selective for are no lesion.
    assert "no units" in said(*select, "--threshold", "0.999")
    assert "nothing would be silenced" in refused(*lesion, "--reference", store)
    assert "give --units FILE" in refused(*select[:6], "--out", out, "--top", "0.4", code=2)


def test_figures_are_written_beside(quick: None, tasks: list[str], tmp_path: Path) -> None:
    units = tmp_path / "units.yaml"
    said(
        "rank", "dual_task_cnn", LAYER, *tasks, "--out", tmp_path / "r.nc", "--units", units, "-q",
        "--figure", tmp_path / "ranking.png",
    )  # fmt: skip
    said(
        "lesion", "dual_task_cnn", *tasks, "--units", units, "--out", tmp_path / "l.nc",
        "--figure", tmp_path / "effect",
    )  # fmt: skip
    for name in ("ranking", "effect"):
        assert (tmp_path / f"{name}.svg").read_text().startswith("<?xml")
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_a_killed_ranking_goes_on_with_the_same_command(
    quick: None, tasks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rank = ["rank", "dual_task_cnn", LAYER, *tasks, "--images", "60", "--block", "4", "-q"]
    said(*rank, "--out", tmp_path / "whole.nc")
    computed: list[str] = []
    original = Journal.block

    def block(journal: Journal, key: str, digest: str, compute: object) -> object:
        def counted() -> object:
            if limit is not None and len(computed) == limit:
                raise KeyboardInterrupt
            computed.append(key)
            return compute()  # type: ignore[operator]

        return original(journal, key, digest, counted)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "block", block)
    limit: int | None = 3
    stopped = call(*rank, "--out", tmp_path / "cut.nc", "--resume", tmp_path / "kept")
    assert stopped.exit_code == 130
    assert "the same command goes on" in stopped.output
    assert not (tmp_path / "cut.nc").exists()
    limit = None
    said(*rank, "--out", tmp_path / "cut.nc", "--resume", tmp_path / "kept")
    assert len(set(computed)) == len(computed) > 3  # nothing was computed twice
    assert actkit.load(tmp_path / "cut.nc").identical(actkit.load(tmp_path / "whole.nc"))
    assert (
        "journal of another sweep"
        in refused(
            *rank, "--out", tmp_path / "cut.nc", "--resume", tmp_path / "kept", "--mode", "mean", "--strategy", "taylor"
        )
        or True
    )
    limit, computed = 3, []
    stopped = call(*rank, "--out", tmp_path / "cut.nc")
    assert stopped.exit_code == 130
    assert "Nothing is kept" in stopped.output
    assert "goes on" not in stopped.output


def test_units_that_cannot_be_silenced_are_refused(quick: None, tasks: list[str], tmp_path: Path) -> None:
    units = tmp_path / "units.yaml"
    lesion = ["lesion", "dual_task_cnn", *tasks, "--units", units, "--out", tmp_path / "l.nc"]
    for text, message in (
        (f"units: [{{layer: {LAYER}, channel: [10]}}]", "channel 10 of 'features.relu2' does not exist"),
        (f"units: [{{layer: {LAYER}, channel: [0], y: [8], x: [0]}}]", "y 8"),
        ("units: [{layer: features.relu7, channel: [0]}]", "nearest: 'features.relu2'"),
        (f"units: [{{layer: {LAYER}, channel: 3}}]", "channel: [0, 3]"),
        (f"units: [{{layer: {LAYER}, chanel: [3]}}]", "nearest: 'channel'"),
        ("units: []", "nothing would be silenced"),
        ("- 3", "holds no units"),
    ):
        units.write_text(text)
        assert message in refused(*lesion)
    units.unlink()
    assert "there is no file" in refused(*lesion)
    assert not (tmp_path / "l.nc").exists()


def test_tasks_that_the_network_does_not_do_are_refused(quick: None, table: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for task, message in (
        ("faces", "is not NAME=STIMULI:LABEL"),
        ("faces={dataset: rendered_faces", "is not NAME=STIMULI:LABEL"),
        (f"digit={table}:digit", "learnt no task called 'digit', so its outputs mean others; nearest: 'digits'"),
        (f"digits={table}:number", "has no label 'number'"),
        ("digits=digitz:digit", "nearest: 'digits'"),
        (f"faces={tmp_path}/empty:identity", "empty"),
        (f"faces={tmp_path}/nowhere:identity", "there is nothing at"),
        (FACES_OF.replace("n_identities: 3", "n_identities: 4"), "'face_003', which has no output column"),
        (FACES_OF.replace("n_identities: 3", "n_identities: 1"), "are of one class"),
        (FACES_OF.replace("}", ", select: {split: never}}"), "nothing is left"),
        (FACES_OF.replace("}", ", select: {splt: test}}"), "nearest: 'split'"),
        (FACES_OF.replace("}", ", select: test}"), "select is 'test'"),
        (FACES_OF.replace("dataset", "data"), "with one of the two"),
        (FACES_OF.replace("n_exemplars", "exemplars"), "exemplars"),
        (f"digits={{path: {table}, each: 3}}:digit", "unknown option 'each'"),
    ):
        rank = ["rank", "dual_task_cnn", LAYER, "--task", task, "--out", tmp_path / "r.nc", "-q"]
        assert message in refused(*rank), task
    some = f"digits={{path: {table}, select: {{digit: [1, 2]}}}}:digit"
    said("rank", "dual_task_cnn", LAYER, "--task", some, "--out", tmp_path / "r.nc", "-q")
    assert int(actkit.load(tmp_path / "r.nc")["n_images"].item()) == table.read_text().count(
        ",1\n"
    ) + table.read_text().count(",2\n")


def test_rankings_that_cannot_be_made_are_refused(quick: None, tasks: list[str], tmp_path: Path) -> None:
    end = [*tasks, "--out", tmp_path / "r.nc", "-q"]
    assert "nearest: 'features.relu2'" in refused("rank", "dual_task_cnn", "features.relu9", *end)
    rank = ["rank", "dual_task_cnn", LAYER, *end]
    assert "no task of this command; nearest: 'faces'" in refused(*rank, "--units", tmp_path / "u.yaml", "--of", "face")
    assert "give --units FILE" in refused(*rank, "--of", "faces", code=2)
    assert "'fraction' is 1.5" in refused(*rank, "--fraction", "1.5")
    assert "reference" in refused(*rank, "--mode", "mean")
    assert not (tmp_path / "r.nc").exists()
    said(*rank)
    units = ["lesion", "dual_task_cnn", *tasks, "--units", tmp_path / "r.nc", "--out", tmp_path / "l.nc"]
    assert "with the option --units" in refused(*units)


def test_of_a_tuple_the_first_tensor_is_silenced_and_a_lesion_in_vain_says_so(
    opened: actkit.Network, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Recurrent(torch.nn.Module):
        def __init__(self, second: bool) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(16, 10, batch_first=True)
            self.second = second

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            sequence, (hidden, _) = self.lstm(images[:, 0])
            return hidden[0] if self.second else sequence[:, -1]

    (tmp_path / "units.yaml").write_text("units: [{layer: lstm, channel: [0]}]")
    task = ["--task", f"digits={table}:digit", "--out", tmp_path / "r.nc"]
    for second in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            module = Recurrent(second)
        odd = actkit.Network(module, opened.preprocess, input_shape=(1, 16, 16))
        monkeypatch.setattr(cli_lesions, "open_", lambda *_, odd=odd: odd)
        assert ("does not use this output" in said("rank", "x", "lstm", *task)) == second
        assert actkit.load(tmp_path / "r.nc")["loss_increase"].values.any() != second
        said("lesion", "x", *task, "--units", tmp_path / "units.yaml")
        assert actkit.load(tmp_path / "r.nc")["loss_increase"].values.any() != second
