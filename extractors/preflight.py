"""Trying a network on two stimuli before the long run, and saying what is wrong or worth knowing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from actkit.errors import LayerError
from actkit.extractors.pipeline import prepare_batch
from actkit.layers import LayerInfo, capture, check_replay, module_paths, split_name
from actkit.network import Network
from actkit.stimuli import Stimuli, as_stimuli

_TOLERANCE = 1e-3
_NAMES_SHOWN = 4


@dataclass(frozen=True)
class Finding:
    """One thing that the trial run found.

    Attributes
    ----------
    level : {"info", "warning", "fatal"}
        Whether it is only worth knowing, makes the recording doubtful, or makes it useless.
    check : str
        Which check: ``train_mode``, ``dtype``, ``device``, ``preprocessing``, ``shared_modules``,
        ``output_type``, ``unrecordable``, ``in_place_input``, ``nan``, ``batch_dependence``, ``repeatability``,
        ``replay``, ``constant``.
    message : str
        What was found, what follows from it and what to do.
    layers : tuple of str
        The layers concerned.
    """

    level: Literal["info", "warning", "fatal"]
    check: str
    message: str
    layers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.level}: {self.message}"


def preflight(
    network: Network,
    stimuli: Any,
    layers: str | Iterable[str] = "**",
    types: str | Iterable[str] | None = None,
    nan: Literal["raise", "keep"] = "raise",
) -> list[Finding]:
    """Try a network on two stimuli.

    Parameters
    ----------
    network : Network
        The network, wherever it is and in whatever mode; both are left as they are.
    stimuli : Stimuli or what `as_stimuli` takes
        The stimuli; the first two are used (one twice where there is only one).
    layers, types : str or iterable of str
        The layers to look at; see `Network.select`.
    nan : {"raise", "keep"}
        Whether activations that are not finite are fatal or only worth a warning.

    Returns
    -------
    list of Finding
        Most serious first; empty where there is nothing to say.

    Raises
    ------
    LayerError, InputError, StimulusError
        If the layers do not exist, or the network or its preprocessing fails on the two stimuli.
    """
    stimuli = as_stimuli(stimuli)
    rows = [0, min(1, len(stimuli) - 1)]
    pair = prepare_batch(network, stimuli, rows)
    findings = _module_findings(network)
    findings += _preprocess_findings(network, stimuli, rows[0], pair[0])
    listed = network.layers(torch.stack([pair[0], pair[1], pair[0]]))
    names = network_selection(network, listed, layers, types)
    findings += _layer_findings(listed, names)
    findings += _value_findings(network, {layer.name: layer for layer in listed}, names, pair, nan)
    order = {"fatal": 0, "warning": 1, "info": 2}
    return sorted(findings, key=lambda finding: order[finding.level])


def network_selection(
    network: Network, listed: Sequence[LayerInfo], layers: str | Iterable[str], types: str | Iterable[str] | None
) -> list[str]:
    """Choose among layers that were listed with a probe of one's own.

    Parameters
    ----------
    network : Network
        The network.
    listed : sequence of LayerInfo
        Its layers.
    layers, types : str or iterable of str
        See `actkit.layers.select_layers`.

    Returns
    -------
    list of str
        Names in execution order.
    """
    from actkit.layers import select_layers

    return select_layers(listed, layers, types, network.module)


def _some(names: Sequence[str]) -> str:
    """A few names for a message."""
    shown = ", ".join(repr(name) for name in names[:_NAMES_SHOWN])
    return shown + (f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else "")


def _module_findings(network: Network) -> list[Finding]:
    """What the module says about itself before it runs."""
    found = []
    training = [path or "the network" for path, child in network.module.named_modules() if child.training]
    if training:
        found.append(
            Finding(
                "info",
                "train_mode",
                f"{len(training)} modules of {network.name!r} are in train mode; they are recorded in evaluation mode "
                "and put back afterwards",
            )
        )
    tensors = [*network.module.parameters(), *network.module.buffers()]
    kinds = Counter(str(t.dtype).removeprefix("torch.") for t in tensors if t.is_floating_point())
    if kinds and set(kinds) != {"float32"}:
        found.append(
            Finding(
                "warning" if len(kinds) > 1 else "info",
                "dtype",
                f"the weights of {network.name!r} are {', '.join(sorted(kinds))}; input is cast to "
                f"{str(network.dtype).removeprefix('torch.')} and activations are stored as float32",
            )
        )
    devices = sorted({str(t.device) for t in tensors})
    if "meta" in devices:
        found.append(
            Finding(
                "fatal",
                "device",
                f"some weights of {network.name!r} are on the meta device: they have shapes and no values. "
                "Load the weights before recording",
            )
        )
    elif len(devices) > 1:
        found.append(
            Finding(
                "info",
                "device",
                f"{network.name!r} is spread over {', '.join(devices)}; it stays there and gets its input on "
                f"{network.device}",
            )
        )
    return found


def _preprocess_findings(network: Network, stimuli: Stimuli, row: int, first: torch.Tensor) -> list[Finding]:
    """Whether the preprocessing gives the same result twice."""
    again = prepare_batch(network, stimuli, [row])[0]
    if again.shape == first.shape and torch.equal(torch.nan_to_num(again), torch.nan_to_num(first)):
        return []
    return [
        Finding(
            "fatal",
            "preprocessing",
            f"the preprocessing of {network.name!r} gives different results for the same stimulus "
            f"({str(stimuli.ids[row])!r}), so no recording could be repeated or resumed; take out its random steps",
        )
    ]


def _layer_findings(listed: Sequence[LayerInfo], names: Sequence[str]) -> list[Finding]:
    """What the dry run says about the layers."""
    found = []
    chosen = set(names)
    shared = {layer.module: layer.calls for layer in listed if layer.calls > 1 and layer.name in chosen}
    if shared:
        words = [f"{path} ({calls} times)" for path, calls in shared.items()]
        found.append(
            Finding(
                "info",
                "shared_modules",
                f"modules that run more than once are recorded call by call: {_some(words)}",
                tuple(layer.name for layer in listed if layer.module in shared),
            )
        )
    noted = [layer for layer in listed if layer.output_note and layer.name in chosen]
    if noted:
        words = [f"{layer.name}: {layer.output_note}" for layer in noted]
        found.append(
            Finding("info", "output_type", f"not plain float32 maps: {_some(words)}", tuple(x.name for x in noted))
        )
    bad = [layer for layer in listed if layer.problem]
    if bad:
        words = [f"{layer.name}: {layer.problem}" for layer in bad]
        found.append(
            Finding("info", "unrecordable", f"left out, cannot be recorded: {_some(words)}", tuple(x.name for x in bad))
        )
    return found


def _activations(
    network: Network, infos: dict[str, LayerInfo], names: Sequence[str], batch: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Record a small batch whole."""
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str, tensor: torch.Tensor) -> None:
        kept[name] = infos[name].arrange(tensor).to(dtype=torch.float32, copy=True)

    with capture(network.module, names, keep) as forward:
        forward(batch)
    return kept


