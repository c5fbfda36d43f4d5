"""What a scheduler draws of noise within its step: answered in a rehearsal, or drawn and written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zigzag.adapters.diffusers.stepping import NotLinear

__all__ = ["Answered", "Draw", "Written", "sample_noise"]

# What draws, and is a standard normal; and what draws something else, which no coefficient describes.
NORMAL: Final = {"randn", "randn_like", "normal_"}
OTHER: Final = {
    "rand", "rand_like", "randint", "randint_like", "randperm", "normal", "multinomial", "bernoulli", "bernoulli_",
    "poisson", "uniform_", "exponential_", "random_", "cauchy_", "geometric_", "log_normal_",
}  # fmt: skip
FACTORIES: Final = {"tensor", "as_tensor", "zeros", "ones", "full", "empty", "linspace", "arange"}


class Draw(NamedTuple):
    """One noise that a step asks for: of torch, or of the scheduler's `own` source (a Brownian tree)."""

    own: bool


class Answered(TorchFunctionMode):
    """Answers what is drawn with `answer(shape, draw)`, so that no generator is touched.

    With `widen` float32 is read as float64, and a scheduler that casts its state rounds nothing.

    Raises:
        NotLinear: for draws of anything but normal noise.
    """

    def __init__(self, answer: Callable[[tuple[int, ...], Draw], Tensor], widen: bool = True) -> None:
        super().__init__()
        self.answer, self.widen = answer, widen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One function of torch."""
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if name in OTHER:
            raise NotLinear(f"it draws by torch's {name}, which is not normal noise")
        if name in NORMAL:
            return self._drawn(name, args, kwargs)
        if not self.widen:
            return func(*args, **kwargs)
        if name == "float":
            return args[0].double()
        args = tuple(torch.float64 if arg is torch.float32 else arg for arg in args)
        kwargs = {key: torch.float64 if value is torch.float32 else value for key, value in kwargs.items()}
        out = func(*args, **kwargs)
        if name in FACTORIES and out.dtype == torch.float32 and kwargs.get("dtype") is None:
            out = func(*args, **kwargs, dtype=torch.float64)
        return out

    def _drawn(self, name: str, args: Any, kwargs: dict[str, Any]) -> Tensor:
        like: Any = args[0] if name != "randn" else None
        if like is not None:
            shape = tuple(like.shape)
        else:
            size = args if args else (kwargs["size"],)
            shape = tuple(size[0]) if isinstance(size[0], tuple | list | torch.Size) else tuple(size)
        dtype = torch.float64 if self.widen else kwargs.get("dtype") or getattr(like, "dtype", None)
        noise = self.answer(shape, Draw(own=False)).to(dtype or torch.get_default_dtype())
        return like.copy_(noise) if name == "normal_" else noise


class Written(TorchFunctionMode):
    """Lets draws happen, and writes them down in `drawn`, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One function of torch."""
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in NORMAL:
            self.drawn.append(out.clone() if name == "normal_" else out)  # which others write to
        return out


def sample_noise(scheduler: Any, answer: Callable[[], Tensor]) -> None:
    """Puts `answer` in place of a scheduler's own source of noise (`noise_sampler`), where it has one."""
    if hasattr(scheduler, "noise_sampler"):
        scheduler.noise_sampler = lambda *_: answer()
