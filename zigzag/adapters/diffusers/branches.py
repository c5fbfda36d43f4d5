"""The conditional and the unconditional prediction, told apart from what a pipeline makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Branches", "Names", "Unexplained", "name_branches"]

# How many roundings of its arithmetic a pipeline's guidance may be from a combination of the branches.
ROUNDINGS = 4

# What the scales of the rows may differ by that are to be one, by roundings of half precision.
SCATTER = 0.1

# Equal branches may differ by roundings of the model, which guidance multiplies by its scale.
ROUNDINGS_OF_EQUALS = 64

# A state and a prediction that are this close to parallel, or closer, cannot be told apart in what is made of both.
PARALLEL = 1e-6

# Of a prediction, what a conversion that was found at the first call may leave unexplained later.
UNEXPLAINED = 1e-2


class Branches(NamedTuple):
    """`e_c` and `e_u` in the layout, and with the sign, of what the scheduler is given."""

    cond: Tensor
    uncond: Tensor


@dataclass(frozen=True)
class Names:
    """Which of two model outputs is which.

    Attributes:
        cond: the place of the conditional one. sign: the pipeline's, ±1.
        converted: whether the pipeline makes another prediction of its model's, `A·x + k·e` (x₀ into v, say).
    """

    cond: int
    sign: int
    converted: bool = False

    def of(self, parts: Sequence[Tensor], guided: Tensor, sample: Tensor) -> Branches:
        """The two, named, and as the scheduler is given them, in place of `guided` at the state `sample`."""
        if self.converted:
            p, q = _converted(parts[0], parts[1], guided, sample)
            return Branches(*((p, q) if self.cond == 0 else (q, p)))
        cond, uncond = parts[self.cond], parts[1 - self.cond]
        return Branches(cond, uncond) if self.sign > 0 else Branches(-cond, -uncond)


class Unexplained(ValueError):
    """Raised for guidance that is no combination of the two branches."""


def name_branches(p: Tensor, q: Tensor, guided: Tensor, sample: Tensor) -> Names | None:
    r"""Which of `p` and `q` is conditional, from `guided`, the pipeline's own prediction; None while they are equal.

    Guidance at a scale `w > 1` is `k·(e_∅ + w·(e_c − e_∅))`, with `k = ±1`, or a factor per sample where the pipeline
    rescales (`guidance_rescale`), or per row of a dimension where it renormalises (Qwen-Image and Lumina2 along the
    last, Joy-Image along its channels). So
    `α`, `β` are fitted by least squares to

    .. math:: m = \alpha\,p + \beta\,q, \qquad k = \alpha + \beta

    and the conditional one is that whose share of `k` is 1 or more. The sign of `k` is the pipeline's. Where that does
    not explain `m`, the pipeline may have made another prediction of its model's (x₀ into v, EDM's preconditioning),
    and `m = A·x + α·p + β·q` with the state `x` is fitted in the same way.

    Of two equal branches every guidance is `k·p`, or `A·x + k·p`, and what is not was made of them otherwise.

    Raises:
        ValueError: for guidance that no such combination explains, and for scales between 0 and 1, where the two
            cannot be told apart.
    """
    dtype, eps = _wide(p), max(torch.finfo(guided.dtype).eps, torch.finfo(p.dtype).eps)
    p, q, m, x = (tensor.to(dtype) for tensor in (p, q, guided, sample))
    if not bool(_clear(p.flatten(1), (q - p).flatten(1), eps).any()):
        if any(_multiple(a, c, eps) for _, (a, _, c) in _rows(p, q, m)) or _mixed(p, p, m, x, eps) is not None:
            return None
        raise Unexplained(
            "what the pipeline hands to its scheduler is no multiple of its model's two predictions, though these are "
            "equal: it makes something else of them, so that attach cannot follow; use method Standard()"
        )
    for one_scale, (a, b, c) in _rows(p, q, m):
        if (names := _fit(a, b, c, eps, one_scale)) is not None:
            return names
    if (mixed := _mixed(p, q, m, x, eps)) is not None:
        k, beta = mixed
        gg = (q - p).flatten(1).square().sum(-1)
        share, total = beta / torch.where(k == 0, torch.ones_like(k), k), gg.sum()
        return Names(_named(share, gg, total), sign=1, converted=True)
    raise Unexplained(
        "the pipeline's guidance is not a combination of its conditional and unconditional predictions, so attach "
        "cannot tell them apart; switch off what else takes part in it (skip-layer, perturbed-attention or partial "
        "guidance, a guider), or use method Standard()"
    )


def _rows(*tensors: Tensor) -> Iterator[tuple[bool, list[Tensor]]]:
    """By sample, then by row of each dimension, the last first: what is left is one factor for all entries of a row.

    Of few entries a fit of two shares says nothing. Along other dimensions than the last a scale of its own for each
    row would be no renormalisation, but one for each entry, and is no answer: these are to have one scale.
    """
    if tensors[0][0].numel() > 3:
        yield False, [x.flatten(1) for x in tensors]
    last = tensors[0].ndim - 1
    for dim in range(last, 0, -1):
        if tensors[0].shape[dim] > 3:
            yield dim < last, [x.movedim(dim, -1).flatten(0, -2) for x in tensors]


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.device.type != "mps" else torch.float32


def _converted(p: Tensor, q: Tensor, guided: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
    """What the pipeline makes of each branch by itself: `A·x + k·p`, and `A·x + k·q`."""
    dtype, eps = _wide(p), torch.finfo(guided.dtype).eps
    p, q, m, x = (tensor.to(dtype) for tensor in (p, q, guided, sample))
    if (mixed := _mixed(p, q, m, x, eps, UNEXPLAINED)) is None:
        raise ValueError(
            "what the pipeline hands to its scheduler is no combination any more of its state and its model's two "
            "predictions, as it was at first; use method Standard()"
        )
    k, beta = (value.reshape(-1, *(1,) * (m.ndim - 1)) for value in mixed)
    gap = q - p
    return m - beta * gap, m + (k - beta) * gap


def _mixed(p: Tensor, q: Tensor, m: Tensor, x: Tensor, eps: float, rest: float = 0.0) -> tuple[Tensor, Tensor] | None:
    """`k`, `β` of `m = A·x + k·p + β·(q − p)`, one for each sample; None where that does not explain `m`."""
    if x.shape != m.shape:
        return None
    p, gap, m, x = (tensor.flatten(1) for tensor in (p, q - p, m, x))
    wide = bool((_norm(gap, -1) > 0).all())
    columns = torch.stack([x, p, gap] if wide else [x, p], -1)
    sizes = _norm(columns, -2)
    if not bool((sizes > 0).all()):
        return None
    unit = columns / sizes[..., None, :]
    if bool((torch.linalg.det(unit.mT @ unit) < PARALLEL).any()):
        return None
    shares = torch.linalg.solve(unit.mT @ unit, unit.mT @ m[..., None])[..., 0]
    left = _norm(m - (unit @ shares[..., None])[..., 0], -1)
    if not bool((left <= ROUNDINGS_OF_EQUALS * eps * shares.abs().sum(-1) + rest * _norm(m, -1)).all()):
        return None
    shares = shares / sizes
    return shares[:, 1], shares[:, 2] if wide else torch.zeros_like(shares[:, 1])


def _fit(p: Tensor, q: Tensor, m: Tensor, eps: float, one_scale: bool) -> Names | None:
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
    if one_scale:
        mean = (weight * share).sum() / total
        if float((weight * ((share - mean).abs() <= SCATTER * mean.abs())).sum() / total) < 0.9:
            return None
    plus = float((weight * (k > 0)).sum() / total)
    return Names(_named(share, weight, total, one_sign=not 0.1 < plus < 0.9), sign=1 if plus > 0.5 else -1)


def _named(share: Tensor, weight: Tensor, total: Tensor, one_sign: bool = True) -> int:
    """The place of the conditional one, by the `share` of the second, each of its own `weight`."""
    q_cond, p_cond = (float((weight * vote).sum() / total) for vote in (share > 0.999, share < 0.001))
    if max(q_cond, p_cond) < 0.9 or not one_sign:
        w = float((weight * share).sum() / total)
        raise ValueError(
            f"the pipeline joins its two branches as {1 - w:.3g} of the first and {w:.3g} of the second, from which "
            "attach cannot tell the conditional one; set its guidance scale above 1"
        )
    return int(q_cond > p_cond)


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
