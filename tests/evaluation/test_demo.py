"""The page of the demo: the right prompts, noise, rows and verdicts, in the figures, the table and the picture."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("scipy")
pytest.importorskip("diffusers")
from support.painters import painter
from zigzag import CFG, Standard
from zigzag.cli import main
from zigzag.evaluation import accuracy, demo
from zigzag.zoo.shapes import CATEGORIES, check, parse

METHODS = ["Standard", "Resampling", "End-to-End", "Z-Sampling", "Implicit Z", "Z²-Sampling"]
# Conditional predictions alone: this painter's are exact, and stay so on any path.
SETTINGS = demo.Settings(model="shapes-dit", steps=3, strong=1.0, weak=1.0, warmup=1)


def test_a_model_that_draws_what_it_is_told_is_right_on_every_line() -> None:
    texts, figures, _ = demo.run(SETTINGS, model=painter())
    assert [parse(text).category for text in texts] == [c for c in CATEGORIES for _ in range(2)]
    assert all(f.right == (True,) * 12 for f in figures)


def test_a_verdict_is_on_its_own_prompt() -> None:
    own = ("two circles", "A Red Circle", "a circle", "a circle and a square")
    settings = demo.Settings(model="shapes-dit", prompt=own, steps=3, strong=1.0, weak=1.0, warmup=1)
    texts, figures, _ = demo.run(settings, model=painter("a red circle"))
    assert texts == ["two circles", "a red circle", "a circle", "a circle and a square"]
    assert all(f.right == (False, True, True, False) for f in figures)


def test_a_line_of_the_table_is_one_of_the_lines_and_its_images_are_those_that_were_judged() -> None:
    texts, figures, images = demo.run(SETTINGS, model=painter())
    assert [f.name for f in figures] == [line.label for line in demo.every_method(3, 1.0, 1.0, warmup=1)]
    assert list(images) == [*METHODS[:-1], "Z²-Sampling (warmup 1)"]
    assert all(check(texts, found) == [True] * 12 for found in images.values())


def test_prompts_and_noise_are_those_that_the_evaluation_begins_with() -> None:
    texts, x = demo.page(demo.Settings(prompts=3, seed=5))
    k = CATEGORIES.index("counting")
    assert texts[3 * k : 3 * k + 3] == accuracy.prompts("counting", 600, 5)[:3]
    assert torch.equal(x[3 * k : 3 * k + 3], accuracy.noise("counting", 0, 3, 5))
    _, own = demo.page(demo.Settings(prompt=("a circle", "a circle"), seed=5))
    assert own.shape == (2, 3, 32, 32) and not torch.equal(own[0], own[1])


def test_the_command_takes_the_scale_on_record_of_its_model_unless_told_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    taken: list[float] = []

    def run(settings: demo.Settings, **more: object) -> None:
        taken.append(settings.strong)
        raise ValueError("no more is needed")

    monkeypatch.setattr(demo, "run", run)
    for words in (["shapes-unet"], ["shapes-dit"], ["shapes-dit", "--strong", "0"]):
        with pytest.raises(SystemExit):
            main(["demo", "--out", str(tmp_path), "--model", *words])
    assert taken == [4.0, 2.0, 0.0]


def test_the_same_seed_gives_the_same_page_and_another_another() -> None:
    first, again, other = (
        demo.run(demo.Settings("shapes-dit", steps=3, prompts=1, warmup=1, seed=seed), model=painter())
        for seed in (0, 0, 1)
    )
    assert first[0] == again[0] != other[0]
    assert [f.right for f in first[1]] == [f.right for f in again[1]]
    assert all(torch.equal(found, again[2][name]) for name, found in first[2].items())


def test_each_method_stands_beside_plain_guidance_at_its_scale_and_with_its_rows() -> None:
    every = demo.every_method(20, 4.0, 0.0, warmup=5)
    assert [line.label for line in every if not line.baseline] == METHODS
    rows = {line.label.strip(): line.sampler.rows() for line in every}
    assert [rows[name] for name in METHODS] == [40, 78, 100, 97, 80, 40]
    solver = painter().solver(20)
    for line in every:
        if not line.baseline:
            name = line.label
            continue
        assert line.label.endswith(f" of {name}")
        assert line.sampler.method == Standard()
        if "rows" in line.label:
            assert abs(rows[line.label.strip()] - rows[name]) <= 1 and line.sampler.strong == 4.0
        else:
            guidance = line.sampler.guidance(solver)
            assert isinstance(guidance, CFG) and rows[line.label.strip()] == rows["Standard"]
            scales = [guidance.at(solver.info(i)) for i in range(20)]
            # 2s − w wherever a zigzag of one step is made; End-to-End gives all of it to the first step.
            assert scales[10] == pytest.approx(4.0 if name == "End-to-End" else 8.0) and max(scales) > 7.9
    assert "CFG at the scale of Resampling" not in rows  # that is Standard
    assert "CFG with the rows of Z²-Sampling" not in rows


def test_the_table_counts_by_category_and_says_what_measures() -> None:
    texts = ["a circle", "three squares", "two circles"]
    figures = [
        demo.Figures("Standard", 3, 6, 0.5, (False, True, True)),
        demo.Figures("Z", 3, 12, 1, (True, False, True)),
    ]
    text = demo.table(SETTINGS, texts, figures)
    head, _, *lines = text.splitlines()
    assert head.split()[-5:] == ["right", "of", "3", "single", "counting"]
    assert [line.split()[1:] for line in lines[:2]] == [
        ["3", "6", "0.50", "2", "0/1", "2/2"],
        ["3", "12", "1.00", "2", "1/1", "1/2"],
    ]
    assert "3 images a line decide nothing: `zigzag eval --model shapes-dit` measures" in text


def test_the_page_has_prompts_across_methods_down_and_a_mark_at_each_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Figure = pytest.importorskip("matplotlib.figure").Figure
    drawn = []

    class Kept(Figure):  # type: ignore[misc, valid-type]
        def savefig(self, *args: object, **more: object) -> None:
            drawn.append(self)
            super().savefig(*args, **more)

    monkeypatch.setattr(demo, "require_figure", lambda: Kept)
    texts = ["a circle", "a magenta triangle left of a yellow circle"]
    images = {"Standard": torch.rand(2, 3, 32, 32), "Z-Sampling": torch.rand(2, 3, 32, 32)}
    figures = [
        demo.Figures("Standard", 2, 4, 0.1, (True, False)),
        demo.Figures("  CFG at the scale of Z-Sampling", 2, 4, 0.1, (True, True)),
        demo.Figures("Z-Sampling", 2, 7, 0.1, (False, True)),
    ]
    demo.draw(tmp_path / "page.png", texts, images, figures)
    axes = drawn[0].axes
    assert [ax.get_title().replace("\n", " ") for ax in axes] == [*texts, "", ""]
    assert [ax.get_xlabel() for ax in axes] == ["✓", "✗", "✗", "✓"]
    assert [ax.get_ylabel() for ax in axes] == ["Standard\n4 rows", "", "Z-Sampling\n7 rows", ""]
    shown = torch.stack([torch.as_tensor(ax.images[0].get_array()) for ax in axes])
    assert torch.equal(shown, torch.cat(list(images.values())).permute(0, 2, 3, 1))
    assert [p.name for p in tmp_path.iterdir()] == ["page.png"]


@pytest.mark.parametrize(("missing", "extra"), [("scipy.ndimage", "shapes"), ("diffusers", "shapes")])
def test_what_is_missing_is_said_before_anything_is_drawn(
    missing: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")

    def never(*args: object, **more: object) -> None:
        raise AssertionError("something was drawn")

    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "zigzag.zoo.networks", raising=False)
    monkeypatch.setattr(demo, "sample", never)
    with pytest.raises(SystemExit) as exit:
        main(["demo", "--out", str(tmp_path)])
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1
    assert f"pip install 'zigzag-diffusion[{extra}]'" in error
    assert not list(tmp_path.iterdir())
