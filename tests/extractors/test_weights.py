"""Weights are read, never executed; what does not fit is named."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from actkit.errors import InputError
from actkit.extractors.weights import file_sha256, load_into, load_state_dict, seeded


class Bomb:
    """Unpickling an object of this class makes a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


def net(n_classes=3):
    return torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, n_classes))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_bomb_would_go_off(tmp_path):
    """The next test means something: plain unpickling does run the object's code."""
    torch.save({"weight": Bomb(tmp_path / "boom")}, tmp_path / "bomb.pt")
    torch.load(tmp_path / "bomb.pt", weights_only=False)["weight"].close()
    assert (tmp_path / "boom").exists()


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, write):
    file = tmp_path / "bomb.pt"
    write({"state_dict": Bomb(tmp_path / "boom")}, file)
    with pytest.raises(InputError, match=r"bomb\.pt.*(refused|neither).*safetensors"):
        load_state_dict(file)
    assert not (tmp_path / "boom").exists()


def test_a_pickled_module_is_refused(tmp_path):
    torch.save(net(), tmp_path / "module.pt")
    with pytest.raises(InputError, match=r"not a plain state dict.*save_file"):
        load_state_dict(tmp_path / "module.pt")


@pytest.mark.parametrize("name", ["w.safetensors", "w.anything"])
def test_safetensors_are_told_by_content(tmp_path, name):
    state = net().state_dict()
    save_file(state, tmp_path / name)
    assert same(load_state_dict(tmp_path / name), state)


def test_state_dicts_inside_checkpoints(tmp_path):
    state = net().state_dict()
    torch.save(state, tmp_path / "plain.pt")
    torch.save({"epoch": 3, "model_state_dict": state, "optimizer": {"lr": 0.1}}, tmp_path / "checkpoint.pt")
    torch.save({"ema": {"teacher": state}, "online": state}, tmp_path / "nested.pt")
    assert same(load_state_dict(tmp_path / "plain.pt"), state)
    assert same(load_state_dict(tmp_path / "checkpoint.pt"), state)
    assert same(load_state_dict(tmp_path / "nested.pt", key="ema.teacher"), state)
    with pytest.raises(InputError, match=r"give the one to load as key="):
        load_state_dict(tmp_path / "nested.pt")
    with pytest.raises(InputError, match="nearest: 'model_state_dict'"):
        load_state_dict(tmp_path / "checkpoint.pt", key="model_state")
    with pytest.raises(InputError, match="is no state dict"):
        load_state_dict(tmp_path / "checkpoint.pt", key="epoch")


def test_files_that_are_no_weights(tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    for name, words in [
        ("missing.pt", "no weights file"),
        ("text.pt", "refused|neither"),
        ("tensor.pt", "holds a Tensor"),
    ]:
        with pytest.raises(InputError, match=words):
            load_state_dict(tmp_path / name)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_wrapper_prefixes_are_cut(prefix):
    source, target = net(), net()
    load_into(target, {prefix + name: value for name, value in source.state_dict().items()})
    assert same(target.state_dict(), source.state_dict())


def test_named_prefix():
    source, target = net(), net()
    state = {"backbone." + name: value for name, value in source.state_dict().items()} | {"head.bias": torch.zeros(2)}
    left = load_into(target, state, strict=False, prefix="backbone")
    assert left == {"missing": [], "unexpected": ["head.bias"]}
    assert same(target.state_dict(), source.state_dict())
    with pytest.raises(InputError, match=r"no weight's name starts with the prefix 'trunk\.'"):
        load_into(target, state, prefix="trunk")


def test_mismatches_name_the_nearest():
    state = net().state_dict()
    renamed = dict(state)
    renamed["2.wieght"] = renamed.pop("2.weight")
    with pytest.raises(InputError, match=r"missing from the file: '2.weight' \(nearest: '2.wieght'\)"):
        load_into(net(), renamed)
    assert load_into(net(), renamed, strict=False) == {"missing": ["2.weight"], "unexpected": ["2.wieght"]}
    with pytest.raises(InputError, match=r"'2.weight' is \(3, 5\), needed \(7, 5\).*number of classes"):
        load_into(net(7), state, strict=False)
    with pytest.raises(InputError, match=r"no weight of the file fits"):
        load_into(net(), {"a.b": torch.zeros(1)}, strict=False)


def test_seeded_weights_leave_the_global_generator_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    with seeded(0):
        one = net().state_dict()
    with seeded(0):
        again = net().state_dict()
    with seeded(1):
        other = net().state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert same(one, again)
    assert not same(one, other)


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
