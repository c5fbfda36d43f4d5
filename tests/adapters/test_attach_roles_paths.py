"""Roles along every kind of path, scheduler and call, against `zigzag.sample` with one's own predictors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import (
    CosineStrength,
    ImplicitZ,
    NormStrength,
    ShareStrength,
    Standard,
    Trace,
    Z2Sampling,
    ZSampling,
    count_rows,
    presets,
    sample,
)

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
attach, Role = adapters.attach, adapters.Role

from role_checks import METHODS, TOKENS, Tiny, check_role, check_same, named, normal, shaken  # noqa: E402


@pytest.mark.parametrize("method", [ZSampling(plain=True, span=2), *METHODS], ids=repr)
def test_strong_and_weak_roles_around_the_pipeline_itself(method: Any, one_branch: Tiny) -> None:
    """What is plain is then the pipeline as it is, and each of the three is asked in passes of its own."""
    case, names = one_branch("flux"), ("strong", "weak")
    conds = {name: normal(1, TOKENS, 16, seed=k) for k, name in enumerate(names)}
    roles = {name: Role(edit={"encoder_hidden_states": conds[name]}) for name in names}
    with attach(case.pipe, method, **roles) as run, case.counted() as rows:
        x = case.run()
    own, strong, weak = case.cond, *({**case.cond, "encoder_hidden_states": conds[name]} for name in names)
    case.cond = strong
    given = {"plain_cond": own} if getattr(method, "plain", False) else {}
    check_same(x, case.sampled(method, weak=1.0, weak_cond=weak, **given))
    apart = {"own_weak": ("cond",), "own_plain": ("cond",) if given else ()}
    assert run.rows == sum(rows) == count_rows(method, 6, strong=1.0, weak=1.0, **apart)


@pytest.mark.parametrize("model", ["dev", "lite"])
def test_rf_sampling(model: str, one_branch: Tiny) -> None:
    case, empty = one_branch("flux", 2), normal(1, TOKENS, 16, seed=8)
    with attach(case.pipe, **adapters.rf_sampling(empty, 6, model=model)) as run, case.counted() as rows:
        x = case.run()
    mix, own = presets.RF_SAMPLING[model], case.cond
    strong, weak = (
        {**own, "encoder_hidden_states": mixture(own["encoder_hidden_states"], empty)}
        for mixture in (mix.strong, mix.weak)
    )
    case.cond, given = strong, presets.rf_sampling(6, model=model)
    check_same(x, case.sampled(**given, weak_cond=weak, plain_cond=own))
    calls = 6 * 3 if model == "dev" else 5 * 5 + 3
    assert run.rows == sum(rows) / 2 == calls


@pytest.mark.parametrize("method", [ZSampling(plain=True), Z2Sampling(warmup=1)], ids=repr)
def test_a_strong_role_over_the_two_branches_of_the_pipeline(method: Any, tiny: Tiny) -> None:
    """Weak and plain predictions are then of the pipeline's own branches, each by its rule."""
    case, other = tiny("sd"), {"encoder_hidden_states": normal(1, TOKENS, 16, seed=8)}
    plain = {"plain": 2.0} if isinstance(method, ZSampling) else {}
    role = Role(prompt={"prompt_embeds": other["encoder_hidden_states"]})
    with attach(case.pipe, method, strong=role, weak=1.5, trace=(led := Trace()), **plain):
        x = case.run()
    own, case.cond = case.cond, other
    given = {"plain_cond": own, **plain} if plain else {}
    check_same(x, case.sampled(method, weak=1.5, weak_cond=own, trace=(by_hand := Trace()), **given))
    assert led.beta is not None
    # What the pipeline evaluates of its own may tell the one role's prediction from the calls of another.
    check_same_records(led, by_hand, taus=not plain)


