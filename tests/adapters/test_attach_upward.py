"""`attach` leads a pipeline up: paths that begin at a state of one's own, and inversion schemes, as the core does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import Invert, Solver, Tol, Trace
from zigzag.inversion import (
    EDICT,
    OBELM,
    FixedPoint,
    Inverted,
    Recorded,
    Rex,
    Scheme,
    invert,
    reconstruct,
    telling_last,
)

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
attach, Inversion, Reconstruction = adapters.attach, adapters.Inversion, adapters.Reconstruction

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
    # The tiny models have random weights, and no iteration is made to converge on them.
    pytest.mark.filterwarnings("ignore:FixedPoint.*did not converge"),
]

Tiny = Callable[..., Any]

FAMILIES = ["sd", "sd3", "flux", "pixart", "wan", "ltx"]
STEPS = 4
SCHEMES: dict[str, Scheme] = {
    "EDICT": EDICT(),
    "OBELM": OBELM(),
    "Rex": Rex(),
    "FixedPoint": FixedPoint(tol=1e-3, most=4),
    "Recorded": Recorded(),
    "independent": Recorded("independent"),
}

# Two implementations of one algorithm in float32; what they differ by is measured at 1e-6 and below.
WANTED = 1e-5
EPS = torch.finfo(torch.float32).eps


def up(steps: int, first: int = 0) -> list[Invert]:
    return [Invert(j, j - 1) for j in range(steps, first, -1)]


def distance(x: Tensor, y: Tensor) -> float:
    return float((x - y).norm() / y.norm())


def with_data(tiny: Tiny, family: str, batch: int = 1, **changes: Any) -> Any:
    """A case whose `latents` are taken for data, and whose scheduler has its grid."""
    case = tiny(family, batch, num_inference_steps=STEPS, **changes)
    case.latents = 0.7 * case.latents
    case.run()
    return case


def inverted(case: Any, scheme: Scheme, **given: Any) -> tuple[Inverted, Tensor, int]:
    """What the pipeline finds, what it returns, and the rows that its model ran; those that are counted are these."""
    generator = torch.Generator().manual_seed(5)
    with attach(case.pipe, Inversion(scheme, **given), generator=generator) as run, case.counted() as rows:
        out = case.run()
    assert run.rows == run.inverted.report.rows == sum(rows) / len(case.latents)
    assert run.knot == 0
    return run.inverted, out, run.rows


def rebuilt(case: Any, found: Inverted, **changes: Any) -> Tensor:
    """What the pipeline makes of it, with latents of its own that count for nothing."""
    with attach(case.pipe, Reconstruction(found)) as run, case.counted() as rows:
        out = case.run(generator=torch.Generator().manual_seed(6), **changes)
    assert run.rows == sum(rows) / len(case.latents) and run.inverted is None
    return out


def solver_for(scheme: Scheme, solver: Solver) -> Solver:
    return telling_last(solver, 0) if isinstance(scheme, Rex) else solver


def by_core(case: Any, scheme: Scheme, solver: Solver) -> Inverted:
    """The same by `zigzag.inversion`, with predictor and solver written out in the tests."""
    return invert(
        case.predict, case.latents, solver_for(scheme, solver), scheme, cond=case.cond, uncond=case.uncond,
        guidance=case.strong, batched=False, generator=torch.Generator().manual_seed(5),
    )  # fmt: skip


def bound(found: Inverted) -> float:
    """What rounding may come to at the noise, and once more on the way back."""
    assert found.report is not None
    return WANTED + 4 * EPS * (found.report.growth or 1.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_path_up_is_that_of_the_core(family: str, tiny: Tiny) -> None:
    """At the pipeline's own guidance, or at `weak`: the state handed in is not scaled, that at knot 0 comes out."""
    case = with_data(tiny, family, 2)
    path, solver = up(STEPS), case.solver()
    with attach(case.pipe, path) as run, case.counted() as rows:
        x = case.run()
    assert run.rows == sum(rows) / 2 == 2 * STEPS and run.knot == 0
    wanted = case.sampled(path, start=case.latents, solver=solver, weak=case.strong)
    assert x.shape == wanted.shape and distance(x, wanted) <= WANTED
    with attach(case.pipe, path, weak=0.5):
        y = case.run()
    assert distance(y, case.sampled(path, start=case.latents, solver=solver, weak=0.5)) <= WANTED
    assert distance(x, y) > 100 * WANTED  # the mutant that takes the one for the other


