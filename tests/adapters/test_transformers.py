"""`dit_predictor` calls every transformer as its own pipeline does: tiny random ones, in those pipelines.

The models, pipelines and arguments are in `tests/data/tiny-transformers.json`; no dimension but the batch is 3 or 6.
"""

import functools
import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import zigzag

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
conventions = pytest.importorskip("zigzag.adapters.diffusers.conventions")

B, T = 3, 4
CASES = {
    case["model"]: case
    for case in json.loads((Path(__file__).parents[1] / "data" / "tiny-transformers.json").read_text())
}


def tensors(value: Any) -> Any:
    """`{"normal": shape}` and `{"ones": shape, "dtype": …}` as tensors, also in lists; anything else as it is."""
    if isinstance(value, list):
        return [tensors(v) for v in value]
    if not isinstance(value, dict):
        return value
    return torch.randn(value["normal"]) if "normal" in value else torch.ones(value["ones"]).to(
        getattr(torch, value["dtype"])
    )  # fmt: skip


def build(case: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The pipeline around a random transformer, all else None, and the arguments of its call."""
    torch.manual_seed(0)
    model = getattr(diffusers, case["model"])(**case["config"]).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # some begin as zeros, some as memory
            parameter.copy_(parameter.nan_to_num().clamp(-1, 1) + 0.1 * torch.randn_like(parameter))
    cls = getattr(diffusers, case["pipeline"])
    parts = dict.fromkeys(n for n, p in inspect.signature(cls.__init__).parameters.items() if p.default is p.empty)
    parts |= {"transformer": model, "scheduler": getattr(diffusers, case["scheduler"])(**case["schedule"])}
    if "requires_safety_checker" in inspect.signature(cls.__init__).parameters:
        parts["requires_safety_checker"] = False
    del parts["self"]
    pipe = cls(**parts)
    pipe.set_progress_bar_config(disable=True)
    wanted = inspect.signature(cls.__call__).parameters
    arguments = {"height": 64, "width": 64, "output_type": "latent"} | {
        k: tensors(v) for k, v in case["arguments"].items()
    }
    return pipe, {name: value for name, value in arguments.items() if name in wanted}


class Done(Exception):
    """All steps are recorded; what a pipeline does with its latents afterwards is not of interest."""


class Step(NamedTuple):
    """What a scheduler's step was called with, and what it returned."""

    e: Tensor
    t: Tensor
    x: Tensor
    out: Tensor


def record(pipe: Any, run: Callable[[], Any]) -> tuple[list[dict[str, Any]], list[Step]]:
    """The arguments of every call of the transformer, and the scheduler's steps, up to step T."""
    calls: list[dict[str, Any]] = []
    steps: list[Step] = []
    model, scheduler = pipe.transformer, pipe.scheduler
    forward, step, signature = model.forward, scheduler.step, inspect.signature(type(model).forward)

    def recorded(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(model, *args, **kwargs).arguments
        calls.append({name: value for name, value in bound.items() if name not in ("self", "return_dict")})
        return forward(*args, **kwargs)

    @functools.wraps(step)
    def stepped(e: Tensor, t: Tensor, x: Tensor, **kwargs: Any) -> Any:
        out = step(e, t, x, **kwargs)
        steps.append(Step(e, t, x, out[0]))
        if len(steps) == T:
            raise Done
        return out

    model.forward, scheduler.step = recorded, stepped
    try:
        run()
    except Done:
        pass
    finally:
        del model.forward, scheduler.step
    return calls, steps


@functools.cache
def recorded(name: str) -> tuple[Any, list[dict[str, Any]], list[Step]]:
    pipe, arguments = build(CASES[name])
    calls, steps = record(pipe, lambda: pipe(**arguments, num_inference_steps=T))
    assert len(steps) == T
    assert len(calls) in (T, 2 * T)
    return pipe, calls, steps


def scale_of(name: str) -> float:
    arguments = CASES[name]["arguments"]
    return float(arguments.get("true_cfg_scale", arguments.get("guidance_scale")))


def guided(name: str, outputs: list[Tensor]) -> Tensor:
    """The pipeline's own arithmetic on the predictions of its calls at one step."""
    w = scale_of(name)
    if len(outputs) == 2:  # one call each, conditional first
        c, u = outputs
    elif len(outputs[0]) == B:  # no guidance
        return outputs[0]
    elif name == "ZImageTransformer2DModel":
        c, u = outputs[0].chunk(2)
        return c + w * (c - u)
    else:
        u, c = outputs[0].chunk(2)
    return u + w * (c - u)


def check_calls(name: str, predict: Any) -> None:
    """At every state and time of the pipeline, told the rest of what the pipeline told it, the predictor calls the
    model with the same state and time, bit for bit, and returns what the pipeline made its step with."""
    pipe, calls, steps = recorded(name)
    convention = conventions.convention_of(pipe.transformer)
    per_step = len(calls) // T
    for k, step in enumerate(steps):
        outputs = []
        for theirs in calls[k * per_step : (k + 1) * per_step]:
            state, time = theirs[convention.state], theirs[convention.time_name]
            cond = {key: theirs[key] for key in theirs.keys() - {convention.state, convention.time_name}}
            x = torch.cat([step.x] * (len(state) // B))
            results: list[Tensor] = []
            ours, _ = record(pipe, lambda x=x, t=step.t, c=cond, r=results: r.append(predict(x, t.expand(len(x)), c)))
            assert all(torch.equal(a, b) for a, b in zip(ours[0][convention.state], state, strict=True))
            assert torch.equal(ours[0][convention.time_name].to(time), time.expand(len(x)))
            outputs += results
        assert torch.equal(guided(name, outputs), step.e)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_the_predictor_calls_the_transformer_as_its_pipeline_does(name: str) -> None:
    pipe, _, _ = recorded(name)
    check_calls(name, adapters.dit_predictor(pipe.transformer, scheduler=pipe.scheduler))


def test_every_convention_is_tried() -> None:
    assert set(CASES) == set(conventions.CONVENTIONS)


def mutants(convention: Any) -> list[Any]:
    times = {"t", "t/N", "1 - t/N"} - {convention.time, {"(N - t)/N": "1 - t/N", "float t": "t"}.get(convention.time)}
    return [replace(convention, negated=not convention.negated), *(replace(convention, time=t) for t in sorted(times))]


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_the_comparison_notices_another_sign_and_another_time(name: str) -> None:
    pipe, _, _ = recorded(name)
    for mutant in mutants(conventions.convention_of(pipe.transformer)):
        predict = adapters.dit_predictor(pipe.transformer, convention=mutant)
        with pytest.raises(AssertionError):
            check_calls(name, predict)


def branch(name: str, which: int) -> dict[str, Any]:
    """The condition (0) or the null condition (1) of a pipeline's first step."""
    pipe, calls, _ = recorded(name)
    convention = conventions.convention_of(pipe.transformer)
    call = calls[which if len(calls) > T else 0]
    if len(call[convention.state]) == 2 * B:
        half = which if name == "ZImageTransformer2DModel" else 1 - which
        call = pytree.tree_map(lambda v: half_of(v, half), call, is_leaf=lambda v: isinstance(v, list))
    return {key: call[key] for key in call.keys() - {convention.state, convention.time_name}}


def half_of(value: Any, half: int) -> Any:
    batched = isinstance(value, list) or (isinstance(value, Tensor) and value.ndim > 0)
    return value[half * B : (half + 1) * B] if batched and len(value) == 2 * B else value


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_the_loop_over_predictor_and_solver_is_the_pipeline(name: str) -> None:
    """To the roundings of float32 on the way: 100 times what the path makes of one rounding of its start."""
    pipe, _, steps = recorded(name)
    predict = adapters.dit_predictor(pipe.transformer, scheduler=pipe.scheduler)
    solver = adapters.solver_from_scheduler(pipe.scheduler)
    w = scale_of(name) + (name == "ZImageTransformer2DModel")
    cond, uncond = branch(name, 0), branch(name, 1) if w != 1 else zigzag.MISSING

    def run(x: Tensor, scale: float = w) -> Tensor:
        return zigzag.sample(
            predict, x, solver, zigzag.Standard(), cond=cond, uncond=uncond, strong=scale, batched=False
        )

    x, wanted = steps[0].x, steps[-1].out
    ours, eps = run(x), torch.finfo(torch.float32).eps
    limit = 100 * (run(x * (1 + eps)) - ours).norm()
    assert (ours - wanted).norm() <= limit
    if w != 1:  # mutant: the scale that Z-Image's own argument, or Ho & Salimans', would mean
        assert (run(x, w - 1) - wanted).norm() > limit
