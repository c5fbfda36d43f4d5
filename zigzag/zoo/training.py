"""Training of the models of the world of shapes: what a step learns from, and a run that can stop and go on."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor, distributed, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from zigzag.zoo.checkpoints import read_state, write_state, write_weights
from zigzag.zoo.learned import create, load
from zigzag.zoo.shapes import draw_caption, draw_scene, render, tokenize
from zigzag.zoo.states import noise_table, preconditioning, to_state

__all__ = ["Settings", "Training", "batch", "loss", "rate"]

# How often a category is drawn: the harder, the oftener.
MIX = {
    "single object": 0.1,
    "two objects": 0.15,
    "counting": 0.2,
    "colours": 0.1,
    "position": 0.25,
    "attribution": 0.2,
}
DROPPED = 0.1  # of the conditions, so that the model learns the unconditional prediction too
EMA = 0.998


@dataclass(frozen=True)
class Settings:
    """What decides the result of a training run: with the same settings and machine it is the same, bit for bit."""

    name: str
    steps: int
    batch: int = 48
    rate: float = 2e-3
    seed: int = 0
    start: str = ""  # the SHA-256 of the weights it begins with, or nothing for random ones

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


def batch(settings: Settings, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The batch of a step: images as states, words, noise, and uniform numbers in [0, 1) for the times.

    It depends on nothing but the seed and the number of the step, so a run resumes without a generator's state.
    """
    rng = Random(f"{settings.seed} {step}")
    categories = rng.choices(list(MIX), list(MIX.values()), k=settings.batch)
    captions = [draw_caption(category, rng) for category in categories]
    x0 = to_state(render([draw_scene(caption, rng) for caption in captions]))
    tokens = tokenize(["" if rng.random() < DROPPED else str(caption) for caption in captions])
    generator = torch.Generator().manual_seed(rng.getrandbits(63))
    noise = torch.randn(x0.shape, generator=generator)
    # Evenly spread over [0, 1) with a common offset: a batch sees all times, and the loss varies less.
    u = (torch.arange(settings.batch) + torch.rand(settings.batch, generator=generator)) / settings.batch
    return x0, tokens, noise, u


def loss(network: nn.Module, name: str, x0: Tensor, tokens: Tensor, noise: Tensor, u: Tensor) -> Tensor:
    r"""The mean squared error of the prediction at `x = α·x₀ + σ·ε`, as a number.

    "shapes-unet": of `v = α·ε − σ·x₀` on Stable Diffusion's schedule, with half of the times above 630, where it is
    settled what is drawn. "shapes-dit": of `u = ε − x₀` on `α = 1 − σ`, divided by c_out of `preconditioning`, with σ
    logit-normal (Esser et al. 2024, eq. 19) around 0.73, for the same reason.
    """
    if name == "shapes-unet":
        t = (1000 * u ** (2 / 3)).long().clamp(max=999)  # u may have been rounded up to 1
        alpha, sigma = (table[t].to(x0.dtype)[:, None, None, None] for table in noise_table(x0.device))
        target, unit = alpha * noise - sigma * x0, torch.ones_like(sigma)
    else:
        sigma = (1.0 + 1.3 * torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4))).sigmoid()
        t, sigma = 1000 * sigma, sigma[:, None, None, None]
        alpha, target, unit = 1 - sigma, noise - x0, preconditioning(sigma)[2]
    prediction: Tensor = network(alpha * x0 + sigma * noise, t, tokens)
    return ((prediction.float() - target) / unit).square().mean()


def rate(settings: Settings, step: int) -> float:
    """One cycle: up in a line during the first twentieth of the steps, then down to 0 along half a cosine."""
    progress = (step + 0.5) / settings.steps
    if progress < 0.05:
        return settings.rate * progress / 0.05
    return settings.rate * (1 + math.cos(math.pi * (progress - 0.05) / 0.95)) / 2


