"""What a user would pick instead of zigzag, each with the same free predictions: diffusers, k-diffusion and azula.

Every `Peer` says what zigzag has to be given to draw the same sample: the solver on the peer's grid, and predictions
of ε that stand for what the peer's own model predicts. k-diffusion and azula take predictions of x₀; with constant
ones m they walk along `α·m + σ·ε`, whose ε = (x_T − α_T·m)/σ_T is constant too.

k-diffusion and azula live in an environment of their own, which `environment` makes: they ask for packages that the
environment of this library does not have, and torchvision among them breaks diffusers.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import venv
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from zigzag import DDIM, Solver

__all__ = ["CALLS", "PEERS", "SCALE", "STEPS", "VERSIONS", "Calls", "Peer", "environment"]

STEPS, SCALE = 50, 5.5
Calls: TypeAlias = Literal["unguided", "two calls", "one doubled batch"]
CALLS: Final[tuple[Calls, ...]] = ("unguided", "two calls", "one doubled batch")

INSTALLED: Final = ("numpy", "tqdm", "einops", "scipy", "pillow", "safetensors", "torchdiffeq", "torchsde")
VERSIONS: Final = ("azula==0.11.1", "k-diffusion==0.1.1.post1")  # installed without what they depend on


class Peer(NamedTuple):
    """A peer's loop, and what zigzag needs for the same sample.

    Attributes:
        loop: the whole sample, by the peer.
        solver: zigzag's, on the peer's grid.
        x, e_u, e_c: the noise, and the two constant predictions of ε.
    """

    loop: Callable[[], Tensor]
    solver: Solver
    x: Tensor
    e_u: Tensor
    e_c: Tensor


def diffusers(shape: tuple[int, ...], calls: Calls) -> Peer:
    """What a diffusers pipeline does between its model calls: the CFG line, and `DDIMScheduler.step`."""
    make: Any = importlib.import_module("diffusers").DDIMScheduler
    scheduler = make(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(STEPS)
    x, e_u, e_c = _noise(shape)
    both = torch.cat([e_u, e_c])

    @torch.no_grad()
    def loop() -> Tensor:
        latents = x
        for t in scheduler.timesteps:
            if calls == "unguided":
                noise = e_c
            else:
                if calls == "one doubled batch":
                    scheduler.scale_model_input(torch.cat([latents] * 2), t)
                    noise_u, noise_c = both.chunk(2)
                else:
                    noise_u, noise_c = e_u, e_c
                noise = noise_u + SCALE * (noise_c - noise_u)
            latents = scheduler.step(noise, t, latents, return_dict=False)[0]
        return latents

    return Peer(loop, DDIM.stable_diffusion(STEPS), x, e_u, e_c)


def k_diffusion(shape: tuple[int, ...], calls: Calls) -> Peer:
    """`k_diffusion.sampling.sample_euler` on the Karras grid, guided as k-diffusion's `train.py` does it."""
    sampling = _k_diffusion_sampling()
    sigmas = sampling.get_sigmas_karras(STEPS, 0.03, 14.6)
    noise, m_u, m_c = _noise(shape)
    x, both = noise * sigmas[0], torch.cat([m_u, m_c])

    def unguided(x: Tensor, sigma: Tensor) -> Tensor:
        return m_c

    def two_calls(x: Tensor, sigma: Tensor) -> Tensor:
        out_uncond, out_cond = m_u, m_c
        return out_uncond + (out_cond - out_uncond) * SCALE

    def doubled(x: Tensor, sigma: Tensor) -> Tensor:
        torch.cat([x, x])
        torch.cat([sigma, sigma])
        out_uncond, out_cond = both.chunk(2)
        return out_uncond + (out_cond - out_uncond) * SCALE

    model = {"unguided": unguided, "two calls": two_calls, "one doubled batch": doubled}[calls]
    solver = DDIM(torch.ones(len(sigmas)), sigmas, sigmas[:-1])
    e_u, e_c = ((x - m) / sigmas[0] for m in (m_u, m_c))
    return Peer(lambda: sampling.sample_euler(model, x, sigmas, disable=True), solver, x, e_u, e_c)


