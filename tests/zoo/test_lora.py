"""A LoRA changes weights by a product of rank r, nothing at first, at any strength; and is trained alone."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("diffusers")
pytest.importorskip("safetensors")
from zigzag import sample, zoo
from zigzag.presets import w2sd
from zigzag.zoo.learned import MODELS, LearnedModel
from zigzag.zoo.lora import LowRank, adapt, applied
from zigzag.zoo.objectives import Settings, preference_loss, preferences
from zigzag.zoo.shapes import WORDS, check
from zigzag.zoo.states import preconditioning, to_image
from zigzag.zoo.training import Training

RANK = 3


def states(count: int) -> Tensor:
    return torch.randn(count, *LearnedModel.shape, generator=torch.Generator().manual_seed(0))


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 5), nn.Conv2d(4, 6, 3, padding=1), nn.Linear(2, 9), nn.GroupNorm(1, 6)).double()


def learned(network: nn.Module) -> dict[str, Tensor]:
    """A LoRA of a network, as if it had been trained."""
    found = adapt(network, RANK)
    with torch.no_grad():
        for value in found.values():
            value.copy_(torch.randn_like(value))
    return {name: value.detach() for name, value in found.items()}


def test_nothing_is_changed_before_anything_is_learned() -> None:
    network, before = small(), small()
    found = adapt(network, RANK)
    assert torch.equal(network[0].weight, before[0].weight) and torch.equal(network[1].weight, before[1].weight)
    assert sorted(found) == ["0.down", "0.up", "1.down", "1.up"]  # the third has a side of 2, below the rank
    assert {name for name, value in network.named_parameters() if value.requires_grad} == {
        f"{layer}.parametrizations.weight.0.{part}" for layer in (0, 1) for part in ("up", "down")
    }


@pytest.mark.parametrize("strength", [0.0, 1.0, 0.8, -1.5])
def test_a_weight_is_changed_by_strength_times_the_product(strength: float) -> None:
    base, network = small(), small()
    lora = learned(network)
    changed = applied(base, lora, strength)
    for layer in (0, 1):
        up, down = lora[f"{layer}.up"], lora[f"{layer}.down"]
        product = torch.einsum("mr,rn->mn", up, down).reshape(base[layer].weight.shape)
        torch.testing.assert_close(changed[layer].weight, base[layer].weight + strength * product, rtol=1e-6, atol=1e-6)
        assert torch.linalg.matrix_rank(product.reshape(len(up), -1)) == RANK
    assert torch.equal(changed[2].weight, base[2].weight)
    assert torch.equal(base[0].weight, small()[0].weight)  # a copy is changed
    if strength == 1.0:  # what training saw
        torch.testing.assert_close(changed[1].weight, network[1].weight, rtol=1e-6, atol=1e-6)


def test_the_factors_have_the_sizes_of_their_layer() -> None:
    change = LowRank(torch.zeros(6, 4, 3, 3), 2)
    assert change.up.shape == (6, 2) and change.down.shape == (2, 36)
    assert abs(float(change.down.detach().std()) - 1 / math.sqrt(36)) < 0.04


def test_of_every_pair_the_first_shows_what_the_caption_says_and_the_second_does_not() -> None:
    """Under one caption, noise and time; the batch of a step is that of its seed and number."""
    pytest.importorskip("scipy")
    settings = Settings("shapes-unet", 10, batch=60, lora=RANK)
    x0, tokens, noise, u = preferences(settings, 3)
    for shared in (tokens, noise, u):
        assert torch.equal(shared[::2], shared[1::2])
    assert len(noise.unique(dim=0)) == len(u.unique()) == 30
    texts = [" ".join(WORDS[k - 1] for k in row if k) for row in tokens.tolist()]
    assert check(texts, to_image(x0)) == [True, False] * 30
    assert all(torch.equal(a, b) for a, b in zip(preferences(settings, 3), (x0, tokens, noise, u), strict=True))
    assert not torch.equal(preferences(settings, 4)[0], x0)


class Off(nn.Module):
    """Answers with what "shapes-dit" should predict, plus so much of c_out for each sample."""

    def __init__(self, x0: Tensor, off: Tensor) -> None:
        super().__init__()
        self.x0, self.off = x0, off

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        sigma = (t / 1000)[:, None, None, None]
        return (x - self.x0) / sigma + self.off[:, None, None, None] * preconditioning(sigma)[2]


def test_the_preference_is_the_one_of_squared_errors_over_the_base() -> None:
    """Off by q a prediction errs by q²: with (1 ∓ 0.012)·0.03² of the pair, −log sigmoid(50·0.024) is 0.2633."""
    x0, tokens, noise, u = preferences(Settings("shapes-dit", 10, batch=8, lora=RANK), 0)
    u, x0 = 0.2 + 0.7 * u, x0.double()  # where the noise is large enough to find the truth
    given = (x0, tokens, noise.double(), u.double())
    base = Off(x0, torch.full((8,), 0.03, dtype=torch.float64))
    near, far = (0.03 * math.sqrt(1 + sign * 0.012) for sign in (-1, 1))
    better, worse = (Off(x0, torch.tensor(each * 4, dtype=torch.float64)) for each in ([near, far], [far, near]))
    for network, wanted in ((better, 0.26328), (worse, 1.46328), (base, math.log(2))):
        assert abs(float(preference_loss(network, base, "shapes-dit", *given)) - wanted) < 2e-3


@pytest.mark.parametrize("name", MODELS)
def test_training_moves_the_lora_alone_and_goes_on_after_a_stop(name: str, tmp_path: Path) -> None:
    settings = Settings(name, 4, batch=2, rate=1e-2, lora=RANK)
    whole, first, second = Training(settings), Training(settings), Training(settings)
    base = {key: value.clone() for key, value in zoo.load(name).network.named_parameters()}
    for _ in range(4):
        whole.advance()
    for _ in range(2):
        first.advance()
    first.save(tmp_path)
    assert not (tmp_path / "weights.safetensors").exists()
    second.resume(tmp_path)
    for _ in range(2):
        second.advance()
    assert torch.equal(torch.stack(whole.losses), torch.stack(second.losses))
    assert all(torch.equal(value, second.parameters[key]) for key, value in whole.parameters.items())
    for key, value in whole.network.named_parameters():
        if not value.requires_grad:
            assert torch.equal(value, base[key.replace("parametrizations.weight.original", "weight")])
    assert any(value.abs().max() > 0 for key, value in whole.parameters.items() if key.endswith(".up"))
    with pytest.raises(ValueError, match="lora must be that of the run in"):
        Training(Settings(name, 4, batch=2, rate=1e-2, lora=RANK + 1)).resume(tmp_path)

    whole.save(tmp_path)
    drawn, x, t = zoo.load(name).with_lora(1.0, tmp_path / "lora.safetensors"), states(2), 500 * torch.ones(2)
    words = drawn.encode(["a red circle", "two blue squares"])
    for key, average in whole.average.items():
        whole.parameters[key].data.copy_(average)  # what is saved is the moving average, in half precision
    with torch.no_grad():
        torch.testing.assert_close(drawn.network(x, t, words), whole.network(x, t, words), rtol=1e-2, atol=1e-2)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    for kind, rank in (("lora", RANK), ("weights", 0)):
        Training(Settings("shapes-unet", 1, batch=2, lora=rank)).save(tmp_path / kind)
    lora, weights = tmp_path / "lora" / "lora.safetensors", tmp_path / "weights" / "weights.safetensors"
    with pytest.raises(ValueError, match="weights must be of shapes-unet, got a LoRA of 'shapes-unet'"):
        zoo.load("shapes-unet", lora)
    with pytest.raises(ValueError, match="lora must be a LoRA of shapes-unet, got weights of shapes-unet"):
        zoo.load("shapes-unet").with_lora(1.0, weights)
    with pytest.raises(ValueError, match="lora must be a LoRA of shapes-dit, got lora of shapes-unet"):
        zoo.load("shapes-dit").with_lora(1.0, lora)
    with pytest.raises(ValueError, match="strength must be finite"):
        zoo.load("shapes-unet").with_lora(math.nan, lora)
    with pytest.raises(TypeError, match="strength must be a real number"):
        zoo.load("shapes-unet").with_lora("most", lora)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch must be even, for a LoRA learns from pairs, got 3"):
        Settings("shapes-unet", 1, batch=3, lora=RANK)
    with pytest.raises(ValueError, match="lora must be a rank of at least 0, got -1"):
        Settings("shapes-unet", 1, lora=-1)


@pytest.mark.parametrize(
    "lora",
    [
        {"nowhere.up": torch.zeros(4, 2), "nowhere.down": torch.zeros(2, 6)},
        {"0.up": torch.zeros(6, 2), "0.down": torch.zeros(2, 4)},  # as many numbers, in another shape
        {"0.up": torch.zeros(4, 2), "0.down": torch.zeros(3, 6)},
        {"0.up": torch.zeros(4, 2)},
        {"0.down": torch.zeros(2, 6)},
        {},
    ],
)
def test_a_lora_of_another_network_is_refused(lora: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"the LoRA is of another network: '(0|nowhere)' has|it has no layer"):
        applied(nn.Sequential(nn.Linear(6, 4)), lora, 1.0)
    with pytest.raises(ValueError, match="no layer of the network is larger than a LoRA of rank 4"):
        adapt(nn.Sequential(nn.Linear(6, 4)), 4)


@pytest.mark.parametrize("name", MODELS)
def test_the_lora_in_the_package_draws_by_w2sd(name: str) -> None:
    """At strength 0 it is the model, bit for bit; at the published strengths the three networks are three."""
    model, x = zoo.load(name), states(2)
    cond, uncond = model.encode(["a red circle", "two blue squares"]), model.encode(["", ""])
    same = model.with_lora(0.0)
    t = model.solver(4).times[1].expand(2)
    with torch.no_grad():
        assert torch.equal(same.eps_fn(x, t, cond), model.eps_fn(x, t, cond))
        strong, weak, plain = (model.with_lora(strength) for strength in (1.5, -1.5, 0.8))
        told = [each.eps_fn(x, t, cond) for each in (strong, weak, plain)]
    assert min(float((a - b).abs().max()) for a, b in zip(told, told[1:] + told[:1], strict=True)) > 1e-3
    drawn = sample(
        strong.eps_fn, x, model.solver(4), **w2sd(), weak_fn=weak.eps_fn, plain_fn=plain.eps_fn, cond=cond,
        uncond=uncond,
    )  # fmt: skip
    assert drawn.isfinite().all()
