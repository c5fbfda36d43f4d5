"""zigzag where samplers have k-diffusion's signature: in k-diffusion, in ComfyUI and in what is made after them.

It imports neither: what it needs of ComfyUI is passed to it.
"""

from zigzag.adapters.k_diffusion.sampler import Sampler, sampler

__all__ = ["Sampler", "sampler"]
