"""What an inversion reports, holds, is stored as, and is refused for."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from support.held import make
from support.predictors import field, untouched
from support.sampling import COND, UNCOND, X
from zigzag import DDIM, FlowEuler, Spherical
from zigzag.inversion import (
    EDICT,
    OBELM,
    FixedPoint,
    Inverted,
    Recorded,
    Rex,
    Scheme,
    ending_above,
    fresh,
    invert,
    load,
    reconstruct,
    save,
    telling_last,
)
from zigzag.solvers import Solver, adapt_prediction

OPTIONS: dict[str, Any] = {"cond": COND, "uncond": UNCOND}
DDIM5 = DDIM.stable_diffusion(5)
EVERY: dict[str, tuple[Scheme, Solver]] = {
    "FixedPoint": (FixedPoint(1e-8), DDIM5),
    "FixedPoint, 2M": (FixedPoint(1e-8), make("2M", "leading", 5)),
    "FixedPoint, eta": (FixedPoint(1e-8), DDIM.stable_diffusion(5, eta=1.0)),
    "EDICT": (EDICT(), DDIM5),
    "OBELM": (OBELM(), DDIM5),
    "Rex": (Rex(), telling_last(DDIM5, 0)),
    "Rex, eta": (Rex(0.99), ending_above(DDIM.stable_diffusion(6, eta=1.0))),
    "Recorded": (Recorded(), make("SDE-2M", "leading", 5)),
    "Recorded, independent": (Recorded("independent"), FlowEuler.uniform(5)),
}
every = pytest.mark.parametrize(("scheme", "solver"), EVERY.values(), ids=list(EVERY))


def seed(n: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(n)


def inverted_by(scheme: Scheme, solver: Solver, x: Tensor = X, **options: Any) -> Inverted:
    given: dict[str, Any] = {**OPTIONS, "guidance": 2.0, "generator": seed(), **options}
    return invert(field, x, solver, scheme, **given)


# The report.


@every
@pytest.mark.parametrize("batched", [True, False])
def test_rows_are_those_that_the_model_ran(scheme: Scheme, solver: Solver, batched: bool) -> None:
    rows = 0

    def counted(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        nonlocal rows
        rows += len(x)
        return field(x, t, cond)

    inverted = invert(counted, X, solver, scheme, **OPTIONS, guidance=2.0, batched=batched, generator=seed())
    assert inverted.report is not None
    assert inverted.report.rows * len(X) == rows


@pytest.mark.parametrize(
    ("scheme", "solver", "calls"),
    [(EDICT(), DDIM5, 10), (OBELM(), DDIM5, 5), (Rex(), ending_above(DDIM5), 8), (Recorded(), DDIM5, 10)],
)
def test_the_rows_of_the_exact_schemes(scheme: Scheme, solver: Solver, calls: int) -> None:
    """Two evaluations a step of EDICT and Rex, one of O-BELM: of one row, or of two with two branches."""
    for w, branches in ((1.0, 1), (0.0, 1), (2.0, 2)):
        report = inverted_by(scheme, solver, guidance=w).report
        assert report is not None and report.rows == calls * branches


@every
def test_the_round_trip_is_what_reconstruct_misses(scheme: Scheme, solver: Solver) -> None:
    inverted = inverted_by(scheme, solver, round_trip=True)
    back = reconstruct(field, inverted, solver, guidance=2.0, **OPTIONS)
    assert inverted.report is not None and inverted.report.round_trip is not None
    missed = (back - X).norm(dim=1) / X.norm(dim=1)
    torch.testing.assert_close(inverted.report.round_trip, missed, rtol=1e-9, atol=0)
    without = inverted_by(scheme, solver).report
    assert without is not None and without.round_trip is None
    assert without.rows == inverted.report.rows


@every
def test_the_deviation_is_that_of_the_noise(scheme: Scheme, solver: Solver) -> None:
    inverted = inverted_by(scheme, solver)
    assert inverted.report is not None
    expected = inverted.noise.norm(dim=1) / X[0].numel() ** 0.5 / float(solver.sigmas[0])
    torch.testing.assert_close(inverted.report.deviation, expected)


def test_a_report_says_what_it_holds() -> None:
    for scheme, solver in EVERY.values():
        report = inverted_by(scheme, solver, round_trip=True).report
        said = str(report)
        assert report is not None and f"{report.rows} rows" in said and "round trip" in said
        assert ("growth of rounding" in said) == isinstance(scheme, EDICT | OBELM | Rex)
        assert ("2 of 2 converged" in said) == isinstance(scheme, FixedPoint)


@every
def test_gradients_are_recorded_on_request(scheme: Scheme, solver: Solver) -> None:
    x = X.clone().requires_grad_()
    assert not inverted_by(scheme, solver, x).noise.requires_grad
    inverted = inverted_by(scheme, solver, x, grad=True)
    back = reconstruct(field, inverted, solver, guidance=2.0, grad=True, **OPTIONS)
    (g,) = torch.autograd.grad(back.sum(), x)
    # The data come back, and so does their gradient: the round trip is the identity. (That of an iteration converges
    # behind the iterates, by as much as its tolerance leaves.)
    near = 1e-4 if isinstance(scheme, FixedPoint) else 1e-9
    torch.testing.assert_close(g, torch.ones_like(X), rtol=near, atol=near)


@every
def test_the_model_is_shown_the_dtype_of_the_data(scheme: Scheme, solver: Solver) -> None:
    shown = set()

    def noting(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        shown.add(x.dtype)
        return field(x, t, cond)

    scheme = FixedPoint(1e-3) if isinstance(scheme, FixedPoint) else scheme
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a model says in half precision need not converge
        inverted = invert(noting, X.half(), solver, scheme, **OPTIONS, generator=seed())
        wide = invert(noting, X.half(), solver, scheme, **OPTIONS, generator=seed(), dtype=torch.float64)
    assert inverted.noise.dtype == torch.float32 and wide.noise.dtype == torch.float64
    assert reconstruct(noting, inverted, solver, **OPTIONS).dtype == torch.float16
    assert shown == {torch.float16}


def test_a_wider_state_loses_less() -> None:
    """The same float32 data and model: carried in float64 the noise comes back to far below float32's rounding."""
    solver = DDIM.stable_diffusion(50)
    x = X.float()
    misses = []
    for dtype in (torch.float32, torch.float64):
        report = inverted_by(EDICT(), solver, x, dtype=dtype, round_trip=True).report
        assert report is not None and report.round_trip is not None
        misses.append(float(report.round_trip.max()))
    assert misses[1] < misses[0] / 100


