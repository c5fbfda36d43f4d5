"""Inversion schemes as `attach` takes them: a pipeline's own loop leads data up to noise, and back down."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, TypeAlias, get_args

import torch
from torch import Tensor

from zigzag.adapters.diffusers.plans import Plan
from zigzag.adapters.diffusers.stepping import config_of, name_of
from zigzag.adapters.hosts import Own
from zigzag.checks import check_generator
from zigzag.guided import Answer, Asking, Guided
from zigzag.inversion import Inverted, Scheme, ending_above, telling_last
from zigzag.inversion.inverting import inverting, reconstructing
from zigzag.inversion.scheme import Run
from zigzag.inversion.settling import check_accuracy, check_solver, held_noises, state_dtype_of
from zigzag.roles import Role, Roles
from zigzag.sampling import Generators
from zigzag.solvers import Solver
from zigzag.solvers.grids import Prediction

__all__ = ["Inversion", "Reconstruction", "Way", "tour_of"]

End: TypeAlias = "tuple[Tensor, Inverted | None]"


class Way(ABC):
    """A way of an inversion scheme along a whole grid, that a pipeline can be led.

    Attributes:
        upward: whether it begins at data, and not at noise.
    """

    upward: ClassVar[bool]

    @property
    @abstractmethod
    def state(self) -> Tensor | None:
        """The state that it begins with; None is the pipeline's latents."""

    @abstractmethod
    def grid(self, plan: Plan) -> Solver:
        """The solver that it runs on, of a scheduler's steps.

        Raises:
            ValueError: where it runs on none that they make.
        """

    @abstractmethod
    def begin(self, solver: Solver, role: Role, x: Tensor, dtype: torch.dtype, generator: Generators) -> Asking[End]:
        """The way itself: it asks, and returns the state that it ends at, and what an inversion leaves.

        Args:
            solver: of `grid`. role: who predicts. x: the state that it begins with.
            dtype: in which the model is asked. generator: for noise.
        """

    @abstractmethod
    def rehearse(self, solver: Solver, role: Role) -> Asking[End]:
        """The same on a single number, for what it asks."""


@dataclass(frozen=True)
class Inversion(Way):
    """A method for `attach`: the pipeline's loop leads its `latents` up to noise, by an inversion scheme.

        with attach(pipe, Inversion(EDICT())) as run:
            pipe(prompt, latents=encode_image(pipe, image), guidance_scale=3.0, output_type="latent")
        print(run.inverted.report)

    Args:
        scheme: of `zigzag.inversion`. One that asks the model at the last knot (`Rex`) is told time 0 there; where the
            scheduler's own times go so far, or below, the grid ends a step earlier.
        accuracy, dtype, round_trip: as in `zigzag.inversion.invert`.

    Raises:
        TypeError: for what is no scheme.
    """

    upward: ClassVar[bool] = True
    scheme: Scheme
    accuracy: float = 1e-2
    dtype: torch.dtype | None = None
    round_trip: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.scheme, Scheme):
            raise TypeError(f"scheme must be one of zigzag.inversion, such as EDICT(), got {self.scheme!r}")

    @property
    def state(self) -> Tensor | None:
        """None: the latents are the data."""
        return None

    def grid(self, plan: Plan) -> Solver:
        """The scheduler's own, or with a time for its last knot."""
        return _grids(plan, self.scheme)[0]

    def begin(self, solver: Solver, role: Role, x: Tensor, dtype: torch.dtype, generator: Generators) -> Asking[End]:
        """From data to noise."""
        check_generator(generator, len(x))
        carried = state_dtype_of(x.to(dtype), self.dtype)
        check_accuracy(self.scheme, solver, carried, self.accuracy)
        x = x.to(carried)
        noises = held_noises(self.scheme, solver, x, generator)
        return self._up(_run(solver, role, noises), x, dtype, generator)

    def rehearse(self, solver: Solver, role: Role) -> Asking[End]:
        """On the number 0."""
        x, generator = torch.zeros(1, 1), torch.Generator().manual_seed(0)
        return self._up(_run(solver, role, held_noises(self.scheme, solver, x, generator)), x, x.dtype, generator)

    def _up(self, run: Run, x: Tensor, dtype: torch.dtype, generator: Generators) -> Asking[End]:
        inverted = yield from inverting(self.scheme, run, x, dtype, generator, self.round_trip)
        return inverted.noise, inverted