def test_a_plain_role_over_two_branches_has_an_effective_scale(tiny: Tiny) -> None:
    """It is along the gap of the plain role's own branches, joined as the pipeline joins them."""
    case, method = tiny("sd"), ZSampling(plain=True)
    plain_cond = {"encoder_hidden_states": normal(1, TOKENS, 16, seed=8)}
    with attach(case.pipe, method, plain=Role(prompt={"prompt_embeds": plain_cond["encoder_hidden_states"]}),
                trace=(led := Trace())):  # fmt: skip
        x = case.run()
    check_same(x, case.sampled(method, weak=0.0, plain_cond=plain_cond, trace=(by_hand := Trace())))
    assert led.beta is not None
    # Of a role's own calls it is not known that their unconditional branch is that of the pipeline's.
    check_same_records(led, by_hand, taus=False)


def check_same_records(led: Trace, own: Trace, *, taus: bool = True) -> None:
    """Every move, and what was measured of it."""
    assert [r.move for r in led.records] == [r.move for r in own.records]
    for one, other in zip(led.records, own.records, strict=True):
        for name in ("delta", "tau1", "tau2", "beta"):
            a, b = getattr(one, name), getattr(other, name)
            assert (a is None) == (b is None) or (name.startswith("tau") and not taus), (one.move, name)
            if a is not None and b is not None:
                torch.testing.assert_close(a, b, rtol=1e-3, atol=0, msg=f"{name} of {one.move}")


@pytest.mark.parametrize("method", METHODS, ids=named)
def test_another_network(method: Any, tiny: Tiny) -> None:
    """A weaker one, as in autoguidance; with and without a rule of its own."""
    from tiny_unets import counted

    case = tiny("sdxl")
    weaker = shaken(copy.deepcopy(case.model))

    def weak_fn(x: Tensor, t: Tensor, cond: dict[str, Any]) -> Tensor:
        e: Tensor = weaker(x, t, **cond).sample
        return e

    for cfg, weak in ((None, 4.0), (0.0, 0.0)):
        weak_role = Role(module=weaker, cfg=cfg)
        with attach(case.pipe, method, weak=weak_role) as run, case.counted() as rows, counted(weaker) as of_weaker:
            x = case.run()
        check_same(x, case.sampled(method, weak=weak, weak_fn=weak_fn))
        assert run.rows == sum(rows) + sum(of_weaker)


class Halved(torch.nn.Module):
    """A network under half of its condition, whatever else it is told."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *args: Any, encoder_hidden_states: Tensor, **kwargs: Any) -> Any:
        return self.net(*args, encoder_hidden_states=encoder_hidden_states / 2, **kwargs)


@pytest.mark.parametrize("method", METHODS, ids=named)
def test_a_network_made_of_the_pipelines_own(method: Any, one_branch: Tiny) -> None:
    """It calls that as it is, without the role's edit of it."""
    case = one_branch("flux")
    weak_cond = {**case.cond, "encoder_hidden_states": case.cond["encoder_hidden_states"] / 2}
    check_role(case, method, Role(module=Halved(case.model)), weak_cond, 1)
    compiled = torch.compile(Halved(case.model), backend="eager")
    try:
        check_role(case, method, Role(module=compiled), weak_cond, 1)
    finally:
        torch.compiler.reset()
    plain = case.run()
    with attach(case.pipe, Z2Sampling(warmup=1), weak=Role(module=case.model)):  # no gap
        check_same(case.run(), plain)


@pytest.mark.parametrize("strength", [CosineStrength(), ShareStrength(0.01), NormStrength(0.002)], ids=repr)
@pytest.mark.parametrize("method", [ImplicitZ(steps=4), Z2Sampling(warmup=2)], ids=named)
def test_a_rule_of_the_strength_between_two_roles(method: Any, strength: Any, one_branch: Tiny) -> None:
    case, ruled = one_branch("flux"), replace(method, strength=strength)
    weak_cond = {**case.cond, "encoder_hidden_states": normal(1, TOKENS, 16, seed=8)}
    weak = Role(edit={"encoder_hidden_states": weak_cond["encoder_hidden_states"]})
    check_role(case, ruled, weak, weak_cond, 1)
    with attach(case.pipe, method, weak=weak):
        whole = case.run()
    with pytest.raises(AssertionError):  # the rule holds back
        check_same(whole, case.sampled(ruled, weak=1.0, weak_cond=weak_cond))


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "HeunDiscreteScheduler"])
def test_schedulers_with_memory_and_with_two_calls_a_step(name: str, tiny: Tiny) -> None:
    """The memory that a step holds, and both of its evaluations, are the strong ones."""
    import tiny_unets

    case = tiny("sd", scheduler=getattr(diffusers, name)(**tiny_unets.SD_BETAS), guidance_scale=1.0)
    weak_cond = {"encoder_hidden_states": normal(1, TOKENS, 16, seed=8)}
    for method in (ZSampling(steps=3), Z2Sampling(warmup=2)):
        with attach(case.pipe, method, weak=Role(edit=weak_cond)) as run, case.counted() as rows:
            x = case.run()
        scheduler = copy.deepcopy(case.pipe.scheduler)
        solver = adapters.solver_from_scheduler(scheduler)
        predict = adapters.unet_predictor(case.model, scheduler=scheduler)
        start = case.latents * scheduler.init_noise_sigma
        given = {"cond": case.cond, "strong": 1.0, "weak": 1.0, "weak_cond": weak_cond}
        with torch.no_grad():
            check_same(x, sample(predict, start, solver, method, **given))
        assert run.rows == sum(rows)


