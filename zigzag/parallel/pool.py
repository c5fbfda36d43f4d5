"""Model calls whose rows are shared out over ranks: who makes which, and how all come to have the outputs of all."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zigzag.parallel.ranks import Ranks, State, Word, gather, tell
from zigzag.parallel.trees import Layout, check_told, form_of, rows_of, sums_of, total_of
from zigzag.parallel.waiting import Waiting

__all__ = ["Pool", "Take", "shares"]


Take: TypeAlias = Callable[[Sequence[Any], Mapping[str, Any], slice], tuple[Sequence[Any], Mapping[str, Any]]]


@dataclass
class Call:
    """A model call, of all its rows.

    Attributes:
        take: some rows of its arguments. rows: how many there are. listed: whether the state is a list of them.
        form, told: as `form_of` gives them.
        make: makes all calls that wait. inference: whether it was called in inference mode.
        layout: of its output, once it is known. memory: for that output. waiting: what was handed out of it.
    """

    name: str
    forward: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    take: Take
    rows: int
    device: torch.device
    listed: bool
    form: str
    told: str
    make: Callable[[], None]
    inference: bool
    layout: Layout | None = None
    memory: list[Tensor] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)

    def made(self, at: slice) -> tuple[Layout, list[Tensor]]:
        """The layout of its output, and the tensors of the rows `at`, at least one."""
        args, kwargs = self.take(self.args, self.kwargs, at)
        return Layout.of(self.forward(*args, **kwargs), at.stop - at.start, self.listed)

    def wait(self) -> Any:
        """An output whose numbers are not there yet; of copies, for the arguments may be written to before they are."""
        assert self.layout is not None
        self.args, self.kwargs = pytree.tree_map_only(Tensor, torch.clone, (self.args, self.kwargs))
        self.memory = self.layout.allocate(self.rows, self.device)
        return self.layout.output(
            [[Waiting.on(row, self) for row in x] if self.listed else Waiting.on(x, self) for x in self.memory]
        )

    def output(self) -> Any:
        """The output, once it is there."""
        assert self.layout is not None
        return self.layout.output([list(x) if self.listed else x for x in self.memory])


def shares(rows: Sequence[int], ranks: int) -> list[list[slice]]:
    """For each rank, and each of the calls of so many `rows`, the rows that are its own.

    All rows stand in one line, call by call, and each rank has as many of them, but for the last ones.
    """
    most = -(-sum(rows) // ranks)
    begins = [sum(rows[:k]) for k in range(len(rows))]

    def own(rank: int, begin: int, count: int) -> slice:
        first, last = (min(max(most * r - begin, 0), count) for r in (rank, rank + 1))
        return slice(first, last)

    return [[own(rank, begin, count) for begin, count in zip(begins, rows, strict=True)] for rank in range(ranks)]


class Pool:
    """Calls that wait until an output of one is looked at; their rows are then shared out over the ranks.

    So a doubled batch is split, and of the two calls of a pipeline each is made by ranks of its own, at one time. The
    first call of each form is made at once, for only then is it known what it gives.

    Args:
        ranks: that share the calls; all make the same ones, of the same numbers.

    Raises:
        RuntimeError: at a call, or where an output is looked at: on all ranks, where one of them raised (which raises
            what it raised), where they make other calls, or were given other numbers; where one does not come in time.
            A pool that has raised makes no more calls.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._waiting: list[Call] = []
        self._layouts: dict[str, Layout] = {}
        self._ended: str | None = None
        self._device = torch.device("cpu")  # that of the last call

    def call(
        self,
        name: str,
        forward: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        state: Tensor | list[Tensor],
        take: Take | None = None,
        waits: bool = True,
    ) -> Any:
        """What `forward(*args, **kwargs)` gives, of all rows; its tensors may be waiting ones.

        Args:
            name: for messages. state: that of the arguments whose rows are those of the call.
            take: some rows of the arguments; by default of each tensor that has as many as the state.
            waits: whether it may be made later, with what the model is then.
        """
        self._check_open()
        listed = isinstance(state, list)
        self._device = state[0].device
        _check_mode(name, self._device)
        check_told(name, (args, kwargs))
        form, told = form_of(name, (args, kwargs))
        call = Call(
            name, forward, args, kwargs, take or partial(rows_of, rows=len(state), listed=listed), len(state),
            self._device, listed, form, told, self.make, torch.is_inference_mode_enabled(), self._layouts.get(form),
        )  # fmt: skip
        if call.layout is not None and waits and not torch.is_autocast_enabled(self._device.type):
            self._waiting.append(call)
            return call.wait()
        self.make()
        self._make([call])
        return call.output()

    def make(self) -> None:
        """Makes the calls that wait."""
        calls, self._waiting = self._waiting, []
        if calls:
            with torch.autocast(self._device.type, enabled=False):  # as it was at the calls
                self._make(calls)

    @contextmanager
    def together(self, block: str) -> Iterator[None]:
        """A block that all ranks leave together; where one leaves it by an exception, the others raise.

        block: its name, for messages.
        """
        try:
            yield
            self.make()
        except BaseException as error:
            if self._ended is None:
                with suppress(RuntimeError):  # what was raised here says more
                    self._tell(Word(State.RAISED, text=_said(error)))
            raise
        if self._ended is None:
            self._tell(Word(State.LEFT, text=block))

    def _check_open(self) -> None:
        if self._ended is not None:
            raise RuntimeError(f"the ranks do not go together any more: {self._ended}")

    def _make(self, calls: Sequence[Call]) -> None:
        self._check_open()
        with torch.inference_mode(calls[0].inference), torch.no_grad():
            each = shares([call.rows for call in calls], self.ranks.size)
            word, own, raised = self._own(calls, each[self.ranks.rank])
            try:
                self._tell(word)
            except RuntimeError:
                if raised is not None:
                    raise raised from None
                raise
            try:
                self._exchange(calls, each, own)
            except BaseException as error:
                self._ended = str(error)
                raise

    def _own(self, calls: Sequence[Call], at: Sequence[slice]) -> tuple[Word, list[list[Tensor]], BaseException | None]:
        """What this rank says of the calls, the tensors of its own rows, and what was raised instead."""
        own = list[list[Tensor]]()
        try:
            bits = sums_of([(call.args, call.kwargs) for call in calls])
            for call, rows in zip(calls, at, strict=True):
                some = rows if rows.start < rows.stop else slice(call.rows - 1, call.rows)
                tensors = list[Tensor]()
                if some is rows or call.layout is None:  # of a form that is new, every rank has to see a row
                    layout, tensors = call.made(some)
                    if call.layout is not None and layout[:2] != call.layout[:2]:
                        raise ValueError(f"{call.name} gives another output than in an earlier call of the same form")
                    call.layout = self._layouts.setdefault(call.form, layout)
                own.append(tensors if some is rows else [])
            inputs = total_of(bits)  # now, for it waits for the device
        except BaseException as error:
            return Word(State.RAISED, text=_said(error)), [], error
        said = ", ".join(f"{call.name} on {call.rows} rows" for call in calls)
        form = zlib.crc32("; ".join(call.form + call.told for call in calls).encode())
        return Word(State.CALLS, form, inputs, said), own, None

    def _tell(self, word: Word) -> None:
        """Tells the others where this rank is, and raises unless all are there."""
        try:
            words = tell(self.ranks, word)
            if (reason := _apart(words)) is not None:
                raise RuntimeError(reason)
        except BaseException as error:
            self._ended = str(error)
            raise

    def _exchange(self, calls: Sequence[Call], each: Sequence[Sequence[slice]], own: Sequence[list[Tensor]]) -> None:
        for call in calls:
            assert call.layout is not None
            call.memory = call.memory or call.layout.allocate(call.rows, call.device)
        most = max(_bytes(calls, at) for at in each)
        sent = torch.zeros(most, dtype=torch.uint8, device=calls[0].device)
        mine = [x.contiguous().view(torch.uint8).flatten() for tensors in own for x in tensors]
        if mine:
            torch.cat(mine, out=sent[: sum(map(len, mine))])
        for part, at in zip(gather(self.ranks, sent), each, strict=True):
            _unpack(part, calls, at)
        for call in calls:
            for waiting in call.waiting:
                waiting.filled()