@pytest.mark.filterwarnings("ignore:.*inversions did not converge")
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("weak", [None, "prompt"])
def test_a_path_up_to_a_tolerance_asks_as_often_as_it_takes(weak: str | None, batch: int, tiny: Tiny) -> None:
    """Fewer calls than there might be, those of the core; also in passes of a role's own."""
    case, path = with_data(tiny, "flux", batch), [Invert(j, j - 1, Tol(0.1, most=6)) for j in range(STEPS, 0, -1)]
    solver, trace, other = case.solver(), Trace(), case.cond["encoder_hidden_states"].flip(1)
    role = None if weak is None else adapters.Role(edit={"encoder_hidden_states": other}, cfg=case.strong)
    with attach(case.pipe, path, weak=role) as run, case.counted() as rows:
        x = case.run()
    given = {} if weak is None else {
        name: cond | {"encoder_hidden_states": other}
        for name, cond in (("weak_cond", case.cond), ("weak_uncond", case.uncond))
    }  # fmt: skip
    y = case.sampled(path, start=case.latents, solver=solver, weak=case.strong, trace=trace, **given)
    assert distance(x, y) <= WANTED and run.rows == sum(rows) / batch == trace.rows < 2 * 6 * STEPS
    assert run.rows > 2 * STEPS and run.knot == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_edict_is_that_of_the_core(family: str, tiny: Tiny) -> None:
    """On every family: the noise, the rows and the report; back to the data; and an edit under another prompt."""
    check_scheme(with_data(tiny, family), EDICT())


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name != "EDICT"])
@pytest.mark.parametrize("family", ["sd", "flux"])
def test_schemes_are_those_of_the_core(family: str, scheme: str, tiny: Tiny) -> None:
    check_scheme(with_data(tiny, family), SCHEMES[scheme])


def check_scheme(case: Any, scheme: Scheme) -> None:
    solver = case.solver()
    found, out, rows = inverted(case, scheme)
    core = by_core(case, scheme, solver)
    assert core.report is not None and found.report is not None
    assert rows == core.report.rows and found.report.growth == core.report.growth
    assert len(found.states) == len(core.states)
    for mine, theirs in zip(found.states, core.states, strict=True):
        assert distance(mine, theirs) <= bound(core)
    assert distance(out, case.finish(core.noise)) <= bound(core)
    torch.testing.assert_close(found.report.deviation, core.report.deviation, rtol=bound(core), atol=0)
    core.grid.check(solver_for(scheme, solver))
    # Back to the data, where the scheme is exact; and with the prompts exchanged as the core does of the same states.
    back = rebuilt(case, found)
    if not isinstance(scheme, FixedPoint):
        assert distance(back, case.finish(case.latents)) <= bound(core)
    swapped = {name: case.call[other] for name, other in exchanged(case.call).items()}
    edit = rebuilt(case, found, **swapped)
    wanted = reconstruct(
        case.predict, found, solver_for(scheme, solver), cond=case.uncond, uncond=case.cond, guidance=case.strong,
        batched=False,
    )  # fmt: skip
    assert distance(edit, case.finish(wanted)) <= bound(core)
    assert distance(edit, back) > 100 * WANTED


def exchanged(call: dict[str, Any]) -> dict[str, str]:
    """The prompt's embeddings for the negative one's, and the other way round."""
    pairs = [(name.removeprefix("negative_"), name) for name in call if name.startswith("negative_")]
    pairs = [(one, two) for one, two in pairs if isinstance(call.get(one), Tensor)]
    return dict(pairs) | {two: one for one, two in pairs}


@pytest.mark.parametrize("name", ["EDICT", "Rex", "Recorded", "independent"])
def test_nothing_scales_the_state_that_is_handed_in(name: str, tiny: Tiny, schedulers: Tiny) -> None:
    """Euler's pipelines multiply their latents by `init_noise_sigma`, and show the model a scaled state."""
    case = with_data(tiny, "sd", scheduler=schedulers("euler", timestep_spacing="leading"))
    assert case.pipe.scheduler.init_noise_sigma > 2
    check_scheme(case, SCHEMES[name])
    path, solver = up(STEPS), case.solver()
    with attach(case.pipe, path):
        x = case.run()
    assert distance(x, case.sampled(path, start=case.latents, solver=solver, weak=case.strong)) <= WANTED
