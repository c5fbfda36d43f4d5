"""Strong, weak and plain as roles: conditions and predictors of their own, rows that ran, and the third role."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from support.steered import Led
from zigzag import (
    CFG,
    DDIM,
    FlowEuler,
    ImplicitZ,
    Interval,
    Standard,
    StepInfo,
    Z2Sampling,
    ZSampling,
    count_rows,
    sample,
    walk,
)
from zigzag.capture.graphs import TableLoop
from zigzag.guidance import RescaledCFG
from zigzag.presets import rf_sampling, w2sd
from zigzag.zoo import GaussianMixture

SOLVERS = {"ddim": DDIM.stable_diffusion(5), "flow": FlowEuler.uniform(5)}
S, W, P = 4.0, 0.5, 2.0


class Field:
    """A predictor that is not linear in state or condition, and counts its rows; `k` tells one network from another."""

    def __init__(self, k: float = 1.0) -> None:
        self.k, self.rows, self.calls = k, 0, 0

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        self.rows, self.calls = self.rows + len(x) // 2, self.calls + 1  # B = 2
        return torch.sin(self.k * x + cond) * (1 + 0.001 * t.to(x.dtype)[:, None])


class Modes(Field):
    """The exact predictor of a Gaussian mixture: a condition is the class of its largest number, and `k` moves it."""

    def __init__(self, solver: Any, k: float = 1.0) -> None:
        super().__init__(k)
        means = torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        self.predict = GaussianMixture(means + 0.3 * k, 0.5).predictor(solver)

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        self.rows, self.calls = self.rows + len(x) // 2, self.calls + 1
        return self.predict(x, t[:1].expand(len(x)), cond.argmax(1))


def tensors(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    names = ("x", "cond", "uncond", "weak_cond", "weak_uncond", "plain_cond", "plain_uncond")
    return {name: torch.randn(2, 3, generator=generator, dtype=torch.float64) for name in names}


ALL = tensors()


def by_hand(solver: Any, method: str, own: dict[str, Any], networks: dict[str, Field]) -> Tensor:
    """The methods, straight: no path, no query, no cache."""

    def e(role: str, x: Tensor, i: int) -> Tensor:
        w = {"strong": S, "weak": W, "plain": P}[role]
        c = own.get(f"{role}_cond", ALL["cond"])
        u = own.get(f"{role}_uncond", ALL["uncond"])
        t = solver.times[i].to(torch.float64).expand(2)
        network = networks.get(role, networks["strong"])
        e_c, e_u = network(x, t, c), network(x, t, u)
        return e_u + w * (e_c - e_u)

    x, gap = ALL["x"], torch.zeros(2, 3)
    for i in range(len(solver)):
        a, b = float(solver.step(i).a), float(solver.step(i).b)
        if method == "z" and i < len(solver) - 1:
            down = a * x + b * e("strong", x, i)
            x = (down - b * e("weak", down, i)) / a
        if method == "implicit":
            x = x + b / a * (e("strong", x, i) - e("weak", x, i))
        if method == "z2" and i >= 2:
            x = x + b / a * gap
        if method == "z2":
            gap = e("strong", x, i) - e("weak", x, i)
        x = a * x + b * e("plain" if method == "z" else "strong", x, i)
    return x


METHODS = {"z": ZSampling(plain=True), "implicit": ImplicitZ(), "z2": Z2Sampling(warmup=2)}
OWN: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "weak_cond": ("weak_cond",),
    "weak_uncond": ("weak_uncond",),
    "both": ("weak_cond", "weak_uncond"),
    "plain too": ("weak_cond", "plain_cond", "plain_uncond"),
    "a network": ("weak_fn",),
    "a network and a condition": ("weak_fn", "weak_cond"),
    "two networks": ("weak_fn", "plain_fn"),
}


def arguments(
    own: tuple[str, ...], method: str, kind: Callable[..., Field] = Field
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Field]]:
    """What `sample` is given, what belongs to each role, and the networks."""
    own = tuple(name for name in own if method == "z" or not name.startswith("plain"))
    networks = {"strong": kind()} | {n.removesuffix("_fn"): kind(k=0.5 + k) for k, n in enumerate(own) if "fn" in n}
    given: dict[str, Any] = {f"{role}_fn": net for role, net in networks.items() if role != "strong"}
    conditions = {name: ALL[name] for name in own if not name.endswith("fn")}
    plain = {"plain": P} if method == "z" else {}
    return {**given, **conditions, **plain}, conditions, networks


@pytest.mark.parametrize("batched", [True, False, "auto"])
@pytest.mark.parametrize("own", list(OWN))
@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("name", list(SOLVERS))
@pytest.mark.parametrize("kind", [Field, Modes])
def test_roles_are_the_loop_by_hand(kind: type[Field], name: str, method: str, own: str, batched: Any) -> None:
    """On a field that is linear in nothing, and on Gaussian mixtures."""
    solver = SOLVERS[name]
    make = partial(Modes, solver) if kind is Modes else Field
    given, conditions, networks = arguments(OWN[own], method, make)
    expected = by_hand(solver, method, conditions, networks)
    for network in networks.values():
        network.rows = network.calls = 0
    got = sample(
        networks["strong"], ALL["x"], solver, METHODS[method], cond=ALL["cond"], uncond=ALL["uncond"], strong=S, weak=W,
        batched=batched, **given,
    )  # fmt: skip
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    weak = True if "weak_fn" in given else [n[5:] for n in conditions if n.startswith("weak")]
    plain = True if "plain_fn" in given else [n[6:] for n in conditions if n.startswith("plain")]
    plain_scale = {"plain": P} if method == "z" else {}
    rows = sum(network.rows for network in networks.values())
    assert rows == count_rows(METHODS[method], solver, S, W, own_weak=weak, own_plain=plain, **plain_scale)
    if batched is not False and "fn" not in "".join(given):  # one call a state
        evaluations = {"z": 3 * 4 + 1, "implicit": 2 * 5, "z2": 5}[method]
        assert networks["strong"].calls == evaluations


@pytest.mark.parametrize("own", list(OWN))
@pytest.mark.parametrize("method", list(METHODS))
def test_a_captured_loop_has_the_same_roles(method: str, own: str) -> None:
    solver, (given, _, networks) = SOLVERS["ddim"], arguments(OWN[own], method)
    fixed = {"cond": ALL["cond"], "uncond": ALL["uncond"], "strong": S, "weak": W, **given}
    run = TableLoop(networks["strong"], ALL["x"], solver, METHODS[method], **fixed)
    expected = sample(networks["strong"], ALL["x"], solver, METHODS[method], **fixed)
    torch.testing.assert_close(run(ALL["x"]), expected, rtol=1e-12, atol=1e-12)
    # Other conditions are fed to every copy of them.
    other = {name: ALL[name] * 0.7 for name in ("cond", "uncond", *(n for n in given if n.endswith("cond")))}
    expected = sample(networks["strong"], ALL["x"], solver, METHODS[method], **fixed | other)
    torch.testing.assert_close(run(ALL["x"], **other), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("own", ["nothing", "plain too", "two networks"])
def test_a_captured_loop_takes_new_scales_of_each_role(own: str) -> None:
    solver, (given, _, networks) = SOLVERS["ddim"], arguments(OWN[own], "z")
    fixed = {"cond": ALL["cond"], "uncond": ALL["uncond"], "strong": S, "weak": W, **given}
    run = TableLoop(networks["strong"], ALL["x"], solver, METHODS["z"], **fixed)
    for new in ({"plain": 3.5}, {"strong": 6.0}, {"weak": 2.0, "plain": 2.5}):
        fixed |= new
        expected = sample(networks["strong"], ALL["x"], solver, METHODS["z"], **fixed)
        torch.testing.assert_close(run(ALL["x"], **new), expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="branches"):
        run(ALL["x"], plain=1.0)
    implicit = TableLoop(networks["strong"], ALL["x"], solver, ImplicitZ(), cond=ALL["cond"], uncond=ALL["uncond"])
    with pytest.raises(ValueError, match="has no plain Denoise"):
        implicit(ALL["x"], plain=2.0)


def test_presets_are_captured_as_they_are_sampled() -> None:
    solver, (given, _, networks) = SOLVERS["ddim"], arguments(("weak_fn", "plain_fn"), "z")
    mix = {name: ALL[name] for name in ("cond", "weak_cond", "plain_cond")}
    networks_of = {name: given[name] for name in ("weak_fn", "plain_fn")}
    for preset, roles, rows in (
        (w2sd(), {"cond": ALL["cond"], "uncond": ALL["uncond"], **networks_of}, 5 * 4 + 2),
        (rf_sampling(5), mix, 3 * 5),
        (rf_sampling(5, model="lite"), mix, 5 * 4 + 3),
    ):
        loop = TableLoop(networks["strong"], ALL["x"], solver, **preset, **roles)
        expected = sample(networks["strong"], ALL["x"], solver, **preset, **roles)
        torch.testing.assert_close(loop(ALL["x"]), expected, rtol=1e-9, atol=1e-9)
        assert loop.rows == rows


def test_conditions_that_compare_by_element_are_those_of_a_role_too() -> None:
    """An array of NumPy has no truth value of its own."""
    c, u, p = (np.asarray(ALL[name]) for name in ("cond", "uncond", "plain_cond"))

    def field(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        return torch.sin(x + torch.as_tensor(cond))

    given = {"plain_cond": p, "weak_cond": p * 0.5, "strong": S, "weak": W}
    got = sample(field, ALL["x"], SOLVERS["ddim"], METHODS["z"], cond=c, uncond=u, **given)
    as_tensors = {name: torch.as_tensor(value) for name, value in given.items() if name.endswith("cond")}
    expected = sample(
        field, ALL["x"], SOLVERS["ddim"], METHODS["z"], cond=ALL["cond"], uncond=ALL["uncond"], **given | as_tensors
    )
    torch.testing.assert_close(got, expected)


def test_what_both_roles_need_of_one_network_is_evaluated_once() -> None:
    """A weak condition of its own costs a row a gap."""
    z2 = Z2Sampling(warmup=1)
    assert count_rows(z2, 5, S, W) == 10
    assert count_rows(z2, 5, S, W, own_weak=("cond",)) == 10 + 4  # the last step leaves no gap behind
    assert count_rows(z2, 5, S, 1.0, own_weak=("cond",)) == 10 + 4
    assert count_rows(z2, 5, 1.0, 1.0, own_weak=("cond",)) == 5 + 4  # a model without an unconditional branch


def test_a_distilled_model_needs_no_unconditional_branch() -> None:
    """Strong and weak are one branch each, of two conditions: what FLUX is asked for."""
    fn, given = Field(), {"cond": ALL["cond"], "weak_cond": ALL["weak_cond"], "strong": 1.0, "weak": 1.0}
    for method in (ZSampling(), ImplicitZ(), Z2Sampling(warmup=2)):
        sample(fn, ALL["x"], SOLVERS["flow"], method, **given)
    fn.rows = 0
    sample(fn, ALL["x"], SOLVERS["flow"], Z2Sampling(warmup=1), **given)
    assert fn.rows == 5 + 4


@dataclass(frozen=True)
class Nothing:
    """A rule that reads neither branch."""

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        return False, False

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
        return torch.zeros_like(ALL["x"])


@pytest.mark.parametrize("method", [ZSampling(plain=True), ImplicitZ(), Z2Sampling(warmup=2)], ids=repr)
def test_a_condition_that_no_prediction_reads_is_refused(method: Any) -> None:
    """At the default weak=0 a weak condition would make no difference, silently, with a network of its own too."""
    fn, given = Field(), {"cond": ALL["cond"], "uncond": ALL["uncond"], "strong": S}
    refused: list[tuple[dict[str, Any], str]] = [
        ({"weak_cond": ALL["weak_cond"]}, r"no prediction reads weak_cond: weak=CFG\(0\) needs uncond alone"),
        ({"weak_uncond": ALL["weak_uncond"], "weak": 1.0}, r"reads weak_uncond: weak=CFG\(1\) needs cond alone"),
        ({"weak_fn": Field(2.0), "weak_cond": ALL["weak_cond"]}, "reads weak_cond: weak=.* needs weak_uncond alone"),
        ({"weak_cond": 1, "weak_uncond": 2, "weak": Nothing()}, "reads weak_cond and weak_uncond: .* needs no branch"),
    ]
    for run, (own, match) in product((sample, walk, TableLoop), refused):
        with pytest.raises(ValueError, match=match):
            run(fn, ALL["x"], SOLVERS["ddim"], method, **own, **given)
    assert fn.calls == 0


@pytest.mark.parametrize("method", [ZSampling(plain=True), ImplicitZ(), Z2Sampling(warmup=2)], ids=repr)
def test_a_condition_that_is_read_somewhere_is_none_of_those(method: Any) -> None:
    """Of both, or at some steps; of a network without conditions of its own; or where the path asks no such role."""
    run = partial(sample, Field(), ALL["x"], SOLVERS["ddim"], cond=ALL["cond"], uncond=ALL["uncond"], strong=S)
    both = {"weak_cond": ALL["weak_cond"], "weak_uncond": ALL["uncond"]}
    for weak in (0.0, 1.0, Interval(CFG(0.0), 0, 3)):  # and w = 1 outside
        run(method, weak=weak, **both)
    run(method, weak=Interval(CFG(0.0), 0, 3), weak_cond=ALL["weak_cond"])
    run(method, weak=Nothing(), weak_fn=Field(2.0))
    run(Standard(), weak_cond=ALL["weak_cond"])
    run(Led(Standard()), weak_cond=ALL["weak_cond"])  # what a steered path asks is known later


def test_a_plain_condition_that_no_prediction_reads_is_refused() -> None:
    fn, given = Field(), {"cond": ALL["cond"], "uncond": ALL["uncond"], "plain_cond": ALL["plain_cond"]}
    with pytest.raises(ValueError, match=r"no prediction reads plain_cond: plain=CFG\(0\) needs uncond alone"):
        sample(fn, ALL["x"], SOLVERS["ddim"], ZSampling(plain=True), plain=0.0, **given)
    with pytest.raises(ValueError, match="no prediction reads weak_cond"):
        count_rows(Z2Sampling(warmup=1), 5, S, 0.0, own_weak=("cond",))


def test_what_a_role_lacks_is_said_by_name() -> None:
    fn, given = Field(), {"cond": ALL["cond"], "uncond": ALL["uncond"]}
    for own in ({"plain": 2.0}, {"plain_fn": fn}, {"plain_cond": ALL["cond"]}):
        with pytest.raises(ValueError, match="has no plain Denoise"):
            sample(fn, ALL["x"], SOLVERS["flow"], ZSampling(), **given, **own)
    with pytest.raises(ValueError, match=r"uncond is missing but weak=CFG\(0.5\) needs the unconditional branch"):
        sample(fn, ALL["x"], SOLVERS["flow"], ZSampling(), cond=ALL["cond"], weak_cond=1, strong=1.0, weak=0.5)
    with pytest.raises(TypeError, match="plain_fn must be callable"):
        sample(fn, ALL["x"], SOLVERS["flow"], ZSampling(plain=True), **given, plain_fn=3)
    with pytest.raises(TypeError, match="plain must be a number or a Guidance"):
        sample(fn, ALL["x"], SOLVERS["flow"], ZSampling(plain=True), **given, plain="x")
    with pytest.raises(ValueError, match=r"as \('cond',\) is, got 'cond'"):
        count_rows(ZSampling(), 5, own_weak="cond")
    with pytest.raises(ValueError, match="own_weak must be a bool, or of cond and uncond"):
        count_rows(Standard(), 5, own_weak=("weak_cond",))
    assert fn.rows == 0


def test_a_rule_of_its_own_joins_each_role() -> None:
    """Not linear, so not in a table; a weak condition is what the weak rule is called with."""
    seen: list[tuple[Any, Any]] = []

    class Spy(RescaledCFG):
        def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: Any) -> Tensor:
            seen.append((e_c, e_u))
            return super().__call__(e_c, e_u, step)

    fn = Field()
    sample(
        fn, ALL["x"], SOLVERS["ddim"], (ImplicitZ().path(5)[0],), cond=ALL["cond"], uncond=ALL["uncond"], strong=S,
        weak=Spy(2.0), weak_cond=ALL["weak_cond"],
    )  # fmt: skip
    t = SOLVERS["ddim"].times[0].to(torch.float64).expand(2)
    ((e_c, e_u),) = seen
    torch.testing.assert_close(e_c, fn(ALL["x"], t, ALL["weak_cond"]))
    torch.testing.assert_close(e_u, fn(ALL["x"], t, ALL["uncond"]))
