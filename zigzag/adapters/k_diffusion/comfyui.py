"""ComfyUI's model, asked through the hooks of its `model_options`. Nothing of ComfyUI is imported."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from zigzag.adapters.k_diffusion.asked import Asked, Need, found

__all__ = ["ComfyUI"]


class ComfyUI:
    """A model as ComfyUI hands it to a sampler: a mask around a guider around the network.

    Args:
        model: `model(x, sigma, denoise_mask, model_options, seed)`. extra_args: these.
        sigmas: those that the sampler was called with.
        calc_cond_batch: ComfyUI's own; without it a branch alone costs the rows of both.

    Raises:
        ValueError: for a model whose states are neither `x₀ + σ·ε` nor `(1 − σ)·x₀ + σ·ε`.
    """

    name = "ComfyUI"

    def __init__(
        self,
        model: Callable[..., Tensor],
        extra_args: Mapping[str, Any],
        sigmas: Tensor,
        calc_cond_batch: Callable[..., list[Tensor]] | None,
    ) -> None:
        self._model, self._calc = model, calc_cond_batch
        self._options: Mapping[str, Any] = extra_args["model_options"]
        self._rest = {name: value for name, value in extra_args.items() if name != "model_options"}
        self._sampling = found(model, "model_sampling")
        if self._sampling is None:
            raise ValueError("the model has no model_sampling, which tells its noise levels: is this ComfyUI's model?")
        sigma = sigmas.detach().cpu().double().reshape(-1, 1)
        alphas = self._sampling.noise_scaling(sigma, torch.zeros_like(sigma), torch.ones_like(sigma)).cpu()
        self.flow = bool(torch.allclose(alphas, 1 - sigma)) and not torch.allclose(alphas, torch.ones_like(sigma))
        if not self.flow and not torch.allclose(alphas, torch.ones_like(sigma)):
            raise ValueError(
                "the model's states are neither x0 + sigma*noise nor (1 - sigma)*x0 + sigma*noise (its noise_scaling "
                "says so), and zigzag knows no steps for others; take method Standard()"
            )
        # Another's hooks there see both branches, or make them: then a branch is not evaluated alone.
        hooked = {"sampler_calc_cond_batch_function", "sampler_pre_cfg_function"} & self._options.keys()
        self._alone = calc_cond_batch is not None and not hooked

    def input_scale(self, sigma: float) -> float:
        """`calculate_input` of the model's sampling, at a state of ones."""
        one = torch.ones(1, 1, dtype=torch.float64, device="cpu")
        return float(self._sampling.calculate_input(torch.tensor([sigma], dtype=torch.float64), one))

    def check(self, needs: Iterable[Need]) -> None:
        """Raises ValueError for a guider of more than two conditions, and for a condition that is not there, or idle.

        ComfyUI hands zeros in place of a branch whose condition is missing, or has a range of timesteps without this
        one.
        """
        needs, conds = tuple(needs), found(self._model, "conds")
        if not needs or not isinstance(conds, Mapping):
            return
        if more := sorted(conds.keys() - {"positive", "negative"}):
            raise ValueError(
                f"the guider has conditions besides positive and negative ({', '.join(more)}), and a zigzag goes "
                "between two predictions; use a CFGGuider, or method Standard()"
            )
        for branch, sigma, whose in needs:
            name = "negative" if branch == "uncond" else "positive"
            entries = conds.get(name)
            if not entries:
                raise ValueError(
                    f"{whose} needs the {branch}itional prediction, and there is no {name} conditioning: ComfyUI would "
                    f"hand zeros for it. Use a guider with a {name} (CFGGuider; an empty prompt will do), or weak=1 "
                    "if the model has one branch only (then there is no gap)"
                )
            if not any(_is_active(entry, sigma) for entry in entries):
                raise ValueError(
                    f"{whose} needs the {branch}itional prediction at sigma {sigma:.4g}, and the timestep range of the "
                    f"{name} conditioning leaves that out: ComfyUI would hand zeros for it. Widen the range, or "
                    "combine it with a conditioning for the rest, or end the zigzags before (lambda)"
                )

    def ask(self, x: Tensor, sigma: Tensor, branches: tuple[str, ...], whole: bool) -> Asked:
        """The denoised states, the branches blended with the inpainting mask as the whole is."""
        seen = _Seen(len(x), self._options)
        hooks = seen.hooks("uncond" in branches)
        alone = self._alone and not whole and len(branches) == 1
        if not whole:  # none of the host's guidance, nor the rows that it takes
            hooks |= {"sampler_post_cfg_function": [seen.look]}
        options = {**self._options, **hooks}
        if not whole:
            options.pop("sampler_cfg_function", None)
        if alone:
            options["sampler_calc_cond_batch_function"] = self._one(branches[0])
        D = self._model(x, sigma, model_options=options, **self._rest)
        if alone:
            return Asked(D, {branches[0]: D}, seen.rows)
        shown = {name: self._blended(branch, seen.mask) for name, branch in seen.branches.items()}
        for name in branches:
            if name not in shown:
                raise ValueError(
                    f"the guider showed no {name}itional prediction (it called no sampler_post_cfg_function, or had no "
                    "condition for it); use a CFGGuider with a positive and a negative, or method Standard()"
                )
        return Asked(D, shown, seen.rows)

    def _one(self, branch: str) -> Callable[[Mapping[str, Any]], list[Tensor]]:
        # At its own place in the list: patches of a model go by it.
        place = ("cond", "uncond").index(branch)

        def evaluate(args: Mapping[str, Any]) -> list[Tensor]:
            assert self._calc is not None
            conds = [cond if k == place else None for k, cond in enumerate(args["conds"])]
            D = self._calc(args["model"], conds, args["input"], args["sigma"], args["model_options"])[place]
            return [D, D]

        return evaluate

    def _blended(self, D: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return D
        latent: Tensor = found(self._model, "latent_image")
        return D * mask + latent * (1.0 - mask)


class _Seen:
    """What the hooks of one call of the model saw.

    Attributes:
        rows: that ran. branches: by their names. mask: of inpainting, as it was applied.
    """

    def __init__(self, batch: int, options: Mapping[str, Any]) -> None:
        self._batch, self._options = batch, options
        self.rows = 0
        self.branches: dict[str, Tensor] = {}
        self.mask: Tensor | None = None

    def hooks(self, uncond: bool) -> dict[str, Any]:
        """The options with which a call is seen. uncond: whether that branch is to be evaluated at scale 1 too."""
        hooks = {
            "sampler_post_cfg_function": [*self._options.get("sampler_post_cfg_function", ()), self.look],
            "model_function_wrapper": self.count,
            "denoise_mask_function": self.mask_at,
        }
        return hooks | {"disable_cfg1_optimization": True} if uncond else hooks

    def look(self, args: Mapping[str, Any]) -> Tensor:
        """Last of the functions that ComfyUI calls after guidance."""
        named = {"cond": args["cond_denoised"], "uncond": args["uncond_denoised"]}
        self.branches = {name: D for name, D in named.items() if args[name] is not None}
        whole: Tensor = args["denoised"]
        return whole

    def count(self, apply: Callable[..., Tensor], args: Mapping[str, Any]) -> Tensor:
        """Around every call of the network."""
        self.rows += len(args["input"]) // self._batch
        if (inner := self._options.get("model_function_wrapper")) is not None:
            output: Tensor = inner(apply, args)
            return output
        return apply(args["input"], args["timestep"], **args["c"])

    def mask_at(self, sigma: Tensor, mask: Tensor, extra_options: Mapping[str, Any]) -> Tensor:
        """The mask, as the user's own function has it at this sigma."""
        inner = self._options.get("denoise_mask_function")
        self.mask = mask if inner is None else inner(sigma, mask, extra_options=extra_options)
        return self.mask


def _is_active(entry: Mapping[str, Any], sigma: float) -> bool:
    return bool(entry.get("timestep_end", 0.0) <= sigma <= entry.get("timestep_start", math.inf))
