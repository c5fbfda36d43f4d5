"""A page of `zigzag play` on a tiny pipeline: its pictures, a stop, and the pipeline as it was."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from threading import Event

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("PIL")
pytest.importorskip("matplotlib")
from PIL import Image

from zigzag.cli import generate_pipeline, main
from zigzag.cli.generate import settled
from zigzag.cli.play_fields import fields_of, reader
from zigzag.cli.play_run import Asked, Stopped, ask, draw

SMALL = ("--steps", "3", "--image-size", "16", "--device", "cpu", "--dtype", "float32")


def asks(folder: Path, *words: str) -> Asked:
    args = reader().parse_args(["--model", str(folder), *SMALL, *words])
    _, settings, _ = settled(copy(args))
    form = fields_of(args, settings)
    return ask({field.name: field.value for field in form}, form, "a dog", settings)


def test_a_pipeline_draws_and_stops_and_is_as_it_was(folder: Path, tmp_path: Path) -> None:
    what = asks(folder, "--scheduler", "ddim", "--method", "z")
    pipe = generate_pipeline.load_model(what.jobs[0].settings)
    own, stop, shares = pipe.scheduler, Event(), list[float]()
    pictures = [*draw(pipe, what, stop, lambda share, said: shares.append(share))]
    assert shares == sorted(shares) and shares[0] == 0 and 0.8 < shares[-1] < 1  # told before each call
    main([*what.jobs[-1].command()[1:], "--out", str(tmp_path)])
    for picture, name in zip(pictures, ("standard", "zsampling"), strict=True):
        (path,) = tmp_path.glob(f"*{name}.png")
        assert picture.image.convert("RGB").tobytes() == Image.open(path).convert("RGB").tobytes()
    assert pictures[1].figure is not None and pictures[1].said.startswith("14 model rows")
    with pytest.raises(Stopped):
        list(draw(pipe, what, stop, lambda share, said: stop.set() if share > 0.6 else None))
    assert pipe.scheduler is own and "step" not in vars(own) and not pipe.unet._forward_pre_hooks
    again = [*draw(pipe, what, Event(), lambda *done: None)]
    assert [p.image.tobytes() for p in again] == [p.image.tobytes() for p in pictures]


def test_a_distilled_pipeline_draws_by_a_weak_role(flux_folder: Path) -> None:
    what = asks(flux_folder, "--strong", "1", "--weak-guidance", "1", "--method", "z2", "--warmup", "1")
    pipe = generate_pipeline.load_model(what.jobs[0].settings)
    pictures = [*draw(pipe, what, Event(), lambda *done: None)]
    assert [picture.said.split(" · ")[0] for picture in pictures] == ["3 model rows", "5 model rows"]


def test_what_does_not_fit_the_pipeline_is_said_in_its_words(folder: Path) -> None:
    what = asks(folder, "--weak-guidance", "1", "--method", "z")
    pipe = generate_pipeline.load_model(what.jobs[0].settings)
    pictures = draw(pipe, what, Event(), lambda *done: None)
    with pytest.raises(ValueError, match="told no embedded guidance scale"):
        list(pictures)
