"""The output of the authors' released Z-Sampling pipeline on a tiny SDXL-shaped U-Net (data/sdxl-tiny)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from zigzag import DDIM, Standard, Trace, ZSampling, sample
from zigzag.moves import Invert

DATA = Path(__file__).parent / "data" / "sdxl-tiny"
META = json.loads((DATA / "meta.json").read_text())
CASES = META["cases"]
ZIGZAGS = [name for name, case in CASES.items() if case.get("lam")]
WANTED = 2e-5

Predictor = Callable[[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]], torch.Tensor]


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return pytest.importorskip("safetensors.torch").load_file(DATA / "latents.safetensors")


@pytest.fixture(scope="module")
def eps_fn() -> Predictor:
    """The U-Net, as a plain callable; its condition is a dict of tensors."""
    diffusers = pytest.importorskip("diffusers")
    unet = diffusers.UNet2DConditionModel(**META["unet_config"]).eval()
    unet.load_state_dict(pytest.importorskip("safetensors.torch").load_file(DATA / "unet.safetensors"))

    def predict(x: torch.Tensor, t: torch.Tensor, cond: dict[str, torch.Tensor]) -> torch.Tensor:
        added = {"text_embeds": cond["pooled"], "time_ids": cond["time_ids"]}
        return unet(x, t, encoder_hidden_states=cond["embeds"], added_cond_kwargs=added).sample

    return predict


def conditions(golden: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """cond and uncond, as sample takes them."""
    ids = torch.tensor([[16.0, 16, 0, 0, 16, 16]]).expand(2, -1)
    return {
        "cond": {"embeds": golden["prompt_embeds"], "pooled": golden["pooled"], "time_ids": ids},
        "uncond": {
            "embeds": golden["negative_prompt_embeds"],
            "pooled": golden["negative_pooled"],
            "time_ids": ids,
        },
    }


def method_of(case: dict[str, float], released: bool = True) -> Standard | ZSampling:
    if case.get("std"):
        return Standard()
    return ZSampling(steps=int(case["lam"]), rounds=int(case["T_max"]), released=released)


def scales(case: dict[str, float]) -> dict[str, float]:
    return {"strong": case["g1"], "weak": case.get("g2", 0.0)}


def solver_of(case: dict[str, float]) -> DDIM:
    return DDIM.stable_diffusion(int(case["steps"]), spacing="leading", steps_offset=1)


def distance(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x - y).norm() / y.norm())


def check_case(x: torch.Tensor, y: torch.Tensor) -> None:
    """|x - y| / |y| within 2e-5: float32 rounding of two implementations of one algorithm."""
    assert x.dtype == y.dtype and x.shape == y.shape and distance(x, y) <= WANTED


@pytest.mark.parametrize("name", list(CASES))
def test_the_released_pipeline_is_reproduced(name: str, eps_fn: Predictor, golden: dict[str, torch.Tensor]) -> None:
    """The final latent within 2e-5, and as many doubled calls as their pipeline made.

    Each move is one of their doubled calls; an inversion under w = 0 or 1 is one row here, and two there.
    """
    case, trace = CASES[name], Trace()
    method, solver = method_of(case), solver_of(case)
    x = sample(eps_fn, golden["x_T"], solver, method, **conditions(golden), **scales(case), trace=trace)
    check_case(x, golden[name])
    path = method.path(len(solver))
    inversions = sum(isinstance(move, Invert) for move in path)
    assert len(path) == case["model_calls"]
    assert trace.rows == 2 * case["model_calls"] - inversions


@pytest.mark.parametrize("name", ZIGZAGS)
def test_the_exact_inverse_is_another_sampler(name: str, eps_fn: Predictor, golden: dict[str, torch.Tensor]) -> None:
    """Trap 1: with the true inverse of the same step the latents differ by 0.12 to 0.54 (README)."""
    case = CASES[name]
    x = sample(
        eps_fn,
        golden["x_T"],
        solver_of(case),
        method_of(case, released=False),
        **conditions(golden),
        **scales(case),
    )
    assert 0.1 < distance(x, golden[name]) < 0.6
    with pytest.raises(AssertionError):
        check_case(x, golden[name])


@pytest.mark.parametrize("name", list(CASES))
def test_the_golden_check_fails_on_mutants(name: str, eps_fn: Predictor, golden: dict[str, torch.Tensor]) -> None:
    """gamma for w, the conditions exchanged, another spacing, and one zigzag step too few."""
    case, given = CASES[name], conditions(golden)
    swapped = {"cond": given["uncond"], "uncond": given["cond"]}
    gamma = {scale: 1 + value for scale, value in scales(case).items()}
    fewer = method_of({**case, "lam": case["lam"] - 1}) if name in ZIGZAGS else ZSampling(steps=1, released=True)
    trailing = DDIM.stable_diffusion(int(case["steps"]), spacing="trailing")
    mutants = [
        (solver_of(case), method_of(case), given, gamma),
        (solver_of(case), method_of(case), swapped, scales(case)),
        (trailing, method_of(case), given, scales(case)),
        (solver_of(case), fewer, given, scales(case)),
    ]
    for solver, method, conds, guidance in mutants:
        x = sample(eps_fn, golden["x_T"], solver, method, **conds, **guidance)
        with pytest.raises(AssertionError):
            check_case(x, golden[name])


def test_lambda_zero_is_standard_sampling(golden: dict[str, torch.Tensor]) -> None:
    """Their own two outputs agree, and ours are one path."""
    check_case(golden["z_zero"], golden["std"])
    assert method_of(CASES["z_zero"]).path(20) == Standard().path(20)
