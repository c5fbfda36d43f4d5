"""`zigzag bench` on tiny pipelines in folders, with tiny scores, as a user runs it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("PIL")
import diffusers

from support import scores
from support.benches import STRONG, TEXTS, T, bed, bench, shown
from zigzag import Denoise, ImplicitZ, Invert, Move, Standard, Trace, Visit, ZSampling
from zigzag.evaluation import image_cells
from zigzag.evaluation.beds import PipelineBed, Shown
from zigzag.evaluation.bench import Plan, Tried, measure
from zigzag.evaluation.cells import digest
from zigzag.evaluation.engines import run
from zigzag.evaluation.image_cells import ImageCell
from zigzag.evaluation.prompts import Prompt
from zigzag.evaluation.samplers import Sampler

SIZES = {"stable_diffusion_xl": 16, "hunyuan_dit": 64}


@pytest.mark.parametrize("name", SIZES)
def test_the_whole_command(name: str, folders: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A method and its baselines, two seeds, two scores, blocks of two; and nothing is done twice."""
    words = (folders(name), tmp_path / "one", "--methods", "z", "--seeds", "3", "4", "--batch", "2")
    words += ("--scores", "support.scores:Red", "support.scores:Bright")
    before = scores.Red.images
    assert bench(*words, size=SIZES[name]) == 0
    text = capsys.readouterr().out
    content = json.loads((tmp_path / "one/bench.json").read_text())
    lines = {line["name"]: line for line in content["lines"]}
    # Both branches in every call: Z runs two moves more at each step but the last, T = 3.
    assert (lines["Standard"]["rows"], lines["Z-Sampling"]["rows"]) == (6, 14)
    assert lines["CFG with the rows of Z-Sampling"]["rows"] == 14 and len(lines) == 5
    assert float(lines["CFG at the effective scale of Z-Sampling"]["w"]) == pytest.approx(
        STRONG + lines["Z-Sampling"]["beta"], abs=0.0051
    )
    for line in lines.values():
        assert set(line["scores"]) == {"red", "bright"}
        assert {name: mean["items"] for name, mean in line["scores"]["red"]["mean"].items()} == {
            "all": 3, "animals": 2, "things": 1,
        }  # fmt: skip
    assert f"digest of all images and verdicts in {tmp_path / 'one'}: {digest(tmp_path / 'one')}" in text
    assert scores.Red.images - before == len(list((tmp_path / "one/images").glob("*.png"))) == 5 * 6
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("*-*.*")}
    assert bench(*words, size=SIZES[name]) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("*-*.*")} == files
    assert "0 rows left" in _estimate(capsys, *words, size=SIZES[name])


def _estimate(capsys: pytest.CaptureFixture[str], *words: Any, **more: Any) -> str:
    capsys.readouterr()
    assert bench(*words, "--dry-run", **more) == 0
    return capsys.readouterr().out


