"""Published methods of strong, weak and plain roles as data: the arguments of `attach` that they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from torch import Tensor

from zigzag import presets
from zigzag.adapters.diffusers.roles import Role
from zigzag.methods import Method

__all__ = ["Attached", "rf_sampling", "w2sd"]

EMBEDDING = "encoder_hidden_states"


class Attached(TypedDict):
    """Arguments of `attach`: a path, and what its roles edit."""

    method: Method
    strong: Role
    weak: Role


def w2sd(
    adapter: str,
    *,
    strong: float = 1.5,
    weak: float = -1.5,
    cfg: float | None = None,
    steps: int | None = None,
    released: bool = False,
) -> Attached:
    """W2SD (`zigzag.presets.w2sd`) by the strengths of one LoRA; plain steps are those of the pipeline as it is.

        pipe.set_adapters("style", 0.8)
        with attach(pipe, **w2sd("style")):
            image = pipe(prompt, guidance_scale=5.5, num_inference_steps=50).images[0]

    Args:
        adapter: its name in the pipeline.
        strong, weak: its strengths. In plain steps it has the one that the pipeline has set, 0.8 as published.
        cfg: the scale of the weak predictions, 1 as published. The others have the pipeline's, 5.5 as published.
        steps, released: as of `zigzag.presets.w2sd`.

    The prompt is encoded as the pipeline stands. The released code turns the LoRA off before that, which differs for
    one that changes the text encoders: encode it so, and pass `prompt_embeds`.

    Source: Bai et al. 2502.00473, and the defaults of its released code (`w2sd_lora.py`).
    """
    preset = presets.w2sd(steps=steps, released=released)
    below = Role(adapters={adapter: weak}, cfg=preset["weak"] if cfg is None else cfg)
    return {"method": preset["method"], "strong": Role(adapters={adapter: strong}), "weak": below}


def rf_sampling(empty: Tensor, steps: int, *, model: str = "dev", strength: float = 0.5) -> Attached:
    """RF-Sampling (`zigzag.presets.rf_sampling`) on a distilled pipeline, whose plain steps are under its own prompt.

        with attach(pipe, **rf_sampling(pipe.encode_prompt("", None)[0], steps=28)):
            image = pipe(prompt, guidance_scale=4.5, num_inference_steps=28).images[0]

    Args:
        empty: the embedding of the empty prompt, `(1, S, D)`, or one for each sample.
        steps: of the pipeline's grid. model, strength: as of `zigzag.presets.rf_sampling`.

    Made for pipelines of one branch. Where one evaluates two (`true_cfg_scale`, with a negative prompt), the embedding
    of the negative prompt is mixed likewise, and the branches of a role are joined as the pipeline joins them.

    Raises, source: as there.
    """
    method = presets.rf_sampling(steps, model=model, strength=strength)["method"]
    mixtures = presets.RF_SAMPLING[model]

    def mixed(mixture: presets.Mixture) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
        return lambda arguments: {EMBEDDING: mixture(arguments[EMBEDDING], empty)}

    return {"method": method, "strong": Role(edit=mixed(mixtures.strong)), "weak": Role(edit=mixed(mixtures.weak))}
