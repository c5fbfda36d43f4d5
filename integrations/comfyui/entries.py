"""Entries in the lists of samplers of KSampler, KSampler (Advanced) and KSamplerSelect, with every default."""

from __future__ import annotations

from functools import partial
from typing import Any

from zigzag import EndToEnd, ImplicitZ, Resampling, Z2Sampling, ZSampling
from zigzag.adapters.k_diffusion import sampler
from zigzag.methods import Method

from .host import of_host

__all__ = ["ENTRIES", "add_entries"]

ENTRIES: dict[str, Method] = {
    "zigzag_z2": Z2Sampling(),
    "zigzag_z": ZSampling(),
    "zigzag_implicit_z": ImplicitZ(),
    "zigzag_end_to_end": EndToEnd(),
    "zigzag_resampling": Resampling(),
}


def add_entries() -> None:
    """Puts the entries where ComfyUI looks samplers up by their names; what is there already stays."""
    names = of_host("comfy.samplers", "KSampler").SAMPLERS
    make = partial(sampler, calc_cond_batch=of_host("comfy.samplers", "calc_cond_batch"))
    home: Any = of_host("comfy.k_diffusion", "sampling")
    for name, method in ENTRIES.items():
        if name not in names:
            setattr(home, f"sample_{name}", make(method))
            names.append(name)
