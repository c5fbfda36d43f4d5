"""Backpropagation without stored states: the gradients of full backpropagation, in memory flat in the steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.predictors import untouched
from support.sampling import X
from zigzag import DDIM, FlowEuler, Spherical
from zigzag.inversion import EDICT, OBELM, FixedPoint, Reversible, Rex, ending_above, fresh, reconstruct, reversible
from zigzag.solvers import Solver

EPS = torch.finfo(torch.float64).eps


class Network(nn.Module):
    """Two layers; told the time and a condition of one number."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.last = nn.Linear(4, 16).double(), nn.Linear(16, 3).double()
        for p in self.parameters():
            nn.init.normal_(p, std=0.3, generator=generator)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        told = torch.cos(t.to(x.dtype))[:, None]
        out: Tensor = self.last(torch.tanh(self.first(torch.cat([x, cond], 1)) + told))
        return out


CASES: dict[str, tuple[Reversible, Solver]] = {
    "EDICT": (EDICT(), DDIM.stable_diffusion(8)),
    "EDICT, flow": (EDICT(), FlowEuler.uniform(7)),
    "OBELM": (OBELM(), DDIM.stable_diffusion(8)),
    "OBELM, v": (OBELM(), Spherical.cosine(8)),
    "Rex": (Rex(), ending_above(DDIM.stable_diffusion(8))),
    "Rex, eta": (Rex(), ending_above(DDIM.stable_diffusion(8, eta=1.0))),
}
each_case = pytest.mark.parametrize(("scheme", "solver"), CASES.values(), ids=list(CASES))


def seed() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def inputs() -> dict[str, Any]:
    cond = torch.tensor([[0.5], [-0.7]], dtype=torch.float64).requires_grad_()
    uncond = torch.tensor([[0.1], [0.2]], dtype=torch.float64).requires_grad_()
    return {"cond": cond, "uncond": uncond}


@each_case
@pytest.mark.parametrize("batched", [True, False])
def test_gradients_are_those_of_full_backpropagation(scheme: Reversible, solver: Solver, batched: bool) -> None:
    """At the noise, both conditions and all parameters, but for what the way up multiplies rounding by."""
    net, x, given = Network(), X.clone().requires_grad_(), inputs()
    options: dict[str, Any] = {**given, "guidance": 2.5, "batched": batched}
    wanted = [x, *given.values(), *net.parameters()]
    full = reconstruct(net, fresh(x, solver, scheme, generator=seed()), solver, grad=True, **options)
    flat = reversible(net, x, solver, scheme, generator=seed(), **options)
    assert torch.equal(full, flat)
    weight = torch.linspace(-1, 2, 6, dtype=torch.float64).reshape(2, 3)
    for g, expected in zip(
        torch.autograd.grad((flat * weight).sum(), wanted), torch.autograd.grad((full * weight).sum(), wanted),
        strict=True,
    ):  # fmt: skip
        assert float(expected.abs().max()) > 1e-3
        bound = 1e3 * EPS * scheme.growth(solver) * float(expected.abs().max())
        torch.testing.assert_close(g, expected, rtol=0, atol=bound)


def test_a_way_back_of_another_scheme_has_other_gradients() -> None:
    """The bound above refuses states computed anew by another scheme."""

    class Wrong(EDICT):
        def inverse(self, run: Any, i: int, x: Tensor, y: Tensor) -> Any:
            y, x = yield from super().inverse(run, i, y, x)
            return x, y

    net, solver, given = Network(), DDIM.stable_diffusion(8), inputs()
    gradients = []
    for scheme in (EDICT(), Wrong()):
        x = X.clone().requires_grad_()
        made = reversible(net, x, solver, scheme, **given, guidance=2.5)
        gradients.append(torch.autograd.grad(made.square().sum(), [x, *net.parameters()]))
    bound = 1e3 * EPS * EDICT().growth(solver)
    assert any(float((a - b).abs().max()) > 1e3 * bound * float(a.abs().max()) for a, b in zip(*gradients, strict=True))


