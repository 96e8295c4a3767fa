"""Extraction against its two bounds, in one interleaved run: the bare forward pass and a raw write of the same bytes.

    python tests/benchmarks/bench_extract.py --n 192 --rounds 5 --networks lite0 vgg16

Both networks have random weights; EfficientNet-Lite0 records all convolutions and blocks, VGG16 all convolutions and
pools. Stimuli are preprocessed float arrays in memory, for every contender: nobody decodes. Contenders, in images per
second, one after the other in each round:

a   the bare forward pass at the batch that actkit chose (``a32``: at a batch of 32, what other tools use)
b   ``os.write`` of the same bytes from warm memory to 4 MiB files, page cache only (``b_sync``: each file synced)
ours   ``actkit.extract`` into a store, synced block by block, in steady state: from the end of the first block to the
    return of a complete store
thingsvision   where it is installed: forward, hooks, clone, ``.npy`` files

The serial bound is 1 / (1/a + 1/b): what a program gets that computes and writes in turn. Peak memory is measured in
fresh processes for n and 2 n images.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

import actkit
from actkit.extractors.record import extract, plan_extraction
from actkit.stimuli import Stimuli

CHUNK = 4 * 2**20
TYPES = {"lite0": ["Conv2d", "MBConvBlock"], "vgg16": ["Conv2d", "MaxPool2d"]}


def vgg16() -> nn.Module:
    """VGG16 (configuration D of Simonyan & Zisserman 2015), random weights, in-place ReLUs as in torchvision."""
    features: list[nn.Module] = []
    channels = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if width:
            features += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        else:
            features.append(nn.MaxPool2d(2))
    classifier = nn.Sequential(
        nn.Linear(512 * 7 * 7, 4096),
        nn.ReLU(inplace=True),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Linear(4096, 1000),
    )
    return nn.Sequential(nn.Sequential(*features), nn.Flatten(), classifier)


def network(name: str) -> actkit.Network:
    """One of the two networks, seeded."""
    torch.manual_seed(0)
    if name == "vgg16":
        module = vgg16()
    else:
        from efficientnet_lite_pytorch import EfficientNet

        module = EfficientNet.from_name("efficientnet-lite0")
    return actkit.Network(module.eval(), name=name, input_shape=(3, 224, 224))


def images(n: int) -> Stimuli:
    """Seeded noise, already preprocessed; one array of 64 images repeated under new ids, to keep memory flat."""
    base = np.random.default_rng(0).standard_normal((min(n, 64), 3, 224, 224), dtype=np.float32)
    stimuli = Stimuli.from_array(base)
    rows = np.arange(n) % len(base)
    return Stimuli(stimuli._source, [f"{i:06d}" for i in range(n)], {}, "noise", "by number", _rows=rows)


def timed_extract(
    net: actkit.Network, stimuli: Stimuli, path: Path, types: list[str], memory: str
) -> tuple[float, float]:
    """Images per second in steady state, and from call to return."""
    marks: list[tuple[int, float]] = []
    plan = plan_extraction(net, stimuli, path, types=types, memory=memory)
    begun = time.perf_counter()
    extract(
        net,
        stimuli,
        path,
        progress=lambda done, _: marks.append((done, time.perf_counter())),
        types=types,
        memory=memory,
    )
    ended = time.perf_counter()
    shutil.rmtree(path)
    first = next((mark for mark in marks if mark[0] >= plan.block), marks[0])
    return (len(stimuli) - first[0]) / (ended - first[1]), len(stimuli) / (ended - begun)


def forward_rate(net: actkit.Network, n: int, batch: int) -> float:
    """Images per second of the bare forward pass."""
    x = torch.randn(batch, 3, 224, 224)
    with torch.inference_mode():
        net.module(x)
        begun = time.perf_counter()
        for _ in range(max(1, n // batch)):
            net.module(x)
        return max(1, n // batch) * batch / (time.perf_counter() - begun)


def write_rate(folder: Path, bytes_each: int, n: int, sync: bool) -> float:
    """Images per second of writing the same bytes as plain files."""
    folder.mkdir()
    chunk = np.random.default_rng(0).integers(0, 256, CHUNK, dtype=np.uint8).data
    count = max(1, n * bytes_each // CHUNK)
    begun = time.perf_counter()
    for i in range(count):
        handle = os.open(folder / str(i), os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(handle, chunk)
        if sync:
            os.fsync(handle)
        os.close(handle)
    seconds = time.perf_counter() - begun
    shutil.rmtree(folder)
    return count * CHUNK / bytes_each / seconds


def thingsvision_rate(net: actkit.Network, stimuli: Stimuli, names: list[str], folder: Path) -> float | None:
    """Images per second of thingsvision on the same tensors, or None where it is not installed."""
    if find_spec("thingsvision") is None:
        return None
    from thingsvision import get_extractor_from_model

    extractor = get_extractor_from_model(model=net.module, device="cpu", backend="pt")
    data = [
        torch.stack([net.prepare(stimuli.raw(i)) for i in range(a, a + 32)]) for a in range(0, len(stimuli) - 31, 32)
    ]
    begun = time.perf_counter()
    extractor.extract_features(
        batches=data, module_names=names, flatten_acts=False, output_type="ndarray", output_dir=str(folder)
    )
    seconds = time.perf_counter() - begun
    shutil.rmtree(folder)
    return len(data) * 32 / seconds


def peak_memory(name: str, n: int, memory: str) -> int:
    """Peak resident bytes of a fresh process that records n images."""
    command = [sys.executable, __file__, "--peak", name, "--n", str(n), "--memory", memory]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=192, help="images per measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", nargs="+", default=["lite0", "vgg16"], choices=list(TYPES))
    parser.add_argument("--memory", default="1GB", help="the memory option of extract")
    parser.add_argument("--folder", type=Path, default=None, help="where to write (a temporary folder by default)")
    parser.add_argument("--no-peak", action="store_true", help="skip the measurement of memory")
    parser.add_argument("--peak", default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    base = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        if args.peak:
            extract(network(args.peak), images(args.n), base / "peak.zarr", types=TYPES[args.peak], memory=args.memory)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
            return
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.2f}")
        for name in args.networks:
            compare(name, args, base)
    finally:
        shutil.rmtree(base)


def compare(name: str, args: argparse.Namespace, base: Path) -> None:
    """Run all contenders for one network in turn, several rounds, and print medians."""
    net, stimuli = network(name), images(args.n)
    plan = plan_extraction(net, stimuli, base / "acts.zarr", types=TYPES[name], memory=args.memory)
    each = sum(4 * layer.n_units for layer in plan.layers)
    batch = plan.attrs["batch"]
    print(
        f"\n{name}: {len(plan.layers)} layers, {each / 1e6:.1f} MB an image, batch {batch}, block {plan.block}, "
        f"{args.n} images, {args.rounds} rounds"
    )
    rates: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        steady, whole = timed_extract(net, stimuli, base / "acts.zarr", TYPES[name], args.memory)
        found = {
            "a": forward_rate(net, args.n, batch),
            "b": write_rate(base / "raw", each, args.n, sync=False),
            "b_sync": write_rate(base / "raw", each, args.n, sync=True),
            "a32": forward_rate(net, args.n, 32),
            "ours": steady,
            "ours from call to return": whole,
        }
        other = thingsvision_rate(net, stimuli, [layer.name for layer in plan.layers], base / "tv")
        if other is not None:
            found["thingsvision"] = other
        for key, value in found.items():
            rates.setdefault(key, []).append(value)
        gc.collect()
    medians = {key: statistics.median(values) for key, values in rates.items()}
    for key, value in medians.items():
        spread = f"{min(rates[key]):.1f}-{max(rates[key]):.1f}"
        print(f"  {key:26s} {value:8.1f} images/s  ({spread})  {value * each / 1e9:5.2f} GB/s")
    if "thingsvision" not in medians:
        print("  thingsvision               not installed, skipped")
    a, b, ours = medians["a"], medians["b"], medians["ours"]
    print(f"  serial bound 1/(1/a+1/b)   {1 / (1 / a + 1 / b):8.1f} images/s")
    print(f"  ours / slower of a and b   {ours / min(a, b):8.2f}   (goal 0.90)")
    print(f"  ours / slower of a, b_sync {ours / min(a, medians['b_sync']):8.2f}")
    print(f"  ours / slower of a32, b    {ours / min(medians['a32'], b):8.2f}")
    print(f"  ours / serial bound        {ours * (1 / a + 1 / b):8.2f}")
    if not args.no_peak:
        small, large = (peak_memory(name, n, args.memory) for n in (args.n, 2 * args.n))
        print(f"  peak memory {small / 1e6:.0f} MB for {args.n} images, {large / 1e6:.0f} MB for {2 * args.n}")


if __name__ == "__main__":
    main()