@dataclass(frozen=True)
class Reconstruction(Way):
    """A method for `attach`: the pipeline's loop leads what an inversion has found back to data, or to an edit of it.

        with attach(pipe, Reconstruction(run.inverted)):
            edit = pipe(another_prompt, guidance_scale=3.0).images[0]

    Args:
        inverted: of `run.inverted`, of `zigzag.inversion.invert` on the pipeline's grid, or a file that was loaded.

    Raises:
        TypeError: for what is no inversion.
    """

    upward: ClassVar[bool] = False
    inverted: Inverted

    def __post_init__(self) -> None:
        if not isinstance(self.inverted, Inverted):
            raise TypeError(
                f"inverted must be an Inverted, such as run.inverted once the pipeline has run, got {self.inverted!r}"
            )

    @property
    def state(self) -> Tensor | None:
        """The noise that was found."""
        return self.inverted.noise

    def grid(self, plan: Plan) -> Solver:
        """The one that the inversion was made on."""
        errors = list[ValueError]()
        for solver in _grids(plan, self.inverted.scheme):
            try:
                self.inverted.grid.check(solver)
                return solver
            except ValueError as error:
                errors.append(error)
        raise errors[0]

    def begin(self, solver: Solver, role: Role, x: Tensor, dtype: torch.dtype, generator: Generators) -> Asking[End]:
        """From noise to data."""
        inverted = self.inverted.to(x.device)
        return self._down(_run(solver, role, inverted.noises), inverted)

    def rehearse(self, solver: Solver, role: Role) -> Asking[End]:
        """On the number 0."""
        one, kept = torch.zeros(1, 1), self.inverted
        residuals, noises = (None if h is None else one.expand(len(h), 1, 1) for h in (kept.residuals, kept.noises))
        states = (one,) * len(kept.states)
        inverted = replace(kept, states=states, dtype=one.dtype, residuals=residuals, noises=noises, report=None)
        return self._down(_run(solver, role, noises), inverted)

    def _down(self, run: Run, inverted: Inverted) -> Asking[End]:
        return (yield from reconstructing(inverted, run)), None


def tour_of(way: Way, solver: Solver) -> list[int]:
    """Which of the solver's `all_times` the model is told, call by call: as many as there may be.

    An iteration that ends when it has converged never does so on predictions that are not numbers.
    """
    own, told = Own("the pipeline"), list[int]()
    own.prediction = torch.full((1, 1), torch.nan)
    asking = way.rehearse(solver, Role("strong", own))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            query = next(asking)
            while True:
                told.append(query.told)
                query = asking.send(Answer({}, 1))
        except StopIteration:
            return told


def _run(solver: Solver, role: Role, noises: Tensor | None) -> Run:
    return Run(solver, Guided(Roles(role, role, role), solver), noises)


def _grids(plan: Plan, scheme: Scheme) -> list[Solver]:
    """The solvers that the scheme runs on, of a scheduler's steps: as they are, or with a time for the last knot.

    Models of diffusers are told 0 at data, where their times count down to it; those that count `log σ` have no time
    for data.
    """
    own, scheduler = plan.solver, plan.rehearsed.rehearsal.scheduler
    name = name_of(scheduler)
    if own.alphas.isnan().any():
        raise ValueError(
            f"scheduler: the noise levels of {name} cannot be read off it, and an inversion needs them; use "
            "DDIMScheduler, EulerDiscreteScheduler or FlowMatchEulerDiscreteScheduler"
        )
    counts_down = len(own) == len(plan.rehearsed.rehearsal.times) and float(own.times.min()) > 0
    ended = [partial(telling_last, own, 0)] if counts_down else []
    makes: list[Callable[[], Solver]] = [lambda: own, *ended, partial(ending_above, own)]
    found, solver, said = list[Solver](), own, ""
    for make in makes:
        try:
            solver = make()
            check_solver(solver, scheme)
            found.append(solver)
        except ValueError as error:
            said = str(error).replace(repr(solver), repr(own))
    if not found and own.prediction not in get_args(Prediction):
        said = (
            f"it is written for predictions of {', '.join(get_args(Prediction))}, and here they are {own.prediction!r}"
        )
    if not found:
        order_1 = f"; {name}.from_config(scheduler.config, solver_order=1) is of order 1"
        multistep = own.memory and "solver_order" in config_of(scheduler)
        raise ValueError(f"scheduler: {name} does not suit the scheme: {said}{order_1 if multistep else ''}")
    return found
