"""Published methods of strong, weak and plain roles as data: the arguments of `sample` that they are."""

from __future__ import annotations

from typing import TypedDict

from zigzag.methods import Method, ZSampling

__all__ = ["Preset", "w2sd"]


class Preset(TypedDict):
    """Arguments of `sample`, `walk` and `capture`: a path, and the guidance of the roles."""

    method: Method
    strong: float
    weak: float
    plain: float


def w2sd(*, steps: int | None = None, released: bool = False) -> Preset:
    r"""W2SD: down with a strong network, up with a weak one, down with a plain one.

    .. math:: x_i \leftarrow \Psi_{w}(\Phi_{s}(x_i)), \qquad x_{i+1} = \Phi_{p}(x_i)

    The networks are the caller's, `eps_fn`, `weak_fn` and `plain_fn`: published are those of one LoRA at the strengths
    1.5, −1.5 and 0.8, on SDXL at 50 steps of DDIM.

        x = sample(at(1.5), x_T, solver, **w2sd(), weak_fn=at(-1.5), plain_fn=at(0.8), cond=c, uncond=u)

    Args:
        steps: at how many steps, by default all but the last.
        released: invert as the released code does, with the coefficients of the next step.

    Returns:
        `ZSampling(plain=True)` under the scales 5.5 (strong), 1 (weak) and 5.5 (plain).

    Source: Bai et al. 2502.00473, and the defaults of its released code (`w2sd_lora.py`).
    """
    method = ZSampling(steps=steps, plain=True, released=released)
    return {"method": method, "strong": 5.5, "weak": 1.0, "plain": 5.5}
