"""What ComfyUI hands to a sampler, as far as samplers know it: a network, its sampling, a guider, a mask, hooks.

Written from its contracts, for networks of one line; the real one is run by `make comfyui`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from zigzag import DDIM, FlowEuler, Trace, sample
from zigzag.adapters.k_diffusion import sampler
from zigzag.solvers import Solver

B, T = 2, 5
SIGMAS = torch.tensor([14.6, 6.0, 2.5, 1.1, 0.4, 0.0], dtype=torch.float64)
FLOW = torch.tensor([1.0, 0.85, 0.6, 0.4, 0.15, 0.0], dtype=torch.float64)
SHAPE = (B, 2, 3, 3)
COND, UNCOND, OTHER = 0.7, -0.4, 1.9


def column(sigma: Tensor, x: Tensor) -> Tensor:
    return sigma.reshape((-1,) + (1,) * (x.ndim - 1))


class Sampling:
    """How a kind of network is asked: "eps", "v", "edm" or "const"."""

    def __init__(self, kind: str, sigma_data: float = 1.0) -> None:
        self.kind, self.sigma_data = kind, sigma_data

    def calculate_input(self, sigma: Tensor, x: Tensor) -> Tensor:
        return x if self.kind == "const" else x / (column(sigma, x) ** 2 + self.sigma_data**2).sqrt()

    def calculate_denoised(self, sigma: Tensor, output: Tensor, x: Tensor) -> Tensor:
        s, data = column(sigma, x), self.sigma_data
        if self.kind in ("eps", "const"):
            return x - s * output
        skip, out = data**2 / (s**2 + data**2), s * data / (s**2 + data**2).sqrt()
        return skip * x + (out if self.kind == "edm" else -out) * output

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent: Tensor, max_denoise: bool = False) -> Tensor:
        s = column(sigma, noise)
        return s * noise + (1 - s if self.kind == "const" else 1) * latent


@dataclass
class Network:
    """`apply_model`, with the calls and rows that it was asked for."""

    model_sampling: Sampling
    rows: int = 0
    calls: list[tuple[int, float]] = field(default_factory=list)

    def apply_model(self, x: Tensor, sigma: Tensor, c_crossattn: Tensor, transformer_options: Any = None) -> Tensor:
        self.rows += len(x) // B
        self.calls.append((len(x) // B, float(sigma[0])))
        seen = self.model_sampling.calculate_input(sigma, x)
        output = torch.sin(seen + column(c_crossattn, x)) + 0.1 * column(torch.log1p(sigma), x)
        return self.model_sampling.calculate_denoised(sigma, output, x)

    def scale_latent_inpaint(self, x: Tensor, sigma: Tensor, noise: Tensor, latent_image: Tensor) -> Tensor:
        return self.model_sampling.noise_scaling(sigma, noise, latent_image)


def entry(value: float, **more: Any) -> dict[str, Any]:
    return {"value": value, **more}


def is_on(each: dict[str, Any], sigma: Tensor) -> bool:
    return each.get("timestep_end", 0.0) <= float(sigma[0]) <= each.get("timestep_start", float("inf"))


def calc_cond_batch(
    model: Network, conds: list[Any], x: Tensor, sigma: Tensor, options: dict[str, Any]
) -> list[Tensor]:
    """All conditions in one batch, each with its place; zeros for one that is missing or off."""
    on = {k: [each for each in cond or [] if is_on(each, sigma)] for k, cond in enumerate(conds)}
    places = [k for k, entries in on.items() if entries]
    out = [torch.zeros_like(x) for _ in conds]
    if not places:
        return out
    values = torch.tensor([on[k][0]["value"] for k in places], dtype=x.dtype).repeat_interleave(len(x))
    c = {"c_crossattn": values, "transformer_options": {"cond_or_uncond": places}}
    given = {"input": torch.cat([x] * len(places)), "timestep": torch.cat([sigma] * len(places)), "c": c}
    if (wrapper := options.get("model_function_wrapper")) is not None:
        found = wrapper(model.apply_model, {**given, "cond_or_uncond": places})
    else:
        found = model.apply_model(given["input"], given["timestep"], **c)
    for k, part in zip(places, found.chunk(len(places)), strict=True):
        out[k] = part
    return out


def predict(model: Network, x: Tensor, sigma: Tensor, uncond: Any, cond: Any, cfg: float, options: Any) -> Tensor:
    """Both branches, guidance, and the hooks around it."""
    uncond = None if cfg == 1 and not options.get("disable_cfg1_optimization", False) else uncond
    conds = [cond, uncond]
    args = {"conds": conds, "input": x, "sigma": sigma, "model": model, "model_options": options}
    own = options.get("sampler_calc_cond_batch_function")
    out = own(args) if own is not None else calc_cond_batch(model, conds, x, sigma, options)
    for hook in options.get("sampler_pre_cfg_function", []):
        out = hook({**args, "conds_out": out, "cond_scale": cfg, "timestep": sigma})
    args |= {"cond": cond, "uncond": uncond, "cond_scale": cfg}
    args |= {"cond_denoised": out[0], "uncond_denoised": out[1]}
    if (own := options.get("sampler_cfg_function")) is not None:
        D = x - own({**args, "cond": x - out[0], "uncond": x - out[1]})
    else:
        D = out[1] + (out[0] - out[1]) * cfg
    for hook in options.get("sampler_post_cfg_function", []):
        D = hook({**args, "denoised": D})
    return D


class Guider:
    """Guidance around a network."""

    def __init__(self, network: Network, cfg: float, conds: dict[str, Any]) -> None:
        self.inner_model, self.cfg, self.conds = network, cfg, conds

    def __call__(self, x: Tensor, sigma: Tensor, model_options: dict[str, Any], seed: int | None = None) -> Tensor:
        uncond, cond = self.conds.get("negative"), self.conds.get("positive")
        return predict(self.inner_model, x, sigma, uncond, cond, self.cfg, model_options)


class Masked:
    """What a sampler calls: the guider, with the known part of the latent put in its place before and after."""

    def __init__(self, guider: Guider, sigmas: Tensor, latent: Tensor, noise: Tensor) -> None:
        self.inner_model, self.sigmas, self.latent_image, self.noise = guider, sigmas, latent, noise

    def __call__(
        self, x: Tensor, sigma: Tensor, denoise_mask: Tensor | None, model_options: Any, seed: int | None = None
    ) -> Tensor:
        if denoise_mask is None:
            return self.inner_model(x, sigma, model_options, seed)
        if (own := model_options.get("denoise_mask_function")) is not None:
            extra = {"model": self.inner_model, "sigmas": self.sigmas}
            denoise_mask = own(sigma, denoise_mask, extra_options=extra)
        known = self.inner_model.inner_model.scale_latent_inpaint(
            x=x, sigma=sigma, noise=self.noise, latent_image=self.latent_image
        )
        D = self.inner_model(x * denoise_mask + known * (1 - denoise_mask), sigma, model_options, seed)
        return D * denoise_mask + self.latent_image * (1 - denoise_mask)


def noise(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def host(
    kind: str = "eps", cfg: float = 4.0, sigmas: Tensor | None = None, conds: Any = None, dtype: Any = torch.float64,
    **extra_args: Any,
) -> SimpleNamespace:  # fmt: skip
    """A model with its network, its sigmas, the state to begin with, and its extra arguments."""
    sigmas = (FLOW if kind == "const" else SIGMAS) if sigmas is None else sigmas
    network = Network(Sampling(kind))
    conds = {"positive": [entry(COND)], "negative": [entry(UNCOND)]} if conds is None else conds
    latent = noise(1, dtype)
    model = Masked(Guider(network, cfg, conds), sigmas, latent, noise(2, dtype))
    x = network.model_sampling.noise_scaling(sigmas[:1], noise(3, dtype), 0.3 * latent).to(dtype)
    extra = {"model_options": {"transformer_options": {}}, "seed": 5, "denoise_mask": None} | extra_args
    return SimpleNamespace(model=model, network=network, sigmas=sigmas, x=x, extra=extra, latent=latent)


Denoised = Callable[[Tensor, Tensor, float], Tensor]


def one(at: SimpleNamespace, value: float) -> Callable[[Tensor, Tensor], Tensor]:
    """`D(x, σ)` of a condition, from the network alone."""
    network = Network(at.network.model_sampling)
    return lambda x, sigma: network.apply_model(x, sigma, torch.full((len(x),), value, dtype=x.dtype))


D = Callable[[Tensor, Tensor], Tensor]


def run(at: SimpleNamespace, method: Any, callback: Any = None, **options: Any) -> Tensor:
    options = {"calc_cond_batch": calc_cond_batch, **options}
    return sampler(method, **options)(at.model, at.x, at.sigmas, extra_args=at.extra, callback=callback, disable=True)


def published(at: SimpleNamespace, rescaled: bool = True, **options: Any) -> tuple[Solver, Callable[[D], Any], Tensor]:
    """The solver of the papers' form, `D ↦ eps_fn`, and the size of its states: `x = size·state`."""
    if at.network.model_sampling.kind == "const":
        return FlowEuler(at.sigmas), lambda D: lambda x, t, c: (x - D(x, t)) / t[:, None, None, None], torch.ones(T + 1)
    size = (at.sigmas**2 + 1).sqrt() if rescaled else torch.ones(T + 1, dtype=torch.float64)
    solver = DDIM(1 / size, at.sigmas / size, at.sigmas[:-1], **options)

    def eps_of(D: D) -> Any:
        def eps_fn(x: Tensor, t: Tensor, cond: Any) -> Tensor:
            x = x * size[(t[0] - at.sigmas).abs().argmin()]
            return (x - D(x, t)) / t[:, None, None, None]

        return eps_fn

    return solver, eps_of, size


def expected(
    at: SimpleNamespace, method: Any, weak: float = 0.0, cfg: float = 4.0, rescaled: bool = True, change: Any = None,
    **options: Any,
) -> tuple[Tensor, int]:  # fmt: skip
    """What `zigzag.sample` makes of the network, and its rows."""
    solver, eps_of, size = published(at, rescaled, **options)
    solver = solver if change is None else change(solver)
    predictors = {value: eps_of(one(at, value)) for value in (COND, UNCOND)}
    generator = torch.Generator().manual_seed(at.extra["seed"] + 1)
    trace = Trace()
    x = sample(
        lambda x, t, c: predictors[c](x, t, c), at.x / size[0], solver, method, cond=COND, uncond=UNCOND,
        strong=cfg, weak=weak, batched=False, generator=generator, trace=trace,
    )  # fmt: skip
    return x * size[-1], trace.rows
