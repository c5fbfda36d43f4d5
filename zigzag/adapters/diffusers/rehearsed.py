"""The solver that a scheduler is, made of the rows of its rehearsal."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from zigzag.adapters.diffusers.groups import Group, combined
from zigzag.adapters.diffusers.knots import Chain
from zigzag.adapters.diffusers.rehearsal import Rehearsal, Symbol
from zigzag.adapters.diffusers.stepping import NotLinear, name_of
from zigzag.solvers import AffineStep, Inner, Solver
from zigzag.solvers.affine import combine
from zigzag.solvers.grids import Prediction, model_times

__all__ = ["Noise", "Rehearsed"]


class Noise(NamedTuple):
    """One draw of a step: the `j`-th of call `k`, and its coefficient."""

    k: int
    j: int
    coefficient: float


class Rehearsed(Solver):
    r"""The steps of a scheduler, as a rehearsal has read them off it.

    .. math:: x_j = a\,x_i + b\,e + \sum_k \mathrm{memory}_k\,m_k + \mathrm{noise}\,z, \quad m_i = p_i\,x_i + q_i\,e

    A step that remembers the knots from `n` on is that of a run begun at `n`: what the scheduler itself does when its
    loop begins there. Every knot is remembered along one vector `(p, q)`, whoever reads it. Two calls that are one step
    are one of two evaluations. It steps between neighbouring knots only.

    Args:
        rehearsal: of a scheduler on its grid.
        chain: the noise levels of its calls; None where they could not be read, and the levels are not numbers then.
        groups: the calls of each step.

    Raises:
        NotLinear: for a step that two evaluations do not make.
        ValueError: for knots that do not run from noise to data.
    """

    prediction: Any

    def __init__(self, rehearsal: Rehearsal, chain: Chain | None, groups: list[Group]) -> None:
        self.rehearsal, self.groups = rehearsal, groups
        said = "unknown" if chain is None else chain.prediction
        self._firsts = {group.first: i for i, group in enumerate(groups)}
        seconds = [group.last for group in groups if group.last > group.first]
        times = rehearsal.times
        count = rehearsal.calls + 1
        alphas, sigmas = (chain.alphas, chain.sigmas) if chain else ((math.nan,) * count, (math.nan,) * count)
        ends = (*self._firsts, count - 1)
        knots = tuple(torch.tensor([level[k] for k in ends], dtype=torch.float64) for level in (alphas, sigmas))
        ramp = torch.linspace(0, 1, len(knots[0]), dtype=torch.float64)
        # Stand-ins for what is not known, or has no name in the core: for the checks of the base class alone.
        levels = (ramp, 1 - ramp) if chain is None else knots
        self.prediction = said if said in get_args(Prediction) else "epsilon"
        super().__init__(levels[0], levels[1], model_times(times[[*self._firsts]]), model_times(times[seconds]))
        self.alphas, self.sigmas, self.prediction = *knots, said
        self._inner_told = {k: len(self) + n for n, k in enumerate(seconds)}
        self._forms: list[tuple[float, float]] = [(0.0, 1.0)] * len(self)
        self._check_groups()
        self.memory = self._read_memory()

    def __repr__(self) -> str:
        return f"Rehearsed({name_of(self.rehearsal.scheduler)}, T={len(self)}, prediction={self.prediction!r})"

    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> AffineStep:
        """The step as a run begun at the noisiest of `remembered` makes it."""
        if j != i + 1:
            raise ValueError(
                f"{self!r} has no step from knot {i} to {j}: a scheduler steps from one time to the next, and no "
                "further; use moves between neighbours"
            )
        begun = remembered[-1] if remembered else i
        if len(remembered) == self.memory and i > self.memory:
            begun = 0  # all that is ever read is there, and the run from the start reads the same
        terms, group = self._terms(i, begun), self.groups[i]
        b = sum(terms.get(("e", k), 0.0) for k in range(group.first, group.last + 1))
        memory = [self._along(terms, n) for n in remembered]
        while memory and not memory[-1]:
            memory.pop()
        noise = [n.coefficient for n in self.noises(i, begun) if n.coefficient]
        total = noise[0] if len(noise) == 1 else math.hypot(*noise)
        return AffineStep(terms["x", group.first], b, tuple(memory), total)

    def remember(self, i: int, x: Tensor, e: Tensor) -> Tensor:
        """`p_i·x + q_i·e`, with the prediction of the step's first evaluation."""
        p, q = self._forms[i]
        return e if (p, q) == (0.0, 1.0) else combine(p, x, q, e)

    def inner(self, i: int, j: int) -> Inner | None:
        """The second call of a step that has two."""
        first, last = self.groups[i]
        if first == last or j != i + 1:
            return None
        row, terms = self.rehearsal.row(first, first), self._terms(i, i)
        b_1, b_2 = (terms.get(("e", k), 0.0) for k in (first, last))
        return Inner(AffineStep(row.a, row.b), self._inner_told[last], b_2 / (b_1 + b_2))

    def noise_step(self, j: int, i: int) -> AffineStep:
        """As of any solver, where the levels of the knots are known.

        Raises:
            ValueError: where they are not, and there is no saying how much noise leads up.
        """
        if not self.leveled:
            raise ValueError(
                f"the noise levels of {name_of(self.rehearsal.scheduler)} cannot be read off it (it has neither sigmas "
                "nor alphas_cumprod that its steps lead along), so that Renoise has no amount of noise; use a method "
                "without it (ZSampling, ImplicitZ, Z2Sampling)"
            )
        return super().noise_step(j, i)

    @property
    def leveled(self) -> bool:
        """Whether the noise levels of the knots are known."""
        return not bool(self.alphas.isnan().any())

    def noises(self, i: int, begun: int) -> list[Noise]:
        """The draws of the step from knot `i` in a run begun at knot `begun`, in their order."""
        terms, group = self._terms(i, begun), self.groups[i]
        rows = [self.rehearsal.row(k, self.groups[begun].first) for k in range(group.first, group.last + 1)]
        return [Noise(r.k, j, terms.get(("z", r.k, j), 0.0)) for r in rows for j in range(len(r.draws))]

    def called(self, told: int) -> int:
        """The scheduler's call at which the model is told `all_times[told]`."""
        calls = [*self._firsts, *self._inner_told]
        return calls[told]

    def _terms(self, i: int, begun: int) -> dict[Symbol, float]:
        return combined(self.rehearsal, self.groups[i], self.groups[begun].first)

    def _along(self, terms: dict[Symbol, float], n: int) -> float:
        """The coefficient on what is remembered of knot `n`."""
        first, (p, q) = self.groups[n].first, self._forms[n]
        return terms.get(("x", first), 0.0) * p + terms.get(("e", first), 0.0) * q

    def _check_groups(self) -> None:
        """Raises NotLinear for a step that is no `Inner`."""
        for i, (first, last) in enumerate(self.groups):
            calls = last - first + 1
            if calls == 1:
                continue
            terms = self._terms(i, i)
            start, b = self.rehearsal.row(first, first), sum(terms.get(("e", k), 0.0) for k in (first, last))
            if calls > 2:
                raise NotLinear(
                    f"its calls {first} to {last} are one step of {calls} model calls, and steps of two are led"
                )
            if any(start.noise) or abs(b) < 1e-12:
                raise NotLinear(
                    f"its calls {first} and {last} are one step of two model calls, "
                    + ("with noise between them" if any(start.noise) else "whose predictions cancel")
                )
            if self.rehearsal.row(first, 0).memory:
                raise NotLinear(f"its calls {first} and {last} are one step, whose first half reads earlier ones")

    def _read_memory(self) -> int:
        """Fills in along which vector each knot is remembered; returns how many knots back any step reads."""
        reads = [self._reads(i) for i in range(len(self))]
        for n in range(len(self)):
            pairs = [read[n] for read in reads if n in read]
            if pairs:
                u, v = max(pairs, key=lambda pair: math.hypot(*pair))
                p, q = self._forms[n] = u / math.hypot(u, v), v / math.hypot(u, v)
                if any(abs(p * v - q * u) > 1e-9 * math.hypot(u, v) for u, v in pairs):
                    raise NotLinear(
                        f"its steps read of call {self.groups[n].first} several combinations of state and e"
                    )
        return max((i - n for i, read in enumerate(reads) for n in read), default=0)

    def _reads(self, i: int) -> dict[int, tuple[float, float]]:
        """`n -> (u, v)`: what the step from knot `i`, of the run from the start, reads of earlier knots."""
        first, read = self.groups[i].first, dict[int, tuple[float, float]]()
        terms = {symbol: c for symbol, c in self._terms(i, 0).items() if c and symbol[1] < first}
        for name, m, *_ in terms:
            if name == "z" or m not in self._firsts:
                raise NotLinear(f"its call {first} reads of call {m} what is no state nor prediction of a knot")
            read[self._firsts[m]] = terms.get(("x", m), 0.0), terms.get(("e", m), 0.0)
        return read
