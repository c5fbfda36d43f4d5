"""Every message of DESIGN 3, "Errors": what it names, and that it comes before the first model call."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch

from zigzag import (
    CFG,
    DDIM,
    EndToEnd,
    FlowEuler,
    ImplicitZ,
    Interval,
    Resampling,
    Spherical,
    Standard,
    Z2Sampling,
    ZSampling,
    sample,
    walk,
)
from zigzag.moves import Denoise, Invert, Renoise, Shift

T, B = 4, 2
FLOW = FlowEuler.uniform(T)
X = torch.linspace(-1, 1, 6).reshape(B, 3)
C, U = torch.tensor([0.5, -0.5]), torch.tensor([0.0, 0.1])
WRONG = (TypeError, ValueError)


def untouched(x: torch.Tensor, t: torch.Tensor, cond: object) -> torch.Tensor:
    pytest.fail("the model was called")


def refused(match: str, error: type[Exception] | tuple[type[Exception], ...] = ValueError, **changed: object) -> str:
    """The message with which `sample` and `walk` refuse these arguments, no model called."""
    given = {
        "eps_fn": untouched,
        "x": X,
        "solver": FLOW,
        "method": ZSampling(),
        "cond": C,
        "uncond": U,
    } | changed
    positional = [given.pop(name) for name in ("eps_fn", "x", "solver", "method")]
    with pytest.raises(error, match=match):
        list(walk(*positional, **given))
    with pytest.raises(error, match=match) as caught:
        sample(*positional, **given)
    return str(caught.value)


def test_the_helper_fails_when_nothing_is_wrong_or_the_model_is_asked_first() -> None:
    with pytest.raises(pytest.fail.Exception, match="the model was called"):
        refused("anything")
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        refused("anything", eps_fn=lambda x, t, c: x)


# Missing branches ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [Standard(), ZSampling(), Z2Sampling(warmup=1)], ids=lambda m: type(m).__name__)
def test_uncond_left_out_where_the_strong_guidance_needs_it(method: object) -> None:
    """`uncond is missing but strong=CFG(5.5) needs the unconditional branch`."""
    given = {
        "eps_fn": untouched,
        "x": X,
        "solver": FLOW,
        "method": method,
        "cond": C,
        "strong": 5.5,
        "weak": 1.0,
    }
    positional = [given.pop(name) for name in ("eps_fn", "x", "solver", "method")]
    with pytest.raises(WRONG, match="uncond") as caught:
        sample(*positional, **given)
    assert "strong" in str(caught.value) and "5.5" in str(caught.value)
    with pytest.raises(WRONG, match="uncond") as caught:
        list(walk(*positional, **given))


@pytest.mark.parametrize("method", [ZSampling(), Z2Sampling(warmup=1), ImplicitZ(), EndToEnd()], ids=str)
def test_uncond_left_out_where_only_the_weak_guidance_needs_it(method: object) -> None:
    with pytest.raises(WRONG, match="uncond") as caught:
        sample(untouched, X, FLOW, method, cond=C, strong=1.0, weak=0.0)
    assert "weak" in str(caught.value)


def test_uncond_left_out_where_an_interval_needs_it_at_the_last_step() -> None:
    with pytest.raises(WRONG, match="uncond"):
        sample(untouched, X, FLOW, Standard(), cond=C, strong=Interval(CFG(2.0), start=T - 1))


def test_uncond_may_be_left_out_where_no_move_of_the_path_needs_it() -> None:
    """Standard has no weak move; s = w = 1 needs one branch only; Interval is conditional outside."""
    for method, scales in [
        (Standard(), {"strong": 1.0}),
        (ZSampling(), {"strong": 1.0, "weak": 1.0}),
        (Standard(), {"strong": Interval(CFG(2.0), start=T)}),
    ]:
        assert sample(lambda x, t, c: 0.5 * x, X, FLOW, method, cond=C, **scales).shape == X.shape


# Tensors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool], ids=str)
def test_an_integer_x(dtype: torch.dtype) -> None:
    message = refused(r"\bx\b", WRONG, x=X.to(dtype))
    assert str(dtype).removeprefix("torch.") in message


def test_an_x_that_is_no_tensor() -> None:
    refused(r"\bx\b", TypeError, x=[[0.0, 1.0]])


WRONG_OUTPUTS = {
    "fewer channels": lambda x: x[:, :2],
    "half the batch": lambda x: x[: len(x) // 2],
    "broadcastable": lambda x: x[:1],
    "a scalar": lambda x: x.mean(),
}


@pytest.mark.parametrize("case", list(WRONG_OUTPUTS))
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("which", ["eps_fn", "weak_fn"])
def test_an_output_of_the_wrong_shape(case: str, batched: bool, which: str) -> None:
    """Never broadcast silently: the message has the shape that came and the one that is wanted."""

    def good(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return x

    def bad(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return WRONG_OUTPUTS[case](x)

    fns = {"eps_fn": bad, "weak_fn": None} if which == "eps_fn" else {"eps_fn": good, "weak_fn": bad}
    with pytest.raises(ValueError, match=which) as caught:
        sample(
            fns["eps_fn"],
            X,
            FLOW,
            ZSampling(),
            cond=C,
            uncond=U,
            weak=0.5,
            weak_fn=fns["weak_fn"],
            batched=batched,
        )
    seen = torch.zeros(2 * B if batched else B, 3)
    for shape in (bad(seen, X, X).shape, seen.shape):
        assert re.search(r"\D*".join(map(str, shape)), str(caught.value)) is not None
    assert "shape" in str(caught.value)


def test_a_callback_that_returns_a_state_of_another_shape() -> None:
    for bad in (X[:1], X[:, :1], torch.zeros(())):
        with pytest.raises(ValueError, match="callback"):
            sample(lambda x, t, c: x, X, FLOW, ZSampling(), cond=C, uncond=U, callback=lambda v, bad=bad: bad)


# Grids --------------------------------------------------------------------------------------------

GRIDS: list[tuple[str, Callable[[], object]]] = [
    ("sigma", lambda: FlowEuler([1.0, 0.4, 0.6, 0.0])),
    ("sigma", lambda: FlowEuler([0.0, 0.5, 1.0])),
    ("sigma", lambda: FlowEuler([1.0, 0.5, 0.5, 0.0])),
    ("sigma", lambda: FlowEuler([1.0])),
    ("sigma", lambda: FlowEuler([])),
    ("angle", lambda: Spherical([1.0, 0.4, 0.6, 0.0])),
    ("angle", lambda: Spherical([0.0, 1.0])),
    ("angle", lambda: Spherical([1.0])),
    ("alpha|sigma", lambda: DDIM([0.3, 0.9, 0.6], [0.9, 0.2, 0.7], [2, 1])),
    ("alpha|sigma", lambda: DDIM([0.9, 0.6, 0.3], [0.2, 0.7, 0.9], [1, 2])),
    ("alpha|sigma", lambda: DDIM([1.0], [0.5], [])),
    ("alpha|sigma", lambda: DDIM([0.5, 1.0], [0.5, 0.2, 0.0], [2, 1])),
    ("times", lambda: DDIM([0.3, 0.6, 0.9], [0.9, 0.7, 0.2], [3, 2, 1])),
    ("times", lambda: FlowEuler([1.0, 0.5, 0.0], times=[1.0])),
    ("steps", lambda: FlowEuler.uniform(0)),
    ("steps", lambda: Spherical.cosine(0)),
    ("steps", lambda: DDIM.stable_diffusion(0)),
    ("steps", lambda: DDIM.karras(0)),
    ("spacing", lambda: DDIM.stable_diffusion(10, spacing="uniform")),
    ("sigma|finite", lambda: FlowEuler([1.0, math.nan, 0.0])),
]


@pytest.mark.parametrize(("match", "make"), GRIDS, ids=range(len(GRIDS)))
def test_a_grid_that_is_short_or_does_not_go_from_noise_to_data(match: str, make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(
    "solver", [FLOW, DDIM.stable_diffusion(T), Spherical.cosine(T)], ids=["flow", "ddim", "spherical"]
)
@pytest.mark.parametrize(("i", "j"), [(-1, 0), (0, 0), (2, 1), (0, T + 1), (T, T + 1), (T, None)])
def test_a_step_that_the_grid_does_not_have(solver: object, i: int, j: int | None) -> None:
    for ask in (solver.step, solver.info):
        with pytest.raises(ValueError, match=r"knot|step"):
            ask(i, j)


# Steps without an inverse -------------------------------------------------------------------------

QUARTER = Spherical([math.pi / 2, math.pi / 4, 0.0])


@pytest.mark.parametrize(
    "method",
    [
        (Denoise(0, 2), Invert(2, 0), Denoise(0, 2)),
        (Invert(2, 0),),
        (Denoise(0, 1), Denoise(1, 2), Invert(2, 1), Invert(1, 0), Invert(2, 0)),
    ],
    ids=range(3),
)
def test_a_path_that_inverts_what_has_no_inverse(method: tuple[object, ...]) -> None:
    """delta = pi/2 from knot 0 to knot 2: cos delta is 0 to rounding, |a| < 1e-12."""
    refused("knot", solver=QUARTER, method=method)


def test_one_step_over_a_quarter_turn_can_be_denoised_and_neither_inverted_nor_shifted() -> None:
    solver = Spherical([math.pi / 2, 0.0])
    for method in [(Shift(0, True), Denoise(0, 1)), (Denoise(0, 1), Invert(1, 0))]:
        message = refused("knot", solver=solver, method=method)
        assert re.search(r"\b0\b", message)
    v = torch.ones_like(X)
    x = sample(lambda x, t, c: v, X, solver, Standard(), cond=C, strong=1.0)
    torch.testing.assert_close(x, -v, rtol=0, atol=4 * torch.finfo(torch.float32).eps)


def test_zero_terminal_snr_with_epsilon_is_said_with_the_knot() -> None:
    """alpha_0 = 0: a = alpha_1 / 0 is not finite; table or path, it is found before any model call."""
    for method in (Standard(), ZSampling()):
        with pytest.raises(ValueError, match=r"knot.*0|alpha"):
            solver = DDIM([0.0, 0.5, 1.0], [1.0, 0.8, 0.0], [2, 1])
            sample(untouched, X, solver, method, cond=C, uncond=U)


# Methods and moves --------------------------------------------------------------------------------

OUT_OF_RANGE: list[tuple[str, Callable[[], object]]] = [
    ("steps", lambda: Resampling(steps=-1)),
    ("steps", lambda: Resampling(steps=T + 1)),
    ("rounds", lambda: Resampling(rounds=-1)),
    ("refine", lambda: EndToEnd(refine=-1)),
    ("steps", lambda: ZSampling(steps=-1)),
    ("steps", lambda: ZSampling(steps=T + 1)),
    ("rounds", lambda: ZSampling(rounds=-1)),
    ("span", lambda: ZSampling(span=0)),
    ("span", lambda: ZSampling(span=-2)),
    ("refine", lambda: ZSampling(refine=-1)),
    ("steps", lambda: ZSampling(steps=T, released=True)),
    ("span|released", lambda: ZSampling(span=2, released=True)),
    ("refine|released", lambda: ZSampling(refine=1, released=True)),
    ("start", lambda: ImplicitZ(start=-1)),
    ("start", lambda: ImplicitZ(start=T + 1)),
    ("steps", lambda: ImplicitZ(steps=-1)),
    ("steps", lambda: ImplicitZ(steps=T + 1)),
    ("warmup", lambda: Z2Sampling(warmup=-1)),
    ("warmup", lambda: Z2Sampling(warmup=T)),
    ("warmup", lambda: Z2Sampling(warmup=T + 3)),
    ("steps", lambda: Z2Sampling(warmup=1, steps=-1)),
    ("steps", lambda: Z2Sampling(warmup=1, steps=T + 1)),
]


@pytest.mark.parametrize(("match", "make"), OUT_OF_RANGE, ids=range(len(OUT_OF_RANGE)))
def test_an_argument_of_a_method_out_of_range(match: str, make: Callable[[], object]) -> None:
    """Said when the method is made or when it meets its grid, and in any case before the model is called."""
    with pytest.raises(ValueError, match=match):
        make().path(T)
    with pytest.raises(ValueError, match=match):
        sample(untouched, X, FLOW, make(), cond=C, uncond=U)


WRONG_TYPES: list[tuple[str, Callable[[], object]]] = [
    ("steps", lambda: ZSampling(steps=1.5)),
    ("rounds", lambda: ZSampling(rounds="2")),
    ("span", lambda: ZSampling(span=2.0)),
    ("refine", lambda: EndToEnd(refine=None)),
    ("rounds", lambda: Resampling(rounds=1.5)),
    ("start", lambda: ImplicitZ(start=0.5)),
    ("warmup", lambda: Z2Sampling(warmup=0.1)),
]


@pytest.mark.parametrize(("match", "make"), WRONG_TYPES, ids=range(len(WRONG_TYPES)))
def test_an_argument_of_a_method_of_the_wrong_type(match: str, make: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match=match):
        make().path(T)


@pytest.mark.parametrize("n", [1, 3, 4, 5])
def test_the_default_warmup_on_few_steps_names_the_value_of_the_paper(n: int) -> None:
    """Z2Sampling() on 4 steps: warmup=5 is refused with the 1 of 4 that the paper takes."""
    message = refused("warmup", solver=FlowEuler.uniform(n), method=Z2Sampling())
    assert "5" in message and re.search(r"warmup ?= ?1|1 of 4", message)


PATHS = [
    (Denoise(0, 1), Denoise(2, 3)),
    (Denoise(0, 1), Shift(0, True)),
    (Denoise(0, 1), Invert(2, 1)),
    (Denoise(0, 1), Invert(1, 0), Denoise(1, 2)),
    (Denoise(0, 1), Renoise(2, 0)),
]


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
def test_a_path_that_does_not_connect(path: tuple[object, ...]) -> None:
    refused("path|connect|knot", method=path)


def test_a_path_that_leaves_the_grid() -> None:
    for path in [
        (Denoise(T, T + 1),),
        (Denoise(0, T + 1),),
        (Invert(T + 1, T),),
        (Renoise(T + 1, 0),),
        (Denoise(T - 1, T), Shift(T, True)),
        (Invert(T, T - 1, coefficients=(T, T + 1)),),
    ]:
        refused("knot|grid|step", method=path)


@pytest.mark.parametrize(
    "make",
    [lambda: Denoise(1, 0), lambda: Denoise(1, 1), lambda: Denoise(-1, 0), lambda: Invert(0, 1),
     lambda: Invert(1, 1), lambda: Renoise(0, 1), lambda: Renoise(1, 1), lambda: Invert(1, 0, refine=-1),
     lambda: Shift(-1, True)],
    ids=range(9),
)  # fmt: skip
def test_a_move_that_goes_the_wrong_way(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"knot|Denoise|Invert|Renoise|Shift|refine"):
        sample(untouched, X, FLOW, (make(),), cond=C, uncond=U)


@pytest.mark.parametrize(
    "path",
    [
        (Shift(0, False), Denoise(0, 1)),
        (Invert(1, 0), Shift(0, False)),
        (Renoise(2, 1), Shift(1, False)),
    ],
    ids=range(3),
)
def test_a_cached_shift_with_nothing_cached(path: tuple[object, ...]) -> None:
    """Denoise and Shift(fresh) write the cache, Invert and Renoise never."""
    assert re.search("gap|cache", refused("Shift", method=path))


@pytest.mark.parametrize("method", [3, "z", None, (Denoise(0, 1), 3), [1]], ids=str)
def test_a_method_that_is_none(method: object) -> None:
    refused("method|path|move", WRONG, method=method)


# The rest -----------------------------------------------------------------------------------------


def test_the_other_arguments_name_themselves() -> None:
    refused("eps_fn", TypeError, eps_fn=3)
    refused("weak_fn", TypeError, weak_fn=3)
    refused("strong", TypeError, strong="5.5")
    refused("weak", TypeError, weak=[0.0])
    refused("batched", WRONG, batched="yes")
    refused("solver", TypeError, solver=3)


def test_conditions_that_cannot_be_batched_though_they_must() -> None:
    """batched=True on pytrees of two structures, or on leaves that do not share a shape."""
    for cond, uncond in [({"a": C}, {"b": U}), (C, None), (C, [U]), (torch.zeros(B, 3), torch.zeros(B, 4))]:
        refused("batched|cond", WRONG, batched=True, cond=cond, uncond=uncond)