# Fresh noise.


@pytest.mark.parametrize("name", ["EDICT", "OBELM", "Rex", "Rex, eta", "FixedPoint", "FixedPoint, 2M"])
def test_a_fresh_noise_is_sampled_and_found_again(name: str) -> None:
    """The same twice; by FixedPoint, whose way down is the solver's own, the data are inverted to that noise."""
    scheme, solver = EVERY[name]
    z = solver.noise((2, 3), generator=seed(), dtype=torch.float64)
    made = reconstruct(field, fresh(z, solver, scheme, generator=seed(1)), solver, **OPTIONS)
    again = reconstruct(field, fresh(z, solver, scheme, generator=seed(1)), solver, **OPTIONS)
    assert torch.equal(made, again)
    if isinstance(scheme, FixedPoint):
        found = invert(field, made, solver, scheme, **OPTIONS)
        torch.testing.assert_close(found.noise, z, rtol=1e-5, atol=1e-5)
    if name == "Rex, eta":
        other = reconstruct(field, fresh(z, solver, scheme, generator=seed(2)), solver, **OPTIONS)
        assert not torch.allclose(made, other)


def test_recorded_has_nothing_to_make_of_a_noise() -> None:
    with pytest.raises(ValueError, match=r"Recorded needs data to record; take zigzag\.sample"):
        fresh(X, DDIM5, Recorded())


def test_generators_make_a_sample_its_own() -> None:
    """A list of generators: what a sample's noise is does not depend on the batch."""
    for scheme, solver in (EVERY["Rex, eta"], EVERY["Recorded, independent"], EVERY["FixedPoint, eta"]):
        both = inverted_by(scheme, solver, generator=[seed(1), seed(2)])
        alone = inverted_by(scheme, solver, X[1:], cond=COND[1:], uncond=UNCOND[1:], generator=[seed(2)])
        torch.testing.assert_close(alone.noise[0], both.noise[1], rtol=1e-6, atol=1e-7)


# Files.


