"""zigzag's nodes for ComfyUI: this folder, or a link to it, belongs into ComfyUI's `custom_nodes`."""

try:
    import zigzag.adapters.k_diffusion as _adapter  # noqa: F401
except ImportError as error:
    raise ImportError(
        "the zigzag nodes need the package zigzag-diffusion, of the version that this folder came with: install it "
        f"with ComfyUI's Python ({error})"
    ) from error

from .entries import add_entries
from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

add_entries()

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
