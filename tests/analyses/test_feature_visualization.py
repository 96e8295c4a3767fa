import numpy as np
import pytest
import torch

import actkit
from actkit import plotting
from actkit.analyses import feature_visualization_plot
from actkit.analyses.feature_visualization import visualize
from actkit.errors import InputError, LayerError
from actkit.preprocessing import Preprocessing
from actkit.results import load, save
from actkit.units import UnitSet

FEW = {"steps": 30, "n_seeds": 1, "jitter": 2}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Images this small gain nothing from more threads, which on a busy machine wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Planted(torch.nn.Module):
    """Channels whose preferred images are known: red, a dark vertical edge, and one that is silent for noise."""

    def __init__(self, inplace=False, bias=-30.0):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)
        self.relu = torch.nn.ReLU(inplace=inplace)
        self.fc = torch.nn.Linear(3, 2)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.bias.zero_()
            self.conv.weight[0, 0] = 1.0
            self.conv.weight[0, 1:] = -0.5
            self.conv.weight[1, :, :, 0] = -1.0
            self.conv.weight[1, :, :, 2] = 1.0
            self.conv.weight[2, 2] = 5.0  # blue, above a threshold that no noise reaches
            self.conv.bias[2] = bias

    def forward(self, images):
        return self.fc(self.relu(self.conv(images)).mean((2, 3)))


def network(**settings):
    preprocess = Preprocessing(resize=(24, 24), resize_mode="squash", mean=(0.5,), std=(0.5,))
    return actkit.Network(Planted(**settings), preprocess, input_shape=(3, 24, 24), name="planted")


@pytest.mark.parametrize("inplace", [False, True])
def test_images_show_what_was_planted(inplace):
    result = visualize(network(inplace=inplace), {"relu": [0, 1, 2]}, **FEW)
    assert result["image"].sizes == {"unit": 3, "draw": 1, "row": 24, "column": 24, "colour": 3}
    red, edge, blue = result["image"].values[:, 0]
    assert red[..., 0].mean() > 0.9
    assert red[..., 1:].mean() < 0.2
    steps = np.diff(edge.mean(axis=(0, 2)))  # columns turn from dark to light somewhere
    assert np.abs(np.diff(edge.mean(axis=2), axis=1)).mean() > 3 * np.abs(np.diff(edge.mean(axis=2), axis=0)).mean()
    assert steps.max() > 0.1
    # A rectifier that is silent for the noise is woken through its input.
    assert result["start"].values[2, 0] == 0
    assert result["final"].values[2, 0] > 0
    assert blue[..., 2].max() > 0.95  # at the place that woke up first
    assert blue[..., :2].max() < 0.95
    assert (result["final"] > result["start"]).all()
    assert not result["stuck"].any()
    np.testing.assert_array_equal(result["activation"].values[2, 0, 0], 0)


def test_what_no_gradient_reaches_stays_noise_and_says_so():
    result = visualize(network(bias=-1e6), {"relu": [2]}, **FEW | {"blur": 0.0, "penalty": 1e-3})
    assert result["final"].item() == 0
    module = torch.nn.Sequential(Planted(), torch.nn.ReLU())
    with torch.no_grad():
        module[0].fc.weight.zero_()
        module[0].fc.bias.fill_(-1.0)
    dead = actkit.Network(module, input_shape=(3, 24, 24), name="dead")
    result = visualize(dead, {"1": [0]}, **FEW | {"blur": 0.0})
    assert result["stuck"].item() == 1
    noise = visualize(dead, {"1": [0]}, **FEW | {"blur": 0.0, "steps": 1})
    np.testing.assert_array_equal(result["image"], noise["image"])
    assert "stayed noise" in feature_visualization_plot.caption(result)


