"""The conditional and the unconditional prediction, told apart from what a pipeline makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

__all__ = [
    "Branches", "Names", "is_doubled", "name_branches", "rows_per_sample", "shape_of", "sign_of", "split_branches",
]  # fmt: skip

# How many roundings of its arithmetic a pipeline's guidance may be from a combination of the branches.
ROUNDINGS = 4

# By sample, then by row: what is left is one factor for all its entries.
DIMS = ((1, -1), (0, -2))

# Equal branches may differ by roundings of the model, which guidance multiplies by its scale.
ROUNDINGS_OF_EQUALS = 64


class Branches(NamedTuple):
    """`e_c` and `e_u` in the layout, and with the sign, of what the scheduler is given."""

    cond: Tensor
    uncond: Tensor


@dataclass(frozen=True)
class Names:
    """Which of two model outputs is which. cond: the place of the conditional one. sign: the pipeline's, ±1."""

    cond: int
    sign: int

    def of(self, parts: Sequence[Tensor]) -> Branches:
        """The two, named."""
        cond, uncond = parts[self.cond], parts[1 - self.cond]
        return Branches(cond, uncond) if self.sign > 0 else Branches(-cond, -uncond)


def rows_per_sample(outputs: Sequence[Any], guided: Tensor) -> int:
    """Model rows per sample of the calls that gave `outputs`, for one guided prediction `guided` of all samples."""
    try:
        return len(_parts(outputs, guided))
    except ValueError:  # a layout of the pipeline's own, as of windows of frames
        return -(-sum(len(output) for output in outputs) // len(guided))


def is_doubled(outputs: Sequence[Any], guided: Tensor) -> bool:
    """Whether the scheduler is given the guided prediction twice, once for each half of a doubled batch (DiT).

    Its halves are then equal, and those of the one output are not.
    """
    output = outputs[0]
    if len(outputs) != 1 or not isinstance(output, Tensor) or output.shape[0] != len(guided) or len(guided) % 2:
        return False
    if output.is_meta:
        return False
    (g, h), (p, q) = guided.chunk(2), output.chunk(2)
    return torch.equal(g, h) and not torch.equal(p, q)


def shape_of(output: Any) -> Any:
    """What stands for an output of the model where only its rows count: it holds no memory."""
    return tree_map(lambda part: torch.empty(part.shape, device="meta"), output)


def split_branches(outputs: Sequence[Any], guided: Tensor) -> list[Tensor]:
    """The model's outputs one branch each, in the layout of `guided`, in the order in which they were computed.

    A doubled batch is cut in two; a list is stacked; frames are folded into the batch; channels of a learned variance,
    and tokens of a reference image, which come last, are left out.

    Raises:
        ValueError: for outputs that cannot be laid out like `guided`.
    """
    return [_laid_out(part, guided) for part in _parts(outputs, guided)]


def _parts(outputs: Sequence[Any], guided: Tensor) -> list[Tensor]:
    parts: list[Tensor] = []
    for output in outputs:
        tensor = torch.stack(list(output)) if isinstance(output, list | tuple) else output
        frames = tensor.shape[2] if tensor.ndim == guided.ndim + 1 else 1
        samples = guided.shape[0] // frames
        if not samples or tensor.shape[0] % samples:
            raise ValueError(
                f"the model's output, {tuple(tensor.shape)}, holds no whole number of the pipeline's samples, "
                f"{tuple(guided.shape)}: attach cannot tell its branches apart"
            )
        parts += tensor.split(samples)
    return parts


def _laid_out(part: Tensor, guided: Tensor) -> Tensor:
    if part.ndim == guided.ndim + 1:
        part = part.movedim(2, 1).flatten(0, 1)
    if part.ndim != guided.ndim or any(p < g for p, g in zip(part.shape, guided.shape, strict=True)):
        raise ValueError(
            f"the model's output, {tuple(part.shape)} a branch, is not laid out like the prediction that the pipeline "
            f"makes of it, {tuple(guided.shape)}: attach cannot follow"
        )
    return part[tuple(slice(size) for size in guided.shape)]


def name_branches(p: Tensor, q: Tensor, guided: Tensor) -> Names | None:
    r"""Which of `p` and `q` is conditional, from `guided`, the pipeline's own prediction; None while they are equal.

    Guidance at a scale `w > 1` is `k·(e_∅ + w·(e_c − e_∅))`, with `k = ±1`, or a factor per sample where the pipeline
    rescales (`guidance_rescale`), or per row of the last dimension where it renormalises (Qwen-Image, Lumina2). So
    `α`, `β` are fitted by least squares to

    .. math:: m = \alpha\,p + \beta\,q, \qquad k = \alpha + \beta

    and the conditional one is that whose share of `k` is 1 or more. The sign of `k` is the pipeline's.

    Of two equal branches every guidance is `k·p`, and what is not was made of them otherwise.

    Raises:
        ValueError: for guidance that no such combination explains, and for scales between 0 and 1, where the two
            cannot be told apart.
    """
    dtype = torch.float64 if p.device.type != "mps" else torch.float32
    eps = max(torch.finfo(guided.dtype).eps, torch.finfo(p.dtype).eps)
    p, q, m = p.to(dtype), q.to(dtype), guided.to(dtype)
    if not bool(_clear(p.flatten(1), (q - p).flatten(1), eps).any()):
        rows = [(p.flatten(*dims), m.flatten(*dims)) for dims in DIMS]
        if any(a.shape[-1] > 3 and _multiple(a, c, eps) for a, c in rows):
            return None
        raise ValueError(
            "what the pipeline hands to its scheduler is no multiple of its model's two predictions, though these are "
            "equal: it makes another prediction of them (x0 into v, say) or drops a part (a first frame), so that "
            "attach cannot follow; use method Standard()"
        )
    for first, last in DIMS:
        a, b, c = (x.flatten(first, last) for x in (p, q, m))
        if a.shape[-1] > 3 and (names := _fit(a, b, c, eps)) is not None:
            return names
    raise ValueError(
        "the pipeline's guidance is not a combination of its conditional and unconditional predictions, so attach "
        "cannot tell them apart; switch off what else takes part in it (skip-layer, perturbed-attention or partial "
        "guidance, a guider), or use method Standard()"
    )


def sign_of(p: Tensor, guided: Tensor) -> int:
    """The pipeline's sign, ±1, where both branches are `p`, and its guidance `k·p` whatever the scale: that of `k`."""
    dtype = torch.float64 if p.device.type != "mps" else torch.float32
    return -1 if float((p.to(dtype) * guided.to(dtype)).sum()) < 0 else 1


def _fit(p: Tensor, q: Tensor, m: Tensor, eps: float) -> Names | None:
    # Along p − q and p, which keep their digits where the branches are close: m = k·p + β·(q − p).
    gap = q - p
    pp, pg, gg, pm, gm = ((x * y).sum(-1) for x, y in ((p, p), (p, gap), (gap, gap), (p, m), (gap, m)))
    det = pp * gg - pg * pg
    clear, parallel = _clear(p, gap, eps), det <= 1e-10 * pp * gg
    safe = torch.where(parallel, torch.ones_like(det), det)
    k, beta = (gg * pm - pg * gm) / safe, (pp * gm - pg * pm) / safe
    left = m - k[:, None] * p - beta[:, None] * gap
    scale = (k - beta).abs() * _norm(p, -1) + beta.abs() * _norm(q, -1)
    explained = (_norm(left, -1) <= ROUNDINGS * eps * scale) & ~parallel
    if not bool((explained | ~clear).all()) or not bool(clear.any()):
        return None
    # Where one share of k exceeds 1, the other is negative; each row speaks with the weight of its gap. A row may also
    # be left unguided, e_c itself, as are some channels of Lumina.
    weight = torch.where(clear, gg, torch.zeros_like(gg))
    share, total = beta / torch.where(k == 0, torch.ones_like(k), k), weight.sum()
    q_cond, p_cond, plus = (float((weight * vote).sum() / total) for vote in (share > 0.999, share < 0.001, k > 0))
    if max(q_cond, p_cond) < 0.9 or 0.1 < plus < 0.9:
        w = float((weight * share).sum() / total)
        raise ValueError(
            f"the pipeline joins its two branches as {1 - w:.3g} of the first and {w:.3g} of the second, from which "
            "attach cannot tell the conditional one; set its guidance scale above 1"
        )
    return Names(cond=int(q_cond > p_cond), sign=1 if plus > 0.5 else -1)


def _multiple(p: Tensor, m: Tensor, eps: float) -> bool:
    """Whether every row of `m` is `k·p`, with a `k` of its own."""
    pp = (p * p).sum(-1)
    k = (p * m).sum(-1) / pp.where(pp > 0, torch.ones_like(pp))
    left = _norm(m - k[..., None] * p, -1)
    return bool((left <= ROUNDINGS_OF_EQUALS * eps * _norm(p, -1).maximum(_norm(m, -1))).all())


def _clear(p: Tensor, gap: Tensor, eps: float) -> Tensor:
    # A rounding of m, spread over n entries in no particular direction, moves the fitted shares by about
    # eps·w·|p| / (√n·|gap|). Where that is not small the branches are as good as equal.
    clear: Tensor = _norm(gap, -1) > 10 * eps * _norm(p, -1) / p.shape[-1] ** 0.5
    return clear


def _norm(x: Tensor, dim: int | None = None) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=dim)
    return norm