def _bytes(calls: Sequence[Call], at: Sequence[slice]) -> int:
    return sum((s.stop - s.start) * sum(call.layout.bytes) for call, s in zip(calls, at, strict=True) if call.layout)


def _unpack(part: Tensor, calls: Sequence[Call], at: Sequence[slice]) -> None:
    """Writes what a rank has sent to where it belongs."""
    begin = 0
    for call, rows in zip(calls, at, strict=True):
        assert call.layout is not None
        for memory, size in zip(call.memory, call.layout.bytes, strict=True):
            end = begin + size * (rows.stop - rows.start)
            if end > begin:
                # A copy of its own, for another dtype may not begin anywhere.
                memory[rows] = part[begin:end].clone().view(memory.dtype).view(-1, *memory.shape[1:])
            begin = end


def _apart(words: Sequence[Word]) -> str | None:
    """Why the ranks do not go on together; None where they do."""
    raised = [(rank, word) for rank, word in enumerate(words) if word.state is State.RAISED]
    if raised:
        return "; ".join(f"rank {rank} of {len(words)} raised {word.text}" for rank, word in raised)
    states = {word.state for word in words}
    if states == {State.LEFT}:
        return None
    if State.LEFT in states or len({word.form for word in words}) > 1:
        doing = {State.CALLS: "calls", State.LEFT: "has left"}
        said = "; ".join(f"rank {rank} {doing[word.state]} {word.text}" for rank, word in enumerate(words))
        return f"the ranks do not make the same calls, as one program would: {said}"
    if len({word.inputs for word in words}) > 1:
        others = [rank for rank, word in enumerate(words) if word.inputs != words[0].inputs]
        return (
            f"ranks {', '.join(map(str, others))} call {words[0].text} with other numbers than rank 0: all need the "
            "same noise (a generator of one seed) and conditions, on devices of one kind"
        )
    return None


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _check_mode(name: str, device: torch.device) -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"{name} would record gradients, and rows split over ranks have none: each rank would have those of its "
            "own; use grad=False, torch.no_grad(), or the predictor as it is"
        )
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"{name} is split over ranks, which tell each other on the host how they are before each exchange, and a "
            "graph replays nothing of that; use zigzag.sample, or capture the predictor as it is"
        )
