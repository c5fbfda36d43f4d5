"""Published methods of strong, weak and plain roles as data: the arguments of `attach` that they are."""

from __future__ import annotations

from typing import TypedDict

from zigzag import presets
from zigzag.adapters.diffusers.roles import Role
from zigzag.methods import Method

__all__ = ["Attached", "w2sd"]


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

    Source: Bai et al. 2502.00473, and the defaults of its released code (`w2sd_lora.py`).
    """
    preset = presets.w2sd(steps=steps, released=released)
    below = Role(adapters={adapter: weak}, cfg=preset["weak"] if cfg is None else cfg)
    return {"method": preset["method"], "strong": Role(adapters={adapter: strong}), "weak": below}
