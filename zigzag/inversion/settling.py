"""What `invert` and `reconstruct` settle before the first model call."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zigzag.checks import as_guidance, check_batch, check_made_for, check_state
from zigzag.conditions import share_calls
from zigzag.guided import Guided, check_shown
from zigzag.inversion.endings import Ended
from zigzag.inversion.recorded import Recorded
from zigzag.inversion.scheme import Run, Scheme
from zigzag.model import Model, Models, Predictor
from zigzag.moves import Denoise
from zigzag.roles import Role, Roles, branches_asked
from zigzag.sampling import Generators, noise_like
from zigzag.solvers import Solver
from zigzag.solvers.affine import state_dtype
from zigzag.solvers.predictions import made_for_of

__all__ = ["Settled", "check_accuracy", "check_solver", "draw_noises", "held_noises", "settle", "state_dtype_of"]

WIDE = (torch.float32, torch.float64)


class Settled(NamedTuple):
    """A model and the roles that ask it, all of one guidance, checked against a grid."""

    model: Models
    roles: Roles

    def run(self, solver: Solver, noises: Tensor | None) -> Run:
        """A way up or down."""
        return Run(solver, Guided(self.roles, solver), noises)


def settle(
    eps_fn: Predictor, x: Tensor, solver: Solver, cond: Any, uncond: Any, guidance: object, batched: bool | str,
    checkpoint: bool = False,
) -> Settled:  # fmt: skip
    """The model with its conditions, and the guidance.

    Args:
        x: like the states, in the dtype that the model is shown.

    Raises:
        TypeError, ValueError: for arguments that do not fit, each naming what came and what is wanted.
    """
    if not callable(eps_fn):
        raise TypeError(f"eps_fn must be callable, got {eps_fn!r}")
    check_made_for("eps_fn", eps_fn, solver)
    _check_last_time(eps_fn, solver)
    if batched not in (True, False, "auto"):
        raise ValueError(f"batched must be True, False or 'auto', got {batched!r}")
    rule = as_guidance("guidance", guidance)
    if hasattr(rule, "reset"):
        raise ValueError(f"guidance={rule!r} has a state, and would guide the way back otherwise; take CFG")
    role, each = Role("guidance", rule), {"cond": cond, "uncond": uncond}
    path = [Denoise(i, i + 1) for i in range(len(solver))]
    roles = Roles(role, role, role)
    check_batch(roles, len(x))
    check_shown(roles, solver)
    asked = branches_asked(path, solver, roles, each)
    model = Model("eps_fn", eps_fn, share_calls(each, asked, len(x), batched), x, checkpoint)
    return Settled(Models([model], solver, x), roles)


def check_solver(solver: object, scheme: object) -> None:
    """Raises TypeError for what is neither, and ValueError where the scheme cannot run on the solver."""
    if not isinstance(solver, Solver):
        raise TypeError(f"solver must be a Solver such as DDIM, got {solver!r}")
    if not isinstance(scheme, Scheme):
        raise TypeError(f"scheme must be one of zigzag.inversion, such as EDICT(), got {scheme!r}")
    scheme.check(solver)


def state_dtype_of(x: object, dtype: torch.dtype | None) -> torch.dtype:
    """The dtype that the states are carried in.

    Raises:
        TypeError, ValueError: for a state that is none, and for a dtype narrower than its own or than float32.
    """
    check_state(x)
    assert isinstance(x, Tensor)
    least = state_dtype(x.dtype)
    if dtype is None:
        return least
    if dtype not in WIDE or torch.promote_types(dtype, least) != dtype:
        raise ValueError(f"dtype must be {' or '.join(str(w) for w in WIDE)}, no narrower than {least}, got {dtype}")
    return dtype


def check_accuracy(scheme: Scheme, solver: Solver, dtype: torch.dtype, accuracy: float) -> None:
    """Raises ValueError where rounding, multiplied as the scheme multiplies it, exceeds what is asked for."""
    if not 0 < accuracy < math.inf:
        raise ValueError(f"accuracy must be positive and finite, got {accuracy!r}")
    growth = scheme.growth(solver)
    # Without a growth it is the scheme's own tolerance that the rounding of one evaluation must stay below.
    asked, factor = (scheme.finest(), 4.0) if growth is None else (accuracy, growth)
    lost = {wide: factor * torch.finfo(wide).eps for wide in WIDE}
    if lost[dtype] <= asked:
        return
    if growth is None:
        what, advice = f"tol={asked:g} is below what rounding leaves in {dtype}, {lost[dtype]:.2g}", "ask for less"
    else:
        what = (
            f"{scheme!r} multiplies rounding by {growth:.3g} on {solver!r}, to {lost[dtype]:.2g} in {dtype}, but "
            f"accuracy={asked:g} is asked for"
        )
        advice = "take fewer or more even steps, or another scheme"
    would = next((wide for wide in WIDE if lost[wide] <= asked), None)
    raise ValueError(f"{what}; {f'dtype={would} would do' if would else f'no dtype would do: {advice}'}")


def draw_noises(solver: Solver, x: Tensor, generator: Generators) -> Tensor | None:
    """The noise of every interval, `(T, B, …)` from the noisiest; None where no step is noisy."""
    if not any(solver.step(i, None, range(i)).noisy for i in range(len(solver))):
        return None
    return torch.stack([noise_like(x, generator) for _ in range(len(solver))])


def held_noises(scheme: Scheme, solver: Solver, x: Tensor, generator: Generators) -> Tensor | None:
    """The noise that the scheme holds on the solver: none, where it records what takes its place."""
    return None if isinstance(scheme, Recorded) else draw_noises(solver, x, generator)


def _check_last_time(eps_fn: object, solver: Solver) -> None:
    if not isinstance(solver, Ended):
        return
    made = made_for_of(eps_fn)
    if made is None or made.grid is None or made.grid is solver:
        return
    alphas, sigmas, times = made.grid.knots
    known = {t: (alpha, sigma) for alpha, sigma, t in zip(alphas, sigmas, times, strict=False)}
    wanted = solver.knots[0][-1], solver.knots[1][-1]
    if solver.last_time not in known or not all(map(math.isclose, known[solver.last_time], wanted)):
        raise ValueError(
            f"eps_fn was made for {made.grid!r}, and finds no level sigma {wanted[1]:g} by the time "
            f"{solver.last_time:g} of the last knot of {solver!r}; take ending_above(solver), or make it for a grid "
            "that has that time"
        )