def test_the_trace_is_that_of_the_core(one_branch: Tiny) -> None:
    """Of every move, passes for two roles together: rows, and what it moved the state by."""
    case, method = one_branch("flux"), Z2Sampling(warmup=2)
    weak_cond = {**case.cond, "guidance": torch.full((1,), 1.5)}
    with attach(case.pipe, method, weak=Role(guidance=1.5), trace=(led := Trace())):
        case.run()
    case.sampled(method, weak=1.0, weak_cond=weak_cond, trace=(own := Trace()))
    assert [r.rows for r in led.records] == [r.rows for r in own.records]
    check_same_records(led, own)


def test_a_state_changed_between_the_calls_of_two_roles_is_refused(one_branch: Tiny) -> None:
    """At one state both are to be asked; a state changed before the first of them is the state."""
    case, method = one_branch("flux"), ImplicitZ()

    def changing(at: int) -> Callable[..., dict[str, Tensor]]:
        return lambda pipe, i, t, given: {"latents": given["latents"] * (2.0 if i == at else 1.0)}

    with attach(case.pipe, method, weak=Role(guidance=1.5)):
        case.run(callback_on_step_end=changing(2))  # after the Denoise of the first step
        with pytest.raises(ValueError, match="calls of two roles at one state"):
            case.run(callback_on_step_end=changing(0))


def test_standard_sampling_asks_no_role(one_branch: Tiny) -> None:
    case = one_branch("flux")
    plain = case.run()
    with attach(case.pipe, Standard(), weak=Role(guidance=1.5)) as run:
        assert torch.equal(case.run(), plain)
    assert run.rows == 6


@pytest.mark.parametrize("how", ["compiled in place", "compiled", "offloaded"])
def test_models_that_are_called_in_other_ways(how: str, one_branch: Tiny) -> None:
    """The edited call is compiled, or moves the weights in, as the pipeline's own does."""
    case, method = one_branch("sdxl"), ZSampling(steps=3)
    case.pipe.unet = net = copy.deepcopy(case.model)
    weak_cond = {**case.cond, "encoder_hidden_states": normal(1, TOKENS, 16, seed=8)}
    wanted = [case.run(), case.sampled(method, weak=1.0, weak_cond=weak_cond)]
    models = [part for part in case.pipe.components.values() if isinstance(part, torch.nn.Module)]
    if how == "offloaded":
        accelerate = pytest.importorskip("accelerate")
        for model in models:
            accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    elif how == "compiled":
        case.pipe.unet = torch.compile(net, backend="eager")
    else:
        net.compile(backend="eager")
    before = sorted(vars(net))
    try:
        with attach(case.pipe, method, weak=Role(edit={"encoder_hidden_states": weak_cond["encoder_hidden_states"]})):
            x, y = case.run(), case.run()
        assert torch.equal(x, y) and sorted(vars(net)) == before
        check_same(x, wanted[1])
        check_same(case.run(), wanted[0])
    finally:
        torch.compiler.reset()
        for model in models if how == "offloaded" else ():
            accelerate.hooks.remove_hook_from_submodules(model)
