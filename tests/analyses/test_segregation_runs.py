"""Runs of a segregation study: with selectivity, stopped and taken up again, on odd networks, and refused."""

import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from actkit.analyses import segregation as study
from actkit.analyses.segregation import segregation
from actkit.analyses.segregation_indices import drops, segregation_index
from actkit.analyses.segregation_units import map_selectivity, rank_selectivity
from actkit.errors import InputError
from actkit.tasks import Task

SMALL = {"n_null": 9, "n_random": 9, "n_draws": 40, "n_splits": 3}
NAMES, CLASSES = ("faces", "objects"), (np.arange(8), np.arange(8, 14))


def network():
    """Random ReLU features, half of which see what tells faces apart and half what tells objects apart.

    With images for ranking, evaluation and selectivity, each for both tasks.
    """
    rng = np.random.default_rng(0)
    prototypes, weights = 1.4 * rng.normal(size=(14, 20)), 0.3 * rng.normal(size=(40, 20))
    prototypes[:8, 10:] = prototypes[8:, :10] = 0
    weights[:20, 10:] = weights[20:, :10] = 0
    bias = 0.3 * rng.normal(size=40)

    def draw(count):
        y = np.repeat(np.arange(14), count)
        return prototypes[y] + 0.9 * rng.normal(size=(len(y), 20)), y

    x, y = draw(40)
    hidden = np.maximum(x @ weights.T + bias, 0)
    head = np.linalg.solve(hidden.T @ hidden + 10 * np.eye(40), hidden.T @ np.eye(14)[y]) * 8
    module = torch.nn.Sequential(
        OrderedDict(fc=torch.nn.Linear(20, 40), relu=torch.nn.ReLU(), head=torch.nn.Linear(40, 14))
    )
    with torch.no_grad():
        for layer, w, b in ((module.fc, weights, bias), (module.head, head.T, np.zeros(14))):
            layer.weight.copy_(torch.from_numpy(w))
            layer.bias.copy_(torch.from_numpy(b))
    pairs = []
    for letter in "res":
        x, y = draw(12)
        pairs.append([])
        for name, classes in zip(NAMES, CLASSES, strict=True):
            own = np.isin(y, classes)
            ids = np.array([f"{letter}{i}" for i in np.flatnonzero(own)])
            pairs[-1].append(Task(name, torch.from_numpy(x[own]).float(), y[own], classes, ids))
    return module.eval(), *pairs


@pytest.fixture(scope="module")
def planted():
    module, ranking, evaluation, _ = network()
    return segregation(module, ranking, evaluation, "relu", **SMALL)


@pytest.fixture(scope="module")
def selective():
    module, ranking, evaluation, selectivity = network()
    few = SMALL | {"n_null": 1, "n_random": 1, "n_draws": 5, "match": False}
    return segregation(module, ranking, evaluation, ["fc", "relu"], selectivity=selectivity, **few)


def test_selectivity_is_that_of_the_planted_units(selective):
    module, *_, selectivity = network()
    with torch.no_grad():
        a, b = (module.relu(module.fc(task.inputs)).double().mean(0).numpy() for task in selectivity)
    relu = selective.sel(layer="relu")
    np.testing.assert_allclose(relu["selectivity"][0], (a - b) / (a + b), rtol=1e-6)
    np.testing.assert_array_equal(relu["selectivity"][1], -relu["selectivity"][0])
    assert float(relu["selectivity"][0, :20].mean()) > 0.15
    assert float(relu["selectivity"][0, 20:].mean()) < -0.15
    for t in range(2):
        expected = rank_selectivity(relu["score"][t].values, relu["selectivity"][t].values)
        assert expected[0] < 0
        found = [float(relu[name][t]) for name in ("rank_selectivity", "rank_selectivity_p", "rank_selectivity_n")]
        assert found == pytest.approx(list(expected))


def test_lesions_of_the_most_selective_units_equal_a_plain_loop(selective):
    module, _, evaluation, _ = network()
    relu = selective.sel(layer="relu")
    with torch.no_grad():
        for r in range(2):
            units = np.argsort(-relu["selectivity"][r].values, kind="stable")[:8]
            for t, test in enumerate(evaluation):
                hidden = module.relu(module.fc(test.inputs))
                hidden[:, units] = 0
                for m, allowed in enumerate((np.arange(14), test.classes)):
                    right = (allowed[module.head(hidden)[:, allowed].argmax(1).numpy()] == test.targets).mean()
                    assert float(relu["selective_accuracy"][m, r, t]) == pytest.approx(right)
                    intact = float(selective["intact"][m, t])
                    assert float(relu["selective_drop"][m, r, t]) == pytest.approx(
                        drops(intact, right, 1 / len(allowed))
                    )
    assert (segregation_index(relu["selective_drop"].values) > 0.2).all()


