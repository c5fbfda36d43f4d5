"""The learned models as ordinary predictors: what they predict, what they take, and what loading refuses."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from zigzag import DDIM, FlowEuler, Standard, Z2Sampling, sample, zoo
from zigzag.zoo import learned
from zigzag.zoo.learned import MODELS, LearnedModel, create
from zigzag.zoo.shapes import Thing, render, tokenize
from zigzag.zoo.states import DEVIATION, noise_table, preconditioning, to_image, to_state

pytest.importorskip("diffusers")
pytest.importorskip("safetensors")
from zigzag.zoo.checkpoints import write_weights


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Untrained weights of both models."""
    folder, paths = tmp_path_factory.mktemp("weights"), {}
    for name in MODELS:
        torch.manual_seed(0)
        paths[name] = folder / f"{name}.safetensors"
        write_weights(paths[name], name, 0, dict(create(name).named_parameters()))
    yield paths


def states(count: int) -> Tensor:
    return torch.randn(count, *LearnedModel.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_draws_with_any_method_and_the_weights_in_half_precision_fit_8_mb(
    name: str, files: dict[str, Path]
) -> None:
    assert files[name].stat().st_size <= 8e6
    model, prompts = zoo.load(name, files[name]), ["a red circle", "two squares"]
    cond, uncond = model.encode(prompts), model.encode(["", ""])
    for method in (Standard(), Z2Sampling(warmup=1)):
        x = sample(model.eps_fn, states(2), model.solver(2), method, cond=cond, uncond=uncond, strong=2.0)
        images = model.decode(x)
        assert images.shape == (2, 3, 32, 32) and images.min() >= 0 and images.max() <= 1


@pytest.mark.parametrize("name", MODELS)
def test_a_prediction_depends_on_the_words_and_on_nothing_else_in_the_batch(name: str, files: dict[str, Path]) -> None:
    model, x = zoo.load(name, files[name]), states(2)
    times = model.solver(4).times[1].expand(2)
    with torch.no_grad():
        both = model.eps_fn(x, times, model.encode(["a red circle", "a blue circle"]))
        alone = model.eps_fn(x[:1], times[:1], model.encode("a red circle"))
        other = model.eps_fn(x, times, model.encode("a blue circle"))  # one condition for all
    # The matrix products are blocked by the size of the batch: float32 rounding through some thirty layers.
    torch.testing.assert_close(both[:1], alone, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(both[1:], other[1:], rtol=1e-3, atol=1e-4)
    assert (both[0] - other[0]).abs().max() > 1e-3
    with torch.no_grad():  # a state in float64 is answered in float64
        wide = model.eps_fn(x.double(), times, model.encode(["a red circle", "a blue circle"]))
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide.float(), both, rtol=1e-3, atol=1e-4)


class Knows(nn.Module):
    """A network that knows the clean image: it predicts v, or u, of the only x₀ there is."""

    def __init__(self, name: str, x0: Tensor) -> None:
        super().__init__()
        self.name, self.x0 = name, nn.Parameter(x0)

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        if self.name == "shapes-unet":
            alpha, sigma = (table[t.long().clamp(max=999)].float()[:, None, None, None] for table in noise_table())
            return alpha * (x - alpha * self.x0) / sigma - sigma * self.x0
        sigma = (t / 1000)[:, None, None, None].float()
        return (x - self.x0) / sigma


def check_sampling(name: str, network: nn.Module, image: Tensor, steps: int) -> None:
    """Plain sampling ends at the image that the network knows, for any number of steps, to float32 rounding.

    Each step multiplies by α_j/α_i, 15 in all, and adds predictions of order 15 with an error of eps each.
    """
    model = LearnedModel(name, network)
    with torch.no_grad():
        cond = model.encode("a red circle")
        x = sample(model.eps_fn, states(1), model.solver(steps), Standard(), cond=cond, strong=1.0)
    assert (model.decode(x) - image).abs().max() < 15 * 15 * steps * torch.finfo(torch.float32).eps + 1e-5


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_a_network_that_knows_the_image_is_sampled_to_that_image(name: str, steps: int) -> None:
    """So v becomes ε with the α and σ of the solver's own times, and u is told σ in thousandths."""
    image = render([(Thing("circle", "red", 12, 14, 4),)])
    check_sampling(name, Knows(name, to_state(image)), image, steps)
    other = MODELS[name == MODELS[0]]  # mutants: the other parametrisation; another x₀
    for mutant in (Knows(other, to_state(image)), Knows(name, to_state(image.mT))):
        with pytest.raises(AssertionError):
            check_sampling(name, mutant, image, steps)


def test_the_noise_table_is_stable_diffusions() -> None:
    """ᾱ_t = Π(1 − β), √β linear from √0.00085 to √0.012."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas, sigmas = noise_table()
    torch.testing.assert_close(alphas**2, torch.cumprod(1 - betas, 0))
    torch.testing.assert_close(alphas**2 + sigmas**2, torch.ones(1000, dtype=torch.float64))


def test_states_and_images_are_each_others_inverse() -> None:
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(to_image(to_state(image)), image)
    assert to_image(torch.tensor([-9.0, 9.0])).tolist() == [0.0, 1.0]


def test_one_prompt_or_many_are_encoded(files: dict[str, Path]) -> None:
    model = zoo.load("shapes-unet", files["shapes-unet"])
    assert torch.equal(model.encode("a circle"), tokenize(["a circle"]))
    assert torch.equal(model.encode(["a circle", ""]), tokenize(["a circle", ""]))
    with pytest.raises(ValueError, match=r"unknown word 'zebra'.*circle, square, triangle"):
        model.encode("a zebra")


def test_the_solver_is_that_of_the_prediction(files: dict[str, Path]) -> None:
    solvers = {name: zoo.load(name, files[name]).solver(10) for name in MODELS}
    assert isinstance(solvers["shapes-unet"], DDIM) and isinstance(solvers["shapes-dit"], FlowEuler)
    assert solvers["shapes-unet"].times[0] == 999 and solvers["shapes-dit"].times[0] == 1000
    assert all(len(solver) == 10 for solver in solvers.values())


def test_what_cannot_be_loaded_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name must be one of shapes-unet, shapes-dit, got 'sdxl'"):
        zoo.load("sdxl")
    with pytest.raises(ValueError, match="name must be one of shapes-unet, shapes-dit, got 'sdxl'"):
        learned.best_scale("sdxl")
    with pytest.raises(ValueError, match="weights must be of shapes-dit, got those of 'shapes-unet'"):
        zoo.load("shapes-dit", files["shapes-unet"])
    with pytest.raises(FileNotFoundError):
        zoo.load("shapes-dit", tmp_path / "none.safetensors")
    for content in (b"", b"PK\x03\x04 a pickle", files["shapes-unet"].read_bytes()[:-1]):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(ValueError, match="weights must be a safetensors file"):
            zoo.load("shapes-unet", tmp_path / "bad")


def test_weights_that_the_package_lacks_are_said_to_be_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "recorded", dict)
    with pytest.raises(FileNotFoundError, match=r"python -m zigzag\.zoo\.train shapes-unet --out DIR"):
        zoo.load("shapes-unet")


def test_weights_in_the_package_are_verified(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, Path], tmp_path: Path
) -> None:
    """With one bit of one weight changed, the SHA-256 on record is not that of the file."""
    data = bytearray(files["shapes-unet"].read_bytes())
    (tmp_path / "data").mkdir()
    (tmp_path / "data/shapes-unet.safetensors").write_bytes(data)
    record = {"shapes-unet": {"sha256": hashlib.sha256(data).hexdigest()}}
    (tmp_path / "data/weights.json").write_text(json.dumps(record))
    monkeypatch.setattr(learned, "files", lambda package: tmp_path)
    assert zoo.load("shapes-unet").name == "shapes-unet"
    data[-1] ^= 1
    (tmp_path / "data/shapes-unet.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="the weights of shapes-unet in the package are damaged"):
        zoo.load("shapes-unet")


def test_without_safetensors_or_diffusers_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, Path]
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "safetensors.torch", None)
        with pytest.raises(ImportError, match=r"safetensors: pip install 'zigzag-diffusion\[shapes\]'"):
            zoo.load("shapes-unet", files["shapes-unet"])
    monkeypatch.delitem(sys.modules, "zigzag.zoo.networks", raising=False)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"diffusers.*: pip install 'zigzag-diffusion\[shapes\]'"):
        zoo.load("shapes-unet", files["shapes-unet"])


def test_preconditioning_leaves_the_network_what_no_linear_guess_knows() -> None:
    """`F = (u − c_skip·x)/c_out` has variance 1 and nothing in common with `x`, and `c_in·x` has variance 1.

    In terms of the two independent numbers: x₀ of deviation s, and ε of deviation 1.
    """
    sigma, s = torch.linspace(0, 1, 11, dtype=torch.float64), DEVIATION
    c_in, c_skip, c_out = preconditioning(sigma)
    x, u = (s * (1 - sigma), sigma), (torch.full_like(sigma, -s), torch.ones_like(sigma))
    F = [(b - c_skip * a) / c_out for a, b in zip(x, u, strict=True)]
    one = torch.ones_like(sigma)
    torch.testing.assert_close(F[0] ** 2 + F[1] ** 2, one)
    torch.testing.assert_close(F[0] * x[0] + F[1] * x[1], 0 * one, rtol=0, atol=1e-15)
    torch.testing.assert_close(c_in**2 * (x[0] ** 2 + x[1] ** 2), one)
