"""Tiny random pipelines, by family."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# pytest's importlib mode puts no folder of tests on the path.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Any]:
    """`tiny(family, batch=1, **call)`: a Case (tiny_unets.py) of that family."""
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    import tiny_distilled
    import tiny_dits
    import tiny_more
    import tiny_packed
    import tiny_unets

    def build(family: str, batch: int = 1, **changes: Any) -> Any:
        homes = [
            module
            for module in (tiny_unets, tiny_dits, tiny_packed, tiny_more, tiny_distilled)
            if hasattr(module, family)
        ]
        return getattr(homes[0], family)(batch, **changes)

    return build


@pytest.fixture
def one_branch(tiny: Callable[..., Any]) -> Callable[..., Any]:
    """Pipelines of models that evaluate one branch."""
    import tiny_distilled

    made: Callable[..., Any] = tiny_distilled.one_branch
    return made


@pytest.fixture(scope="session")
def schedulers(tiny: Callable[..., Any]) -> Callable[..., Any]:
    """`schedulers(kind)`: DDIM on ε ("ddim") or v ("v"), or Euler ("euler")."""
    import diffusers
    import tiny_unets

    def build(kind: str, **config: Any) -> Any:
        if kind == "euler":
            return diffusers.EulerDiscreteScheduler(**{**tiny_unets.SD_BETAS, "steps_offset": 1, **config})
        return tiny_unets.ddim(**({"prediction_type": "v_prediction"} if kind == "v" else {}), **config)

    return build


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion with a text encoder and a tokenizer of single letters, as `save_pretrained` leaves it."""
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    from tiny_folders import stable_diffusion

    return stable_diffusion(tmp_path_factory.mktemp("tiny-sd"))


@pytest.fixture(scope="session")
def flux_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny guidance-distilled Flux, likewise."""
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    from tiny_folders import distilled

    return distilled(tmp_path_factory.mktemp("tiny-flux"))


@pytest.fixture(scope="session")
def folders(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Of a name of tiny_folders.py, that pipeline in a folder."""
    import tiny_folders

    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = getattr(tiny_folders, name)(tmp_path_factory.mktemp(name))
        return made[name]

    return folder