def own(model: Path, text: str, scale: float, size: int = 16) -> torch.Tensor:
    """The image of the pipeline by itself, from the noise of seed 0."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(Random(f"noise 0 0 {text}").getrandbits(63))
    return pipe(
        text, height=size, width=size, num_inference_steps=T, guidance_scale=scale, generator=generator,
        output_type="pt",
    ).images  # fmt: skip


def drawn(one: PipelineBed, sampler: Sampler) -> list[ImageCell]:
    cells = one.cells(sampler)
    run(cells)
    return cells


def test_standard_sampling_is_what_the_pipeline_does_by_itself(folders: Any, tmp_path: Path) -> None:
    model = folders("stable_diffusion_xl")
    for cell, text in zip(drawn(bed(model, tmp_path), Sampler(Standard(), T, STRONG)), TEXTS, strict=True):
        torch.testing.assert_close(cell.tensors(), own(model, text, STRONG), atol=0.51 / 255, rtol=0)


def exact(one: PipelineBed, sampler: Sampler) -> tuple[torch.Tensor, int]:
    """The first image as it is before it has eight bits, and its rows: the tiny networks hardly read their prompts."""
    cell = one.cells(sampler)[0]
    return cell._drawn(cell.worker.load(), Trace())


def test_the_matched_baseline_is_plain_guidance_at_the_matched_scale(folders: Any, tmp_path: Path) -> None:
    """Of Implicit Z that is 2s − w at every step: so the pipeline by itself can do it."""
    model = folders("stable_diffusion_xl")
    image, rows = exact(bed(model, tmp_path), Sampler(Standard(), T, STRONG, 1.0, matched=ImplicitZ()))
    torch.testing.assert_close(image, own(model, TEXTS[0], 2 * STRONG - 1), atol=2e-5, rtol=0)
    assert rows == 2 * T and not torch.allclose(image, own(model, TEXTS[0], STRONG), atol=2e-4)


def test_a_scale_below_1_is_led_where_a_pipeline_would_leave_guidance_out(folders: Any, tmp_path: Path) -> None:
    """As an effective scale may be: next to 1 it is nearly the conditional prediction alone, and at 0 far from it."""
    one = bed(folders("stable_diffusion_xl"), tmp_path, texts=TEXTS[:1])
    (alone, once), (near, twice), (far, _) = (exact(one, Sampler(Standard(), T, w)) for w in (1.0, 0.9999, 0.0))
    assert (once, twice) == (T, 2 * T)
    torch.testing.assert_close(near, alone, atol=2e-5, rtol=0)
    assert not torch.allclose(far, alone, atol=2e-4)


class Once:
    """Zigzags at the first step: steered by its walk."""

    def steer(self, T: int) -> Generator[Move, Visit, None]:
        yield Denoise(0, 1)
        yield Invert(1, 0)
        for i in range(T):
            yield Denoise(i, i + 1)


def test_a_method_that_is_steered_is_led_and_its_rows_are_those_that_ran(folders: Any, tmp_path: Path) -> None:
    """The image is that of the same moves beforehand; only standard sampling stands beside it."""
    one = bed(folders("stable_diffusion_xl"), tmp_path, texts=TEXTS[:1])
    every, outcomes = measure(
        one, Plan((Tried(Once(), T), Tried(ZSampling(steps=1), T)), STRONG, baselines=("standard",))
    )
    assert [line.label for line in every] == ["Standard", "Once()", "Z-Sampling (λ 1)"]
    (steered,), (planned,) = (one.cells(line.sampler) for line in every[1:])
    assert torch.equal(steered.tensors(), planned.tensors())
    assert [outcomes[line.sampler].rows for line in every] == [2 * T, 2 * (T + 2), 2 * (T + 2)]


def test_an_image_does_not_depend_on_its_block(folders: Any, tmp_path: Path) -> None:
    """But for rounding: each prompt has noise of its own, for a Renoise too; and so has a prompt that comes again."""
    model, texts = folders("stable_diffusion_xl"), [*TEXTS, TEXTS[0]]
    images = []
    for batch in (1, 4):
        cells = drawn(bed(model, tmp_path, batch=batch, texts=texts), Sampler(ZSampling(), T, STRONG))
        images.append(torch.cat([cell.tensors() for cell in cells]))
    torch.testing.assert_close(images[0], images[1], atol=1.01 / 255, rtol=0)
    assert not torch.equal(images[0][0], images[0][3])


def test_the_digest_is_of_what_images_depend_on(folders: Any, tmp_path: Path) -> None:
    """Not of the device, nor of names; but of dtype, size, scheduler, files, prompts, seeds and what a path is."""
    model = folders("stable_diffusion_xl")
    sampler = Sampler(ZSampling(), T, STRONG)

    def digests(texts: list[str] = TEXTS, seed: int = 0, by: Sampler = sampler, **changed: Any) -> set[str]:
        one = PipelineBed(replace(shown(model), **changed), [Prompt(text) for text in texts], [seed], tmp_path, ())
        return {cell.digest for cell in one.cells(by)}

    first = digests()
    assert len(first) == 3 and digests(device="cuda:1") == first
    assert digests(by=Sampler(ZSampling(rounds=1), T, STRONG)) == first
    others = [digests(dtype="bfloat16"), digests(size=24), digests(scheduler="ddim"), digests(model="owner/name")]
    others += [digests(texts=[f"{text}." for text in TEXTS]), digests(seed=1)]
    others += [digests(by=Sampler(ZSampling(rounds=2), T, STRONG)), digests(by=Sampler(ZSampling(), T, 4.5))]
    assert len(set.union(first, *others)) == 3 * (1 + len(others))
    assert digests(texts=TEXTS[:2]) < first


def test_a_damaged_image_is_said_and_sampled_again(
    folders: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (folders("stable_diffusion_xl"), tmp_path / "out", "--baselines", "standard")
    bench(*words)
    whole, before = digest(tmp_path / "out"), scores.Red.images
    first, second, third = sorted((tmp_path / "out/images").glob("*.png"))[:3]
    first.write_bytes(first.read_bytes()[:-20])
    second.unlink()
    third.with_name(f"{third.stem.removesuffix('-0')}.json").write_text("{")
    with pytest.warns(UserWarning) as said:
        bench(*words)
    texts = [str(warning.message) for warning in said if "sampled again" in str(warning.message)]
    assert len(texts) == 3 and all(any(p.stem in text for text in texts) for p in (first, second))
    assert digest(tmp_path / "out") == whole and scores.Red.images == before  # the same images, whose scores are kept


def test_images_that_fail_are_told_by_prompt_and_the_others_are_scored(
    folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ImageCell.run

    def run_but_one(cell: ImageCell, model: Any) -> None:
        if cell.prompts[0].text == TEXTS[0]:
            raise RuntimeError("an illegal instruction")
        whole(cell, model)

    monkeypatch.setattr(ImageCell, "run", run_but_one)
    before = scores.Red.images
    words = (folders("stable_diffusion_xl"), tmp_path / "out", "--baselines", "standard")
    with pytest.raises(SystemExit) as exit:
        bench(*words)
    *lines, last = capsys.readouterr().err.splitlines()
    assert exit.value.code == 2 and last.startswith("zigzag bench: error: 2 of 6 cells failed 3 times each")
    assert len(lines) == 2 and all(f"{TEXTS[0]!r}: RuntimeError at " in line for line in lines)
    assert scores.Red.images - before == 4 and not (tmp_path / "out/bench.txt").exists()
    monkeypatch.undo()
    assert bench(*words) == 0 and scores.Red.images - before == 6


def test_other_weights_of_a_score_score_again_and_sample_nothing(
    folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (folders("stable_diffusion_xl"), tmp_path / "out", "--baselines", "standard")
    bench(*words)
    before = scores.Red.images
    monkeypatch.setattr(image_cells, "load_pipeline", lambda *_: pytest.fail("nothing is to be sampled"))
    bench(*words)
    assert scores.Red.images == before
    monkeypatch.setattr(scores.Red, "version", "2")
    bench(*words)
    assert scores.Red.images - before == 6


def test_cells_of_images_and_scores_travel(folders: Any, tmp_path: Path) -> None:
    model = folders("stable_diffusion_xl")
    prompts = [Prompt(text) for text in TEXTS[:1]]
    for place in ("here", "there"):
        one = PipelineBed(shown(model), prompts, [0], tmp_path / place, ["support.scores:Red"])
        cells = one.cells(Sampler(ZSampling(), T, STRONG))
        assert one.scoring(cells) == []  # there is nothing to score yet
        travelled = place == "there"
        run(pickle.loads(pickle.dumps(cells)) if travelled else cells)
        scoring = one.scoring(cells)
        run(pickle.loads(pickle.dumps(scoring)) if travelled else scoring)
    assert digest(tmp_path / "here") == digest(tmp_path / "there")
    kept = [next((tmp_path / place / "scores").rglob("*.json")) for place in ("here", "there")]
    assert kept[0].name == kept[1].name and kept[0].read_bytes() == kept[1].read_bytes()


def test_the_scheduler_is_put_back_and_ddim_is_taken_where_asked(folders: Any, tmp_path: Path) -> None:
    model = folders("stable_diffusion_xl")
    one = PipelineBed(Shown(str(model), 16, "float32", "ddim", "cpu"), [Prompt("a dog")], [0], tmp_path, ())
    pipe = one.cells(Sampler(Standard(), T, STRONG))[0].worker.load()
    pipe.scheduler = mine = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    (cell,) = one.cells(Sampler(Standard(), T, STRONG))
    cell.run(pipe)
    assert pipe.scheduler is mine and cell.done()
