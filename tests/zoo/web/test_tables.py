"""What the page goes by is the library's own."""

from __future__ import annotations

import json
import re
from importlib.resources import files

import pytest
import torch

from zigzag import DDIM, FlowEuler
from zigzag.evaluation.named import METHODS as NAMED
from zigzag.evaluation.named import label, parse_method
from zigzag.paths import plan_path
from zigzag.zoo.learned import LearnedModel, best_scale
from zigzag.zoo.shapes import tokenize
from zigzag.zoo.shapes.grammar import CATEGORIES, captions
from zigzag.zoo.web.tables import METHODS, STEPS, move_table, spelled, tables

PAGE = files("zigzag.zoo.web").joinpath("page/index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model() -> LearnedModel:
    return LearnedModel("shapes-dit", torch.nn.Identity())


def test_the_methods_of_the_page_are_those_of_the_command_line() -> None:
    assert {name: kind for name, (kind, _) in METHODS.items()} == NAMED
    offered = dict(re.findall(r'<option value="([^"]+)"[^>]*>([^<]+)</option>', PAGE))
    assert offered == {name: label(kind(), options=False) for name, (kind, _) in METHODS.items()}


def test_every_choice_is_a_path_or_the_sentence_that_refuses_it() -> None:
    T, kinds = 6, set()
    paths = move_table(FlowEuler.uniform(T))["paths"]
    assert paths.keys() >= {"standard", "z:steps=0", "implicit:steps=6", "z2", "z2:warmup=6,steps=2"}
    for word, path in paths.items():
        kinds.add(type(path))
        if isinstance(path, str):
            with pytest.raises(ValueError, match=re.escape(path)):
                parse_method(word, T)
        else:
            assert len(path) == len(plan_path(parse_method(word, T), FlowEuler.uniform(T))[0])
    assert kinds == {str, list}


def test_the_spelling_is_read_back() -> None:
    for name, options in [("z", {"steps": 3}), ("z2", {"warmup": 2, "steps": 5}), ("end-to-end", {})]:
        assert parse_method(spelled(name, options), 8) == NAMED[name](**options)


def test_a_solver_that_holds_more_than_two_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="first-order steps only"):
        move_table(DDIM.stable_diffusion(4, eta=1.0))


def test_what_is_written_is_json_with_every_caption_and_grid(model: LearnedModel) -> None:
    read = json.loads(json.dumps(tables(model), allow_nan=False))
    every = [caption for category in CATEGORIES for caption in captions(category)]
    assert [entry["text"] for entry in read["captions"]] == [str(caption) for caption in every]
    assert [entry["tokens"] for entry in read["captions"]] == tokenize([str(caption) for caption in every]).tolist()
    assert read["scale"] == best_scale("shapes-dit")
    assert [*read["grids"]] == [str(steps) for steps in STEPS]
    for steps, grid in read["grids"].items():
        standard = [grid["moves"][k] for k in grid["paths"]["standard"]]
        assert [move["t"] for move in standard] == model.solver(int(steps)).times.tolist()
        assert [(move["from"], move["to"]) for move in standard] == [(i, i + 1) for i in range(int(steps))]