def test_selectivity_of_negative_output_is_left_out_and_said(selective, planted):
    assert list(np.atleast_1d(selective.attrs["negative_layers"])) == ["fc"]
    assert list(selective["rank_selectivity_n"].sel(layer="fc")) == [0, 0]
    for name in ("selectivity", "rank_selectivity", "selective_drop", "selective_accuracy"):
        assert selective[name].sel(layer="fc").isnull().all()
        assert selective[name].sel(layer="relu").notnull().all()
    assert "selectivity" not in planted
    np.testing.assert_array_equal(selective["index"].sel(layer="relu"), planted["index"].sel(layer="relu"))


def test_selectivity_of_maps_takes_the_norm():
    maps = torch.rand(70, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    maps[:, 2] = 0
    y = np.arange(70) % 5
    tasks = [Task("a", maps[:40], y[:40]), Task("b", 3 * maps[40:], y[40:] + 5)]
    module = torch.nn.Sequential(torch.nn.Identity())
    found = map_selectivity(module, "0", tasks)
    a, b = (task.inputs.double().square().sum((2, 3)).sqrt().mean(0).numpy() for task in tasks)
    np.testing.assert_allclose(found[:2], (a - b)[:2] / (a + b)[:2], rtol=1e-12)
    assert np.isnan(found[2])
    assert map_selectivity(module, "0", [tasks[0], Task("b", -maps[40:], y[40:] + 5)]) is None


class StoppedError(Exception):
    """Stands for a kill."""


def test_a_stopped_study_goes_on_to_the_same_numbers(tmp_path, monkeypatch):
    module, ranking, evaluation, selectivity = network()
    few = SMALL | {"n_null": 3, "n_random": 3, "n_draws": 20}
    layers = ["fc", "relu"]
    whole = segregation(module, ranking, evaluation, layers, selectivity=selectivity, **few)
    measured = []
    real = study.measure_layer

    def stopping(module, layer, *rest):
        measured.append(layer)
        if layer == "relu" and len(measured) == 2:
            raise StoppedError
        return real(module, layer, *rest)

    monkeypatch.setattr(study, "measure_layer", stopping)
    with pytest.raises(StoppedError):
        segregation(module, ranking, evaluation, layers, selectivity=selectivity, resume=tmp_path / "kept", **few)
    assert len(list((tmp_path / "kept").iterdir())) == 1
    again = segregation(module, ranking, evaluation, layers, selectivity=selectivity, resume=tmp_path / "kept", **few)
    assert measured == ["fc", "relu", "relu"]
    assert again.identical(whole)
    more = segregation(
        module, ranking, evaluation, layers, selectivity=selectivity, resume=tmp_path / "kept", memory="2GB", **few
    )
    assert measured == ["fc", "relu", "relu"]  # the budget does not decide the numbers
    assert more.equals(whole)


def test_layers_kept_for_another_question_are_left_alone(tmp_path):
    module, ranking, evaluation, _ = network()
    few = SMALL | {"n_null": 2, "n_random": 2, "n_draws": 5}
    first = segregation(module, ranking, evaluation, "relu", resume=tmp_path, **few)
    other = segregation(module, ranking, evaluation, "relu", resume=tmp_path, **few | {"seed": 1})
    assert not np.array_equal(first["null"], other["null"])
    with torch.no_grad():
        module.head.weight[:, 3] += 1
    changed = segregation(module, ranking, evaluation, "relu", resume=tmp_path, **few)
    assert not np.array_equal(first["score"], changed["score"])
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == 3
    for path in kept:
        path.write_bytes(path.read_bytes()[:500])  # as a full disk leaves it
    assert segregation(module, ranking, evaluation, "relu", resume=tmp_path, **few).equals(changed)
    with pytest.raises(InputError, match="is a file"):
        segregation(module, ranking, evaluation, "relu", resume=kept[0], **few)


def test_a_killed_process_goes_on_to_the_same_numbers(planted, tmp_path):
    """Killed without warning in the second layer."""
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "import test_segregation_runs as t\n"
        "real = t.study.measure_layer\n"
        "t.study.measure_layer = lambda m, layer, *rest: time.sleep(99) if layer == 'fc' else real(m, layer, *rest)\n"
        "module, ranking, evaluation, _ = t.network()\n"
        "t.segregation(module, ranking, evaluation, ['relu', 'fc'], resume=sys.argv[2], **t.SMALL)\n"
    )
    kept = tmp_path / "kept"
    with subprocess.Popen([sys.executable, "-P", "-c", code, str(Path(__file__).parent), str(kept)]) as process:
        until = time.monotonic() + 60
        while not list(kept.glob("*.npz")) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        process.kill()
    assert process.returncode != 0
    (file,) = kept.glob("*.npz")
    stamp = file.stat().st_mtime_ns
    module, ranking, evaluation, _ = network()
    again = segregation(module, ranking, evaluation, "relu", resume=kept, **SMALL)
    assert file.stat().st_mtime_ns == stamp
    assert len(list(kept.glob("*.npz"))) == 1
    assert again.equals(planted)