def test_units_objectives_and_seeds():
    net = network()
    units = (
        UnitSet.of("conv", [0, 0], y=[3, 20], x=[4, 12]) | UnitSet.of("fc", [1], scores=[0.5]) | UnitSet.whole("relu")
    )
    result = visualize(net, units, n_seeds=2, steps=12, jitter=0, blur=0.0, seed=3)
    image = result["image"].values
    change = np.abs(image[0, 0] - image[1, 0]).sum(axis=2)
    assert change[2:5, 3:6].min() > 0  # only what the unit at (3, 4) sees was driven there
    again = visualize(net, units, n_seeds=1, steps=12, jitter=0, blur=0.0, seed=3)
    np.testing.assert_allclose(again["image"].values[:, 0], image[:, 0], atol=1e-5)
    other = visualize(net, units, n_seeds=1, steps=12, jitter=0, blur=0.0, seed=4)
    assert np.abs(other["image"].values[:, 0] - image[:, 0]).max() > 0.1
    assert np.abs(image[:, 1] - image[:, 0]).max() > 0.1
    small = visualize(net, units, n_seeds=2, steps=12, jitter=0, blur=0.0, seed=3, batch=1)
    np.testing.assert_allclose(small["image"], result["image"], atol=1e-4)
    for objective in ("mean", "centre"):
        found = visualize(net, {"conv": [0]}, objective=objective, **FEW)
        assert (found["final"] > found["start"]).all()
    # The objective is the network's own activation of the image, in the values that the network takes.
    with torch.no_grad():
        maps = net.module.conv(torch.from_numpy(np.moveaxis(found["image"].values[0], -1, 1)) * 2 - 1)
    assert found["final"].item() == pytest.approx(maps[0, 0, 12, 12].item(), rel=1e-4)


def test_the_network_is_left_as_it_was():
    net = network()
    net.module.train()
    before = {name: value.clone() for name, value in net.module.state_dict().items()}
    visualize(net, {"relu": [0]}, **FEW)
    with pytest.raises(LayerError):
        visualize(net, {"nowhere": [0]}, **FEW)
    assert net.module.training
    assert net.module.relu.training
    assert all(parameter.grad is None for parameter in net.module.parameters())
    assert not net.module.relu._forward_hooks
    assert not net.module.relu._forward_pre_hooks
    assert all(torch.equal(value, before[name]) for name, value in net.module.state_dict().items())


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(InputError, match="no units"):
        visualize(network(), {}, **FEW)
    with pytest.raises(InputError, match="does not exist"):
        visualize(network(), {"relu": [3]}, **FEW)
    odd = actkit.Network(Planted(), lambda image: torch.rand(3, 24, 24), input_shape=(3, 24, 24))
    with pytest.raises(InputError, match=r"no linear map.*valid_range"):
        visualize(odd, {"relu": [0]}, **FEW)
    assert visualize(odd, {"relu": [0]}, valid_range=[-1, 1], **FEW)["final"].item() > 0
    with pytest.raises(InputError, match="the lower first"):
        visualize(odd, {"relu": [0]}, valid_range=[1, -1])


def test_results_survive_saving_and_are_drawn(tmp_path):
    units = UnitSet.of("relu", [0, 1], scores=[2.5, 1.0], question="planted") | UnitSet.of("conv", [1])
    for draws in (1, 2):
        result = visualize(network(), units, steps=3, n_seeds=draws)
        save(result, tmp_path / "v.nc")
        back = load(tmp_path / "v.nc")
        figure = feature_visualization_plot.plot(back)
        assert len(figure.axes) == 3 * draws
        assert plotting.png_bytes(figure, dpi=40)[:4] == b"\x89PNG"
        words = [text.get_text() for text in figure.texts] + [axes.get_xlabel() for axes in figure.axes]
        assert any("channel 0" in text and "2.50" in text for text in words)
        caption = feature_visualization_plot.caption(back)
        assert "3 steps" in caption
        assert "planted" in caption
        assert "2 of relu, 1 of conv" in feature_visualization_plot.alt_text(back)
    with pytest.raises(InputError, match="which holds 48"):
        feature_visualization_plot.plot(back.isel(unit=[0] * 40))
