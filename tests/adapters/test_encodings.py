"""Encodings of other prompts, put where a pipeline has those of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")
Encodings = pytest.importorskip("zigzag.adapters.diffusers.encodings").Encodings
Role = pytest.importorskip("zigzag.adapters.diffusers").Role

VALUES = {"a dog": 1.0, "blurry": 2.0, "": 3.0, "a cat": 4.0}
LENGTHS = {"a dog": 3, "blurry": 3, "": 1, "a cat": 2}


def embedding(text: str) -> Tensor:
    return torch.full((1, 5, 4), VALUES[text])


def mask(text: str) -> Tensor:
    return (torch.arange(5) < LENGTHS[text]).long()[None]


def jointly(prompt: Any = None, negative_prompt: Any = None, prompt_embeds: Any = None) -> tuple[Tensor, ...]:
    """As pipelines that encode both at once, with masks: those of "a dog" and of "blurry" are the same."""
    texts = [text if isinstance(text, str) else text[0] for text in (prompt, negative_prompt)]
    return (*map(embedding, texts), *map(mask, texts))


def singly(prompt: Any = None, prompt_2: Any = None, prompt_embeds: Any = None) -> tuple[Tensor, Any]:
    """As pipelines that encode one after the other; a second text counts ten times."""
    e = embedding(prompt) if prompt_embeds is None else prompt_embeds
    return e if prompt_2 is None else e * 10, None


def encoded(role: Any, *calls: Any) -> Any:
    encodings = Encodings({"weak": role})
    for encode, given in calls:
        own = encode(**given)
        result = encodings.encode(encode, **given)
        assert all(torch.equal(x, y) for x, y in zip(result, own, strict=True) if isinstance(x, Tensor))
    return encodings


BOTH = (jointly, {"prompt": "a dog", "negative_prompt": "blurry"})


@pytest.mark.parametrize(
    ("role", "wanted"),
    [
        (Role(prompt="a cat"), ["blurry", "a cat"]),
        (Role(negative_prompt=""), ["", "a dog"]),
        (Role(prompt="", negative_prompt="a cat"), ["a cat", ""]),
        (Role(prompt="a dog"), ["blurry", "a dog"]),
    ],
    ids=repr,
)
def test_each_half_of_a_batch_has_its_own(role: Any, wanted: list[str]) -> None:
    """Also of masks, which the texts share: the embeddings beside them tell whose they are."""
    encodings = encoded(role, BOTH)
    arguments = {
        "sample": torch.zeros(2, 5, 4),
        "encoder_hidden_states": torch.cat([embedding("blurry"), embedding("a dog")]),
        "encoder_attention_mask": torch.cat([mask("blurry"), mask("a dog")]).float(),
    }
    got = encodings.exchanged("weak", arguments)
    assert torch.equal(got["encoder_hidden_states"], torch.cat([*map(embedding, wanted)]))
    assert torch.equal(got["encoder_attention_mask"], torch.cat([*map(mask, wanted)]).float())
    assert got["encoder_attention_mask"].dtype == torch.float32 and got["sample"] is arguments["sample"]


def test_prompts_encoded_and_called_one_by_one() -> None:
    """The second is the negative one; further texts of the own prompt go with it, where it has them."""
    calls = [(singly, {"prompt": "a dog", "prompt_2": "more"}), (singly, {"prompt": "blurry", "prompt_2": "more"})]
    encodings = encoded(Role(prompt="a cat"), *calls)
    own, other = ({"e": embedding(text) * 10} for text in ("a dog", "blurry"))
    assert torch.equal(encodings.exchanged("weak", own)["e"], embedding("a cat"))
    assert torch.equal(encodings.exchanged("weak", other)["e"], other["e"])
    encodings = encoded(Role(negative_prompt={"negative_prompt_embeds": embedding("")}), *calls)
    assert torch.equal(encodings.exchanged("weak", own)["e"], own["e"])
    assert torch.equal(encodings.exchanged("weak", other)["e"], embedding(""))


def test_a_prompt_that_is_encoded_twice_is_exchanged_twice() -> None:
    """By two encoders, jointly with the negative one or not: a text goes to both."""

    def second(prompt: Any = None, negative_prompt: Any = None, index: int = 1) -> tuple[Tensor, ...]:
        return tuple(-part for part in jointly(prompt, negative_prompt))

    encodings = encoded(Role(prompt="a cat"), BOTH, (second, BOTH[1]))
    for sign in (1, -1):
        got = encodings.exchanged("weak", {"e": sign * torch.cat([embedding("blurry"), embedding("a dog")])})
        assert torch.equal(got["e"], sign * torch.cat([embedding("blurry"), embedding("a cat")]))
    with pytest.raises(ValueError, match=r"encodes its prompt 2 times.*edit="):
        encoded(Role(negative_prompt={"negative_prompt": "a cat"}), BOTH, BOTH)

    def other(prompt: Any = None) -> tuple[Tensor, ...]:
        return (-embedding(prompt),)

    given = {"prompt": "a dog"}
    encodings = encoded(Role(prompt="a cat"), (singly, given), (other, given), (singly, {"prompt": "blurry"}))
    got = encodings.exchanged("weak", {"e": embedding("a dog"), "f": -embedding("a dog"), "g": embedding("blurry")})
    assert torch.equal(got["e"], embedding("a cat")) and torch.equal(got["f"], -embedding("a cat"))
    assert torch.equal(got["g"], embedding("blurry"))


def test_lists_are_exchanged_part_by_part() -> None:
    encodings = encoded(Role(prompt="a cat"), BOTH)
    arguments = {"cap_feats": [embedding("a dog"), embedding("blurry")], "more": {"pooled": embedding("a dog")}}
    got = encodings.exchanged("weak", arguments)
    assert torch.equal(got["cap_feats"][0], embedding("a cat")) and torch.equal(
        got["more"]["pooled"], got["cap_feats"][0]
    )
    assert torch.equal(got["cap_feats"][1], embedding("blurry"))


def test_another_call_of_the_pipeline_is_encoded_anew() -> None:
    encodings = encoded(Role(prompt="a cat"), (singly, {"prompt": "a dog"}))
    encodings.used()
    encodings.encode(singly, prompt="blurry")
    assert torch.equal(encodings.exchanged("weak", {"e": embedding("blurry")})["e"], embedding("a cat"))
    with pytest.raises(ValueError, match="nothing that its encode_prompt gave"):
        encodings.exchanged("weak", {"e": embedding("a dog")})


def test_what_cannot_be_exchanged_is_refused() -> None:
    with pytest.raises(ValueError, match=r"called no encode_prompt.*edit="):
        encoded(Role(prompt="a cat")).exchanged("weak", {"e": embedding("a dog")})
    with pytest.raises(TypeError, match="embeds_of_mine, which the pipeline's encode_prompt does not take"):
        encoded(Role(prompt={"embeds_of_mine": 1}), BOTH)
    alike = encoded(Role(prompt="a cat"), (jointly, {"prompt": "a dog", "negative_prompt": "a dog"}))
    with pytest.raises(ValueError, match="encoded alike"):
        alike.exchanged("weak", {"e": torch.cat([embedding("a dog")] * 2)})
    longer = encoded(Role(prompt={"prompt_embeds": torch.ones(1, 7, 4)}), (singly, {"prompt": "a dog"}))
    assert longer.exchanged("weak", {"e": embedding("a dog")})["e"].shape == (1, 7, 4)
    with pytest.raises(ValueError, match=r"\(1, 7, 4\), do not go into one batch.*\(1, 5, 4\)"):
        longer.exchanged("weak", {"e": torch.cat([embedding("blurry"), embedding("a dog")])})
