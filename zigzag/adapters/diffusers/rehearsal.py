"""The linear coefficients of a scheduler's steps, read off its own `step` by a symbolic rehearsal.

Every input of a run is a unit vector of its own: the states `x_m`, the predictions `e_m` and the noises `z_m` that the
scheduler draws. One call of `step` so answers with all the coefficients of that step at once, and the coordinate that
no input has answers with its constant. No class is named: parameters and attributes are looked for by their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor

from zigzag.adapters.diffusers.noises import Answered, Draw, sample_noise
from zigzag.adapters.diffusers.stepping import Caller, NotLinear, begun_at, emptied, prepare

__all__ = ["TOLERANCE", "Mismatch", "Rehearsal", "Row", "Symbol"]

TOLERANCE: Final = 1e-6
NEGLIGIBLE: Final = 1e-11  # of a row's largest coefficient
IDLE: Final = 1e-9  # of a state
DRAWS: Final = 4  # symbols kept for the noises of one call

Symbol: TypeAlias = tuple[str, int] | tuple[str, int, int]


@dataclass(frozen=True)
class Row:
    """`x_{k+1} = a x_k + b e_k + Σ (u_m x_m + v_m e_m) + Σ n_j z_kj + (noises of earlier calls) + constant`.

    Attributes:
        k: the call. begun: the call that the run began at.
        a, b: the coefficients of this call's state and prediction.
        memory: `m -> (u_m, v_m)`, for the earlier calls that this one reads.
        noise: one coefficient for each draw of this call, in their order; 0 for a draw that is not used.
        old_noise: `(m, j) -> coefficient` of the noises of earlier calls.
        constant: what is there with all inputs 0.
        draws: what was asked for.
        clean: `(p, q)` of the `pred_original_sample = p x_k + q e_k + …` that `step` gives back, where it does.
    """

    k: int
    begun: int
    a: float
    b: float
    memory: Mapping[int, tuple[float, float]]
    noise: tuple[float, ...]
    old_noise: Mapping[tuple[int, int], float]
    constant: float
    draws: tuple[Draw, ...]
    clean: tuple[float, float] | None = None

    @property
    def idle(self) -> bool:
        """Whether the state is left as it is, to rounding."""
        rest = (self.b, self.a - 1, *self.noise, *self.old_noise.values(), *sum(self.memory.values(), ()))
        return all(abs(c) < IDLE for c in rest)

    def terms(self) -> dict[Symbol, float]:
        """Every coefficient by its symbol: `("x", m)`, `("e", m)`, `("z", m, j)`."""
        out: dict[Symbol, float] = {("x", self.k): self.a, ("e", self.k): self.b}
        for m, (u, v) in self.memory.items():
            out["x", m], out["e", m] = u, v
        out.update({("z", self.k, j): n for j, n in enumerate(self.noise)})
        out.update({("z", m, j): n for (m, j), n in self.old_noise.items()})
        return out


@dataclass(frozen=True)
class Mismatch:
    """The first call that is not what its row says, and by how much of its terms."""

    k: int
    error: float


@dataclass
class _Run:
    """The run begun at `s`, as far as it has come."""

    s: int
    call: Caller
    rows: list[Row] = field(default_factory=list)


class Rehearsal:
    """The rows of every call of a scheduler on the grid that it has, for every call that a run may begin at.

    Args:
        scheduler: neither stepped nor changed; its grid is read, and what it remembers of a run is not.
        step_kwargs: go to every `step`.
        corrector: with False a predictor-corrector (UniPC, SA-Solver) only predicts.
        calls: how many a run makes, where that is known.

    Raises:
        NotLinear: by `row`, for a step that cannot be called so, draws what is not normal noise, or divides by zero.
    """

    def __init__(
        self,
        scheduler: Any,
        step_kwargs: Mapping[str, Any] | None = None,
        *,
        corrector: bool = False,
        calls: int | None = None,
    ) -> None:
        self.scheduler, self.step_kwargs, self.corrector = emptied(scheduler), dict(step_kwargs or {}), corrector
        self.times: Tensor = scheduler.timesteps.detach().cpu()
        self._runs: dict[int, _Run] = {}
        self._calls = calls

    @property
    def calls(self) -> int:
        """How many calls a run makes: the times, less the last where a step needs the one after it."""
        if self._calls is None:
            n = len(self.times)
            try:
                self._row(n - 1, 0)
                self._calls = n
            except IndexError:
                self._calls = n - 1
        return self._calls

    def row(self, k: int, begun: int = 0) -> Row:
        """The row of call `k` in the run that begins at call `begun`."""
        if not 0 <= begun <= k < self.calls:
            raise IndexError(f"call {k} of a run begun at {begun}, of {self.calls} calls")
        return self._row(k, begun)

    def rows(self, begun: int = 0) -> list[Row]:
        """The rows of the run that begins at call `begun`."""
        return [self.row(k, begun) for k in range(begun, self.calls)]

    def _row(self, k: int, begun: int) -> Row:
        if begun not in self._runs:
            self._runs[begun] = _Run(begun, Caller(begun_at(self.scheduler, begun), self.step_kwargs))
        run = self._runs[begun]
        while len(run.rows) <= k - begun:
            self._advance(run)
        return run.rows[k - begun]

    def _advance(self, run: _Run) -> None:
        k, size = run.s + len(run.rows), 1 + (2 + DRAWS) * (len(self.times) - run.s)
        drawn: list[Draw] = []

        def unit(part: int) -> Tensor:
            out = torch.zeros(1, 1, 1, size, dtype=torch.float64)
            out[..., 1 + (2 + DRAWS) * (k - run.s) + part] = 1
            return out

        def answer(shape: tuple[int, ...], draw: Draw) -> Tensor:
            if shape != (1, 1, 1, size) or len(drawn) == DRAWS:
                raise NotLinear(f"it draws noise of shape {shape}" if len(drawn) < DRAWS else "it draws too often")
            drawn.append(draw)
            return unit(1 + len(drawn))

        scheduler = run.call.scheduler
        prepare(scheduler, run.s, k, corrector=self.corrector)
        sample_noise(scheduler, lambda: answer((1, 1, 1, size), Draw(own=True)))
        try:
            with Answered(answer):
                after, clean = run.call(unit(0), unit(1), k)
        except IndexError as error:
            if k == len(self.times) - 1:  # it looks for a time after the last
                raise
            raise NotLinear(f"its step fails: {error}") from error
        run.rows.append(_read(run, k, after, clean, tuple(drawn)))

    def mismatch(self, begun: int = 0) -> Mismatch | None:
        """The first call that is not its row to 1e-6 of its terms, on inputs of magnitudes 0.1 to 100; or None.

        They are random, exact in float32, and fresh at every call: a step that clamps is not affine in them.
        """
        draw = torch.Generator().manual_seed(1)
        magnitude = torch.tensor([0.1, 1.0, 10.0, 100.0]).reshape(-1, 1, 1, 1)
        values: dict[Symbol, Tensor] = {}
        call = Caller(begun_at(self.scheduler, begun), self.step_kwargs)
        for k in range(begun, self.calls):
            row, used = self.row(k, begun), iter(range(DRAWS))
            symbols: list[Symbol] = [("x", k), ("e", k), *(("z", k, j) for j in range(DRAWS))]
            values.update({s: (torch.randn(4, 3, 4, 4, generator=draw) * magnitude).double() for s in symbols})
            answer = partial(lambda shape, drawn, used, k: values["z", k, next(used)], used=used, k=k)
            prepare(call.scheduler, begun, k, corrector=self.corrector)
            sample_noise(call.scheduler, partial(answer, (4, 3, 4, 4), Draw(own=True)))
            with Answered(answer):
                theirs, _ = call(values["x", k].clone(), values["e", k].clone(), k)
            terms = torch.stack([c * values[symbol] for symbol, c in row.terms().items()])
            off = (theirs.double() - terms.sum(0) - row.constant).abs()
            error = float((off / (terms.abs().sum(0) + abs(row.constant)).clamp(min=1e-30)).max())
            if not error <= TOLERANCE:
                return Mismatch(k, error)
        return None


def _read(run: _Run, k: int, after: Tensor, clean: Any, drawn: tuple[Draw, ...]) -> Row:
    flat = after.reshape(-1).double()
    if flat.numel() != 1 + (2 + DRAWS) * (run.call.scheduler.timesteps.shape[0] - run.s):
        raise NotLinear(f"its step {k} gives another shape, {tuple(after.shape)}, than its state's")
    if not flat.isfinite().all():
        raise NotLinear(f"its step {k} is not finite (a division by zero)")
    least = NEGLIGIBLE * float(flat.abs().max())
    table = flat[1:].reshape(-1, 2 + DRAWS)[: k - run.s + 1]
    rows = torch.where(table.abs() > least, table, 0.0).tolist()
    memory, old_noise = {}, {}
    for m, (u, v, *noises) in enumerate(rows[:-1], start=run.s):
        if u or v:
            memory[m] = (u, v)
        old_noise.update({(m, j): n for j, n in enumerate(noises) if n})
    a, b, *noise = rows[-1]
    shown = None
    if isinstance(clean, Tensor) and clean.numel() == flat.numel():
        p = clean.reshape(-1)[1:].reshape(-1, 2 + DRAWS)[k - run.s].tolist()
        shown = (p[0], p[1])
    constant = float(flat[0]) if abs(float(flat[0])) > least else 0.0
    return Row(k, run.s, a, b, memory, tuple(noise[: len(drawn)]), old_noise, constant, drawn, shown)
