"""Tiny pipelines of videos, for the sweep."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import diffusers
import swept_nets as nets
from swept import Swept
from swept_parts import PAG, of_family, pil, wider
from tiny_dits import cogvideox, flow, wan
from tiny_more import ltx
from tiny_sound import GIVEN, ltx2, ltx2_form
from tiny_unets import Case, animatediff, modelscope
from torch import Tensor

EDM_SIGMAS: dict[str, Any] = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}


def edm() -> Any:
    return diffusers.EDMEulerScheduler(**EDM_SIGMAS, final_sigmas_type="sigma_min")


def karras() -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)


def unipc() -> Any:
    config = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    return diffusers.UniPCMultistepScheduler(**config)


def autoregressive() -> Case:
    return nets.anyflow(diffusers.AnyFlowFARTransformer3DModel, chunk_partition=(1, 2))


def sound(name: str = "", *, given: bool = True) -> Swept:
    """Two states at two scales: tests of their own are in test_attach_sound.py."""
    pipe, call = ltx2_form(name, given) if name else ltx2()
    return Swept(pipe, {**call, "num_inference_steps": 3}, scale=None)


def clip(frames: int, side: int) -> dict[str, Any]:
    return {"video": [pil(side)] * frames, "strength": 1.0}


def later_frames(tokens: Tensor, m: Tensor) -> Tensor:
    """Tokens of frames, of which the first is an image that is kept."""
    *_, height, width = m.shape
    return last_frames(tokens.unflatten(1, (-1, height, width)).permute(0, 4, 1, 2, 3), m)


def last_frames(part: Tensor, m: Tensor) -> Tensor:
    return part[:, :, -m.shape[2] :]


def preconditioned(e: Tensor, x: Tensor, sigma: float) -> Tensor:
    """The velocity that Cosmos 2 makes of its x₀, and that of what its model gives."""
    t = sigma / (1 + sigma)
    return (x - ((1 - t) * x - t * e)) / sigma


def guided() -> dict[str, Any]:
    from diffusers.guiders import ClassifierFreeGuidance

    return {"guider": ClassifierFreeGuidance(4.0)}


FOUR = {"num_inference_steps": 4}
SAFE = {"safety_checker": nets.Safe()}
COSMOS: dict[str, Any] = {"scale": 5.0, "says": preconditioned}  # it calls c + g·(c − u) a scale of g
STEPPED, COPIED = "before it guides", "steps a copy"
ROWS: list[tuple[str, Any, Any, Any, dict[str, Any]]] = [
    ("AnimateDiffPipeline", animatediff, {}, None, {}),
    ("AnimateDiffVideoToVideoPipeline", animatediff, clip(4, 16), None, {}),
    ("AnimateDiffPAGPipeline", animatediff, {}, {"pag_applied_layers": ["mid"]}, {"refused": PAG}),
    ("TextToVideoSDPipeline", modelscope, {}, None, {}),
    ("VideoToVideoSDPipeline", modelscope, clip(4, 16), None, {}),
    ("CogVideoXPipeline", cogvideox, FOUR, None, {}),
    ("CogVideoXVideoToVideoPipeline", cogvideox, FOUR | clip(5, 32), None, {}),
    ("CogVideoXImageToVideoPipeline", wider(cogvideox, 8), FOUR | {"image": pil(32)}, None, {}),
    ("CogVideoXFunControlPipeline", wider(cogvideox, 8), FOUR | {"control_video": [pil(32)] * 5}, None, {}),
    ("WanPipeline", wan, {}, None, {}),
    ("WanVideoToVideoPipeline", partial(nets.wide_wan, 4), clip(9, 16), None, {}),
    ("WanImageToVideoPipeline", partial(nets.wide_wan, 12), {"image": pil(16)}, None, {}),
    ("WanVACEPipeline", nets.vace, {}, None, {}),
    ("LTXPipeline", ltx, {}, None, {}),
    ("LTXImageToVideoPipeline", ltx, {"image": pil(64)}, None, {"lays": later_frames}),
    ("LTXConditionPipeline", ltx, {}, None, {"refused": "per_token_timesteps"}),
    ("AllegroPipeline", nets.allegro, {}, None, {}),
    ("LattePipeline", nets.latte, {}, None, {}),
    ("MochiPipeline", partial(nets.mochi, invert_sigmas=True), {}, None, {}),  # as its checkpoint has it
    ("CosmosTextToWorldPipeline", partial(nets.cosmos, 4, nets.cosmos_vae, edm), {}, SAFE, {"refused": STEPPED}),
    (
        "CosmosVideoToWorldPipeline",
        partial(nets.cosmos, 5, nets.cosmos_vae, edm),
        {"image": pil(32)},
        SAFE,
        {"refused": STEPPED},
    ),
    ("Cosmos2TextToImagePipeline", partial(nets.cosmos, 4, nets.wan_vae, karras), {}, SAFE, COSMOS),
    (
        "Cosmos2VideoToWorldPipeline",
        partial(nets.cosmos, 5, nets.wan_vae, karras),
        {"image": pil(32)},
        SAFE,
        COSMOS | {"known": 1},
    ),
    ("HunyuanVideoPipeline", nets.hunyuan_video, {}, None, {}),
    ("HunyuanSkyreelsImageToVideoPipeline", partial(nets.hunyuan_video, 8), {"image": pil(16)}, None, {}),
    ("HunyuanVideo15Pipeline", nets.hunyuan15, {}, guided, {}),
    ("EasyAnimatePipeline", nets.easyanimate, {}, None, {}),
    ("SkyReelsV2Pipeline", partial(nets.skyreels, flow), {}, None, {}),
    ("SkyReelsV2DiffusionForcingPipeline", partial(nets.skyreels, unipc), {"prompt": None}, None, {"refused": COPIED}),
    ("SanaVideoPipeline", nets.sana_video, {}, None, {}),
    ("SanaImageToVideoPipeline", nets.sana_video, {"image": pil(32)}, None, {"lays": last_frames}),
    ("AnyFlowPipeline", partial(nets.anyflow, diffusers.AnyFlowTransformer3DModel), {}, None, {}),
    ("AnyFlowFARPipeline", autoregressive, {"chunk_partition": [1, 2]}, None, {}),
    ("LucyEditPipeline", partial(nets.wide_wan, 8), {"video": [pil(16)] * 9}, None, {}),
    ("HeliosPipeline", nets.helios, {}, None, {}),
]
CLASSES: dict[str, Callable[[], Swept]] = {
    name: partial(of_family, name, family, call, parts, **known) for name, family, call, parts, known in ROWS
}
CLASSES["LTX2Pipeline"] = sound
CLASSES |= {name: partial(sound, name) for name in GIVEN}
CLASSES["LTX2ConditionPipeline, without"] = partial(sound, "LTX2ConditionPipeline", given=False)