def _all_finite(values: torch.Tensor) -> bool:
    """Whether no value is NaN or infinite, without a copy: both would show in the extremes."""
    return bool(torch.isfinite(torch.stack(torch.aminmax(values))).all())


def _difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest absolute difference over the largest magnitude; not finite values are left out."""
    if torch.equal(a, b):  # the usual answer, in one pass over memory
        return 0.0
    low, high = torch.aminmax(a)
    largest = float((a - b).abs_().max())
    if np.isfinite(largest):
        return largest / (max(-float(low), float(high)) or 1.0)
    finite = torch.isfinite(a) & torch.isfinite(b)
    if not bool(finite.any()):
        return 0.0
    scale = float(a[finite].abs().max()) or 1.0
    return float((a - b)[finite].abs().max()) / scale


def _value_findings(
    network: Network, infos: dict[str, LayerInfo], names: Sequence[str], pair: torch.Tensor, nan: str
) -> list[Finding]:
    """What the activations of the two stimuli say."""
    found: list[Finding] = []
    batch = network.to_input(pair)
    both = _activations(network, infos, names, batch)
    broken = [name for name in names if both[name].numel() and not _all_finite(both[name])]
    if broken:
        found.append(
            Finding(
                "warning" if nan == "keep" else "fatal",
                "nan",
                f"{network.name!r} gives NaN or infinite activations in {_some(broken)}; check the weights and the "
                "preprocessing" + ("" if nan == "keep" else ", or record them as they are with nan='keep'"),
                tuple(broken),
            )
        )
    again = _activations(network, infos, names, batch)
    random = [name for name in names if _difference(both[name], again.pop(name)) > _TOLERANCE]
    if random:
        found.append(
            Finding(
                "warning",
                "repeatability",
                f"{network.name!r} gives other activations when it runs again on the same stimuli, in {_some(random)}: "
                "it draws random numbers or keeps state between calls. A recording cannot be repeated or resumed "
                "exactly; switch that off",
                tuple(random),
            )
        )
        return found
    singles = [_activations(network, infos, names, batch[i : i + 1]) for i in range(2)]
    dependent = [name for name in names if _difference(both[name], torch.cat([s[name] for s in singles])) > _TOLERANCE]
    if dependent:
        found.append(
            Finding(
                "warning",
                "batch_dependence",
                f"what {network.name!r} gives for a stimulus depends on the others in its batch, in {_some(dependent)} "
                "(batch statistics, or attention across stimuli); recordings with another batch size will differ. "
                "Record with batch=1",
                tuple(dependent),
            )
        )
    if float((pair[0] - pair[1]).abs().max()) > 0:
        same = [name for name in names if torch.equal(both[name][0], both[name][1])]
        if same:
            # A dead or narrow layer is worth knowing; a network that tells no two stimuli apart is a broken set-up.
            found.append(
                Finding(
                    "warning" if len(same) == len(names) else "info",
                    "constant",
                    f"two different stimuli give identical activations in {_some(same)}: dead units, or a "
                    "preprocessing that the network was not trained with",
                    tuple(same),
                )
            )
    replayed = check_replay(network.module, batch, _without_lesions(network, names))
    odd = [name for name, difference in replayed.items() if difference > _TOLERANCE]
    if odd:
        found.append(
            Finding(
                "warning",
                "replay",
                f"run alone on the input that they had, {_some(odd)} give something else than in the network "
                "(they use state from outside their input)",
                tuple(odd),
            )
        )
    return found


def _without_lesions(network: Network, names: Sequence[str]) -> list[str]:
    """Leave out lesioned layers and what holds them: run alone they are not the call that the lesion is of."""
    paths = module_paths(network.module)
    lesions = [layer for lesion in network.provenance.get("lesions", []) for layer in lesion["units"]]
    places = [split_name(layer, paths)[0] for layer in lesions]

    def holds(name: str) -> bool:
        path = split_name(name, paths)[0]
        return any(place == path or place.startswith(f"{path}.") for place in places)

    return [name for name in names if not holds(name)]


def raise_fatal(findings: Sequence[Finding]) -> None:
    """Stop on the first fatal finding.

    Parameters
    ----------
    findings : sequence of Finding
        What `preflight` returned.

    Raises
    ------
    LayerError
        With the finding's message.
    """
    for finding in findings:
        if finding.level == "fatal":
            raise LayerError(finding.message)
