"""Every pipeline class of diffusers is in the sweep, or named with the reason why it is not.

A swept_*.py file that leaves classes out has them in a dictionary `UNBUILT`, of a reason for each.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from zigzag import Standard

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

attach = pytest.importorskip("zigzag.adapters.diffusers").attach

from test_every_pipeline import CLASSES  # noqa: E402
from tiny_more import ltx  # noqa: E402
from tiny_sound import ltx2  # noqa: E402

SWEPT = {name.split(",")[0] for name in CLASSES}


def public() -> dict[str, type]:
    """Those of diffusers and of diffusers.pipelines; without the dummies of what is not installed, and ONNX's."""
    found = {name: getattr(home, name, None) for home in (diffusers, diffusers.pipelines) for name in dir(home)}
    base = diffusers.DiffusionPipeline
    classes = {name: one for name, one in found.items() if inspect.isclass(one) and issubclass(one, base)}
    return {name: one for name, one in classes.items() if one is not base and "Onnx" not in name}


def unbuilt() -> dict[str, dict[str, str]]:
    """By the file's name, the classes that it leaves out."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("swept_*.py"))
    return {name: getattr(importlib.import_module(name), "UNBUILT", {}) for name in names}


def test_every_class_is_swept_or_named() -> None:
    named = {name for each in unbuilt().values() for name in each}
    missing = sorted(public().keys() - SWEPT - named)
    assert not missing, f"{len(missing)} in neither the sweep nor an UNBUILT:\n" + "\n".join(missing)


def test_what_is_named_is_a_class_that_is_not_swept_and_has_a_reason() -> None:
    """Also of a dummy: what is not installed here is a reason."""
    named = [(name, why) for each in unbuilt().values() for name, why in each.items()]
    names = [name for name, _ in named]
    assert len(set(names)) == len(names), "named twice"
    assert not SWEPT.intersection(names), "swept as well"
    assert all(inspect.isclass(getattr(diffusers, name, None)) for name in names), "no class of diffusers"
    assert all(len(why.split()) > 1 for _, why in named), "a reason that says nothing"


def test_the_sweep_is_of_classes_of_diffusers() -> None:
    assert public().keys() >= SWEPT, sorted(SWEPT - public().keys())


def upsamplers() -> list[Any]:
    """Pipelines of one call, without a scheduler: LTX's and LTX-2's."""
    from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
    from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel

    sizes: dict[str, Any] = {"in_channels": 8, "mid_channels": 32, "num_blocks_per_stage": 1}
    nets = LTXLatentUpsamplerModel(**sizes), LTX2LatentUpsamplerModel(**sizes, use_rational_resampler=False)
    classes = diffusers.LTXLatentUpsamplePipeline, diffusers.LTX2LatentUpsamplePipeline
    vaes = ltx().pipe.vae, ltx2()[0].vae
    return [cls(vae=vae, latent_upsampler=net) for cls, vae, net in zip(classes, vaes, nets, strict=True)]


def test_a_pipeline_of_one_call_is_refused() -> None:
    for pipe in upsamplers():
        name = type(pipe).__name__
        with pytest.raises(TypeError, match=f"must have a scheduler, .*, got {name}"), attach(pipe, Standard()):
            pass