class Training:
    """A network, the moving average of its weights, and its optimiser, at a step of a run.

    Where `torch.distributed` is initialised its processes share every batch, and all end up with the same weights.

    Attributes:
        step: steps done. losses: one per step done.

    Raises:
        ValueError: if the processes cannot share a batch evenly.
    """

    def __init__(self, settings: Settings, device: torch.device | str = "cpu", amp: bool = False) -> None:
        self.settings, self.device, self.amp = settings, torch.device(device), amp
        together = distributed.is_available() and distributed.is_initialized()
        self.rank, self.world = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
        if settings.batch % self.world:
            raise ValueError(f"batch must be a multiple of the {self.world} processes, got {settings.batch}")
        torch.manual_seed(settings.seed)
        self.network = create(settings.name).to(self.device)
        self.parameters = dict(self.network.named_parameters())
        self.average = {key: value.detach().clone() for key, value in self.parameters.items()}
        self.optimiser = torch.optim.AdamW(self.network.parameters(), settings.rate, (0.9, 0.99), weight_decay=0.01)
        self.losses: list[Tensor] = []

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses)

    def advance(self) -> None:
        """One step."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate(self.settings, self.step)
        # Every so-manieth row, so that each process has times of all sizes.
        data = [tensor[self.rank :: self.world].to(self.device) for tensor in batch(self.settings, self.step)]
        # On a CPU the fused attention is several times as long as plain products, in its backward pass.
        plain = sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()
        with plain, torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            error = loss(self.network, self.settings.name, *data)
        self.optimiser.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        error = self._share(error.detach())
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        keep = min(EMA, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self.parameters.values()], 1 - keep)
        self.losses.append(error)

    def _share(self, error: Tensor) -> Tensor:
        """Replaces the gradients by their mean over the processes, and gives that of the loss: all in one message."""
        if self.world == 1:
            return error
        parts = [error, *(p.grad for p in self.parameters.values() if p.grad is not None)]
        flat = torch.cat([part.flatten() for part in parts]) / self.world
        distributed.all_reduce(flat)
        for part, mean in zip(parts, torch.split(flat, [part.numel() for part in parts]), strict=True):
            part.copy_(mean.view_as(part))
        return error

    def save(self, folder: Path) -> None:
        """Writes `checkpoint.safetensors` (to resume from) and `weights.safetensors` (to sample with)."""
        state = {f"network.{key}": value.detach() for key, value in self.parameters.items()}
        state |= {f"average.{key}": value for key, value in self.average.items()}
        for key, parameter in self.parameters.items():
            for name, value in self.optimiser.state.get(parameter, {}).items():
                state[f"optimiser.{name}.{key}"] = value
        state["losses"] = torch.stack(self.losses).float() if self.losses else torch.empty(0)
        write_state(folder / "checkpoint.safetensors", state, asdict(self.settings))
        write_weights(folder / "weights.safetensors", self.settings.name, self.step, self.average)

    def begin(self, weights: Path) -> None:
        """Takes the weights of an earlier run in place of random ones.

        Raises:
            ValueError: for a file of another model.
        """
        self.network.load_state_dict(load(self.settings.name, weights, self.device).network.state_dict())
        for key, parameter in self.parameters.items():
            self.average[key].copy_(parameter.detach())

    def resume(self, folder: Path) -> None:
        """Takes up a run from its checkpoint; the number of steps planned may have changed.

        Raises:
            ValueError: if the checkpoint is of a run with other settings.
        """
        state, settings = read_state(folder / "checkpoint.safetensors")
        for name, value in asdict(self.settings).items():
            if name != "steps" and settings.get(name) != value:
                raise ValueError(f"{name} must be that of the run in {folder}, {settings.get(name)!r}, got {value!r}")
        with torch.no_grad():
            for key, parameter in self.parameters.items():
                parameter.copy_(state[f"network.{key}"])
                self.average[key].copy_(state[f"average.{key}"])
        for name in state:
            if name.startswith("optimiser."):
                _, field, key = name.split(".", 2)
                # AdamW counts its steps on the CPU, wherever the rest is.
                value = state[name].to("cpu" if field == "step" else self.device)
                self.optimiser.state[self.parameters[key]][field] = value
        self.losses = list(state["losses"].to(self.device))
