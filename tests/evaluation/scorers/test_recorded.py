"""Scores on record, and the command that holds those of a machine to them."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from zigzag.evaluation.scorers import SCORERS, __main__, recorded, scorer
from zigzag.evaluation.scorers.imscore import MODELS
from zigzag.evaluation.scorers.recorded import PROBES, Record, probe_images
from zigzag.zoo.shapes import SHAPES, check


def test_the_images_show_what_their_prompts_say() -> None:
    pytest.importorskip("scipy")
    assert check([prompt.text for prompt in PROBES], probe_images()[:, :, ::16, ::16]) == [True, True]
    assert probe_images().shape == (2, 3, 512, 512)
    assert len(SHAPES) == 3


def test_what_is_on_record_is_of_scores_that_are_there() -> None:
    assert set(recorded.recorded()) <= {*SCORERS, *(f"imscore-{model.lower()}" for model in MODELS)}
    assert all(len(record.scores) == 2 * len(PROBES) for record in recorded.recorded().values())


@pytest.fixture
def run(clip_folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command on a tiny CLIP, with what is on record of it; the exit code, and what it printed."""

    def ran(record: dict[str, Record]) -> tuple[int, str, str]:
        monkeypatch.setattr(recorded, "recorded", lambda: record)
        monkeypatch.setattr(sys, "argv", ["scorers", f"clip:weights={clip_folder}"])
        code = 0
        try:
            __main__.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return ran


def test_the_command_says_what_agrees_and_what_differs(run: Any, clip_folder: str) -> None:
    score: Any = scorer(f"clip:weights={clip_folder}")
    texts = [prompt.text for prompt in PROBES]
    own = [score([text], image[None]).item() for text, image in zip(texts, probe_images(), strict=True)]
    others = [score([text], image[None]).item() for text, image in zip(texts[::-1], probe_images(), strict=True)]
    right = Record(score.weights(), (*own, *others), 1e-2, "the published code")

    code, out, _ = run({})
    assert (code, "nothing is on record of it" in out) == (0, True)
    assert f"clip: {score.weights()}" in out
    printed = [float(word) for word in out.splitlines()[-1].split("nothing")[0].split()]
    torch.testing.assert_close(torch.tensor(printed), torch.tensor([*own, *others]), rtol=0, atol=1e-3)

    code, out, _ = run({"clip": right})
    assert (code, "agrees with what the published code said" in out, "(the same weights)" in out) == (0, True, True)

    wrong = replace(right, weights="another", scores=(own[0] + 1, own[1], *others))
    code, out, err = run({"clip": wrong})
    assert (code, "DIFFERS" in out, "other weights, another" in out) == (2, True, True)
    assert "clip: not what is on record" in err


def test_a_score_that_is_not_to_be_had_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(sys, "argv", ["scorers", "clip:weights=/nowhere"])
    with pytest.raises(SystemExit) as stop:
        __main__.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
