"""zigzag for diffusers: any pipeline with one line, and predictors, solvers and guidance from its parts.

Needs the extra: `pip install 'zigzag-diffusion[diffusers]'`.
"""

try:
    import diffusers as _diffusers  # noqa: F401
except ImportError as error:
    raise ImportError(
        "zigzag.adapters.diffusers needs diffusers, which is not installed: pip install 'zigzag-diffusion[diffusers]'"
    ) from error

from zigzag.adapters.diffusers.attach import Run, attach
from zigzag.adapters.diffusers.conventions import Convention
from zigzag.adapters.diffusers.guiders import from_guider
from zigzag.adapters.diffusers.images import encode_image
from zigzag.adapters.diffusers.predictors import dit_predictor, unet_predictor
from zigzag.adapters.diffusers.presets import rf_sampling, w2sd
from zigzag.adapters.diffusers.roles import Role
from zigzag.adapters.diffusers.schedulers import solver_from_scheduler
from zigzag.adapters.diffusers.ways import Inversion, Reconstruction

__all__ = [
    "Convention",
    "Inversion",
    "Reconstruction",
    "Role",
    "Run",
    "attach",
    "dit_predictor",
    "encode_image",
    "from_guider",
    "rf_sampling",
    "solver_from_scheduler",
    "unet_predictor",
    "w2sd",
]
