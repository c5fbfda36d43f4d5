"""Training of the models of the world of shapes: a run that can stop and go on."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from zigzag.zoo.checkpoints import read_state, write_state, write_weights
from zigzag.zoo.learned import create, load
from zigzag.zoo.lora import adapt
from zigzag.zoo.objectives import Settings, batch, loss, preference_loss, preferences

__all__ = ["Training", "rate"]

EMA = 0.998


def rate(settings: Settings, step: int) -> float:
    """One cycle: up in a line during the first twentieth of the steps, then down to 0 along half a cosine."""
    progress = (step + 0.5) / settings.steps
    if progress < 0.05:
        return settings.rate * progress / 0.05
    return settings.rate * (1 + math.cos(math.pi * (progress - 0.05) / 0.95)) / 2


class Training:
    """A network, the moving average of its weights, and its optimiser, at a step of a run.

    Where `torch.distributed` is initialised its processes share every batch, and all end up with the same weights.

    Args:
        settings, device: of the run. amp: matrix products in bfloat16.
        base: the weights that a LoRA is trained beside; by default those in the package.

    Attributes:
        step: steps done. losses: one per step done. parameters: what is trained, by name.

    Raises:
        ValueError: if the processes cannot share a batch evenly; as `load`, for `base`.
        FileNotFoundError, ImportError: as `load`.
    """

    def __init__(
        self, settings: Settings, device: torch.device | str = "cpu", amp: bool = False, base: Path | None = None
    ) -> None:
        self.settings, self.device, self.amp = settings, torch.device(device), amp
        together = distributed.is_available() and distributed.is_initialized()
        self.rank, self.world = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
        self._alike = 2 if settings.lora else 1  # rows of a batch that stay together
        if settings.batch % (self.world * self._alike):
            least = f"{2 * self.world}, pairs for each of" if settings.lora else "the"
            raise ValueError(f"batch must be a multiple of {least} {self.world} processes, got {settings.batch}")
        torch.manual_seed(settings.seed)
        self.base = load(settings.name, base, self.device).network if settings.lora else None
        if self.base is not None:
            self.network = copy.deepcopy(self.base)
            self.parameters = adapt(self.network, settings.lora)
        else:
            self.network = create(settings.name).to(self.device)
            self.parameters = dict(self.network.named_parameters())
        self.average = {key: value.detach().clone() for key, value in self.parameters.items()}
        self.optimiser = torch.optim.AdamW(self.parameters.values(), settings.rate, (0.9, 0.99), weight_decay=0.01)
        self.losses: list[Tensor] = []

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses)

    def advance(self) -> None:
        """One step."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate(self.settings, self.step)
        # On a CPU the fused attention is several times as long as plain products, in its backward pass.
        plain = sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()
        with plain, torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            error = self._loss()
        self.optimiser.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        error = self._share(error.detach())
        nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimiser.step()
        keep = min(EMA, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self.parameters.values()], 1 - keep)
        self.losses.append(error)

    def _loss(self) -> Tensor:
        name, drawn = self.settings.name, (batch if self.base is None else preferences)(self.settings, self.step)
        # Every so-manieth row (or pair), so that each process has times of all sizes.
        x0, tokens, noise, u = (
            rows.view(-1, self._alike, *rows.shape[1:])[self.rank :: self.world].flatten(0, 1).to(self.device)
            for rows in drawn
        )
        if self.base is None:
            return loss(self.network, name, x0, tokens, noise, u)
        return preference_loss(self.network, self.base, name, x0, tokens, noise, u)

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
        """Writes `checkpoint.safetensors` (to resume from) and `weights.safetensors` (to sample with); a LoRA as
        `lora.safetensors`.
        """
        state = {f"network.{key}": value.detach() for key, value in self.parameters.items()}
        state |= {f"average.{key}": value for key, value in self.average.items()}
        for key, parameter in self.parameters.items():
            for name, value in self.optimiser.state.get(parameter, {}).items():
                state[f"optimiser.{name}.{key}"] = value
        state["losses"] = torch.stack(self.losses).float() if self.losses else torch.empty(0)
        write_state(folder / "checkpoint.safetensors", state, asdict(self.settings))
        kind = "lora" if self.settings.lora else "weights"
        write_weights(folder / f"{kind}.safetensors", self.settings.name, self.step, self.average, kind)

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
        settings = {"lora": 0, **settings}  # of a run before there was any
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
