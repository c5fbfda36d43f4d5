"""What a page draws: the pictures of `zigzag generate`, one after the other, and how it stops."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from threading import Event

import pytest

pytest.importorskip("scipy")
pytest.importorskip("diffusers")
pytest.importorskip("PIL")
pytest.importorskip("matplotlib")
from PIL import Image

from support.painters import painter
from zigzag.cli import generate_learned, main
from zigzag.cli.generate import settled
from zigzag.cli.play_fields import fields_of, reader
from zigzag.cli.play_run import Asked, Stopped, ask, draw
from zigzag.zoo import learned

PROMPT = "a red circle left of a blue square"
WORDS = ("--model", "shapes-dit", "--steps", "3", "--strong", "2", "--method", "z")


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> learned.LearnedModel:
    made = painter()
    monkeypatch.setattr(generate_learned, "load", lambda name, device: made)
    return made


def asks(*words: str, prompt: str = PROMPT) -> Asked:
    args = reader().parse_args([*WORDS, *words])
    _, settings, _ = settled(copy(args))
    form = fields_of(args, settings)
    return ask({field.name: field.value for field in form}, form, prompt, settings)


def test_the_pictures_are_those_of_generate(tmp_path: Path, model: learned.LearnedModel) -> None:
    what, told = asks(), list[tuple[float, str]]()
    pictures = [*draw(model, what, Event(), lambda *done: told.append(done))]
    main([*what.jobs[-1].command()[1:], "--out", str(tmp_path)])
    for picture, name in zip(pictures, ("standard", "zsampling"), strict=True):
        (path,) = tmp_path.glob(f"*{name}.png")
        assert picture.image.tobytes() == Image.open(path).tobytes()
    assert [picture.title for picture in pictures] == ["Standard", "Z-Sampling"]
    assert [picture.said.split(" · ")[0] for picture in pictures] == ["6 model rows", "12 model rows"]
    assert all("✓ as the prompt says" in picture.said for picture in pictures)
    assert pictures[0].figure is None and pictures[1].figure is not None
    assert "β" in pictures[1].said and "β" not in pictures[0].said
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1
    assert told[-1][1] == "Z-Sampling: 7 of 7 moves"


def test_standard_sampling_alone_is_one_picture(model: learned.LearnedModel) -> None:
    assert len([*draw(model, asks("--method", "standard"), Event(), lambda *done: None)]) == 1


def test_the_path_is_the_drawing_of_zigzag_path(capsys: pytest.CaptureFixture[str]) -> None:
    main(["path", "z", "--steps", "3"])
    assert asks().path in capsys.readouterr().out


@pytest.mark.parametrize("moves", [0, 2, 5])
def test_a_stop_ends_the_walk_before_its_next_model_call(moves: int, model: learned.LearnedModel) -> None:
    stop, seen, calls = Event(), list[str](), list[int]()
    hook = model.network.register_forward_hook(lambda *_: calls.append(1))

    def report(share: float, said: str) -> None:
        seen.append(said)
        if len(seen) == moves:
            stop.set()

    if not moves:
        stop.set()
    pictures = draw(model, asks(), stop, report)
    with pytest.raises(Stopped):
        list(pictures)
    hook.remove()
    assert len(seen) == moves
    # Asked before each picture and after each move: of two branches, in one call or in two.
    made = {0: 0, 2: 2, 5: 3 + 1}[moves]
    assert len(calls) in (made, 2 * made)


def test_errors_are_the_librarys_own(model: learned.LearnedModel) -> None:
    with pytest.raises(ValueError, match="unknown word 'cat'"):
        list(draw(model, asks(prompt="a red cat"), Event(), lambda *done: None))
    with pytest.raises(ValueError, match="solver must be one of"):
        list(draw(model, asks("--solver", "3s"), Event(), lambda *done: None))
