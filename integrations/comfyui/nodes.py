"""Two nodes: a sampler along a zigzag, and what it took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from zigzag import (
    EndToEnd,
    ImplicitZ,
    Resampling,
    Standard,
    Trace,
    Z2Sampling,
    ZSampling,
)
from zigzag.adapters.k_diffusion import sampler
from zigzag.methods import Method
from zigzag.solvers import DPMSolver, Heun, Solver

from .host import of_host

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "Sampling", "ZigzagReport", "ZigzagSampler"]

SOLVERS: dict[str, Callable[[Solver], Solver] | None] = {
    "euler": None,
    "dpmpp_2m": partial(DPMSolver.on, order=2, lower_order_final=False),
    "dpmpp_2m_sde": partial(DPMSolver.on, order=2, lower_order_final=False, sde=True),
    "heun": Heun.on,
}

METHODS: dict[str, Callable[[dict[str, Any]], Method]] = {
    "z2": lambda given: Z2Sampling(**_of(given, "warmup", "steps", "strength")),
    "z": lambda given: ZSampling(**_of(given, "steps", "rounds", "span", "refine")),
    "implicit z": lambda given: ImplicitZ(**_of(given, "steps", "strength")),
    "end to end": lambda given: EndToEnd(**_of(given, "refine")),
    "resampling": lambda given: Resampling(**_of(given, "steps", "rounds")),
    "standard": lambda given: Standard(),
}


def _of(given: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: given[name] for name in names}


def _number(kind: str, default: float, least: float, most: float, step: float, tooltip: str) -> tuple[str, Any]:
    return kind, {"default": default, "min": least, "max": most, "step": step, "tooltip": tooltip}


@dataclass
class Sampling:
    """What a sampler node made, and its last run.

    Attributes:
        method, weak, eta, solver, rescale: as in `zigzag.adapters.k_diffusion.sampler`.
        trace: of the last run; of Standard None, which is ComfyUI's own Euler sampler.
        steps, cfg: of the last run, 0 and None before; cfg is None of a guider that has no such number.
    """

    method: Method
    weak: float
    eta: float
    solver: Callable[[Solver], Solver] | None
    rescale: bool
    trace: Trace | None = None
    steps: int = 0
    cfg: float | None = None
    _run: Callable[..., Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.method, Standard) and self.solver is None and not self.eta):
            self.trace = Trace()
        self._run = sampler(
            self.method, weak=self.weak, eta=self.eta, solver=self.solver, rescale=self.rescale, trace=self.trace,
            calc_cond_batch=of_host("comfy.samplers", "calc_cond_batch"),
            euler=of_host("comfy.k_diffusion.sampling", "sample_euler"),
        )  # fmt: skip

    def __call__(self, model: Any, x: Tensor, sigmas: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Samples, as ComfyUI calls a sampler."""
        self.steps, self.cfg = len(sigmas) - 1, getattr(getattr(model, "inner_model", None), "cfg", None)
        return self._run(model, x, sigmas, *args, **kwargs)

    def report(self) -> str:
        """Rows and effective scale of the last run, in words."""
        if self.trace is None:
            return "standard: ComfyUI's own Euler sampler, whose rows are not counted"
        if not self.trace.records:
            return f"{self.method}: has not run yet"
        lines = [f"{self.method}: {self.trace.rows} rows a sample on {self.steps} steps"]
        if (beta := self.trace.beta) is None:
            return lines[0]
        each = ", ".join(f"{float(b):.3g}" for b in beta)
        mean = float(beta.mean())
        if self.cfg is None:
            lines.append(f"effective scale: the guider's plus {mean:.3g} (by sample: {each})")
        else:
            lines.append(
                f"effective scale: {self.cfg + mean:.4g}, cfg {self.cfg:g} plus {mean:.3g} (by sample: {each})"
            )
        return "\n".join(lines)