def test_selectivity_images_of_other_tasks_or_used_twice_are_refused():
    module, ranking, evaluation, selectivity = network()
    with pytest.raises(InputError, match="selectivity tasks are"):
        segregation(module, ranking, evaluation, "relu", selectivity=selectivity[::-1], **SMALL)
    with pytest.raises(InputError, match="exactly two"):
        segregation(module, ranking, evaluation, "relu", selectivity=selectivity[:1], **SMALL)
    with pytest.raises(InputError, match="tells selectivity and evaluates lesions"):
        segregation(module, ranking, evaluation, "relu", selectivity=evaluation, **SMALL)
    with pytest.raises(InputError, match="tells selectivity and ranks units"):
        segregation(module, ranking, evaluation, "relu", selectivity=ranking, **SMALL)


def test_a_task_without_images_or_of_one_class_is_refused():
    _, (faces, _), *_ = network()
    with pytest.raises(InputError, match="has no images"):
        Task("faces", faces.inputs[:0], faces.targets[:0])
    with pytest.raises(InputError, match="of one class"):
        Task("faces", faces.inputs[:12], faces.targets[:12])


class Pairing(torch.nn.Module):
    """Gives a tuple of its input's half and whole."""

    def forward(self, x):
        return x / 2, x


class Whole(torch.nn.Module):
    """Reads the tuple's first part; optionally gives a tuple itself."""

    def __init__(self, module, twice=False):
        super().__init__()
        self.inner, self.pair, self.twice = module, Pairing(), twice

    def forward(self, x):
        half, _ = self.pair(self.inner.relu(self.inner.fc(x)))
        logits = self.inner.head(2 * half)
        return (logits, half) if self.twice else logits


def test_a_layer_that_gives_a_tuple_is_lesioned_in_its_first_tensor(planted):
    module, ranking, evaluation, _ = network()
    found = segregation(Whole(module), ranking, evaluation, "pair", **SMALL)
    np.testing.assert_allclose(found["index"], planted["index"], atol=1e-12)
    np.testing.assert_array_equal(found["rank"], planted["rank"])
    with pytest.raises(InputError, match="returns a tuple; segregation needs logits"):
        segregation(Whole(module, twice=True), ranking, evaluation, "pair", **SMALL)


def test_a_network_in_training_mode_is_evaluated_and_left_in_training_mode(planted):
    module, ranking, evaluation, _ = network()
    dropping = torch.nn.Sequential(OrderedDict(module.named_children()))
    dropping.drop = torch.nn.Dropout(0.5)
    dropping.train()
    dropping.fc.eval()
    found = segregation(dropping, ranking, evaluation, "relu", **SMALL)
    np.testing.assert_array_equal(found["index"], planted["index"])
    assert dropping.training
    assert dropping.drop.training
    assert not dropping.fc.training


def test_a_loss_that_becomes_nan_without_a_unit_names_it():
    module, ranking, evaluation, _ = network()

    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.where(x[:, 3:4] == 0, torch.nan, x)

    odd = torch.nn.Sequential(OrderedDict(fc=module.fc, relu=torch.nn.Softplus(), odd=Odd(), head=module.head))
    with pytest.raises(InputError, match="is NaN or infinite without unit 3"):
        segregation(odd, ranking, evaluation, "relu", **SMALL)
