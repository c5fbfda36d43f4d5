"""Images inverted and brought back under other prompts."""

from __future__ import annotations

from random import Random

import pytest
import torch

pytest.importorskip("diffusers")
from support.painters import painter
from zigzag.evaluation.edits import MOVED, edit, kept
from zigzag.evaluation.schemes import SCHEMES, parse_scheme
from zigzag.inversion import Recorded, invert, reconstruct
from zigzag.zoo.shapes import draw_scene, parse, render

PROMPTS = ["a red circle", "a green square and a blue circle"]
EDITS = ["a blue circle", "a green square and a blue triangle"]


def images() -> torch.Tensor:
    """Scenes that are not quite what the painter makes of the prompts."""
    return render([draw_scene(parse(text), Random(3)) for text in PROMPTS])


@pytest.mark.parametrize("name", [name for name in SCHEMES if name != "rex"])  # the painter divides by the last time
def test_the_reconstruction_is_the_image_and_each_edit_is_of_its_prompt(name: str) -> None:
    """The painter's predictions lead anywhere to its scene, so that the edits that do not recall residuals are it."""
    model, before = painter(), images()
    found = edit(model, before, PROMPTS, [EDITS, PROMPTS], parse_scheme(name), steps=3)
    scheme = found.inverted.scheme
    if isinstance(scheme, Recorded):
        torch.testing.assert_close(found.reconstruction, before, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.edits[1], found.reconstruction, rtol=0, atol=0)
    assert len(found.edits) == 2
    assert not torch.equal(found.edits[0], found.reconstruction)
    assert found.inverted.states[0].dtype == torch.float64


def test_it_is_invert_and_reconstruct_at_two_scales() -> None:
    model, before, scheme = painter(), images(), parse_scheme("direct")
    found = edit(model, before, PROMPTS, [EDITS], scheme, steps=4, guidance=1.5, edit_guidance=0.7)
    solver = model.solver(4)
    cond, other, uncond = model.encode(PROMPTS), model.encode(EDITS), model.encode(["", ""])
    x = model.image_to_state(before).double()
    inverted = invert(model.eps_fn, x, solver, scheme, cond=cond, uncond=uncond, guidance=1.5)
    back = reconstruct(model.eps_fn, inverted, solver, cond=cond, uncond=uncond, guidance=1.5)
    edited = reconstruct(model.eps_fn, inverted, solver, cond=other, uncond=uncond, guidance=0.7)
    torch.testing.assert_close(found.reconstruction.double(), model.decode(back), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.edits[0].double(), model.decode(edited), rtol=0, atol=1e-5)
    again = edit(model, before * 0, PROMPTS, [EDITS], scheme, steps=4, guidance=1.5, edit_guidance=0.7,
                 inverted=found.inverted)  # fmt: skip
    assert torch.equal(again.edits[0], found.edits[0]) and again.inverted is found.inverted


def test_the_seed_is_that_of_the_noise_that_a_scheme_draws() -> None:
    model, scheme = painter(), parse_scheme("edit-friendly")
    one, same, other = (
        edit(model, images(), PROMPTS, [], scheme, steps=2, seed=seed).inverted.noise for seed in (0, 0, 1)
    )
    assert torch.equal(one, same) and not torch.allclose(one, other, atol=0.1)


def test_kept_is_the_share_of_pixels_that_no_channel_moved() -> None:
    before = torch.full((2, 3, 4, 4), 0.5)
    after = before.clone()
    after[0, 1, 0, 0] += 2 * MOVED
    after[1, 2, 0, :2] -= 0.5 * MOVED
    assert kept(before, before) == 1 and kept(before, after) == 31 / 32
    where = torch.zeros(2, 4, 4, dtype=torch.bool)
    where[0, 0] = True
    assert kept(before, after, where) == 3 / 4
