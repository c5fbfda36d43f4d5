"""What is said of arguments of `sample` and what comes back from its functions."""

from __future__ import annotations

import re

import pytest
import torch

from support.predictors import untouched
from support.refusals import FLOW, WRONG, B, C, T, U, X, refused
from zigzag import CFG, EndToEnd, ImplicitZ, Interval, Standard, Z2Sampling, ZSampling, sample, walk


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
        assert re.search(re.escape(str(tuple(shape))), str(caught.value)) is not None
    assert "shape" in str(caught.value)


def test_a_callback_that_returns_a_state_of_another_shape() -> None:
    for bad in (X[:1], X[:, :1], torch.zeros(())):
        with pytest.raises(ValueError, match="callback"):
            sample(lambda x, t, c: x, X, FLOW, ZSampling(), cond=C, uncond=U, callback=lambda v, bad=bad: bad)


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
    long, short = torch.zeros(B, 4), torch.zeros(B, 3)
    for why, cond, uncond in [
        ("structure", {"a": C}, {"b": U}),
        ("structure", C, [U]),
        (r"\bleaf 0\b.*None", C, None),
        (r"\bleaf 1\b.*'a cat'", [C, ""], [U, "a cat"]),
        (r"\bleaf 0\b.*shapes?.*\(2, 4\).*\(2, 3\)", short, long),
        (r"\bleaf 1\b.*shapes?.*\(2, 4\).*\(2, 3\)", {"a": long, "b": short}, {"a": long, "b": long}),
    ]:
        message = refused(why, WRONG, batched=True, cond=cond, uncond=uncond)
        assert re.search(r"\bbatched=True\b", message) and re.search(r"\buncond and cond\b", message)
