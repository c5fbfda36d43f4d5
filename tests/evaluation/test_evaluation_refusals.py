"""What cannot be evaluated is refused before the first model call; and what a trial is."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("scipy")
from support.evaluations import asked, moody
from zigzag import Standard, Z2Sampling, ZSampling
from zigzag.evaluation.accuracy import BATCH, prompts
from zigzag.evaluation.evaluation import Evaluation, Trial
from zigzag.evaluation.samplers import Sampler
from zigzag.zoo.shapes import CATEGORIES

PLAIN = Sampler(Standard(), 3, 2.0)
ZIGZAG = Sampler(ZSampling(), 3, 2.0)
TRIAL = Trial(6)

REFUSED: dict[str, Sampler] = {
    "no steps": replace(PLAIN, steps=0),
    "nan": replace(PLAIN, strong=float("nan")),
    "inf": replace(ZIGZAG, weak=float("inf")),
    "nan matched": replace(PLAIN, strong=float("nan"), matched=ZSampling()),
    "warm-up": replace(PLAIN, method=Z2Sampling(warmup=3)),
    "span": replace(PLAIN, method=ZSampling(steps=4)),
    "matched": replace(PLAIN, matched=ZSampling(released=True)),
    "matched warm-up": replace(PLAIN, matched=Z2Sampling(warmup=3)),
    "eta of a flow": replace(PLAIN, solver="ddim:eta=1.5"),
    "ddpm of a flow": replace(PLAIN, solver="ddpm:variance=medium"),
    "no solver": replace(PLAIN, solver="euler"),
    "released on memory": replace(PLAIN, method=ZSampling(released=True), solver="2m"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_sampler_that_cannot_be_is_refused_before_the_first_model_call(tmp_path: Path, name: str) -> None:
    model = moody()
    with pytest.raises(ValueError, match=r"."):
        Evaluation(model, tmp_path).run([PLAIN, REFUSED[name]], [TRIAL])
    assert asked(model) == 0 and list(tmp_path.iterdir()) == []


def test_what_the_models_own_grid_does_not_have_is_refused_before_the_first_model_call(tmp_path: Path) -> None:
    model = moody("shapes-unet")
    for sampler in (replace(PLAIN, solver="ddim:eta=2"), replace(PLAIN, steps=1001)):
        with pytest.raises(ValueError, match=r"eta|1000|1001"):
            Evaluation(model, tmp_path).run([PLAIN, sampler], [TRIAL])
    assert asked(model) == 0


@pytest.mark.parametrize("kind", ["verdicts", "timings"])
def test_a_damaged_file_is_refused_by_name_before_the_first_model_call(tmp_path: Path, kind: str) -> None:
    model = moody()
    evaluation = Evaluation(model, tmp_path)
    evaluation.run([ZIGZAG], [TRIAL])
    *_, path = (tmp_path / kind).iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    rows = asked(model)
    with pytest.raises(ValueError, match=path.name):
        evaluation.run([PLAIN, ZIGZAG], [TRIAL])
    assert asked(model) == rows


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_model_call(tmp_path: Path) -> None:
    model = moody()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Evaluation(model, tmp_path / "file").run([PLAIN], [TRIAL])
    assert asked(model) == 0


def test_a_missing_scipy_is_named_before_the_first_model_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = moody()
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    with pytest.raises(ImportError, match=r"zigzag-diffusion\[shapes\]"):
        Evaluation(model, tmp_path).run([PLAIN], [TRIAL])
    assert asked(model) == 0


@pytest.mark.parametrize("total", [6, 7, 11, 120, 600, 1000])
def test_batches_share_the_prompts_among_the_categories(total: int) -> None:
    batches = list(Trial(total, seed=2).batches())
    assert all(0 < len(texts) <= BATCH for _, _, texts in batches)
    sizes = Counter(dict.fromkeys(CATEGORIES, 0))
    for category, start, texts in batches:
        assert start == sizes[category]
        assert texts == prompts(category, start + len(texts), 2)[start:]
        sizes[category] += len(texts)
    assert sizes.total() == total and max(sizes.values()) - min(sizes.values()) <= 1
    assert list(Trial(total, seed=2).batches()) == batches != list(Trial(total, seed=3).batches())


def test_more_prompts_begin_with_the_fewer() -> None:
    few, many = (dict.fromkeys(CATEGORIES, "") for _ in range(2))
    for every, total in ((few, 370), (many, 1000)):
        for category, _, texts in Trial(total).batches():
            every[category] += "".join(f"{text}\n" for text in texts)
    assert all(many[category].startswith(few[category]) for category in CATEGORIES)


@pytest.mark.parametrize("total", [5, 3, 0, -6])
def test_fewer_prompts_than_categories_are_refused(total: int) -> None:
    with pytest.raises(ValueError, match=f"prompts must be at least 6.* got {total}"):
        Trial(total)
