"""What a page plots of a trace: each quantity at the step that it belongs to."""

from __future__ import annotations

import pytest
import torch

from zigzag import DDIM, ImplicitZ, Resampling, Standard, Trace, Z2Sampling, ZSampling, sample
from zigzag.cli.play_plots import plot, series

T = 4


def traced(method: object) -> Trace:
    """Of a field whose branches depend on the state."""
    trace = Trace()
    x = torch.randn(1, 3, generator=torch.Generator().manual_seed(0))

    def eps_fn(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        return torch.sin(x + cond)

    one, none = torch.ones(1, 1), torch.zeros(1, 1)
    generator = torch.Generator().manual_seed(1)
    sample(eps_fn, x, DDIM.karras(T), method, cond=one, uncond=none, trace=trace, generator=generator)
    return trace


@pytest.mark.parametrize(
    ("method", "steps"),
    [
        (ZSampling(), {"delta": [0, 1, 2], "tau1": [0, 1, 2], "tau2": [0, 1, 2], "beta": [0, 1, 2]}),
        (ZSampling(steps=1, rounds=2), {"delta": [0, 0], "tau1": [0, 0], "tau2": [0, 0], "beta": [0]}),
        (ImplicitZ(steps=2), {"delta": [0, 1], "tau1": [], "tau2": [], "beta": [0, 1]}),
        (Z2Sampling(warmup=2), {"delta": [2, 3], "tau1": [], "tau2": [], "beta": [2, 3]}),
        (Resampling(steps=1), {"delta": [0], "tau1": [], "tau2": [], "beta": [0]}),
        (Standard(), {"delta": [], "tau1": [], "tau2": [], "beta": []}),
    ],
)
def test_each_quantity_stands_at_the_step_that_it_is_of(method: object, steps: dict[str, list[int]]) -> None:
    trace = traced(method)
    for name, at in steps.items():
        found, values = series(trace.records, name)
        known = [float(value) for record in trace.records if (value := getattr(record, name)) is not None]
        assert (found, values) == (at, known), name


def test_a_figure_has_a_panel_for_what_there_is() -> None:
    pytest.importorskip("matplotlib")
    assert plot(traced(Standard()), T) is None
    labels = {
        method: [axis.get_ylabel() for axis in plot(traced(method), T).axes] for method in (ZSampling(), Z2Sampling(1))
    }
    assert labels == {ZSampling(): ["δ", "‖τ₁‖ and ‖τ₂‖", "β"], Z2Sampling(1): ["δ", "β"]}
    line = plot(traced(ZSampling()), T).axes[-1].lines[0]
    assert [*line.get_xdata()] == [0, 1, 2]
