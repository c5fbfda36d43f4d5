"""Captured steps, replayed on a CPU by an emulator of CUDA's graphs, are the loop on tables; what is wrong is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.emulated import Emulator
from support.loops import GRID, METHODS, SCALES, SOLVERS, T
from support.tables import COND, UNCOND, X, eps_fn, generator, other_fn
from zigzag import ImplicitZ, Standard, Z2Sampling, ZSampling
from zigzag.capture import graphs
from zigzag.capture.cuda import Recording
from zigzag.capture.graphs import CapturedLoop, TableLoop
from zigzag.capture.table import Carry, Kind, Plan, step_function
from zigzag.guidance import CFG
from zigzag.methods import Method
from zigzag.strengths import CosineStrength, NormStrength, ShareStrength

SOLVED = {"ddim": GRID, **{name: SOLVERS[name] for name in ("3M", "sde 2", "everything")}}
RELEASED, PARTS = "z, released", "parts of z"  # of solvers without memory or noise; of one evaluation a step
WALKED: dict[str, Any] = {
    **METHODS, RELEASED: ZSampling(released=True), PARTS: ZSampling(span=2, strength=0.3),
    "z2, cosine": Z2Sampling(2, strength=CosineStrength()), "z2, share": Z2Sampling(2, strength=ShareStrength(0.05)),
    "implicit, norm": ImplicitZ(strength=NormStrength(0.01)), "z, plain": ZSampling(plain=True),
}  # fmt: skip
GIVEN: dict[str, dict[str, Any]] = {**SCALES, "weak_cond": {"weak_cond": COND * 0.5, "weak": 1.0}}
THREE: dict[str, Any] = {
    "weak_fn": other_fn, "plain_fn": lambda x, t, cond: -other_fn(x, t, cond), "plain": 2.0, "plain_cond": COND + 0.2,
}  # fmt: skip
GIVEN |= {"three roles": THREE, "a plain condition": {"plain": 2.0, "plain_cond": COND + 0.2}}
DEVICE = torch.device("cpu")


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Emulator:
    return Emulator().install(monkeypatch)


def loops(method: Method | Any, solver: Any = GRID, fn: Any = eps_fn, **given: Any) -> list[TableLoop]:
    given = {"cond": COND.clone(), "uncond": UNCOND.clone(), **given}
    return [kind(fn, X, solver, method, **given) for kind in (TableLoop, CapturedLoop)]


def same(runs: list[TableLoop], x: Tensor = X, **given: Any) -> bool:
    plain, captured = (run(x, generator=generator(), **given) for run in runs)
    return torch.equal(plain, captured) and bool(plain.isfinite().all())


UNFIT = [(name, RELEASED) for name in SOLVED if name != "ddim"] + [("everything", PARTS)]
CASES = [(name, method, "5.5 and 0") for name in SOLVED for method in WALKED if (name, method) not in UNFIT]
CASES += [(name, method, given) for name in SOLVED for method in ("z", "z2") for given in list(GIVEN)[1:4]]
CASES += [(name, "z, plain", given) for name in SOLVED for given in list(GIVEN)[4:]]


@pytest.mark.parametrize(("name", "method", "given"), CASES)
def test_replayed_steps_are_the_loop_on_tables_bit_for_bit(
    name: str, method: str, given: str, emulator: Emulator
) -> None:
    """Over and over, with conditions, states and scales that come after the capture."""
    scales = GIVEN[given]
    runs = loops(WALKED[method], SOLVED[name], **scales)
    assert len(emulator.graphs) == len(runs[1].steps)
    assert same(runs) and same(runs)
    assert same(runs, X.flip(0) * 0.7, cond=COND * 2)
    before = runs[1](X, generator=generator())
    for own in scales.keys() & {"weak_cond", "plain_cond"}:
        assert same(runs, **{own: COND * -0.3}) and not torch.equal(runs[1](X, generator=generator()), before)
    if given != "rules":
        assert same(runs, strong=CFG(lambda step: 3.0 + 0.1 * step.i), weak=scales.get("weak", 0.0))
    assert same(runs, cond=COND, uncond=UNCOND + 0.1)


def test_a_network_of_modules_is_replayed_too(emulator: Emulator) -> None:
    network = nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.LayerNorm(8), nn.Linear(8, 6)).double().requires_grad_(False)

    def fn(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return network(x.flatten(1) + cond[:, None]).view_as(x) + 0.01 * torch.cos(t)[:, None, None]

    for method in (Standard(), Z2Sampling(2), ZSampling()):
        runs = loops(method, fn=fn)
        assert same(runs) and same(runs, cond=COND * 3)
        with torch.no_grad():
            network[0].weight.mul_(1.5)  # in place: graphs read what is there
        assert same(runs)


# What is wrong, and found.


class Counting:
    """Told its times by a count of its own calls: Python, which a replay does not run."""

    def __init__(self) -> None:
        self.calls, self.times = 0, GRID.times.tolist()

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        told = self.times[self.calls % T]
        self.calls += 1
        return eps_fn(x, torch.full_like(t, told), cond)


def test_a_host_value_that_was_baked_in_is_found(emulator: Emulator) -> None:
    plain, captured = (run for run in loops(Standard(), fn=Counting()))
    plain.models.models[0].fn.calls = 0
    assert not torch.equal(plain(X), captured(X))
    assert same(loops(Standard()))


def test_a_host_number_in_place_of_the_table_is_found(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    def baked(kind: Kind, plan: Plan, *given: Any) -> Callable[..., Any]:
        return step_function(kind, plan._replace(numbers=plan.numbers[2:3].expand_as(plan.numbers)), *given)

    runs = loops(Z2Sampling(2))[:1]
    monkeypatch.setattr(graphs, "step_function", baked)
    assert not same([*runs, loops(Z2Sampling(2))[1]])


def test_memory_of_another_graph_is_found(emulator: Emulator) -> None:
    """What a graph made, and nobody holds, is given to the next one."""
    out, kept = torch.zeros(3), [torch.zeros(3)]
    made = torch.ones(3)

    def first() -> None:
        kept[0] = made * 2

    def second() -> None:
        out.copy_(kept[0] + 1)

    held = Recording({"first": first, "second": second}, DEVICE)
    held.replay("first")
    held.replay("second")
    assert torch.equal(out, made * 3)  # as long as it is held, it stays
    kept.clear()
    held.replay("first")
    held.replay("second")
    assert out.isnan().all()


def test_a_gap_that_is_not_kept_in_a_buffer_is_found(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: dict[str, Tensor] = {}

    def leaky(kind: Kind, plan: Plan, *given: Any) -> Callable[..., Any]:
        step = step_function(kind, plan, *given)

        def leaking(k: Tensor, carry: Carry, noise: Tensor) -> None:
            gap = lost.get("gap", carry.gap) if kind.adds_gap else torch.zeros_like(carry.gap)
            step(k, carry._replace(gap=gap), noise)
            lost["gap"] = gap

        return leaking

    plain = loops(WALKED["a path"])[0]
    monkeypatch.setattr(graphs, "step_function", leaky)
    captured = loops(WALKED["a path"])[1]
    lost.clear()
    assert not same([plain, captured])


def test_a_condition_that_is_not_copied_is_found(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into that of a joined call, say."""
    runs = loops(Z2Sampling(2))
    assert any(conditions.joined for conditions in runs[1].conditions)
    monkeypatch.setattr(runs[1], "conditions", [its._replace(joined={}) for its in runs[1].conditions])
    assert same(runs)
    assert not same(runs, cond=COND * 2)


