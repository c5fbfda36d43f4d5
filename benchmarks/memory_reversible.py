"""What backpropagation through a whole sample holds, against the number of steps.

    python benchmarks/memory_reversible.py [--quick] [--json FILE]

Counted as in `memory.py`, over the forward and the backward pass, in latents: full backpropagation keeps the
activations of every call, `checkpoint=True` a state a step and the activations of one call, and a reversible scheme
those of one step alone. Beside it the rows that the two passes run, counted by the calls of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from common import arguments, write
from memory import LiveBytes
from torch import Tensor, nn

from zigzag import DDIM, Standard, sample
from zigzag.inversion import EDICT, OBELM, Rex, ending_above, reversible

SHAPE = (1, 4, 64, 64)
CHANNELS = 32


class Network(nn.Module):
    """Four convolutions, whose activations are eight latents each; it counts its rows."""

    def __init__(self) -> None:
        super().__init__()
        widths = [SHAPE[1], CHANNELS, CHANNELS, CHANNELS, SHAPE[1]]
        pairs = pairwise(widths)
        self.layers = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in pairs)
        self.rows = 0

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Depends on all three."""
        self.rows += len(x)
        x = x + cond[:, None, None] + t[:, None, None, None] / 1000
        for layer in self.layers[:-1]:
            x = layer(x).tanh()
        out: Tensor = self.layers[-1](x)
        return out


WAYS: dict[str, Callable[[Network, Tensor, Tensor, int], Tensor]] = {
    "sample(grad=True)": lambda net, x, cond, T: sample(
        net, x, DDIM.stable_diffusion(T), Standard(), cond=cond, strong=1.0, grad=True
    ),
    "sample(grad=True, checkpoint=True)": lambda net, x, cond, T: sample(
        net, x, DDIM.stable_diffusion(T), Standard(), cond=cond, strong=1.0, grad=True, checkpoint=True
    ),
    "reversible, EDICT": lambda net, x, cond, T: reversible(net, x, DDIM.stable_diffusion(T), EDICT(), cond=cond),
    "reversible, O-BELM": lambda net, x, cond, T: reversible(
        net, x, DDIM.stable_diffusion(T), OBELM(), cond=cond, accuracy=1.0
    ),
    "reversible, Rex": lambda net, x, cond, T: reversible(
        net, x, ending_above(DDIM.stable_diffusion(T + 1)), Rex(), cond=cond
    ),
}


def measure(way: Callable[[Network, Tensor, Tensor, int], Tensor], steps: int) -> dict[str, float]:
    """Latents held at most over both passes, and rows run in them."""
    torch.manual_seed(0)
    net, counter = Network(), LiveBytes()
    x, cond = torch.randn(SHAPE, requires_grad=True), torch.zeros(1, 1, requires_grad=True)
    with counter:
        way(net, x, cond, steps).square().sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and cond.grad is not None and all(p.grad is not None for p in net.parameters())
    return {"peak": counter.peak / x.untyped_storage().nbytes(), "rows": net.rows}


def main() -> None:
    """Runs the benchmark, prints it and writes it on request."""
    args = arguments(__doc__).parse_args()
    counts = (5, 10, 20) if args.quick else (5, 10, 20, 40)
    results = []
    print(f"{'latents held at most; rows':<40}" + "".join(f"{f'T = {steps}':>14}" for steps in counts))
    for name, way in WAYS.items():
        figures = [measure(way, steps) for steps in counts]
        results.append({"way": name, "steps": counts, "figures": figures})
        print(f"  {name:<38}" + "".join(f"{f['peak']:>8.1f}; {f['rows']:>4}" for f in figures))
    write(args.json, results, shape=SHAPE)


if __name__ == "__main__":
    main()