@every
def test_a_file_holds_the_inversion(scheme: Scheme, solver: Solver, tmp_path: Path) -> None:
    inverted, path = inverted_by(scheme, solver, round_trip=True), tmp_path / "folder" / "cat.safetensors"
    save(inverted, path)
    assert [file.name for file in path.parent.iterdir()] == ["cat.safetensors"]
    loaded = load(path, solver=solver, shape=(2, 3))
    assert loaded.scheme == scheme and loaded.dtype == X.dtype and len(loaded.states) == len(inverted.states)
    assert str(loaded.report) == str(inverted.report)
    back = reconstruct(field, inverted, solver, guidance=2.0, **OPTIONS)
    torch.testing.assert_close(
        reconstruct(field, loaded, solver, guidance=2.0, **OPTIONS), back, rtol=0, atol=0
    )  # fmt: skip


def test_a_fresh_noise_can_be_stored(tmp_path: Path) -> None:
    begun = fresh(X, DDIM5, OBELM())
    save(begun, tmp_path / "noise.safetensors")
    loaded = load(tmp_path / "noise.safetensors")
    assert loaded.report is None and len(loaded.states) == 1 and torch.equal(loaded.noise, X)


def test_what_is_stored_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    inverted, path = inverted_by(EDICT(), DDIM5), tmp_path / "a.safetensors"
    save(inverted, path)
    before = path.read_bytes()
    broken = replace(inverted, states=(torch.empty(2, 3, device="meta"),))
    with pytest.raises((NotImplementedError, RuntimeError)):
        save(broken, path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    def written(change: Any) -> Path:
        path = tmp_path / "a.safetensors"
        save(inverted_by(Recorded(), DDIM5), path)
        with safe_open(path, framework="pt") as file:
            metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(metadata["inversion"])
        change(header, tensors)
        save_file(tensors, path, metadata={**metadata, "inversion": json.dumps(header)})
        return path

    with pytest.raises(FileNotFoundError, match=r"there is no file .*none"):
        load(tmp_path / "none")
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(ValueError, match="text is not a safetensors file"):
        load(tmp_path / "text")
    save_file({"weight": X}, tmp_path / "weights")
    with pytest.raises(ValueError, match=r"weights holds no inversion: its format is None, not 'zigzag\.inversion/1'"):
        load(tmp_path / "weights")
    for change, match in (
        (lambda h, t: h["scheme"].update(name="Other"), "a.safetensors: the scheme 'Other' is none of EDICT"),
        (lambda h, t: h["scheme"].update(trajectory="x"), "a.safetensors: trajectory must be 'naive' or 'independent'"),
        (lambda h, t: h["scheme"].update(zeta=1), "a.safetensors is damaged: TypeError"),
        (lambda h, t: t.pop("grid.steps"), "a.safetensors is damaged: KeyError: 'grid.steps'"),
        (lambda h, t: t.pop("state.0"), "a.safetensors: there must be one state or two alike, got"),
        (
            lambda h, t: t.update(residuals=t["residuals"][1:]),
            r"a.safetensors: residuals must have shape \(5, 2, 3\), one a step, got \(4, 2, 3\)",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            load(written(change))
    good = written(lambda h, t: None)
    with pytest.raises(ValueError, match=r"a.safetensors holds states of shape \(2, 3\), not \(1, 3\)"):
        load(good, shape=(1, 3))
    with pytest.raises(ValueError, match="the inversion was made on DDIM"):
        load(good, solver=DDIM.stable_diffusion(6))


def test_only_the_schemes_of_the_library_are_stored(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Own(EDICT):
        pass

    with pytest.raises(TypeError, match=r"a file can hold EDICT, FixedPoint, OBELM, Recorded, Rex, not .*Own\(p"):
        save(inverted_by(Own(), DDIM5), tmp_path / "a")
    with pytest.raises(TypeError, match="inverted must be what invert\\(\\) gave, got Tensor"):
        save(X, tmp_path / "a")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_an_inversion_moves_to_a_device() -> None:
    for scheme, solver in EVERY.values():
        moved = inverted_by(scheme, solver).to("meta")
        tensors = [*moved.states, *(t for t in (moved.residuals, moved.noises) if t is not None)]
        assert {t.device.type for t in tensors} == {"meta"}


# What is refused before the first model call.


def refused(match: str, error: type[Exception] = ValueError, **changed: Any) -> None:
    given: dict[str, Any] = {"eps_fn": untouched, "x0": X, "solver": DDIM5, "scheme": EDICT(), **OPTIONS} | changed
    positional = [given.pop(name) for name in ("eps_fn", "x0", "solver", "scheme")]
    with pytest.raises(error, match=match):
        invert(*positional, **given)


@pytest.mark.parametrize(
    ("changed", "error", "match"),
    [
        ({"eps_fn": 3}, TypeError, "eps_fn must be callable, got 3"),
        ({"x0": [1.0]}, TypeError, "x must be a tensor"),
        ({"x0": X.long()}, TypeError, "x must be floating-point, got torch.int64"),
        ({"solver": "DDIM"}, TypeError, "solver must be a Solver such as DDIM, got 'DDIM'"),
        ({"scheme": "EDICT"}, TypeError, r"scheme must be one of zigzag.inversion, such as EDICT\(\), got 'EDICT'"),
        ({"scheme": EDICT}, TypeError, "scheme must be one of zigzag.inversion"),
        ({"guidance": "strong"}, TypeError, "guidance must be a number or a Guidance"),
        ({"batched": "yes"}, ValueError, "batched must be True, False or 'auto', got 'yes'"),
        ({"generator": 3}, TypeError, "generator must be a torch.Generator"),
        ({"accuracy": 0.0}, ValueError, "accuracy must be positive and finite, got 0.0"),
        ({"dtype": torch.float16}, ValueError, "dtype must be torch.float32 or torch.float64, no narrower than"),
        ({"dtype": torch.float32}, ValueError, "no narrower than torch.float64, got torch.float32"),
    ],
)
def test_arguments_that_do_not_fit(changed: dict[str, Any], error: type[Exception], match: str) -> None:
    refused(match, error, **changed)


def test_a_missing_condition_is_named_with_the_guidance_that_needs_it() -> None:
    says = r"uncond is missing but guidance=CFG\(3\) needs the unconditional branch at knot 0"
    with pytest.raises(ValueError, match=says):
        invert(untouched, X, DDIM5, EDICT(), cond=COND, guidance=3.0)


def test_a_guidance_with_state_is_refused() -> None:
    class Counting:
        def reset(self) -> None: ...
        def branches(self, step: object) -> tuple[bool, bool]:
            return True, False

        def __call__(self, e_c: Tensor, e_u: Tensor | None, step: object) -> Tensor:
            return e_c

    refused("has a state, and would guide the way back otherwise; take CFG", guidance=Counting())


@pytest.mark.parametrize("scheme", [EDICT(), OBELM(), Rex()])
def test_the_exact_schemes_want_one_step_and_one_evaluation(scheme: Scheme) -> None:
    def on(solver: Solver) -> Solver:
        return ending_above(solver) if isinstance(scheme, Rex) else solver

    name = type(scheme).__name__
    refused(f"{name} runs on one-step solvers, and .* remembers", scheme=scheme, solver=on(make("2M", "leading", 5)))
    refused("makes two", scheme=scheme, solver=on(make("Heun", "leading", 5)))
    if not isinstance(scheme, Rex):
        refused(
            f"{name} is deterministic, and .*eta=1.* adds noise; take Rex", scheme=scheme, solver=make("eta 1")
        )  # fmt: skip


def test_obelm_wants_a_first_order_solver() -> None:
    class Other(DDIM):
        def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> Any:
            step = super().coefficients(i, j, remembered)
            return type(step)(step.a, 1.1 * step.b)

    refused("OBELM is a solver of its own, .* the step 0 -> 1 of", scheme=OBELM(), solver=Other.stable_diffusion(5))


def test_a_grid_without_a_time_for_its_end_is_refused_for_rex_with_the_one_to_take() -> None:
    says = (
        r"Rex asks the model at the last knot, {}, for which .* has no time; take ending_above\(solver\), which ends "
    )
    data = says.format("clean data") + r"at knot 9 of it, where sigma is 0.1, or telling_last\(solver, time\)"
    refused(data, scheme=Rex(), solver=FlowEuler.uniform(10))
    refused(says.format("sigma 0.0292"), scheme=Rex())


def test_the_endings_are_checked() -> None:
    with pytest.raises(ValueError, match="a grid of one step has none to leave out"):
        ending_above(FlowEuler.uniform(1))
    with pytest.raises(ValueError, match="time must be finite, got nan"):
        telling_last(DDIM5, float("nan"))
    with pytest.raises(ValueError, match="time 1 is that of knot 4 of"):
        telling_last(DDIM5, 1)


def test_the_model_is_told_the_time_of_the_last_knot() -> None:
    """And at the others those of the grid, whole numbers where the grid's are; a guidance is asked for the step."""
    for solver, last in ((telling_last(DDIM5, 0), 0), (ending_above(DDIM5), int(DDIM5.times[-1]))):
        told: set[int] = set()

        def noting(x: Tensor, t: Tensor, cond: Tensor, told: set[int] = told) -> Tensor:
            assert t.dtype == torch.int64
            told.update(t.tolist())
            return field(x, t, cond)

        invert(noting, X, solver, Rex(), cond=COND)
        assert told == {*solver.times.tolist(), last}
    flow = telling_last(FlowEuler.uniform(4), 0.0)
    assert flow.told_times("cpu", torch.float64).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert "as far as knot 4, told 0 there" in repr(flow)
    assert telling_last(DDIM5, 0.5).times.is_floating_point()


def test_a_predictor_that_finds_its_level_by_the_time_has_to_know_the_last_one() -> None:
    adapted = adapt_prediction(untouched, DDIM5, "v")
    says = r"finds no level sigma 0.029.* by the time 0 of the last knot of .*; take ending_above\(solver\)"
    refused(says, eps_fn=adapted, scheme=Rex(), solver=telling_last(DDIM5, 0))
    inverted = invert(adapt_prediction(field, DDIM5, "v"), X, ending_above(DDIM5), Rex(), cond=COND)
    assert inverted.report is not None and inverted.report.rows == 8


def test_a_predictor_of_something_else_is_refused() -> None:
    refused("eps_fn predicts 'epsilon', but FlowEuler", eps_fn=adapt_prediction(untouched, DDIM5, "v"),
            solver=FlowEuler.uniform(5))  # fmt: skip


def test_zero_terminal_snr_has_no_step_for_epsilon_and_one_for_v() -> None:
    alphas, sigmas = [0.0, 0.6, 1.0], [1.0, 0.8, 0.0]
    for scheme in (EDICT(), OBELM(), FixedPoint(), Recorded()):
        refused("has no step from knot 0 to 1: alpha is 0", scheme=scheme, solver=DDIM(alphas, sigmas, [2, 1]))
    half = Spherical([torch.pi / 2, 0.0])
    refused("from knot 0 to 1 has no inverse", scheme=EDICT(), solver=half)
    report = inverted_by(OBELM(), Spherical.cosine(4)).report
    assert report is not None and report.rows == 8


def test_a_dtype_that_would_lose_what_is_asked_for_is_refused_with_one_that_would_do() -> None:
    karras = DDIM.karras(50)
    says = (
        r"OBELM\(\) multiplies rounding by .* on DDIM\(T=50, prediction='epsilon'\), to .* in torch.float32, but "
        r"accuracy=0.01 is asked for; dtype=torch.float64 would do"
    )
    refused(says, x0=X.float(), scheme=OBELM(), solver=karras)
    invert(field, X.float(), karras, OBELM(), **OPTIONS, dtype=torch.float64)
    says = "no dtype would do: take fewer or more even steps, or another scheme"
    refused(says, scheme=OBELM(), solver=karras, accuracy=1e-13)
    refused(says, scheme=EDICT(0.5), solver=DDIM.stable_diffusion(50))
    refused("tol=1e-07 is below what rounding leaves in torch.float32, .*; dtype=torch.float64 would do",
            x0=X.float(), scheme=FixedPoint(1e-7))  # fmt: skip
    refused("no dtype would do: ask for less", scheme=FixedPoint(1e-16))


def test_reconstruct_wants_the_solver_of_the_inversion() -> None:
    inverted = inverted_by(EDICT(), DDIM5)

    def says(match: str, solver: Solver, error: type[Exception] = ValueError, given: Any = inverted) -> None:
        with pytest.raises(error, match=match):
            reconstruct(untouched, given, solver, **OPTIONS)

    says("the one is of 'epsilon', the other of 'flow'", FlowEuler.uniform(5))
    says("the one has 5 steps, the other 6", DDIM.stable_diffusion(6))
    says("alphas at knot 5 is .* and 1.0", DDIM.stable_diffusion(5, final_alpha_cumprod=1.0))
    moved = DDIM(DDIM5.alphas, DDIM5.sigmas, DDIM5.times + 1)
    says(r"times at knot 0 is 801.0 and 802.0", moved)
    rex = inverted_by(Rex(), ending_above(DDIM.stable_diffusion(6, eta=0.5)))
    says("the step from knot 0 is", ending_above(DDIM.stable_diffusion(6, eta=0.6)), given=rex)
    says(r"inverted must be what invert\(\) gave, got Tensor", DDIM5, TypeError, X)
    says("solver must be a Solver", "DDIM", TypeError)  # type: ignore[arg-type]