def test_conditions_that_are_the_callers_are_found(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "buffered", lambda conditions: conditions)
    cond = COND.clone()
    _, captured = loops(Standard(), cond=cond, batched=False)
    captured(X, cond=COND * 2)
    assert not torch.equal(cond, COND)


def moved_away(network: nn.Module) -> None:
    network.weight = nn.Parameter(network.weight.clone())


def test_weights_that_are_gone_are_found(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Linear(6, 6).double().requires_grad_(False)
    runs = loops(Standard(), fn=lambda x, t, cond: network(x.flatten(1)).view_as(x))
    assert same(runs)
    moved_away(network)
    monkeypatch.setattr(runs[1].recording, "check_weights", lambda: None)
    assert not same(runs)


def test_casts_that_autocast_keeps_are_found(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """They live as long as the block, and are read by the graph after it."""
    network = nn.Linear(6, 6)
    made: dict[str, Any] = {"cond": COND.float(), "uncond": UNCOND.float()}

    def fn(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return network(x.flatten(1)).float().view_as(x)

    def capture(unseen: bool = False, **given: Any) -> CapturedLoop:
        with torch.autocast("cpu", torch.bfloat16, **given), monkeypatch.context() as patch:
            if unseen:
                patch.setattr(torch, "is_autocast_cache_enabled", lambda: False)
            return CapturedLoop(fn, X.float(), GRID, Standard(), **made)

    with pytest.raises(RuntimeError, match=r"within torch.autocast.*cache_enabled=False"):
        capture()
    assert capture(cache_enabled=False)(X.float()).isfinite().all()
    assert not capture(unseen=True)(X.float()).isfinite().all()


@pytest.mark.parametrize("kind", [TableLoop, CapturedLoop])
def test_other_fn_is_another_model(kind: type[TableLoop], emulator: Emulator) -> None:
    """What the comparisons above compare is not the same for every input."""
    run, other = (
        kind(fn, X, GRID, Standard(), cond=COND, uncond=UNCOND) for fn in (eps_fn, other_fn)
    )  # fmt: skip
    assert not torch.equal(run(X), other(X))
