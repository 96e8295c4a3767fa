"""Running many candidates from a cut: the part before the layer once, the part after it per candidate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from actkit.layers import first_tensor
from actkit.replay_dense import Head, corrected, head_of
from actkit.replay_graph import Cut, CutError, _copied
from actkit.replay_lesion import Lesion, replace_tensor
from actkit.replay_linear import Carry, Contraction, Sparse, as_channels_last, carry, contraction

_FEWEST, _MOST = 32, 512
_CACHE = 2 << 20
"""Images at a time: as many as keep the largest value that is computed per candidate within so many bytes, between the
limits. Small maps then fill wide operations, and large ones stay near the processor."""
_STACK = 512
"""Rows of candidates and images that go through the dense layers together."""


class Plan:
    """What to do at each node after the cut.

    Parameters
    ----------
    cut : Cut
        The graph.
    axis : int
        Channel axis of the lesioned value.
    low_rank : bool
        Whether to carry a candidate's channels alone as far as possible; otherwise every node runs on whole values.
    memory : int
        Bytes that copies of weights may take, in all.

    Raises
    ------
    CutError
        If ``low_rank`` is wanted and does not apply.
    """

    def __init__(self, cut: Cut, axis: int, low_rank: bool, memory: int) -> None:
        self.cut = cut
        self.sparse: dict[fx.Node, Sparse] = {}
        self.carries: dict[fx.Node, Carry] = {}
        self.contractions: dict[fx.Node, Contraction] = {}
        if low_rank:
            if cut.mark not in cut.shapes:
                raise CutError("the layer's output is not a plain tensor")
            self.sparse[cut.mark] = Sparse(axis)
            self._sort(memory // 2)
            if not self.contractions:
                raise CutError("no convolution or dense layer follows the layer through channel-wise operations")
            self._check_overwrites()
        whole = [node for node in cut.after if node not in self.sparse and node not in cut.sizes]
        chain = head_of(cut, [node for node in whole if node not in self.contractions])
        self.head = Head(chain, cut, memory // 2) if chain else None
        self.head_input: fx.Node | None = chain[0].args[0] if chain else None  # type: ignore[assignment]
        inside = set(chain)
        self.steps = [node for node in cut.after if node not in inside and node not in cut.sizes]
        users = {node: [user for user in node.users if user in {*cut.after, cut.result}] for node in self.sparse}
        self.needed = {
            node for node in self.sparse if any(user not in self.sparse or user is cut.result for user in users[node])
        }

    def _sort(self, budget: int) -> None:
        """Find the channel-wise nodes and the linear ones that end them."""
        for node in self.cut.after:
            if node in self.cut.sizes:
                continue
            found = carry(node, self.cut, self.sparse)
            if found is not None:
                self.sparse[node], self.carries[node] = found
                continue
            module = contraction(node, self.cut, self.sparse)
            if module is not None:
                layout, weight = self.sparse[node.args[0]], module.weight  # type: ignore[index]
                size = weight.numel() * weight.element_size()  # type: ignore[operator, union-attr]
                self.contractions[node] = corrected(node, module, layout, self.cut, size <= budget)  # type: ignore[operator]
                budget = max(0, budget - size)  # type: ignore[operator, assignment]

    def _check_overwrites(self) -> None:
        """Refuse a network that overwrites a carried value which is used elsewhere too: slices are never shared."""
        for node in self.cut.overwrites:
            for source in node.all_input_nodes:
                while source in self.sparse:
                    if len([user for user in source.users if user not in self.cut.sizes]) > 1:
                        raise CutError(f"{node.name} overwrites a value that is used elsewhere too")
                    if source is self.cut.mark:
                        break
                    source = source.all_input_nodes[0]


class _Stack:
    """Rows of several candidates, put through the dense layers together."""

    def __init__(self, head: Head, images: int) -> None:
        self._head, self._images = head, images
        self._numbers: list[int] = []
        self._rows: torch.Tensor | None = None

    def add(self, number: int, rows: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Keep a candidate's rows (images, features); its output comes with that of the last to fit."""
        if self._rows is None:
            held = max(1, _STACK // self._images) * self._images
            self._rows = rows.new_empty((held, rows.shape[1]))
        start = len(self._numbers) * self._images
        self._rows[start : start + self._images] = rows
        self._numbers.append(number)
        if start + self._images == len(self._rows):
            yield from self.flush()

    def flush(self) -> Iterator[tuple[int, torch.Tensor]]:
        """The outputs of the candidates held."""
        numbers, self._numbers = self._numbers, []
        if numbers and self._rows is not None:
            output = self._head(self._rows[: len(numbers) * self._images])
            yield from zip(numbers, output.split(self._images), strict=True)


class ReplayEngine:
    """Runs candidates from a cut.

    Parameters
    ----------
    cut : Cut
        The graph.
    lesion : Lesion
        How channels are silenced.
    candidates : sequence of torch.Tensor
        Channel indices of each candidate.
    base : torch.Tensor
        Channels silenced for all.
    low_rank : bool
        Whether to take the low-rank step for candidates of at most half of the channels.
    memory : int
        Budget in bytes.
    channels_last : bool
        Whether maps lie in memory with the channels of a position side by side, which convolutions and pooling of
        small maps on a CPU are faster with.

    Raises
    ------
    CutError
        If the network cannot be run this way.
    """

    def __init__(
        self,
        cut: Cut,
        lesion: Lesion,
        candidates: Sequence[torch.Tensor],
        base: torch.Tensor,
        low_rank: bool,
        memory: int,
        channels_last: bool = False,
    ) -> None:
        self._cut, self._lesion, self._channels_last = cut, lesion, channels_last
        self._candidates, self._base = candidates, base
        few = [low_rank and 2 * len(channels) <= lesion.channels for channels in candidates]
        self._few = few
        self._plan = Plan(cut, lesion.axis, low_rank, memory)
        self._plain = self._plan if not low_rank or all(few) else Plan(cut, lesion.axis, False, memory // 4)
        self._buffers: dict[fx.Node, torch.Tensor] = {}

    def rows(self, memory: int) -> int:
        """Images at a time within a budget in bytes."""
        size = {node: math.prod(shape) for node, shape in self._cut.shapes.items()}
        kept = sum(size.get(node, 0) for node in {*self._cut.live, self._cut.mark, *self._plan.needed})
        kept += sum(2 * size.get(node, 0) for node in self._plan.contractions)
        working = 3 * max(size.values(), default=1)
        whole = [size.get(node, 0) for node in self._cut.after if node not in self._plan.sparse]
        wanted = min(max(_FEWEST, _CACHE // (4 * max(whole, default=1) or 1)), _MOST)
        return max(1, min(wanted, int(memory / 2 / (4 * (kept + working)))))

    def run(
        self,
        batch: torch.Tensor,
        numbers: Iterable[int] | None = None,
        live: dict[fx.Node, Any] | None = None,
    ) -> Iterator[tuple[int | None, torch.Tensor]]:
        """The outputs of the intact network and of each candidate (of some, where ``numbers`` names them).

        Parameters
        ----------
        batch : torch.Tensor
            Images (images, ...).
        numbers : iterable of int, optional
            Candidates to run.
        live : dict, optional
            What :meth:`Cut.prefix` gives for the batch, where it is known.

        Yields
        ------
        tuple of int or None, and torch.Tensor
            Candidate (None: intact) and output (images, outputs).
        """
        live = self._cut.prefix(batch, self._channels_last) if live is None else live
        if self._channels_last:
            live = {
                n: as_channels_last(value) if isinstance(value, torch.Tensor) else value for n, value in live.items()
            }
        kept = live.pop(self._cut.mark)
        tensor, _ = first_tensor(kept)
        assert tensor is not None  # the cut checked it
        if len(self._base):
            tensor = self._lesion.write(tensor, self._base)
        state = _State(live, kept, tensor)
        end = self._intact(state)
        yield None, end.clone() if self._plan.head is None else self._plan.head(end.flatten(1).clone())
        stacks = {plan: _Stack(plan.head, len(batch)) for plan in {self._plan, self._plain} if plan.head is not None}
        for number in range(len(self._candidates)) if numbers is None else numbers:
            channels, plan = self._candidates[number], self._plan
            if not len(channels):
                value = end
            elif self._few[number]:
                value = self._sparse(state, channels)
            else:
                value, plan = self._whole(state, channels), self._plain
            if plan in stacks:
                yield from stacks[plan].add(number, value.flatten(1))
            else:
                yield number, value.clone()  # the next candidate uses the same buffers
        for stack in stacks.values():
            yield from stack.flush()

    def _intact(self, state: _State) -> torch.Tensor:
        """Run without a candidate; keep what candidates need of it."""
        cut, plan = self._cut, self._plan
        env = dict(state.live)
        env[cut.mark] = state.tensor if plan.sparse else self._marked(state, state.tensor.clone())
        steps = set(plan.steps)
        for node in cut.after:
            if node in cut.sizes:
                state.live[node] = env[node] = cut.call(node, env)
            elif node in plan.carries:
                env[node] = plan.carries[node](env, None)
            elif node in plan.contractions:
                value = cut.call(node, env)
                state.intact[node] = value.contiguous() if plan.contractions[node].flat else value
                env[node] = value.clone()
            elif node in steps:
                copied = {s for s in node.all_input_nodes if s in plan.sparse} if node in cut.overwrites else set()
                copied |= cut.copies.get(node, set())
                env[node] = cut.call(node, env | {source: env[source].clone() for source in copied})
        state.intact.update({node: env[node] for node in plan.needed})
        return self._end(plan, env)

    def _whole(self, state: _State, channels: torch.Tensor) -> torch.Tensor:
        """Run a candidate on whole values."""
        cut = self._cut
        env = dict(state.live)
        env[cut.mark] = self._marked(state, self._lesion.write(state.tensor, channels))
        for node in self._plain.steps:
            copied = {source: env[source].clone() for source in cut.copies.get(node, ())}
            env[node] = cut.call(node, env | copied if copied else env)
        return self._end(self._plain, env)

    def _sparse(self, state: _State, channels: torch.Tensor) -> torch.Tensor:
        """Run a candidate, its channels alone as far as the first linear operations."""
        cut, plan = self._cut, self._plan
        env = dict(state.live)
        whole: dict[fx.Node, torch.Tensor] = {}

        def given(node: fx.Node) -> dict[fx.Node, Any]:
            for source in node.all_input_nodes:
                if source in plan.sparse and source not in whole:
                    whole[source] = plan.sparse[source].put(state.intact[source], channels, env[source])
            copied = {source: env[source].clone() for source in cut.copies.get(node, ())}
            return env | whole | copied

        # What stands in for the channels is the same for every image: one is carried for all.
        slices = plan.sparse[cut.mark].take(state.tensor[:1], channels)
        env[cut.mark] = self._lesion.values(channels, slices).expand_as(slices).contiguous()
        for node in plan.steps:
            if node in plan.carries:
                env[node] = plan.carries[node](env, channels)
            elif node in plan.contractions:
                source = node.args[0]
                delta = plan.sparse[source].take(state.intact[source], channels) - env[source]  # type: ignore[index]
                intact = state.intact[node]
                env[node] = plan.contractions[node].apply(intact, delta, channels, self._buffer(node, intact))
            else:
                env[node] = cut.call(node, given(node))
        end = plan.head_input or cut.result.args[0]
        return self._end(plan, env if end not in plan.sparse else given(cut.result))

    def _marked(self, state: _State, tensor: torch.Tensor) -> Any:
        """The layer's output with another tensor in it."""
        return tensor if isinstance(state.kept, torch.Tensor) else replace_tensor(_copied(state.kept), tensor)

    def _buffer(self, node: fx.Node, like: torch.Tensor) -> torch.Tensor:
        """Memory for a corrected output, the same for every candidate of a batch."""
        if node not in self._buffers or self._buffers[node].shape != like.shape:
            self._buffers[node] = torch.empty_like(like)
        return self._buffers[node]

    def _end(self, plan: Plan, env: Mapping[fx.Node, Any]) -> torch.Tensor:
        """The value at which the steps end: the rows for the dense layers, or the network's output."""
        if plan.head_input is not None:
            value = env[plan.head_input]
        else:
            value, _ = first_tensor(fx.node.map_arg(self._cut.result.args[0], env.__getitem__))
        if not isinstance(value, torch.Tensor):
            raise CutError("the network's output holds no tensor")
        return value


@dataclass(eq=False)
class _State:
    """What is kept of a batch between candidates."""

    live: dict[fx.Node, Any]
    kept: Any
    tensor: torch.Tensor
    intact: dict[fx.Node, torch.Tensor] = field(default_factory=dict)
