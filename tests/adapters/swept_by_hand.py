"""Z² and Z-Sampling of a tiny pipeline, by a loop that is written out here, without the library.

The scheduler's own a and b are read off copies of it, the noise of an interval is drawn once, and which of the two
branches is the unconditional one is known by the scale of the guidance.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from swept import Swept
from torch import Tensor


def z2(case: Swept) -> Tensor:
    """Z² of warmup 1: every step but the first is made from a state shifted by the gap of the step before."""

    def step(k: int, x: Tensor, m: Tensor, u: Tensor, ab: Sequence[tuple[float, float]], r: Tensor) -> Tensor:
        (a, b), after = ab[k], ab[k + 1 : k + 2]
        out = a * x + b * m + r
        return out + (after[0][1] / after[0][0]) * (m - u) if after else out

    return _by_hand(case, step, lambda grid: grid, lambda made: made)


def z(case: Swept) -> Tensor:
    """Z-Sampling of one step: down, up under the unconditional prediction, and down again."""

    def step(call: int, x: Tensor, m: Tensor, u: Tensor, ab: Sequence[tuple[float, float]], r: Tensor) -> Tensor:
        a, b = ab[max(call - 2, 0)]
        return (x - r - b * u) / a if call == 1 else a * x + b * m + r

    def twice(grid: Tensor) -> Tensor:
        return torch.cat([grid[:1], grid[:1], grid])

    return _by_hand(case, step, twice, lambda made: made - 2 if made > 1 else made)


def _by_hand(
    case: Swept, step: Callable[..., Tensor], drawn: Callable[[Tensor], Tensor], knot: Callable[[int], int]
) -> Tensor:
    """drawn: a grid to that of the calls. knot: where the state is, after so many calls."""
    scheduler, scale, outputs, ab = case.pipe.scheduler, case.scale, list[Tensor](), list[tuple[float, float]]()
    own, held, which, calls = dict[str, Tensor](), dict[int, Tensor](), list[tuple[int, int]](), [0]
    assert scale is not None

    def set_timesteps(original: Any, *args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        calls[0] = 0
        outputs.clear()  # of what is called beforehand, to fill a cache
        ab.clear()
        held.clear()
        own.update({name: getattr(scheduler, name) for name in ("timesteps", "sigmas") if hasattr(scheduler, name)})
        scheduler.timesteps = drawn(own["timesteps"])
        look()

    def told(call: int) -> int:
        return int(drawn(torch.arange(len(own["timesteps"]) + 1))[call])

    @contextmanager
    def shown(grids: dict[str, Tensor]) -> Iterator[None]:
        others = {name: getattr(scheduler, name) for name in own}
        show(grids)
        try:
            yield
        finally:
            show(others)

    def look() -> None:
        """The sigma of the next call, and where its step ends, are what a pipeline finds at its counter."""
        if "sigmas" in own:
            at = told(calls[0])
            scheduler.sigmas = drawn(own["sigmas"]).clone()
            scheduler.sigmas[calls[0] : calls[0] + 2] = own["sigmas"][at : at + 2]

    def show(grids: dict[str, Tensor]) -> None:
        for name, grid in grids.items():
            setattr(scheduler, name, grid)

    def noised(original: Any, *args: Any, **kwargs: Any) -> Tensor:
        """To the level of the state, where the time of the next call is asked for."""
        given = inspect.signature(original).bind(*args, **kwargs)
        name = "timesteps" if "timesteps" in given.arguments else "timestep"
        coming = drawn(own["timesteps"])[calls[0] : calls[0] + 1]
        if calls[0] and len(coming) and (given.arguments[name] == coming).all():
            given.arguments[name] = own["timesteps"][knot(calls[0])].expand(given.arguments[name].shape)
        with shown(own):
            out: Tensor = original(*given.args, **given.kwargs)
        return out

    def scaled(original: Any, *args: Any, **kwargs: Any) -> Tensor:
        """By the sigma of the call, wherever the counter is."""
        at, scheduler._step_index = scheduler._step_index, told(calls[0])
        with shown(own):
            out: Tensor = original(*args, **kwargs)
        scheduler._step_index = at
        return out

    def stepped(original: Any, *args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(original).bind(*args, **kwargs).arguments
        m, x = given["model_output"], given["sample"].float()
        k = told(calls[0])
        if not ab:
            if "sigmas" in own:
                own["sigmas"][-1] = scheduler.sigmas[-1]  # which some pipelines set
            with shown(own):
                ab[:] = _coefficients(scheduler)
        parts = [case.lays(part, m).float() for output in outputs for part in output.split(int(case.samples))]
        parts = [case.says(part, x, float(own["sigmas"][k]) if "sigmas" in own else 0.0) for part in parts]
        if case.known:
            parts = [torch.cat([m[:, :, : case.known], part[:, :, case.known :]], 2) for part in parts]
        outputs.clear()
        assert len(parts) == 2, f"{len(parts)} branches"
        which[:] = which or _named(parts, m, scale, case.guides)
        place, sign = which[0]
        if k not in held:  # the noise of an interval, drawn once
            a, b = ab[k]
            with shown(own):
                held[k] = _stepped(scheduler, k, x, m.float(), given.get("generator")) - a * x - b * m.float()
        out = step(calls[0], x, m.float(), sign * parts[place], ab, held[k]).to(m.dtype)
        calls[0] += 1
        if hasattr(scheduler, "_step_index"):
            scheduler._step_index = knot(calls[0])
        look()
        return SchedulerOutput(prev_sample=out)

    wrappers = {"set_timesteps": set_timesteps, "step": stepped, "add_noise": noised, "scale_noise": noised}
    if "sigmas" in vars(scheduler):
        wrappers["scale_model_input"] = scaled
    names = [name for name in wrappers if hasattr(scheduler, name)]
    for name in names:
        original = getattr(scheduler, name)
        setattr(scheduler, name, functools.wraps(original)(functools.partial(wrappers[name], original)))
    try:
        with case.seen(outputs):
            return case.run()
    finally:
        for name in names:
            delattr(scheduler, name)
        show(own)


def _stepped(scheduler: Any, k: int, x: Tensor, e: Tensor, generator: torch.Generator) -> Tensor:
    """A copy's step from knot `k`, with noise of the generator where it adds any."""
    twin, t = copy.copy(scheduler), scheduler.timesteps[k]
    if hasattr(twin, "_step_index"):
        twin._step_index = k
    step = type(twin).step
    after = scheduler.timesteps[k + 1] if k + 1 < len(scheduler.timesteps) else None
    given: dict[str, Any] = {"generator": generator, "prev_timestep": after}
    given = {name: value for name, value in given.items() if name in inspect.signature(step).parameters}
    if "Wuerstchen" in type(scheduler).__name__:  # which takes a time a sample
        t = t.expand(len(x))
    out: Tensor = step(twin, e, t, x, **given)[0]
    return out


def _coefficients(scheduler: Any) -> list[tuple[float, float]]:
    """`a`, `b` of each step, of copies; a last time after which there is no step has none."""
    one, zero, found = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), []
    for k in range(len(scheduler.timesteps)):
        try:
            a, b, r = (
                _stepped(scheduler, k, x, e, torch.Generator().manual_seed(0))
                for x, e in ((one, zero), (zero, one), (zero, zero))
            )
        except IndexError:
            break
        found.append((float(a - r), float(b - r)))
    return found


def _named(
    parts: Sequence[Tensor], m: Tensor, scale: float, guides: Callable[[Tensor, Tensor], Tensor]
) -> list[tuple[int, int]]:
    """`(place, sign)` of the unconditional branch: that under which the guidance is what it is said to be."""
    found = []
    for place in (0, 1):
        u, c = parts[place], parts[1 - place]
        guided = guides(u + scale * (c - u), c)
        found += [(place, s) for s in (1, -1) if (s * guided - m).norm() <= 1e-4 * m.norm()]
    assert len(found) == 1, f"guidance is no u + {scale}·(c − u)"
    return found
