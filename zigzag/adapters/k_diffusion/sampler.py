"""A sampler in k-diffusion's signature, driven by the one loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from zigzag.adapters.hosts import Own, Whole, is_plain, whole_path
from zigzag.adapters.k_diffusion.asked import Host, Need
from zigzag.adapters.k_diffusion.comfyui import ComfyUI
from zigzag.adapters.k_diffusion.denoisers import Denoiser
from zigzag.adapters.k_diffusion.grids import Change, odd, solver_on
from zigzag.checks import as_guidance, check_generator
from zigzag.guidance import Guidance
from zigzag.guided import Answer, Query, check_shown
from zigzag.held import Draw, HeldStep
from zigzag.methods import Method, Standard, Steered, is_steered
from zigzag.moves import Denoise, Invert, Move, gap_is_read
from zigzag.paths import plan_path
from zigzag.roles import Role, Roles, roles_asked
from zigzag.sampling import Generators, Traversal, noise_like, noise_of, traverse
from zigzag.solvers import Inner, Solver
from zigzag.solvers.affine import state_dtype
from zigzag.steered import Steering
from zigzag.support.progress import progress_bar
from zigzag.trace import Trace
from zigzag.visits import Visit

__all__ = ["Sampler", "sampler"]

# The scale of a model's input by σ: `c_in`.
Scale: TypeAlias = Callable[[float], float]


class Sampler(Protocol):
    """What `sampler` gives."""

    def __call__(
        self,
        model: Callable[..., Tensor],
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        disable: bool | None = None,
    ) -> Tensor:
        """Samples from `x` at `sigmas[0]` down to `sigmas[-1]`."""
        ...


def sampler(
    method: Method | Steered | Sequence[Move],
    *,
    weak: float | Guidance = 0.0,
    eta: float = 0.0,
    solver: Change | None = None,
    rescale: bool | Scale = True,
    generator: Generators = None,
    trace: Trace | None = None,
    calc_cond_batch: Callable[..., list[Tensor]] | None = None,
    euler: Sampler | None = None,
) -> Sampler:
    """A sampler in k-diffusion's signature, `(model, x, sigmas, extra_args, callback, disable)`, along a zigzag.

    A model gives the denoised state `D(x, σ)`. The prediction is `e = (x − D)/σ` whatever it predicts by itself; steps
    have `a = 1` and `b = σ_j − σ_i` (`DDIM` with `α = 1`; `FlowEuler` where the host's states are `(1 − σ)·x₀ + σ·ε`).
    The strong prediction is what the model returns, with all guidance that its user has set up; the weak one is made of
    the two branches that it was made of, at no further call.

    Args:
        method: one of `zigzag.methods`, or moves from knot 0 to the last; or a method that is steered by its walk
            (`zigzag.Steered`). `Standard()`, of first order and without noise, is the host's own Euler sampler, bit for
            bit, on any sigmas.
        weak: the guidance of Invert, as in `zigzag.sample`: a number or a `Guidance`.
        eta: ancestral noise of Euler steps, in [0, 1]: the same share as of k-diffusion's ancestral Euler sampler.
        solver: makes another solver of the grid that it is given: `DPMSolver.on`, say, which is 2M there.
        rescale: an inversion shows the model a state at `σ_j` told `σ_i`, and a model divides what it is shown by the
            size that a state of the *told* level has. With True the state is multiplied by `s(σ_j)/s(σ_i)` before, with
            the model's own input scale `s` (`1/√(σ² + 1)` where it preserves variance; constant for flows): then it
            sees what the methods as published would show it. A function is `s`, where the model does not say. False:
            the state as it is.
        generator: for the noise of ancestral steps and of Resampling. By default that which the host's own samplers
            draw: of the seed in `extra_args`, else torch's global one.
        trace: a `Trace` to fill at each run, from empty.
        calc_cond_batch: ComfyUI's function of that name; with it a branch by itself costs one row, else both.
        euler: the host's own `sample_euler`, for `Standard`; by default k-diffusion's, where it is installed.

    Returns:
        The sampler. Its `callback` is called after every Denoise, with the step that it made as `i` (a zigzag makes a
        step several times), the state before it as `x`, and the strong prediction's `denoised`.

    Raises:
        TypeError, ValueError: here for what is no method, guidance or solver. The sampler raises them before the first
            model call for sigmas that are flipped, repeated or single (of anything but `Standard`), a method that does
            not fit their number, a model without the branch that `weak` needs, and one that does not say its input
            scale; after it for a host that did not show its branches.

    Source: k-diffusion (Katherine Crowson) for the signature; its equations are Karras et al. 2022's.
    """
    if isinstance(method, type | str) or not (isinstance(method, Method | Sequence) or is_steered(method)):
        raise TypeError(f"method must have path(T) or steer(T), or be a sequence of moves, got {method!r}")
    if trace is not None and not isinstance(trace, Trace):
        raise TypeError(f"trace must be a Trace, got {trace!r}")
    if not isinstance(eta, int | float) or not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta!r}")
    if not isinstance(rescale, bool) and not callable(rescale):
        raise TypeError(f"rescale must be a bool or a function of sigma, got {rescale!r}")
    for name, function in {"solver": solver, "calc_cond_batch": calc_cond_batch, "euler": euler}.items():
        if function is not None and not callable(function):
            raise TypeError(f"{name} must be callable, got {function!r}")
    if eta and solver is not None:
        raise ValueError(f"eta={eta!r} is of Euler steps, and solver makes others: give it noise of its own (sde=True)")
    rule = as_guidance("weak", weak)

    @torch.no_grad()
    def sample_zigzag(
        model: Callable[..., Tensor],
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        disable: bool | None = None,
    ) -> Tensor:
        extra, grid = extra_args or {}, sigmas.tolist()
        why = odd(grid)
        left_alone = _is_standard(method, len(grid) - 1) and not eta and solver is None and (trace is None or why)
        if left_alone and (own := euler or _installed_euler()) is not None:
            if trace is not None:
                trace.begin(())
            return own(model, x, sigmas, extra_args=extra_args, callback=callback, disable=disable)
        if why:
            raise ValueError(
                f"a zigzag needs sigmas that fall strictly, from noise to data, and {why}; take method Standard(), "
                "which is the host's own Euler sampler, for sigmas like these"
                + ("" if euler else " (pass it as euler=)")
            )
        host: Host = (
            ComfyUI(model, extra, sigmas, calc_cond_batch) if "model_options" in extra else Denoiser(model, extra)
        )
        steps = solver_on(grid, host.flow, eta, solver)
        walk = _Walk(host, method, steps, rule, rescale)
        check_generator(generator, len(x))
        return walk(x, _draws(generator, extra), trace, callback, not disable and find_spec("tqdm") is not None)

    return sample_zigzag


class _Walk:
    """A method along a host's sigmas.

    Raises:
        ValueError: before any call of the model, for what the host does not have, or the steps do not allow.
    """

    def __init__(
        self,
        host: Host,
        method: Method | Steered | Sequence[Move],
        solver: Solver,
        weak: Guidance,
        rescale: bool | Scale,
    ) -> None:
        self._host, self._solver = host, solver
        self._path: Sequence[Move] | Steering
        self._steps: list[HeldStep] = []
        if is_steered(method):
            self._path = Steering(Whole(method, len(solver), "a sampler"), solver)
        else:
            self._path, self._steps = plan_path(whole_path(method, len(solver), "a sampler"), solver)
        self._own = Own(host.name)  # it is asked for whole
        self._roles = Roles(Role("strong", self._own), Role("weak", weak), Role("plain", self._own))
        check_shown(self._roles, solver)
        host.check(self._needs())
        self._sizes = self._input_sizes(host.input_scale if rescale is True else rescale or None)

    def __call__(
        self,
        x: Tensor,
        draw: Draw,
        trace: Trace | None,
        callback: Callable[[dict[str, Any]], object] | None,
        progress: bool,
    ) -> Tensor:
        moves = traverse(self._path, self._steps, x, self._solver, self._roles, draw, trace)
        with progress_bar(None if isinstance(self._path, Steering) else len(self._path), enabled=progress) as tick:
            for move in self._coming():
                visit = self._move(move, moves, x, callback)
                state = visit.state
                tick(visit.rows)
                if isinstance(self._path, Steering):
                    self._path.told = visit
                del visit  # or its prediction would be held through the next model call
        next(moves, None)  # a path that is steered says at its end which inversions did not converge
        return state.to(x.dtype)

    def _coming(self) -> Iterator[Move]:
        """The moves, each before it is made: of a method that is steered, by what it was told of the last one."""
        if not isinstance(self._path, Steering):
            yield from self._path
            return
        while (known := self._path.ahead()) is not None:
            yield known[0]

    def _move(
        self, move: Move, moves: Traversal, like: Tensor, callback: Callable[[dict[str, Any]], object] | None
    ) -> Visit:
        """Makes a move."""
        message, shown = moves.send(None), None
        scale = self._sizes[move.j] / self._sizes[move.i] if isinstance(move, Invert) and self._sizes else 1.0
        whole = not isinstance(move, Invert)  # the one move that asks for the weak prediction alone
        while isinstance(message, Query):
            x = message.x if scale == 1 else scale * message.x
            answer, D = self._answer(x.to(like.dtype), message, whole)
            shown, scale = shown or (x.to(like.dtype), D), 1.0  # what follows in a move stands where it is told
            message = moves.send(answer)
        assert not isinstance(message, Query)
        if callback is not None and isinstance(move, Denoise) and shown is not None:
            sigma = like.new_tensor(self._solver.knots[1][move.i])
            callback({"x": shown[0], "i": move.i, "sigma": sigma, "sigma_hat": sigma, "denoised": shown[1]})
        return message

    def _answer(self, x: Tensor, query: Query, whole: bool) -> tuple[Answer, Tensor]:
        sigma = self._solver.all_times[query.told]
        asked = self._host.ask(x, x.new_full((len(x),), sigma), query.branches, whole)
        state = x.to(state_dtype(x.dtype))

        def prediction(D: Tensor) -> Tensor:
            return (state - D.to(state.dtype)) / sigma

        self._own.prediction = prediction(asked.whole) if whole else None
        branches = {name: prediction(D) for name, D in asked.branches.items()}
        return Answer(branches, asked.rows), asked.whole

    def _asked(self) -> list[tuple[int, Inner | None]]:
        """Where weak predictions are asked for: the knot whose time is told, and the second evaluation of its step.

        Of a path that is steered that is every knot.
        """
        if isinstance(self._path, Steering):
            return [(i, self._solver.inner(i, i + 1)) for i in range(len(self._solver))]
        known = zip(self._path, self._steps, gap_is_read(self._path), strict=True)
        return [
            (min(move.start, move.end), held.inner) for move, held, read in known if "weak" in roles_asked(move, read)
        ]

    def _needs(self) -> list[Need]:
        """The branches that the weak predictions need, by the noise levels that the model is told there."""
        needs: dict[Need, None] = {}
        for i, inner in self._asked():
            at, weak = self._solver.info(i), self._roles.weak
            times = [at.t] if inner is None else [at.t, self._solver.all_times[inner.told]]
            needs |= dict.fromkeys(Need(name, t, str(weak)) for name in weak.needs(at) for t in times)
        return [*needs]

    def _input_sizes(self, scale: Scale | None) -> dict[int, float]:
        """By knot the size of the model's input there, as far as inversions go; empty where a state is shown as is."""
        if scale is None:
            return {}
        count = len(self._solver) + 1
        turns = (
            [range(count)]
            if isinstance(self._path, Steering)
            else [(m.j, m.i) for m in self._path if isinstance(m, Invert)]
        )
        return {i: scale(self._solver.knots[1][i]) for i in {i for knots in turns for i in knots}}


def _is_standard(method: Method | Steered | Sequence[Move], steps: int) -> bool:
    return isinstance(method, Standard) or (isinstance(method, Sequence) and len(method) == steps and is_plain(method))


def _installed_euler() -> Sampler | None:
    try:
        own: Sampler = import_module("k_diffusion.sampling").sample_euler
    except ImportError:
        return None
    return own


def _draws(generator: Generators, extra: Mapping[str, Any]) -> Draw:
    seed = extra.get("seed")
    if generator is not None or seed is None:
        return noise_of(generator)
    made: list[torch.Generator] = []

    def draw(x: Tensor, interval: tuple[int, int] | None) -> Tensor:
        # On the host the noise that a sample begins with comes of the seed itself: the next one, as ComfyUI does.
        if not made:
            made.append(torch.Generator(x.device).manual_seed((seed + (x.device.type == "cpu")) % 2**64))
        return noise_like(x, made[0])

    return draw
