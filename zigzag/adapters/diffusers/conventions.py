"""How each diffusers transformer wants to be called, which its class does not say and its pipeline does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor

from zigzag.solvers.grids import Prediction

__all__ = ["CONVENTIONS", "UNET", "Convention", "convention_of"]


@dataclass(frozen=True)
class Convention:
    """What stands between `eps_fn(x, t, cond)` and a model's `forward`.

    Attributes:
        time: what the model is told of the scheduler's time step `t`, of `N` training steps: "t"; "t/N"; "1 - t/N" or
            "(N - t)/N", which round differently (noise is 0, data 1); "float t", in the model's dtype; "scaled t", by
            its `config.timestep_scale`.
        negated: the model points from noise to data, `x₀ − ε`: its output is negated.
        channels: the dimension of channels; of a learned variance behind the prediction in it, half is dropped.
        prediction: what the model predicts, where that does not depend on its checkpoint.
        listed: it takes and returns a list of `(C, 1, H, W)`, one a sample, instead of `(B, C, H, W)`.
        state, time_name: the names of `forward`'s arguments.
    """

    time: Literal["t", "t/N", "1 - t/N", "(N - t)/N", "float t", "scaled t"] = "t"
    negated: bool = False
    channels: int = 1
    prediction: Prediction | None = None
    listed: bool = False
    state: str = "hidden_states"
    time_name: str = "timestep"

    def told(self, t: Tensor, N: int, model: Any, dtype: torch.dtype) -> Tensor:
        """What the model, of a `dtype`, is told at the scheduler's time steps `t` `(B,)`."""
        if self.time == "t":
            return t
        if self.time == "t/N":
            return t / N
        if self.time == "1 - t/N":
            return 1 - t / N
        if self.time == "(N - t)/N":
            return (N - t) / N
        if self.time == "float t":
            return t.to(dtype)
        return t * float(model.config.timestep_scale)


UNET: Final = Convention(state="sample")
_SEQUENCE: Final = Convention(time="t/N", channels=2, prediction="flow")  # packed latents (B, S, C)
_FLOW: Final = Convention(prediction="flow")

# In the order of the transformers' names. Read off the denoising loops of diffusers 0.42.1.
CONVENTIONS: Final[dict[str, Convention]] = {
    "AllegroTransformer3DModel": Convention(),
    "AuraFlowTransformer2DModel": Convention(time="t/N", prediction="flow"),
    "ChromaTransformer2DModel": _SEQUENCE,
    "CogVideoXTransformer3DModel": Convention(channels=2),  # (B, F, C, H, W)
    "CogView3PlusTransformer2DModel": Convention(),
    "CogView4Transformer2DModel": _FLOW,
    "DiTTransformer2DModel": Convention(),
    "Flux2Transformer2DModel": _SEQUENCE,
    "FluxTransformer2DModel": _SEQUENCE,
    "HunyuanDiT2DModel": Convention(time="float t"),
    "HunyuanVideoTransformer3DModel": _FLOW,
    "LTXVideoTransformer3DModel": Convention(channels=2, prediction="flow"),  # packed
    "LatteTransformer3DModel": Convention(),
    "Lumina2Transformer2DModel": Convention(time="1 - t/N", negated=True, prediction="flow"),
    "LuminaNextDiT2DModel": Convention(time="1 - t/N", negated=True, prediction="flow"),
    "PixArtTransformer2DModel": Convention(),
    "QwenImageTransformer2DModel": _SEQUENCE,
    "SD3Transformer2DModel": _FLOW,
    "SanaTransformer2DModel": Convention(time="scaled t", prediction="flow"),
    "SanaVideoTransformer3DModel": _FLOW,
    "SkyReelsV2Transformer3DModel": _FLOW,
    "WanTransformer3DModel": _FLOW,
    "ZImageTransformer2DModel": Convention(
        time="(N - t)/N", negated=True, prediction="flow", listed=True, state="x", time_name="t"
    ),
}


def convention_of(model: Any) -> Convention | None:
    """The convention of a transformer by its class or one it derives from; None for one that is not listed."""
    return next((CONVENTIONS[cls.__name__] for cls in type(model).__mro__ if cls.__name__ in CONVENTIONS), None)
