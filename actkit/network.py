"""A network as actkit sees it: a module, its preprocessing, its layers in execution order, its provenance."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from actkit import plugins
from actkit.errors import InputError, PluginError
from actkit.layers import LayerInfo, list_layers, select_layers

Preprocess = Callable[[Any], torch.Tensor]

_PROBE_SEED = 1608
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class Network:
    """An ``nn.Module`` with what is needed to record it.

    Parameters
    ----------
    module : torch.nn.Module
        The network; takes one batch of shape (stimuli, …). A module wrapped by ``torch.compile`` is
        unwrapped: compiled code does not call the hooks that record.
    preprocess : callable, optional
        Turns one stimulus (a ``PIL.Image``; for array stimuli one row of the array) into a tensor
        (C, H, W) without batch axis. By default arrays pass through as float32 and images become
        (3, H, W) floats from 0 to 1 at their own size.
    name : str, optional
        What to call it in plans, figures and tables; by default the module's class.
    input_shape : tuple of int, optional
        Shape (C, H, W) of one preprocessed stimulus, where it is fixed.
    provenance : mapping, optional
        Where the network comes from (source, weights, licence, citation); must be JSON-able.

    Examples
    --------
    >>> import torch
    >>> net = Network(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()), input_shape=(4,))
    >>> [(layer.name, layer.type, layer.shape) for layer in net.layers()]
    [('0', 'Linear', (3,)), ('1', 'ReLU', (3,)), ('output', 'Sequential', (3,))]
    """

    def __init__(
        self,
        module: torch.nn.Module,
        preprocess: Preprocess | None = None,
        *,
        name: str | None = None,
        input_shape: Iterable[int] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(module, torch.nn.Module):
            raise InputError(
                f"a network needs a torch.nn.Module, not a {type(module).__name__}; "
                "actkit.open_network opens networks by name"
            )
        self.module: torch.nn.Module = getattr(module, "_orig_mod", module)
        self.preprocess = preprocess
        self.name = name or type(self.module).__name__
        self.input_shape = None if input_shape is None else tuple(int(size) for size in input_shape)
        self.provenance: dict[str, Any] = dict(provenance or {})
        self._layers: dict[tuple[Any, ...], list[LayerInfo]] = {}

    def __repr__(self) -> str:
        return f"Network({self.name!r}, {type(self.module).__name__}, input_shape={self.input_shape})"

    # -- input ---------------------------------------------------------------------------------------

    def prepare(self, stimulus: Any) -> torch.Tensor:
        """Preprocess one stimulus.

        Parameters
        ----------
        stimulus : PIL.Image.Image or numpy.ndarray
            An image, or one row of array stimuli.

        Returns
        -------
        torch.Tensor
            What the network takes, without batch axis, shape (C, H, W) for images.

        Raises
        ------
        InputError
            If the preprocessing gives something other than a tensor, or another shape than ``input_shape``.
        """
        if isinstance(stimulus, np.ndarray) and not stimulus.flags.writeable:
            stimulus = stimulus.copy()  # torch warns of memory it may not write to
        tensor = _plain(stimulus) if self.preprocess is None else self.preprocess(stimulus)
        if isinstance(tensor, np.ndarray):
            tensor = torch.from_numpy(np.ascontiguousarray(tensor))
        if not isinstance(tensor, torch.Tensor):
            raise InputError(
                f"the preprocessing of {self.name!r} gives a {type(tensor).__name__}; it must turn one stimulus into "
                "one tensor (C, H, W)"
            )
        if self.input_shape is not None and tuple(tensor.shape) != self.input_shape:
            if tuple(tensor.shape) == (1, *self.input_shape):
                raise InputError(
                    f"the preprocessing of {self.name!r} adds a batch axis (shape {tuple(tensor.shape)}); "
                    f"it must give one stimulus, shape {self.input_shape}"
                )
            raise InputError(
                f"the preprocessing of {self.name!r} gives shape {tuple(tensor.shape)}; the network was declared "
                f"with input_shape {self.input_shape}"
            )
        return tensor

    @property
    def device(self) -> torch.device:
        """Device of the first parameter or buffer; the CPU where there is none."""
        return next((tensor.device for tensor in self._tensors()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the first floating-point parameter or buffer, to which input is cast; float32 where there is none."""
        return next((tensor.dtype for tensor in self._tensors() if tensor.is_floating_point()), torch.float32)

    def _tensors(self) -> Iterable[torch.Tensor]:
        yield from self.module.parameters()
        yield from self.module.buffers()

    def to_input(self, batch: torch.Tensor) -> torch.Tensor:
        """Bring a batch to the network's device and, where it holds floats, to its type.

        Parameters
        ----------
        batch : torch.Tensor
            Shape (stimuli, …).

        Returns
        -------
        torch.Tensor
            The same values; the same tensor where nothing is to be done.
        """
        dtype = self.dtype if batch.is_floating_point() else batch.dtype
        return batch.to(device=self.device, dtype=dtype, non_blocking=True)

    # -- layers --------------------------------------------------------------------------------------

    def layers(self, probe: torch.Tensor | None = None) -> list[LayerInfo]:
        """List the layers in execution order, found by running the network on three stimuli.

        Parameters
        ----------
        probe : torch.Tensor, optional
            At least three preprocessed stimuli, shape (stimuli, …). By default seeded noise of
            ``input_shape``, or three preprocessed noise images.

        Returns
        -------
        list of LayerInfo
            Every call of every module that runs, also those that cannot be recorded. Remembered for
            each shape of the probe.

        Raises
        ------
        InputError
            If the network cannot run on the probe.
        """
        batch = self._probe() if probe is None else probe[:3]
        key = (tuple(batch.shape[1:]), batch.dtype, self.device, repr(self.module))
        if key not in self._layers:
            try:
                self._layers[key] = list_layers(self.module, self.to_input(batch))
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                if isinstance(error, InputError) or is_out_of_memory(error):
                    raise
                raise InputError(
                    f"network {self.name!r} fails on a batch of shape {tuple(batch.shape)} ({batch.dtype}): {error}. "
                    "Check its preprocessing and input_shape"
                ) from error
        return self._layers[key]

    def select(self, patterns: str | Iterable[str] = "**", types: str | Iterable[str] | None = None) -> list[str]:
        """Choose layers by name, pattern and module type.

        Parameters
        ----------
        patterns : str or iterable of str
            Names and patterns; ``*`` stays within one dotted component, ``**`` crosses dots.
        types : str or iterable of str, optional
            Class names (of the module or of one of its bases) to keep.

        Returns
        -------
        list of str
            Names in execution order.

        Raises
        ------
        LayerError
            If a pattern or type matches nothing, or a layer never runs.
        """
        return select_layers(self.layers(), patterns, types, self.module)

    def _probe(self) -> torch.Tensor:
        """Three stimuli of noise in the form that the network takes."""
        if self.input_shape is not None:
            generator = torch.Generator().manual_seed(_PROBE_SEED)
            return torch.rand((3, *self.input_shape), generator=generator)
        return torch.stack([self.prepare(image) for image in _probe_images(3)])

    # -- identity ------------------------------------------------------------------------------------

    @property
    def weights_sha256(self) -> str:
        """sha256 over names, shapes, types and bytes of all parameters and buffers.

        Computed each time it is asked for, about half a second per gigabyte: weights can change at any
        time, and a remembered hash would let a store of other weights pass for this network's.
        """
        digest = hashlib.sha256()
        tensors: dict[str, torch.Tensor] = dict(self.module.named_buffers(remove_duplicate=False))
        tensors.update(self.module.named_parameters(remove_duplicate=False))
        for name in sorted(tensors):
            tensor = tensors[name].detach()
            digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
            if tensor.device.type != "meta":
                flat = tensor.cpu().contiguous().reshape(-1)
                digest.update(flat.view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @property
    def architecture_sha256(self) -> str:
        """sha256 over the module's printed structure, the code of its own classes and the hooks set on it.

        The code counts because the same weights behind an edited ``forward`` are another network; hooks
        count because a lesioned network is another network. A hook may carry a ``fingerprint`` attribute
        that tells it from others made by the same code.
        """
        parts = [repr(self.module)]
        classes = sorted(
            {type(child) for child in self.module.modules()}, key=lambda cls: (cls.__module__, cls.__qualname__)
        )
        for cls in classes:
            parts += [_code(base) for base in cls.__mro__ if not _is_torch(base)]
        for path, child in self.module.named_modules():
            for hook in (*child._forward_pre_hooks.values(), *child._forward_hooks.values()):
                parts.append(f"hook {path} {getattr(hook, 'fingerprint', None) or _callable_name(hook)}")
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @property
    def preprocess_description(self) -> str:
        """What the preprocessing does, in its own words where it has any, by its qualified name otherwise."""
        if self.preprocess is None:
            return "none: arrays as float32, images scaled to 0-1 at their own size"
        describe = getattr(self.preprocess, "describe", None)
        if callable(describe):
            words = describe()
            return words if isinstance(words, str) else json.dumps(words, sort_keys=True, default=str)
        return _callable_name(self.preprocess)

    @property
    def preprocess_sha256(self) -> str:
        """sha256 over the description and what the preprocessing makes of two fixed probes.

        Two functions with one name and different bodies or closures therefore differ.
        """
        digest = hashlib.sha256(self.preprocess_description.encode())
        for probe in _probe_images(2):
            digest.update(_probe_digest(self, probe))
        if self.input_shape is not None:
            array = np.random.default_rng(_PROBE_SEED).random(self.input_shape, dtype=np.float32)
            digest.update(_probe_digest(self, array))
        return digest.hexdigest()

    @property
    def fingerprint(self) -> str:
        """sha256 over weights, preprocessing and architecture: what decides the network's answers."""
        parts = (self.weights_sha256, self.preprocess_sha256, self.architecture_sha256)
        return hashlib.sha256("".join(parts).encode()).hexdigest()


def open_network(network: str | Network | torch.nn.Module | Mapping[str, Any], **options: Any) -> Network:
    """Open a network by the name of its extractor.

    Parameters
    ----------
    network : str, mapping, Network or torch.nn.Module
        Name of an extractor (an entry point of the group ``actkit.extractors``), or a mapping such as
        ``{"extractor": "timm", "model": "resnet18"}``. A Network is returned as it is; a module is
        wrapped.
    **options
        Options of the extractor (of `Network` for a module).

    Returns
    -------
    Network
        The network with its preprocessing and provenance.

    Raises
    ------
    InputError
        If the mapping names no extractor, or options are given for a ready Network.
    PluginError
        If there is no such extractor, it cannot be loaded, or it returns something else.
    """
    if isinstance(network, Network):
        if options:
            raise InputError(f"{network!r} is open already; the options {sorted(options)} would have no effect")
        return network
    if isinstance(network, torch.nn.Module):
        return Network(network, **options)
    if isinstance(network, Mapping):
        settings = {**network, **options}
        if "extractor" not in settings:
            raise InputError(f"the network {dict(network)} names no extractor; write {{extractor: NAME, …}}")
        name = str(settings.pop("extractor"))
    else:
        name, settings = str(network), options
    opened = plugins.load("actkit.extractors", name)(**settings)
    if not isinstance(opened, Network):
        raise PluginError(f"extractor {name!r} returned a {type(opened).__name__}; it must return an actkit.Network")
    return opened


def _plain(stimulus: Any) -> torch.Tensor:
    """Give a stimulus to the network as it is: arrays as float32, images as (3, H, W) from 0 to 1."""
    if isinstance(stimulus, Image.Image):
        pixels = torch.from_numpy(np.array(stimulus.convert("RGB")))
        return pixels.permute(2, 0, 1).to(torch.float32).div_(255)
    return torch.from_numpy(np.asarray(stimulus, dtype=np.float32))


@functools.cache
def _probe_images(n: int) -> tuple[Image.Image, ...]:
    """Fixed noise images, one wide and one tall first, larger than what networks take."""
    sizes = [(320, 256), (256, 320), (288, 288)]
    rng = np.random.default_rng(_PROBE_SEED)
    made = []
    for width, height in sizes[:n]:
        coarse = rng.integers(0, 256, size=(height // 16, width // 16, 3), dtype=np.uint8)
        made.append(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))
    return tuple(made)


def _probe_digest(network: Network, probe: Any) -> bytes:
    """What the preprocessing makes of a probe, as bytes; the kind of error where it refuses it."""
    try:
        tensor = network.prepare(probe)
    except Exception as error:  # the preprocessing may be for another kind of stimulus
        return type(error).__name__.encode()
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return str((tensor.dtype, tuple(tensor.shape))).encode() + flat.view(torch.uint8).numpy().tobytes()


def _callable_name(function: Any) -> str:
    """A name for a callable that is the same in every session."""
    if isinstance(function, functools.partial):
        return f"partial({_callable_name(function.func)}, {function.args!r}, {sorted(function.keywords.items())!r})"
    if hasattr(function, "__qualname__"):
        return f"{function.__module__}.{function.__qualname__}"
    text = repr(function)
    if _ADDRESS.search(text):  # the default repr holds a memory address
        return f"{type(function).__module__}.{type(function).__qualname__}"
    return text


def _is_torch(cls: type) -> bool:
    """Whether a class belongs to torch or to Python: its version stands for its code."""
    return cls.__module__.partition(".")[0] in ("torch", "builtins", "typing", "abc", "collections")


def _code(cls: type) -> str:
    """The code of a class's own functions: its source, or its byte code where there is no source."""
    parts = [cls.__qualname__]
    for name, member in sorted(vars(cls).items()):
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if not inspect.isfunction(function):
            continue
        try:
            parts.append(f"{name} {inspect.getsource(function)}")
        except (OSError, TypeError):
            code = function.__code__
            parts.append(f"{name} {code.co_code.hex()} {code.co_names} {_plain_constants(code.co_consts)}")
    return "\n".join(parts)


def _plain_constants(constants: tuple[Any, ...]) -> list[str]:
    """Constants of a code object without the addresses of nested code objects."""
    return [
        constant.co_code.hex() if inspect.iscode(constant) else repr(constant)
        for constant in constants
        if not isinstance(constant, frozenset)
    ]


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, on a GPU or on the CPU.

    Parameters
    ----------
    error : BaseException
        What was raised while a network ran.

    Returns
    -------
    bool
        True for torch's and Python's own classes, and for the plain RuntimeError of torch's CPU allocator.
    """
    kinds: list[type[BaseException]] = [MemoryError]
    for owner in (torch, torch.cuda):
        kind = getattr(owner, "OutOfMemoryError", None)
        if kind is not None:
            kinds.append(kind)
    if isinstance(error, tuple(kinds)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in text or "not enough memory" in text)
