"""A sweep over the pipeline classes of diffusers: plain bit for bit, led or refused, rows counted, nothing left behind.

What a led pipeline gives is held against a loop that is written by hand (swept_by_hand.py), wherever its guidance is
`u + w·(c − u)`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from zigzag import Standard, Z2Sampling, ZSampling
from zigzag.inversion import Recorded

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
attach, Inversion, Reconstruction = adapters.attach, adapters.Inversion, adapters.Reconstruction
scheme_loop = pytest.importorskip("zigzag.adapters.diffusers.scheme_loop")

import swept  # noqa: E402
import swept_by_hand  # noqa: E402
import swept_edits  # noqa: E402
import swept_images  # noqa: E402
import swept_long_videos  # noqa: E402
import swept_more_images  # noqa: E402
import swept_more_unets  # noqa: E402
import swept_more_videos  # noqa: E402
import swept_olds  # noqa: E402
import swept_others  # noqa: E402
import swept_sounds  # noqa: E402
import swept_unets  # noqa: E402
import swept_variants  # noqa: E402
import swept_videos  # noqa: E402

from support.steered import Led  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*without its corrector"),
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile"),
]

CLASSES = swept_unets.CLASSES | swept_images.CLASSES | swept_videos.CLASSES | swept_others.CLASSES
CLASSES |= swept_more_videos.CLASSES | swept_long_videos.CLASSES
CLASSES |= swept_more_unets.CLASSES | swept_variants.CLASSES | swept_sounds.CLASSES | swept_olds.CLASSES
CLASSES |= swept_more_images.CLASSES | swept_edits.CLASSES
METHODS: dict[str, Any] = {"z2": Z2Sampling(warmup=1), "z": ZSampling(steps=1)}
WANTED = 5e-5  # two implementations in float32, and a decoder behind some; measured at 1e-5 and below
MOVED = 5e-5  # what a method does here; 1e-3 and more for most


class Known(NamedTuple):
    """A pipeline, what it gives by itself, and the rows of its calls."""

    case: swept.Swept
    plain: Tensor
    rows: list[int]


@functools.cache
def known(name: str) -> Known:
    diffusers.logging.set_verbosity_error()
    case = CLASSES[name]()
    with case.seen() as rows:
        plain = case.run()
    assert len(plain) and bool(plain.isfinite().all())
    return Known(case, plain, rows)


@contextmanager
def put_back(name: str) -> Iterator[None]:
    """What is left behind of the block within, also by an exception: nothing."""
    case, plain, _ = known(name)
    try:
        yield
    finally:
        assert not case.left_behind()
        assert torch.equal(case.run(), plain)


def off(x: Tensor, y: Tensor) -> float:
    return float((x - y).norm() / y.norm())


@pytest.mark.parametrize("name", CLASSES)
def test_standard_is_the_pipeline_itself(name: str) -> None:
    case, plain, rows = known(name)
    with attach(case.pipe, Standard()) as run, case.seen() as seen:
        assert torch.equal(case.run(), plain)
    assert seen == rows and run.rows == sum(rows) / case.samples
    assert not case.left_behind()


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("name", CLASSES)
def test_a_zigzag_is_led_or_refused(name: str, kind: str) -> None:
    """Refused at the first round of the model's calls at the latest, before there is an image."""
    case, plain, rows = known(name)
    refused = case.refused or getattr(case, f"{kind}_refused")
    if refused:
        error = pytest.raises((ValueError, RuntimeError), match=refused)
        with put_back(name), case.seen() as seen, error, attach(case.pipe, METHODS[kind]):
            case.run()
        assert len(seen) <= -(-len(rows) // case.steps)
        return
    with attach(case.pipe, METHODS[kind]) as run, case.seen() as seen:
        led = case.run()
    moved = off(led, plain)
    assert run.rows == sum(seen) / case.samples and moved > MOVED
    if case.scale is not None:
        assert off(led, getattr(swept_by_hand, kind)(case)) <= min(WANTED, moved / 10)


# What goes by the number of its loop's calls, which is not known of a method that is steered by its walk.
UNSTEERED = {
    "doses its ControlNet by": [
        "StableDiffusionControlNetPipeline", "StableDiffusionControlNetImg2ImgPipeline",
        "StableDiffusionControlNetInpaintPipeline", "StableDiffusionXLControlNetPipeline",
        "StableDiffusionXLControlNetImg2ImgPipeline", "StableDiffusionXLControlNetInpaintPipeline",
        "StableDiffusion3ControlNetPipeline", "FluxControlNetPipeline", "StableDiffusionXLControlNetUnionPipeline",
        "StableDiffusionXLControlNetUnionImg2ImgPipeline", "StableDiffusionXLControlNetUnionInpaintPipeline",
        "StableDiffusionControlNetXSPipeline", "StableDiffusionXLControlNetXSPipeline",
        "AnimateDiffControlNetPipeline", "AnimateDiffVideoToVideoControlNetPipeline",
        "StableDiffusion3ControlNetInpaintingPipeline", "QwenImageControlNetPipeline",
        "QwenImageControlNetInpaintPipeline",
    ],
    "grounds its objects by": ["StableDiffusionGLIGENPipeline"],
    "ends its guidance by": ["Lumina2Pipeline"],
    "cfg_truncation=None": [
        "ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline", "ZImageControlNetPipeline",
        "ZImageControlNetInpaintPipeline", "ZImageOmniPipeline",
    ],
    "projects its guidance from call 6 on": ["HunyuanImagePipeline", "HunyuanImageRefinerPipeline"],
    "switches its guider by": [
        "HunyuanVideo15Pipeline", "HunyuanVideo15ImageToVideoPipeline", "MotifVideoPipeline",
        "MotifVideoImage2VideoPipeline",
    ],
    "of a call of its loop that it had not laid out": ["KandinskyV22PriorPipeline, unclipped"],
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_a_zigzag_handed_out_move_by_move_is_the_same_or_refused(name: str) -> None:
    """Bit for bit, and the rows too; refused at the first round of the model's calls, but where that shows later."""
    case, _, rows = known(name)
    refused = case.refused or case.z_refused
    unsteered = "" if refused else next((why for why, names in UNSTEERED.items() if name in names), "")
    method = METHODS["z"]
    if refused or unsteered:
        error = pytest.raises((ValueError, RuntimeError), match=unsteered or None)
        with put_back(name), case.seen() as seen, error, attach(case.pipe, Led(method)):
            case.run()
        assert len(seen) <= -(-len(rows) // case.steps) * (2 if "unclipped" in name else 1)
        return
    ran = list[tuple[Tensor, int]]()
    for each in (method, Led(method)):
        with attach(case.pipe, each) as run:
            ran.append((case.run(), run.rows))
    assert torch.equal(ran[0][0], ran[1][0]) and ran[0][1] == ran[1][1]


@pytest.mark.parametrize("name", ["ZImagePipeline", "ZImageInpaintPipeline"])
def test_guidance_that_is_not_truncated_is_steered(name: str) -> None:
    """What the refusal names works."""
    case = CLASSES[name]()
    case.call |= {"cfg_truncation": None}
    outs = []
    for each in (METHODS["z"], Led(METHODS["z"])):
        with attach(case.pipe, each):
            outs.append(case.run())
    assert torch.equal(*outs)


@pytest.mark.parametrize("name", CLASSES)
def test_an_exception_leaves_nothing_behind(name: str) -> None:
    """In the middle of a loop that is led, or of a plain one."""
    case, *_ = known(name)
    method = Standard() if case.refused or case.z_refused else METHODS["z"]
    with put_back(name), pytest.raises(swept.Stopped), attach(case.pipe, method), case.seen(stop=1):
        case.run()


NAMED = [
    "KandinskyPriorPipeline", "KandinskyV22PriorPipeline", "KandinskyV22PriorEmb2EmbPipeline", "IFPipeline",
    "IFImg2ImgPipeline", "IFImg2ImgSuperResolutionPipeline", "IFInpaintingSuperResolutionPipeline",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_the_scheduler_that_is_named_instead_is_led(name: str) -> None:
    """In that pipeline: a remedy that its refusal names works there."""
    case = CLASSES[name]()
    with pytest.raises(ValueError, match="; use ") as refused, attach(case.pipe, METHODS["z"]):
        case.run()
    named = str(refused.value).split("; use ")[-1]
    names = {type(case.pipe.scheduler).__name__: type(case.pipe.scheduler), "scheduler": case.pipe.scheduler}
    case.pipe.scheduler = eval(named[: named.index(")") + 1], names)
    plain = case.run()
    with attach(case.pipe, METHODS["z"]) as run, case.seen() as seen:
        led = case.run()
    assert run.rows == sum(seen) and off(led, plain) > MOVED
    if "Prior" not in name:  # whose first step has no inverse in float32
        assert off(led, swept_by_hand.z(case)) <= min(WANTED, off(led, plain) / 10)


@pytest.mark.parametrize(("prompts", "images"), [(2, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("name", ["KandinskyCombinedPipeline", "StableCascadeCombinedPipeline", "StableUnCLIPPipeline"])
def test_rows_of_a_combined_pipeline_are_per_sample(name: str, prompts: int, images: int) -> None:
    """Of its prior and its decoder, whatever the batch."""
    case = CLASSES[name]()
    case.call |= {"prompt": ["red", "blue"][:prompts], "num_images_per_prompt": images}
    for method in (Standard(), METHODS["z"]):
        with attach(case.pipe, method) as run, case.seen() as seen:
            case.run()
        assert run.rows == sum(seen) / (prompts * images)


def test_the_page_on_diffusers_says_of_each_class_what_becomes_of_it() -> None:
    page = (Path(__file__).parents[2] / "docs" / "diffusers.md").read_text(encoding="utf-8")
    rows = page.split("## A sweep over the pipeline classes")[1].split("\n## ")[0].splitlines()
    said = {kind: " ".join(row for row in rows if row.startswith(f"| {kind}")) for kind in ("led", "refused")}
    for name in CLASSES:
        if "," not in name:
            kind = "refused" if known(name).case.refused else "led"
            assert f"`{name.removesuffix('Pipeline')}`" in said[kind], name


# Three branches, a perturbed one, none; sigma times the latents, frames first, a condition behind the state; a prior.
INVERTED = [
    "StableDiffusionInstructPix2PixPipeline", "StableDiffusionPAGPipeline", "StableVideoDiffusionPipeline",
    "FluxControlPipeline", "QwenImageImg2ImgPipeline", "KandinskyPipeline", "StableCascadeDecoderPipeline",
    "CogVideoXImageToVideoPipeline", "WanVACEPipeline", "MochiPipeline", "Cosmos2TextToImagePipeline",
    "HunyuanVideoPipeline", "SanaVideoPipeline", "StableUnCLIPPipeline",
]  # fmt: skip


@pytest.mark.parametrize("name", INVERTED)
def test_an_inversion_comes_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the state that was handed in, of the shape that the pipeline prepares; the rows counted, nothing left."""
    case, *_ = known(name)
    # Mochi's model predicts what no step is written of.
    trajectory = "independent" if name == "MochiPipeline" else "naive"
    states, z0 = list[Tensor](), latents_of(case)
    loop, answer = scheme_loop.SchemeLoop, scheme_loop.SchemeLoop.answer
    monkeypatch.setattr(loop, "answer", lambda *args: states.append(answer(*args)) or states[-1])
    with put_back(name):
        with attach(case.pipe, Inversion(Recorded(trajectory))) as run, case.seen() as seen:
            dataclasses.replace(case, call=case.call | {"latents": z0}).run()
        assert run.rows == sum(seen) / case.samples == run.inverted.report.rows + case.before
        with attach(case.pipe, Reconstruction(run.inverted)) as run, case.seen() as seen:
            case.run()
        assert run.rows == sum(seen) / case.samples
    assert off(states[-1], z0) <= WANTED < off(states[0], z0)


def test_an_inversion_leads_one_state() -> None:
    """Of video and sound it would lead the one."""
    case, *_ = known("LTX2Pipeline")
    given = dataclasses.replace(case, call=case.call | {"latents": latents_of(case)})
    with pytest.raises(ValueError, match="two states"), attach(case.pipe, Inversion(Recorded())):
        given.run()


def latents_of(case: swept.Swept) -> Tensor:
    """Latents of the shape of those that the pipeline prepares first along its scheduler."""
    prepare, prepared = case.pipe.prepare_latents, list[Any]()

    @functools.wraps(prepare)
    def noted(*args: Any, **kwargs: Any) -> Any:
        prepared.append(prepare(*args, **kwargs))
        return prepared[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(case.pipe, "prepare_latents", noted)
        case.run()
    own = prepared[1 if hasattr(case.pipe, "prior_scheduler") else 0]  # after those of a prior
    first = own[0] if isinstance(own, tuple) else own
    return torch.randn(first.shape, generator=torch.Generator().manual_seed(4), dtype=first.dtype) / 2