class ZigzagSampler:
    """A SAMPLER along a zigzag."""

    CATEGORY = "sampling/custom_sampling/samplers"
    DESCRIPTION = (
        "Samples along a zigzag: down under your guidance, back up under a weak one, down again. For SamplerCustom and "
        "SamplerCustomAdvanced, with any model that has a positive and a negative conditioning."
    )
    RETURN_TYPES = ("SAMPLER",)
    OUTPUT_TOOLTIPS = ("For SamplerCustom, and for Zigzag Report.",)
    FUNCTION = "get_sampler"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:
        """The widgets, in their order."""
        return {
            "required": {
                "method": (
                    [*METHODS],
                    {
                        "tooltip": "z2: costs what plain guidance costs. z: explicit zigzags, 5 rows a step where "
                        "plain guidance has 2. implicit z: 4 rows. end to end: all the way down, up, and down again. "
                        "resampling: back up by fresh noise. standard: ComfyUI's Euler sampler."
                    },
                ),
                "weak": _number(
                    "FLOAT", 0.0, -10.0, 100.0, 0.1,
                    "The guidance scale of the way back: 0 is the negative alone, 1 the positive alone. The farther "
                    "below cfg, the stronger the zigzag. At cfg itself there is none.",
                ),
                "steps": _number(
                    "INT", -1, -1, 10000, 1,
                    "λ: zigzags end before this step. -1: as late as the method can, 0: none. Not of end to end.",
                ),
                "rounds": _number("INT", 1, 1, 100, 1, "Zigzags a step. Of z and resampling."),
                "span": _number("INT", 1, 1, 10000, 1, "Steps down and up in a zigzag. Of z."),
                "refine": _number(
                    "INT", 0, 0, 100, 1,
                    "Further evaluations that make each way back the exact inverse of its step. Of z and end to end.",
                ),
                "warmup": _number(
                    "INT", 5, 0, 10000, 1,
                    "Plain steps before the first shift: 5 to 10 of 50, 1 of 4. Fewer than the steps. Of z2.",
                ),
                "strength": _number(
                    "FLOAT", 1.0, -10.0, 10.0, 0.05, "The share of each shift that is applied. Of z2 and implicit z."
                ),
                "eta": _number(
                    "FLOAT", 0.0, 0.0, 1.0, 0.01,
                    "Ancestral noise, as of euler_ancestral; a zigzag holds that of its step. Of the solver euler.",
                ),
                "solver": ([*SOLVERS], {"tooltip": "The steps that the zigzag is made of. heun asks twice a step."}),
                "rescale": (
                    "BOOLEAN",
                    {
                        "default": True,
                        "tooltip": "Show the model the state of a way back at the size that belongs to the noise level "
                        "it is told, as the published methods do. Of z and end to end; means nothing for flow models.",
                    },
                ),
            }
        }  # fmt: skip

    def get_sampler(
        self, method: str, weak: float, steps: int, eta: float, solver: str, rescale: bool, **given: Any
    ) -> tuple[Any]:
        """The sampler, with its `Sampling` as `sampler_function`."""
        given["steps"] = None if steps < 0 else steps
        sampling = Sampling(METHODS[method](given), weak, eta, SOLVERS[solver], rescale)
        return (of_host("comfy.samplers", "KSAMPLER")(sampling),)


class ZigzagReport:
    """Rows and effective scale of a sampler's last run."""

    CATEGORY = "sampling/custom_sampling/samplers"
    DESCRIPTION = (
        "Says how many rows of the model a sample took, and how large a scale of plain guidance the zigzag amounts to "
        "(exactly so where predictions do not depend on the state, else as far as it goes along the guidance)."
    )
    RETURN_TYPES = ("LATENT", "STRING")
    RETURN_NAMES = ("latent", "report")
    OUTPUT_TOOLTIPS = ("The same latent.", "The report.")
    FUNCTION = "report"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:
        """What it joins: a sampler, and a latent that it made, so that it runs after it."""
        return {
            "required": {
                "sampler": ("SAMPLER", {"tooltip": "Of a Zigzag Sampler."}),
                "latent": ("LATENT", {"tooltip": "What the sampler made; it passes through."}),
            }
        }

    def report(self, sampler: Any, latent: Any) -> dict[str, Any]:
        """The report as text on the node, and as an output."""
        sampling = getattr(sampler, "sampler_function", None)
        if not isinstance(sampling, Sampling):
            raise ValueError("Zigzag Report tells of a sampler of the node Zigzag Sampler, and this is another one")
        text = sampling.report()
        return {"ui": {"text": [text]}, "result": (latent, text)}


NODE_CLASS_MAPPINGS = {"ZigzagSampler": ZigzagSampler, "ZigzagReport": ZigzagReport}
NODE_DISPLAY_NAME_MAPPINGS = {"ZigzagSampler": "Zigzag Sampler", "ZigzagReport": "Zigzag Report"}
