"""CUDA's graphs on a CPU: aten calls recorded, and replayed on memory that is poisoned where a pool would give it away.

What a capture records holds no memory: tensors are known by their storages, weakly. What a graph made itself, and
nobody holds any more, is poisoned before every replay of a graph of the same pool; what was there before the capture,
and is gone, is poison for good. As on a device, nothing that was there is changed by a capture, the host cannot read a
value within one, and a capture that fails leaves its stream current and its error behind another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any, NamedTuple
from weakref import WeakSet

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from zigzag.capture import graphs

__all__ = ["Emulator"]

SYNCS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "item")


class Memory:
    """A storage, held weakly; in its place, where it is gone, one full of what is no number.

    own: whether the graph made it.
    """

    def __init__(self, storage: torch.UntypedStorage, own: bool) -> None:
        self.ref, self.size, self.own = StorageWeakRef(storage), storage.nbytes(), own
        self.lost: torch.UntypedStorage | None = None

    def gone(self) -> bool:
        return bool(self.ref.expired())

    def poison(self) -> None:
        if self.gone():
            self.lost = torch.UntypedStorage(self.size).fill_(255)

    def storage(self) -> torch.UntypedStorage:
        alive = None if self.gone() else torch.UntypedStorage._new_with_weak_ptr(self.ref.cdata)
        if alive is not None:
            return alive
        if self.lost is None or not self.own:
            self.poison()
        assert self.lost is not None
        return self.lost


class Place(NamedTuple):
    """Where a tensor lies."""

    memory: Memory
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int

    def tensor(self) -> Tensor:
        return torch.empty(0, dtype=self.dtype).set_(self.memory.storage(), self.offset, self.shape, self.stride)


class Call(NamedTuple):
    func: Any
    args: Any
    kwargs: Any
    made: list[tuple[int, Place]]  # of the results, by number, those in new memory


class Graph:
    """`torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.memories: dict[int, Memory] = {}  # by storage
        self.pool: WeakSet[Graph] = WeakSet()

    def replay(self) -> None:
        for graph in self.pool:
            for memory in graph.memories.values():
                if memory.own:
                    memory.poison()
        for func, args, kwargs, made in self.calls:
            args, kwargs = (
                pytree.tree_map_only(Place, Place.tensor, x, is_leaf=lambda x: isinstance(x, Place))
                for x in (args, kwargs)
            )
            results = pytree.tree_leaves(func(*args, **kwargs))
            for k, place in made:
                place.tensor().copy_(results[k])

    def place(self, x: Tensor, own: bool = False) -> Place:
        storage = x.untyped_storage()
        memory = self.memories.setdefault(storage._cdata, Memory(storage, own))
        return Place(memory, x.dtype, x.shape, x.stride(), x.storage_offset())


class Recorder(TorchDispatchMode):
    """Records the calls of a block into a graph."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.before: dict[Memory, Tensor] = {}  # what was there, of what is written to

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ in SYNCS:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore about that")
        places = pytree.tree_map_only(Tensor, self.graph.place, (args, kwargs))
        for written in self._written(func, args, kwargs):
            memory = self.graph.place(written).memory
            if not memory.own and memory not in self.before:
                self.before[memory] = _bytes(memory.storage()).clone()
        out = func(*args, **kwargs)
        if func.is_view:
            return out
        made = []
        for k, leaf in enumerate(pytree.tree_leaves(out)):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in self.graph.memories:
                made.append((k, self.graph.place(leaf, own=True)))
        self.graph.calls.append(Call(func, *places, made))
        return out

    def _written(self, func: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
        for k, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[k] if k < len(args) else kwargs.get(argument.name)
                yield from (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor))

    def end(self) -> None:
        """A capture computes nothing: what was there is as it was, and what was made is no number yet."""
        for memory, before in self.before.items():
            _bytes(memory.storage()).copy_(before)
        for memory in self.graph.memories.values():
            if memory.own and not memory.gone():
                memory.storage().fill_(255)


def _bytes(storage: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(storage)


class Stream:
    """`torch.cuda.Stream`."""

    def __init__(self, device: Any = None) -> None:
        self.waited: list[Any] = []

    def wait_stream(self, other: Any) -> None:
        self.waited.append(other)


class Watch(TorchDispatchMode):
    """Refuses to read values on the host where the debug mode says so."""

    def __init__(self, of: Emulator) -> None:
        super().__init__()
        self.of = of

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in SYNCS and self.of.debug in (2, "error"):
            raise RuntimeError("called a synchronizing CUDA operation\nmore about that")
        return func(*args, **(kwargs or {}))


class Emulator:
    """What torch says of a CUDA device, kept here.

    Attributes:
        current: the current stream. debug: the debug mode for waits. graphs: all that were captured.
        captures: how each was asked for. events: captures and clearings of workspaces, in order.
        spoiled: whether a capture has failed, and the allocator of torch up to 2.11 is still recording into its pool.
    """

    def __init__(self) -> None:
        self.current = Stream()
        self.debug: int | str = 0
        self.graphs: list[Graph] = []
        self.captures: list[dict[str, Any]] = []
        self.events: list[str] = []
        self.spoiled = False

    def install(self, patch: pytest.MonkeyPatch, *asking: ModuleType) -> Emulator:
        """In place of torch's functions, and in the modules that ask whether a device has graphs."""
        fakes: dict[str, Any] = {
            "Stream": Stream, "stream": self._stream, "current_stream": lambda device=None: self.current,
            "set_stream": self._set, "device": lambda device: nullcontext(), "CUDAGraph": Graph, "graph": self._graph,
            "graph_pool_handle": WeakSet, "get_sync_debug_mode": lambda: self.debug,
            "set_sync_debug_mode": self._set_debug,
        }  # fmt: skip
        for name, fake in fakes.items():
            patch.setattr(torch.cuda, name, fake)
        patch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: self.events.append("clear"), raising=False)
        patch.setattr(torch._C, "_cuda_endAllocateToPool", self._end_allocating, raising=False)
        for module in (graphs, *asking):
            patch.setattr(module, "can_record", lambda device: True)
        return self

    def _end_allocating(self, device: Any, pool: Any) -> None:
        if not self.spoiled:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        assert pool is self.captures[-1]["pool"]
        self.spoiled = False

    def _set(self, stream: Stream) -> None:
        self.current = stream

    def _set_debug(self, mode: int | str) -> None:
        self.debug = mode

    @contextmanager
    def _stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            with Watch(self):
                yield
        finally:
            self.current = before

    @contextmanager
    def _graph(self, graph: Graph, pool: Any = None, stream: Any = None, **given: Any) -> Iterator[None]:
        assert not self.spoiled, "captures_underway.empty() INTERNAL ASSERT FAILED"
        before, self.current = self.current, stream
        self.captures.append({"graph": graph, "pool": pool, "stream": stream, **given})
        graph.pool = WeakSet() if pool is None else pool
        graph.pool.add(graph)
        recorder = Recorder(graph)
        try:
            with recorder:
                yield
        except Exception:
            self.spoiled = True  # and the stream stays what it is
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture") from None
        finally:
            recorder.end()
        self.current = before
        self.graphs.append(graph)
        self.events.append("capture")