def azula(shape: tuple[int, ...], calls: Calls) -> Peer:
    """`azula.sample.DDIMSampler` on its variance-preserving schedule, guided by `azula.guidance.CFGDenoiser`.

    Raises:
        ValueError: for a doubled batch, which azula does not have.
    """
    if calls == "one doubled batch":
        raise ValueError("azula evaluates the two branches in two calls")
    denoise, noise_, sample_, guidance_ = (
        importlib.import_module(f"azula.{name}") for name in ("denoise", "noise", "sample", "guidance")
    )
    x, m_u, m_c = _noise(shape)

    class Free(denoise.Denoiser):  # type: ignore[misc, name-defined]  # azula is not installed where types are checked
        """A denoiser that is handed its answer."""

        schedule = noise_.VPSchedule(alpha_min=0.05)  # at the default float32 loses three digits on the way

        def forward(self, x_t: Tensor, t: Tensor, mean: Tensor) -> Any:
            return denoise.DiracPosterior(mean=mean)

    denoiser = Free() if calls == "unguided" else guidance_.CFGDenoiser(Free())
    given: dict[str, Any] = {"positive": {"mean": m_c}, "negative": {"mean": m_u}, "guidance": SCALE - 1}
    sampler = sample_.DDIMSampler(denoiser, steps=STEPS, silent=True)
    alphas, sigmas = Free.schedule(sampler.timesteps)
    e_u, e_c = ((x - alphas[0] * m) / sigmas[0] for m in (m_u, m_c))
    return Peer(
        lambda: sampler(x, **({"mean": m_c} if calls == "unguided" else given)),
        DDIM(alphas, sigmas, sampler.timesteps[:-1]), x, e_u, e_c,
    )  # fmt: skip


PEERS: Final[dict[str, Callable[[tuple[int, ...], Calls], Peer]]] = {
    "diffusers": diffusers,
    "k-diffusion": k_diffusion,
    "azula": azula,
}


def environment(folder: Path) -> Path:
    """The Python of the environment with k-diffusion and azula in it, made in `folder` if it is not there.

    Raises:
        SystemExit: for a folder that holds something else.
        CalledProcessError: where pip cannot install them.
    """
    packages = [f"torch=={torch.__version__.partition('+')[0]}", *INSTALLED]
    done, wanted = folder / "installed.txt", "\n".join([*packages, *VERSIONS])
    python = folder.resolve() / "bin" / "python"  # not its target: the link is what makes it an environment
    if not done.exists() or done.read_text() != wanted:
        if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
            sys.exit(f"{folder} is not an environment of this script, and not empty; name another with --peers")
        print(f"making an environment for k-diffusion and azula in {folder} ...", file=sys.stderr)
        venv.create(folder, with_pip=True)
        for given in (packages, ["--no-deps", *VERSIONS]):
            subprocess.run([python, "-m", "pip", "install", "-qq", *given], check=True, stdout=sys.stderr)
        done.write_text(wanted)
    return python


def _noise(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, u, c = (torch.randn(shape, generator=generator) for _ in range(3))
    return x, u, c


def _k_diffusion_sampling() -> Any:
    """`k_diffusion/sampling.py`, its real code, without the package around it, which imports much that nobody times.

    `k_diffusion/utils.py` imports torchvision for the two functions that convert PIL images, and no build of it fits
    every build of torch: an empty module stands in for it. Nothing that `sample_euler` runs is replaced.
    """
    if "k_diffusion.sampling" in sys.modules:
        return sys.modules["k_diffusion.sampling"]
    spec = PathFinder.find_spec("k_diffusion")
    if spec is None:
        raise ImportError("k-diffusion is not installed here; use the environment of --peers")
    package = ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations or ())
    torchvision, transforms = ModuleType("torchvision"), ModuleType("torchvision.transforms")
    transforms.__dict__["functional"] = ModuleType("torchvision.transforms.functional")
    for name, module in (
        ("k_diffusion", package),
        ("torchvision", torchvision),
        ("torchvision.transforms", transforms),
    ):
        sys.modules.setdefault(name, module)
    return importlib.import_module("k_diffusion.sampling")