def test_gradcheck() -> None:
    net, solver = Network(), DDIM.stable_diffusion(4)
    x, cond = X.clone().requires_grad_(), inputs()["cond"]
    assert torch.autograd.gradcheck(lambda x, c: reversible(net, x, solver, EDICT(), cond=c), (x, cond))


def test_only_what_wants_a_gradient_gets_one() -> None:
    net, solver, given = Network(), DDIM.stable_diffusion(4), inputs()
    net.first.requires_grad_(False)
    made = reversible(net, X, solver, EDICT(), cond=given["cond"].detach())
    made.sum().backward()
    assert all(p.grad is None for p in net.first.parameters())
    assert all(p.grad is not None for p in net.last.parameters())
    net.requires_grad_(False)
    assert not reversible(net, X, solver, EDICT(), cond=given["cond"].detach()).requires_grad


def test_the_parameters_of_a_closure_are_asked_for() -> None:
    net, solver, given = Network(), DDIM.stable_diffusion(4), inputs()

    def closure(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return net(x, t, cond)

    made = reversible(closure, X, solver, EDICT(), cond=given["cond"])
    with pytest.raises(RuntimeError, match=r"a parameter of shape \(\d.* is not of modules="):
        made.sum().backward()
    made = reversible(closure, X, solver, EDICT(), cond=given["cond"], modules=[net])
    made.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_conditions_may_be_any_tree() -> None:
    """Tensors within get their gradients; what is none passes through."""
    net, solver, given = Network(), DDIM.stable_diffusion(4), inputs()

    def packed(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        assert cond["name"] == "cat"
        return net(x, t, cond["pair"][0])

    tree = {"pair": (given["cond"], 3), "name": "cat"}
    reversible(packed, X, solver, EDICT(), cond=tree, modules=[net]).sum().backward()
    assert given["cond"].grad is not None and float(given["cond"].grad.abs().max()) > 0


def test_autocast_is_that_of_the_way_down() -> None:
    """The steps computed anew run in the precision that the sample was drawn in, though the block is left."""
    seen: set[torch.dtype] = set()

    class Noting(Network):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            out = super().forward(x.float(), t, cond.float())
            seen.add(out.dtype)
            return out

    net = Noting().float()
    x = X.float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = reversible(net, x, DDIM.stable_diffusion(4), EDICT(), cond=inputs()["cond"].detach().float())
    made.sum().backward()
    assert seen == {torch.bfloat16} and x.grad is not None and x.grad.dtype == torch.float32


def test_no_state_of_the_way_down_is_kept() -> None:
    """What the sample's graph holds is the last pair and the noise, whatever the steps."""
    import gc
    import weakref

    for steps in (4, 12):
        alive: list[weakref.ref[Tensor]] = []

        def noting(x: Tensor, t: Tensor, cond: Tensor, alive: list[weakref.ref[Tensor]] = alive) -> Tensor:
            alive.append(weakref.ref(x))
            return torch.sin(x) + cond

        x = X.clone().requires_grad_()
        made = reversible(noting, x, DDIM.stable_diffusion(steps), EDICT(), cond=inputs()["cond"].detach())
        gc.collect()
        assert len(alive) == 2 * steps
        assert sum(ref() is not None for ref in alive) <= 3
        made.sum().backward()
        assert len(alive) == 6 * steps


def test_refusals() -> None:
    solver, cond = DDIM.stable_diffusion(4), inputs()["cond"]
    with pytest.raises(TypeError, match="scheme must be EDICT, OBELM or Rex, which are exact by algebra, got"):
        reversible(untouched, X, solver, FixedPoint(), cond=cond)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="modules must be torch modules, got int"):
        reversible(untouched, X, solver, EDICT(), cond=cond, modules=[3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="uncond is missing but guidance"):
        reversible(untouched, X, solver, EDICT(), cond=cond, guidance=3.0)
    with pytest.raises(ValueError, match=r"dtype=torch.float64 would do"):
        reversible(untouched, X.float(), DDIM.karras(50), OBELM(), cond=cond)
