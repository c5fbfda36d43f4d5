"""How many latents a method holds: while the model runs, and at most.

    python benchmarks/memory.py [--json FILE]

Counted, not sampled: a dispatch mode sees the storage that every operation makes, and a finalizer sees it go. What is
held while the model runs is the library's price, for there the model's own activations come on top; the peak is over
all operations, with the predictions of a model that returns nothing but its answer. The noise that the caller passes
is the caller's, and not counted. Figures are in latents, and per method beside those of standard sampling.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from common import arguments, write
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zigzag import DDIM, EndToEnd, ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling, sample

STEPS = 12
SHAPE = (1, 4, 128, 128)
METHODS = {
    "Standard": Standard(), "Z2Sampling": Z2Sampling(warmup=3), "ImplicitZ": ImplicitZ(), "ZSampling": ZSampling(),
    "ZSampling, span 3": ZSampling(span=3), "Resampling": Resampling(), "EndToEnd": EndToEnd(),
}  # fmt: skip


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the storages made while it is on, and alive.

    Attributes:
        live: now. peak: the most since `live` was 0.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {_address(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            # A view or an in-place result lies in a storage that came in, whether it was made under the mode or before.
            if isinstance(leaf, Tensor) and _address(leaf) not in given | self._known:
                self._count(leaf)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage, address, size = tensor.untyped_storage(), _address(tensor), tensor.untyped_storage().nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        self._known.add(address)
        weakref.finalize(storage, self._gone, address, size)

    def _gone(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.live -= size


def measure(method: Any, batched: bool) -> dict[str, float]:
    """Latents held at most while the model is called, and in all."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SHAPE, generator=generator)
    cond, uncond = torch.ones(1, 1), torch.zeros(1, 1)
    latent, held, counter = x.untyped_storage().nbytes(), [], LiveBytes()

    def eps_fn(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        held.append(counter.live)
        return x.cos()

    with counter:
        sample(
            eps_fn, x, DDIM.stable_diffusion(STEPS), method, cond=cond, uncond=uncond, batched=batched,
            generator=generator,
        )  # fmt: skip
    return {"held": max(held) / latent, "peak": counter.peak / latent}


def main() -> None:
    """Runs the benchmark, prints it and writes it on request."""
    args = arguments(__doc__).parse_args()
    results = []
    for batched in (False, True):
        calls = "one doubled batch" if batched else "two calls"
        standard = measure(METHODS["Standard"], batched)
        print(f"{calls + ', in latents':<30}while the model runs    peak")
        for name, method in METHODS.items():
            figures = measure(method, batched)
            over = {key: figures[key] - standard[key] for key in figures}
            results.append({"calls": calls, "method": name, **figures, "over_standard": over})
            held, peak = (f"{figures[key]:.2f} ({over[key]:+.2f})" for key in ("held", "peak"))
            print(f"  {name:<28}{held:<24}{peak}")
    print(f"latent {SHAPE} float32, {STEPS} steps; in brackets: over standard sampling")
    write(args.json, results, steps=STEPS, shape=SHAPE)


def _address(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address


if __name__ == "__main__":
    main()
