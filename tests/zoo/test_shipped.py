"""The weights in the package: small enough, those on record, and as accurate as the record says."""

from __future__ import annotations

import hashlib
from importlib.resources import files

import pytest

from zigzag import zoo
from zigzag.zoo.learned import best_scale, parse_weights, recorded

pytest.importorskip("diffusers")
pytest.importorskip("safetensors")
pytest.importorskip("scipy")
from zigzag.evaluation.accuracy import Score, accuracy, wilson

NAMES = sorted(recorded())


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_the_one_on_record_and_at_most_8_mb(name: str) -> None:
    data = files("zigzag.zoo").joinpath(f"data/{name}.safetensors").read_bytes()
    assert len(data) <= 8e6
    assert hashlib.sha256(data).hexdigest() == recorded()[name]["sha256"]


@pytest.mark.parametrize("name", NAMES)
def test_the_lora_is_the_one_on_record_and_at_most_1_mb(name: str) -> None:
    data = files("zigzag.zoo").joinpath(f"data/{name}-lora.safetensors").read_bytes()
    record = recorded()[name]["lora"]
    assert len(data) <= 1e6
    assert hashlib.sha256(data).hexdigest() == record["sha256"]
    state, metadata = parse_weights(data)
    assert metadata == {"name": name, "step": str(record["training"]["steps"]), "kind": "lora"}
    assert {min(value.shape) for value in state.values()} == {record["training"]["lora"]}


@pytest.mark.parametrize("name", NAMES)
def test_standard_sampling_is_as_accurate_as_recorded_on_a_small_fixed_set(name: str) -> None:
    """The same 60 prompts from the same noise; another processor may round a few of them to another picture.

    So the share that is right lies in Wilson's interval of the one on record, and far from that of a model that does
    not read its prompt.
    """
    small = recorded()[name]["small"]
    settings = {key: small[key] for key in ("steps", "scale", "seed")}
    scores = accuracy(zoo.load(name), small["prompts"], **settings)
    low, high = wilson(Score(small["right"], small["prompts"]))
    assert low <= sum(score.right for score in scores.values()) / small["prompts"] <= high
    assert low > 0.25


@pytest.mark.parametrize("name", NAMES)
def test_the_scale_of_a_model_is_the_one_of_the_accuracy_on_record(name: str) -> None:
    assert best_scale(name) == recorded()[name]["standard"]["scale"] == recorded()[name]["small"]["scale"]


@pytest.mark.parametrize("name", NAMES)
def test_the_accuracy_on_record_leaves_room_in_both_directions(name: str) -> None:
    """Overall between 50 and 90 %."""
    right, count = (recorded()[name]["standard"][key] for key in ("right", "count"))
    assert 0.5 <= sum(right.values()) / sum(count.values()) <= 0.9


@pytest.mark.parametrize("name", NAMES)
def test_single_objects_are_right_at_least_95_times_in_100(name: str) -> None:
    right, count = (recorded()[name]["standard"][key] for key in ("right", "count"))
    assert right["single object"] >= 0.95 * count["single object"]
