"""The ranks of a group: what they tell each other before each exchange, and the exchange."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["Ranks", "State", "Word", "as_ranks", "gather", "tell"]

HEAD: Final = struct.Struct("<BIq")
LENGTH: Final = 512  # of a word, in bytes: all are sent alike
TIMEOUT: Final = 600.0


class State(Enum):
    """Where a rank is when it speaks."""

    CALLS = 0
    RAISED = 1
    LEFT = 2


class Word(NamedTuple):
    """What a rank tells the others before each exchange.

    Attributes:
        state: where it is. form: a checksum of which calls it makes. inputs: another of the bits that they are given.
        text: the calls, or what it raised, in words.
    """

    state: State
    form: int = 0
    inputs: int = 0
    text: str = ""

    def encoded(self) -> Tensor:
        """As `LENGTH` bytes."""
        head = HEAD.pack(self.state.value, self.form, self.inputs)
        text = self.text.encode()[: LENGTH - len(head)]
        return torch.frombuffer(bytearray((head + text).ljust(LENGTH, b"\0")), dtype=torch.uint8)

    @classmethod
    def decoded(cls, sent: Tensor) -> Word:
        """Of the bytes of `encoded`."""
        data = bytes(sent.tolist())
        state, form, inputs = HEAD.unpack_from(data)
        return cls(State(state), form, inputs, data[HEAD.size :].rstrip(b"\0").decode(errors="ignore"))


@dataclass(frozen=True)
class Ranks:
    """The ranks that share the rows of a model's calls, each a process that runs the same program on its own device.

        rows_over(eps_fn, Ranks(mesh["cfg"], timeout=60))

    Args:
        group: of `torch.distributed`, or one dimension of a `DeviceMesh`; this process is one of its ranks.
        timeout: seconds that a rank waits for the others at an exchange, before it raises. It has to be longer than
            the longest that one of them may be behind, as at the first call of a model that is compiled.

    Raises:
        TypeError: for what is no group, and where `torch.distributed` was not initialised.
        ValueError: for a mesh of several dimensions, a group that this process is no part of, or a time below 0.
    """

    group: ProcessGroup | DeviceMesh
    timeout: float = TIMEOUT

    def __post_init__(self) -> None:
        import torch.distributed as dist
        from torch.distributed.device_mesh import DeviceMesh

        if not self.timeout > 0:
            raise ValueError(f"timeout must be a number of seconds above 0, got {self.timeout!r}")
        group: Any = self.group
        if isinstance(group, DeviceMesh):
            if group.ndim != 1:
                raise ValueError(f"group must be one dimension of a mesh, as mesh['cfg'], got one of {group.ndim}")
            group = group.get_group()
        if group is dist.GroupMember.NON_GROUP_MEMBER:
            raise ValueError("group: this process is no rank of it; only its ranks may call")
        if not isinstance(group, dist.ProcessGroup):
            hint = "" if dist.is_initialized() else "; torch.distributed.init_process_group(…) comes first"
            raise TypeError(f"group must be a group of torch.distributed or a DeviceMesh, got {self.group!r}{hint}")
        object.__setattr__(self, "_group", group)
        object.__setattr__(self, "_way", _way(dist.get_backend(group)))

    @property
    def rank(self) -> int:
        """Which of them this process is."""
        return int(self._process_group.rank())

    @property
    def size(self) -> int:
        """How many they are."""
        return int(self._process_group.size())

    @property
    def _process_group(self) -> ProcessGroup:
        group: ProcessGroup = vars(self)["_group"]
        return group


def gather(ranks: Ranks, own: Tensor) -> list[Tensor]:
    """What each of the ranks has, in their order, of one shape and dtype.

    Raises:
        RuntimeError: where the others do not come to it within the time.
    """
    import torch.distributed as dist

    sent = own.to(vars(ranks)["_way"] or own.device)
    parts = [torch.empty_like(sent) for _ in range(ranks.size)]
    try:
        work = dist.all_gather(parts, sent.contiguous(), group=ranks._process_group, async_op=True)
        assert work is not None
        work.wait(timedelta(seconds=ranks.timeout))
    except RuntimeError as error:
        raise RuntimeError(
            f"rank {ranks.rank} of {ranks.size} waited for the others, for {ranks.timeout:g} s at most, and they did "
            "not come: one of them has ended, is still at work (timeout=), or has raised outside of a model call; see "
            f"what it says: {error}"
        ) from error
    return [part.to(own.device) for part in parts]


def tell(ranks: Ranks, word: Word) -> list[Word]:
    """The words of all ranks; raises as `gather`."""
    return [Word.decoded(sent) for sent in gather(ranks, word.encoded())]


def _way(backend: str) -> torch.device | None:
    """By which device a group exchanges; None where it has a way for each."""
    if backend == "gloo":
        return torch.device("cpu")
    if ":" in backend or backend == "undefined":
        return None
    accelerator: torch.device | None = torch.accelerator.current_accelerator()
    return accelerator


def as_ranks(group: Any) -> Ranks:
    """`Ranks` as they are, and a group as its ranks; raises as `Ranks`."""
    return group if isinstance(group, Ranks) else Ranks(group)
