"""How many latents a method holds: while the model runs, and at most.

    python benchmarks/memory.py [--json FILE]

Counted, not sampled: a dispatch mode sees the storage that every operation makes, and a finalizer sees it go. What is
held while the model runs is the library's price, for there the model's own activations come on top; the peak is over
all operations, with the predictions of a model that returns nothing but its answer. The noise that the caller passes
is the caller's, and not counted. Figures are in latents, and per method beside those of standard sampling.

Then training: the peak while a sample is drawn and differentiated (`sample(grad=…)`, `backward`), by a small network
whose activations are many times a latent, against the number of steps. The unit there is the peak of a single model
call, drawn and differentiated; so a figure is how many model calls' worth of memory a sample takes.
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


GRADIENTS: dict[str, dict[str, Any]] = {
    "grad=True": {"grad": True}, "grad=True, checkpoint=True": {"grad": True, "checkpoint": True},
    "grad=2": {"grad": 2}, "grad=2, checkpoint=True": {"grad": 2, "checkpoint": True},
}  # fmt: skip
COUNTS = (5, 10, 20, 40)


def training_peak(call: Callable[[Callable[..., Tensor], Tensor], Tensor], size: int) -> int:
    """Bytes alive at most while `call(eps_fn, x)` is computed and its sum differentiated by the weights."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(a, b, 3, padding=1) for a, b in ((4, 32), (32, 32), (32, 4))]
    network = torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1], torch.nn.Tanh(), layers[2])
    for weight in network.parameters():
        weight.grad = torch.zeros_like(weight)  # held throughout, and not counted
    x, counter = torch.randn(1, 4, size, size), LiveBytes()
    with counter:
        call(lambda x, t, cond: network(x + cond), x).sum().backward()  # type: ignore[no-untyped-call]
    return counter.peak


def measure_training(method: Any, options: Mapping[str, Any], steps: int, size: int) -> float:
    """The peak of a sample, in peaks of a single model call."""

    def whole(eps_fn: Callable[..., Tensor], x: Tensor) -> Tensor:
        cond, uncond = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
        return sample(
            eps_fn, x, DDIM.stable_diffusion(steps), method, cond=cond, uncond=uncond, batched=False, **options
        )

    one = training_peak(lambda eps_fn, x: eps_fn(x, None, torch.ones(1, 1, 1, 1)), size)
    return training_peak(whole, size) / one


def main_training(quick: bool) -> list[dict[str, Any]]:
    """Prints and returns the figures of training."""
    counts, results = COUNTS[:2] if quick else COUNTS, []
    print(f"{'training, in model calls':<42}" + "".join(f"{f'{T} steps':>10}" for T in counts))
    for name in ("Standard", "Z2Sampling"):
        for how, options in GRADIENTS.items():
            peaks = {T: measure_training(METHODS[name], options, T, 32 if quick else 64) for T in counts}
            results.append({"method": name, "how": how, "peaks": peaks})
            print(f"  {f'{name}, {how}':<40}" + "".join(f"{peak:>10.1f}" for peak in peaks.values()))
    return results


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
    training = main_training(args.quick)
    write(args.json, results, steps=STEPS, shape=SHAPE, training=training)


def _address(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address


if __name__ == "__main__":
    main()
