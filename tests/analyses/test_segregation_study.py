from collections import OrderedDict

import numpy as np
import pytest
import torch

from actkit.analyses import segregation_plot
from actkit.analyses.segregation import segregation, units_of_segregation
from actkit.analyses.segregation_answers import Beaten, right_among
from actkit.analyses.segregation_bootstrap import difference
from actkit.analyses.segregation_indices import drops, segregation_index
from actkit.analyses.segregation_nulls import null_test, shuffle_classes
from actkit.analyses.segregation_pairs import unit_features
from actkit.analyses.segregation_units import top_order
from actkit.errors import InputError
from actkit.results import load, save
from actkit.tasks import Task

SMALL = {"n_null": 19, "n_random": 19, "n_draws": 60, "n_splits": 3}


def readout(seed, split, sizes=(8, 6), dims=20, n=40, noise=0.9, images=12):
    """Random ReLU features with a ridge readout over the classes of both tasks; `split`: each half sees one task."""
    rng = np.random.default_rng(seed)
    task = np.repeat([0, 1], sizes)
    prototypes, weights = rng.normal(size=(sum(sizes), dims)), rng.normal(size=(n, dims)) / np.sqrt(dims)
    if split:
        prototypes[task == 0, dims // 2 :] = prototypes[task == 1, : dims // 2] = 0
        weights[: n // 2, dims // 2 :] = weights[n // 2 :, : dims // 2] = 0
        prototypes, weights = 1.4 * prototypes, 1.4 * weights
    bias = 0.3 * rng.normal(size=n)

    def draw(count):
        y = np.repeat(np.arange(sum(sizes)), count)
        return prototypes[y] + noise * rng.normal(size=(len(y), dims)), y

    x, y = draw(40)
    hidden = np.maximum(x @ weights.T + bias, 0)
    head = np.linalg.solve(hidden.T @ hidden + 10 * np.eye(n), hidden.T @ np.eye(sum(sizes))[y]) * 8
    return task, weights, bias, head, draw(images), draw(images)


def network(seed=0, split=True):
    task, weights, bias, head, *sets = readout(seed, split)
    module = torch.nn.Sequential(
        OrderedDict(fc=torch.nn.Linear(*weights.shape[::-1]), relu=torch.nn.ReLU(), head=torch.nn.Linear(*head.shape))
    )
    with torch.no_grad():
        for layer, (w, b) in {module.fc: (weights, bias), module.head: (head.T, np.zeros(head.shape[1]))}.items():
            layer.weight.copy_(torch.from_numpy(w))
            layer.bias.copy_(torch.from_numpy(b))
    pairs = []
    for letter, (x, y) in zip("re", sets, strict=True):
        pairs.append(
            [
                Task(
                    name,
                    torch.from_numpy(x[task[y] == t]).float(),
                    y[task[y] == t],
                    np.flatnonzero(task == t),
                    np.array([f"{letter}{name}{i}" for i in range((task[y] == t).sum())]),
                )
                for t, name in enumerate(("faces", "objects"))
            ]
        )
    return module.eval(), *pairs


@pytest.fixture(scope="module")
def planted():
    module, ranking, evaluation = network()
    return segregation(module, ranking, evaluation, "relu", **SMALL)


def plain_loop(module, ranking, evaluation, fraction):
    """The index, unmasked and masked, from one full forward pass a lesion."""

    def logits(x, silent):
        hidden = module.relu(module.fc(x))
        hidden[:, list(silent)] = 0
        return module.head(hidden)

    index = np.empty((2, 2, 2))
    with torch.no_grad():
        for r, task in enumerate(ranking):
            y = torch.from_numpy(task.targets)
            losses = [float(torch.nn.functional.cross_entropy(logits(task.inputs, [u]).double(), y)) for u in range(40)]
            top = top_order(np.array(losses))[: round(fraction * 40)]
            for t, test in enumerate(evaluation):
                for m, allowed in enumerate((np.arange(14), test.classes)):
                    accuracy = [
                        (allowed[logits(test.inputs, some)[:, allowed].argmax(1).numpy()] == test.targets).mean()
                        for some in ([], top)
                    ]
                    index[m, r, t] = drops(*accuracy, 1 / len(allowed))
    return index


def test_study_equals_a_plain_loop(planted):
    drop = plain_loop(*network(), 0.2)
    np.testing.assert_allclose(planted["drop"].sel(fraction=0.2)[0], drop, atol=1e-12)
    np.testing.assert_allclose(planted["index"][0], segregation_index(drop), atol=1e-12)


def test_planted_segregation_is_found_and_its_units_too(planted):
    assert (planted["excess"] > 0.05).all()
    assert float(planted["p_value"][0, 1]) == 0.05  # the least that 19 shuffles can give
    assert (planted["index_low"] < planted["index"]).all()
    assert (planted["index"] < planted["index_high"]).all()
    faces = units_of_segregation(planted, "relu", "faces")
    assert len(faces) == 8
    assert (faces.channel < 20).all()
    assert (np.diff(faces.score) <= 0).all()
    assert (units_of_segregation(planted, "relu", "objects").channel >= 20).all()
    assert float(planted["shared"][0]) == 0
    assert float(planted["shared_chance"][0]) == 0.2
    assert (planted["random_p"] == 0.05).all()


def test_result_survives_a_file_and_says_what_was_done(planted, tmp_path):
    assert load(save(planted, tmp_path / "s.nc")).equals(planted)
    assert planted.attrs["analysis"] == "segregation"
    assert planted.sizes["null"] == 19
    assert planted["correct"].sizes["stimulus"] == 14 * 12


def test_same_seed_same_numbers_and_any_memory():
    module, ranking, evaluation = network()
    a, b = (
        segregation(module, ranking, evaluation, "relu", memory=memory, **SMALL | {"n_null": 3, "n_random": 3})
        for memory in ("1GB", "200kB")
    )
    for name in ("index", "null", "index_draws", "random_drop", "matched_drop"):
        np.testing.assert_array_equal(a[name], b[name])


def test_one_shot_and_greedy_go_through_the_ranking_of_units(planted):
    module, ranking, evaluation = network()
    from actkit.ranking import rank_units

    ranked = rank_units(module, "relu", ranking, n_splits=0)
    np.testing.assert_array_equal(planted["rank"][0], ranked["rank"])
    few = SMALL | {"n_null": 1, "n_random": 2, "n_draws": 5, "fractions": [0.1], "fraction": 0.1}
    greedy = segregation(module, ranking, evaluation, "relu", strategy="greedy", **few)
    expected = rank_units(module, "relu", ranking, strategy="greedy", stop=0.1, n_splits=0)
    step = expected["step"].values
    for t in range(2):
        chosen = np.flatnonzero(~np.isnan(greedy["rank"][0, t].values))
        assert np.array_equal(chosen, np.flatnonzero(step[t] >= 0))


def test_masked_ranking_uses_the_masked_loss():
    module, ranking, evaluation = network(split=False)
    few = SMALL | {"n_null": 2, "n_random": 2, "n_draws": 5}
    masked = segregation(module, ranking, evaluation, "relu", rank_by="masked", **few)
    with torch.no_grad():
        for t, task in enumerate(ranking):
            hidden = module.relu(module.fc(task.inputs))
            losses = []
            for u in [None, *range(40)]:
                now = hidden.clone()
                if u is not None:
                    now[:, u] = 0
                logits = module.head(now)[:, task.classes].double()
                y = torch.from_numpy(task.targets - task.classes[0])
                losses.append(float(torch.nn.functional.cross_entropy(logits, y)))
            np.testing.assert_allclose(masked["score"][0, t], np.array(losses[1:]) - losses[0], atol=1e-6)


def test_bits_say_who_is_right_among_any_outputs():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.integers(0, 6, (200, 100))).float()  # ties abound
    targets = rng.integers(0, 100, 200)
    logits[torch.arange(200), torch.from_numpy(targets)] += 3
    found = Beaten(targets)(logits, slice(0, 200))
    bits = np.stack([found[f"bits{i}"].numpy() for i in range(3)]).astype(np.int64)
    for allowed in (np.arange(100), np.arange(40, 60), np.array([0, 47, 48, 95, 96, 99])):
        rows = np.isin(targets, allowed)
        expected = allowed[logits[:, allowed].argmax(1).numpy()] == targets
        np.testing.assert_array_equal(right_among(bits, allowed)[rows], expected[rows])
    logits[3, 5] = torch.nan
    assert torch.isnan(Beaten(targets)(logits, slice(0, 200))["bits0"]).nonzero().tolist() == [[3]]


def test_features_of_maps_hold_moments_and_centres_of_mass():
    module = torch.nn.Sequential(torch.nn.Identity())
    maps = torch.rand(70, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    maps[:, 1] = 0
    maps[:, 1, 4, 6] = 2
    features, names = unit_features(module, "0", maps)
    assert names == ["mean", "variance", "y", "x"]
    np.testing.assert_allclose(features[:, 0], maps.double().mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(features[:, 1], maps.double().var((0, 2, 3), correction=0), rtol=1e-7)
    np.testing.assert_allclose(features[1, 2:], [4, 6])


def structureless(seed, scheme, n_null, sizes):
    """Index and null of a network without task structure, in plain numpy (the same steps without the sweeps)."""
    task, weights, bias, head, *sets = readout(seed, False, sizes=sizes, images=10)
    (hr, yr), (he, ye) = ((np.maximum(x @ weights.T + bias, 0), y) for x, y in sets)

    def loss(z):
        return np.log(np.exp(z).sum(1)) - z[np.arange(len(yr)), yr]

    without = [loss(hr @ head - np.outer(hr[:, u], head[u])) for u in range(len(weights))]
    increase = np.stack(without) - loss(hr @ head)

    def index(parts):
        drop = np.empty((2, 2, 2))
        for r, own in enumerate(parts):
            top = top_order(increase[:, np.isin(yr, own)].mean(1))[:8]
            left = he @ head - he[:, top] @ head[top]
            for t, classes in enumerate(parts):
                rows = np.isin(ye, classes)
                for m, allowed in enumerate((np.arange(16), classes)):
                    before, after = (
                        (allowed[z[rows][:, allowed].argmax(1)] == ye[rows]).mean() for z in (he @ head, left)
                    )
                    drop[m, r, t] = drops(before, after, 1 / len(allowed))
        return segregation_index(drop)

    real = (np.flatnonzero(task == 0), np.flatnonzero(task == 1))
    observed = index(real)
    null = [index(shuffle_classes(*real, seed, i, scheme)) for i in range(n_null)]
    return observed, null_test(observed, np.stack(null))


def test_null_is_positive_and_p_calibrated_without_structure():
    runs = [structureless(seed, "permute", 19, (11, 5)) for seed in range(60)]
    index = np.stack([one for one, _ in runs])
    p = np.stack([test.p_value for _, test in runs])
    excess = np.stack([test.excess for _, test in runs])
    assert (index.mean(0) > 0.1).all()  # an index above 0 says nothing by itself
    assert index[:, 0].mean() > index[:, 1].mean()  # unmasked: offsets between the tasks' logits add to it
    assert (np.abs(excess.mean(0)) < 3 * excess.std(0) / 60**0.5).all()
    assert ((p.mean(0) > 0.38) & (p.mean(0) < 0.64)).all()
    assert ((p <= 0.1).mean(0) < 0.24).all()  # .1 is nominal


def test_difference_between_networks_is_tested_on_independent_draws(planted):
    module, ranking, evaluation = network(1, split=False)
    control = segregation(module, ranking, evaluation, "relu", **SMALL)
    found = difference(planted, control).sel(masking="masked", layer="relu")
    assert float(found["difference"]) > 0
    assert float(found["interval_low"]) < float(found["difference"]) < float(found["interval_high"])
    same = difference(planted, planted)
    assert np.ptp(same["interval_high"].values - same["interval_low"].values) >= 0
    assert (same["interval_high"] > 0.05).all()  # equal draws would give an interval of width 0


def test_bad_input_is_refused():
    module, ranking, evaluation = network()
    with pytest.raises(InputError, match="ranks units and evaluates them"):
        segregation(module, ranking, ranking, "relu", **SMALL)
    with pytest.raises(InputError, match="exactly two"):
        segregation(module, ranking[:1], evaluation, "relu", **SMALL)
    with pytest.raises(InputError, match="same two in the same order"):
        segregation(module, ranking, evaluation[::-1], "relu", **SMALL)
    with pytest.raises(InputError, match="'reul'"):
        segregation(module, ranking, evaluation, "reul", **SMALL)
    overlapping = [ranking[0], Task("objects", ranking[1].inputs, ranking[1].targets, np.arange(7, 14))]
    with pytest.raises(InputError, match="column 7 belongs to"):
        segregation(module, overlapping, evaluation, "relu", **SMALL)
    broken = torch.nn.Sequential(OrderedDict(module.named_children()))
    broken.head = torch.nn.Linear(40, 14)
    with torch.no_grad():
        broken.head.weight.zero_()
        broken.head.bias.copy_(torch.arange(14.0))
    with pytest.raises(InputError, match="not above chance"):
        segregation(broken, ranking, evaluation, "relu", **SMALL)
    with torch.no_grad():
        broken.head.weight.fill_(torch.nan)
    with pytest.raises(InputError, match="NaN"):
        segregation(broken, ranking, evaluation, "relu", **SMALL)


@pytest.mark.parametrize("kind", ["index", "curves", "drops", "shared"])
def test_figures_name_tasks_and_layers(planted, kind):
    figure = segregation_plot.plot(planted, kind=kind)
    words = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        words += [axes.get_title(loc="left"), axes.get_ylabel(), *(t.get_text() for t in axes.get_xticklabels())]
    words += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    everything = " ".join(words)
    assert "faces" in everything
    assert "objects" in everything
    assert "relu" in everything
    box = figure.bbox
    renderer = figure.canvas.get_renderer()
    for legend in figure.legends:
        extent = legend.get_window_extent(renderer)
        assert extent.x1 <= box.x1 + 1
    assert "20 %" in segregation_plot.caption(planted, kind=kind)
    assert segregation_plot.alt_text(planted, kind=kind).startswith("Chart")


def test_figures_draw_controls_beside_and_refuse_nonsense(planted):
    figure = segregation_plot.plot({"faces / objects": planted, "faces / faces": planted})
    assert len(figure.axes) == 2
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["faces / objects", "faces / faces"]
    with pytest.raises(InputError, match="no figure 'curve'"):
        segregation_plot.plot(planted, kind="curve")
    with pytest.raises(InputError, match="no layer 'fc9'"):
        segregation_plot.plot(planted, kind="curves", layer="fc9")
    with pytest.raises(InputError, match="not a segregation result"):
        segregation_plot.plot(planted[["shared"]])
