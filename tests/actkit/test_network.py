"""A network's input, layers and identity."""

import functools

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from actkit import plugins
from actkit.errors import InputError, LayerError, PluginError
from actkit.network import Network, is_out_of_memory, open_network


@pytest.fixture
def module():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 2)
        )


def scaled(factor):
    def preprocess(image):
        return torch.from_numpy(np.array(image.resize((8, 8)), dtype=np.float32)).permute(2, 0, 1) * factor

    return preprocess


# -- input -------------------------------------------------------------------------------------------


def test_without_preprocessing_images_go_from_0_to_1_and_arrays_pass():
    net = Network(nn.Identity())
    white = net.prepare(Image.new("RGB", (6, 4), (255, 0, 51)))
    assert white.shape == (3, 4, 6)
    assert torch.allclose(white[:, 0, 0], torch.tensor([1.0, 0.0, 0.2]))
    row = np.arange(5, dtype=np.float64)
    row.setflags(write=False)
    assert torch.equal(net.prepare(row), torch.arange(5, dtype=torch.float32))


def test_a_preprocessing_that_gives_the_wrong_thing(module):
    image = Image.new("RGB", (8, 8))
    with pytest.raises(InputError, match="adds a batch axis"):
        Network(module, lambda im: torch.zeros(1, 3, 8, 8), input_shape=(3, 8, 8)).prepare(image)
    with pytest.raises(InputError, match=r"gives shape \(3, 9, 9\); the network was declared"):
        Network(module, lambda im: torch.zeros(3, 9, 9), input_shape=(3, 8, 8)).prepare(image)
    with pytest.raises(InputError, match="gives a str"):
        Network(module, lambda im: "text").prepare(image)
    with pytest.raises(InputError, match=r"needs a torch.nn.Module, not a str"):
        Network("resnet18")


def test_input_is_cast_to_the_weights_type():
    net = Network(nn.Linear(3, 2).double())
    assert net.to_input(torch.zeros(1, 3)).dtype == torch.float64
    assert net.to_input(torch.zeros(1, 3, dtype=torch.int64)).dtype == torch.int64
    assert Network(nn.ReLU()).dtype == torch.float32


# -- layers ------------------------------------------------------------------------------------------


def test_layers_from_input_shape_and_from_preprocessing_agree(module):
    a = Network(module, input_shape=(3, 8, 8)).layers()
    b = Network(module, scaled(1 / 255)).layers()
    assert a == b
    assert [x.name for x in a] == ["0", "1", "2", "3", "4", "output"]


def test_select_by_pattern_and_type(module):
    net = Network(module, input_shape=(3, 8, 8))
    assert net.select("**", ["Conv2d", "Linear"]) == ["0", "4"]
    with pytest.raises(LayerError, match="no layer '7' in Sequential"):
        net.select("7")


def test_listing_leaves_the_module_as_it_was(module):
    module.train()
    Network(module, input_shape=(3, 8, 8)).layers()
    assert all(child.training for child in module.modules())
    assert int(module[1].num_batches_tracked) == 0


def test_a_network_that_cannot_take_the_input(module):
    with pytest.raises(InputError, match=r"fails on a batch of shape \(3, 3, 5, 5\).*Check its preprocessing"):
        Network(module, input_shape=(3, 5, 5)).layers()


def test_a_compiled_module_is_unwrapped(module):
    class Compiled(nn.Module):
        def __init__(self, original):
            super().__init__()
            self._orig_mod = original

    assert Network(Compiled(module)).module is module


# -- identity ----------------------------------------------------------------------------------------


def test_weights_and_buffers_count_and_are_hashed_afresh(module):
    net = Network(module, input_shape=(3, 8, 8))
    first = net.weights_sha256
    assert first == net.weights_sha256
    with torch.no_grad():
        module[0].bias[0] += 1
    second = net.weights_sha256
    module[1].running_mean[0] = 3
    third = net.weights_sha256
    module.register_buffer("grid", torch.ones(2), persistent=False)
    assert len({first, second, third, net.weights_sha256}) == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_type_of_weights_can_be_hashed(dtype):
    a, b = nn.Linear(3, 2).to(dtype), nn.Linear(3, 2).to(dtype)
    assert Network(a).weights_sha256 != Network(b).weights_sha256


def test_preprocessing_counts_by_what_it_does():
    a, b, c = (Network(nn.Identity(), scaled(f)) for f in (1.0, 2.0, 1.0))
    assert a.preprocess_description == b.preprocess_description  # one name
    assert a.preprocess_sha256 != b.preprocess_sha256  # two closures
    assert a.preprocess_sha256 == c.preprocess_sha256
    arrays = [Network(nn.Identity(), lambda x, k=k: torch.from_numpy(x) * k, input_shape=(3, 4, 4)) for k in (1, 2)]
    assert arrays[0].preprocess_sha256 != arrays[1].preprocess_sha256


def test_preprocessing_describes_itself_where_it_can():
    class Described:
        def describe(self):
            return {"size": 8}

        def __call__(self, image):
            return torch.zeros(3, 8, 8)

    assert Network(nn.Identity(), Described()).preprocess_description == '{"size": 8}'
    partial = Network(nn.Identity(), functools.partial(int, base=2)).preprocess_description
    assert partial == "partial(builtins.int, (), [('base', 2)])"

    class Plain:
        def __call__(self, image):
            return torch.zeros(3, 8, 8)

    assert "0x" not in Network(nn.Identity(), Plain()).preprocess_description


def test_architecture_counts_code_and_hooks():
    def make(scale):
        namespace = {"nn": nn, "__name__": "probe"}
        code = f"class Net(nn.Module):\n    def forward(self, x):\n        return x * {scale}\n"
        exec(code, namespace)
        return Network(namespace["Net"]())

    a, b, c = make(1), make(2), make(1)
    assert a.architecture_sha256 != b.architecture_sha256
    assert a.architecture_sha256 == c.architecture_sha256
    handle = a.module.register_forward_hook(lambda module, args, output: output * 0)
    assert a.architecture_sha256 != c.architecture_sha256
    handle.remove()
    assert a.architecture_sha256 == c.architecture_sha256


def test_fingerprint_ignores_names_and_mode(module):
    a = Network(module.train(), name="a", input_shape=(3, 8, 8)).fingerprint
    assert a == Network(module.eval(), name="b", input_shape=(3, 8, 8)).fingerprint


# -- opening -----------------------------------------------------------------------------------------


def test_open_network_takes_names_mappings_modules_and_networks(module, monkeypatch):
    asked = []

    def load(group, name):
        asked.append((group, name))
        return lambda **options: Network(module, **options)

    monkeypatch.setattr(plugins, "load", load)
    assert open_network("mine", name="x").name == "x"
    assert open_network({"extractor": "mine", "name": "y"}).name == "y"
    assert asked == [("actkit.extractors", "mine")] * 2
    net = open_network(module, name="z")
    assert open_network(net) is net
    with pytest.raises(InputError, match="is open already"):
        open_network(net, name="other")
    with pytest.raises(InputError, match="names no extractor"):
        open_network({"name": "y"})
    monkeypatch.setattr(plugins, "load", lambda group, name: lambda **options: module)
    with pytest.raises(PluginError, match="returned a Sequential"):
        open_network("mine")


def test_out_of_memory_is_told_from_other_errors():
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
