"""Without a gap `attach` changes nothing, on stochastic schedulers either: the noise is the scheduler's own."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from zigzag import ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling

diffusers = pytest.importorskip("diffusers")
attach = pytest.importorskip("zigzag.adapters.diffusers").attach

from real_schedulers import REAL, WANTED, distance, noise, runs, seeded  # noqa: E402

# numpy's, of diffusers; and of UniPC's corrector, which has a test of its own.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*without its corrector"),
]


UNMOVED = {"implicit": (ImplicitZ(), False), "z2": (Z2Sampling(warmup=1), False), "z": (ZSampling(rounds=2), True)}


# Whatever draws; and of the rest one that remembers, two that step twice and one that would correct.
STILL = ("dpm 2m", "pndm", "heun", "unipc")
DRAWING = (
    "ddim eta", "ddpm", "euler churned", "euler ancestral", "sde dpm 2m", "sde dpm 3m", "lcm", "tcd", "flow stochastic",
    "kdpm2 ancestral", "cogvideox dpm", "ltx ancestral", "scm", "cosine dpm",
)  # fmt: skip


@pytest.mark.parametrize("name", [*DRAWING, *STILL])
def test_without_a_gap_the_image_is_the_plain_one(name: str) -> None:
    """Also of stochastic schedulers: the same random numbers, and the generator ends where it would have ended.

    Where an inversion is approximate (its prediction is taken elsewhere) the prediction depends on no state and time.
    """
    case, same = REAL[name], (0.4, 0.4)
    if name.startswith("unipc"):
        case = dataclasses.replace(case, config={**case.config, "disable_corrector": list(range(case.steps))})
    for n, (method, flat) in enumerate(UNMOVED.values()):
        x, one, two = noise(1 + n % 2), seeded(), seeded()
        plain = runs(case, x, Standard(), conds=same, generator=one, flat=flat)
        ours = runs(case, x, method, conds=same, generator=two, flat=flat)
        assert distance(ours, plain) <= WANTED
        assert torch.equal(one.get_state(), two.get_state())
        if n == 1:
            with pytest.raises(AssertionError):  # with a gap it is another
                assert distance(runs(case, x, method), runs(case, x, Standard())) <= WANTED


@pytest.mark.parametrize("name", ["ddim eta", "sde dpm 2m", "cosine dpm"])
def test_after_a_renoise_the_noise_of_an_interval_is_another(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the scheduler has a source of its own, which grows of a seed; of a list each grows of its own."""
    draws = pytest.importorskip("zigzag.adapters.diffusers.draws").Draws
    call, path = draws.__call__, Resampling(steps=2, rounds=2)

    def drawn(generator: object) -> torch.Tensor:
        seen: list[torch.Tensor] = []

        def spied(self: object, x: torch.Tensor, interval: tuple[int, int] | None) -> torch.Tensor:
            z = call(self, x, interval)
            if interval == (0, 1):
                seen.append(z)
            return z

        monkeypatch.setattr(draws, "__call__", spied)
        runs(REAL[name], noise(2), path, generator=generator)
        return torch.stack(seen)  # of the rounds, of the samples

    for generators in (seeded, lambda: [seeded(1), seeded(2)]):
        z = drawn(generators())
        rows = z.flatten(2).flatten(0, 1)  # 144 numbers each
        assert len(rows) == 6 and torch.corrcoef(rows).fill_diagonal_(0).abs().max() < 0.35  # 4 deviations of chance
        assert torch.equal(z, drawn(generators()))


@pytest.mark.parametrize("name", ["ddim eta", "ddpm", "sde dpm 2m", "lcm", "cogvideox dpm", "kdpm2 ancestral"])
def test_a_list_of_generators_is_each_samples_own(name: str) -> None:
    case, x, method = REAL[name], noise(2), ZSampling(steps=2)
    both = runs(case, x, method, generator=[seeded(1), seeded(2)])
    for n, seed in enumerate((1, 2)):
        conds = tuple(c + 0.1 * n for c in (1.0, -0.5))
        one = runs(case, x[n : n + 1], method, generator=[seeded(seed)], conds=conds)
        assert distance(both[n : n + 1], one) <= WANTED


@pytest.mark.parametrize("given", ["to attach", "to the pipeline"])
@pytest.mark.parametrize("name", ["ddim eta", "euler ancestral", "lcm"])
def test_a_sample_that_is_renoised_does_not_depend_on_its_batch(name: str, given: str) -> None:
    """By a list of generators, one a sample: of the scheduler's steps and of Renoise alike."""
    case, x, method = REAL[name], noise(2), Resampling(steps=2)

    def run(x: torch.Tensor, seeds: list[int], **conds: object) -> torch.Tensor:
        steps, again = ([seeded(seed) for seed in seeds] for _ in range(2))
        own = {"renoise": again} if given == "to attach" else {}
        return runs(case, x, method, generator=steps, **own, **conds)

    both = run(x, [1, 2])
    for n, seed in enumerate((1, 2)):
        one = run(x[n : n + 1], [seed], conds=tuple(c + 0.1 * n for c in (1.0, -0.5)))
        assert distance(both[n : n + 1], one) <= WANTED
    assert distance(both, run(x, [1, 3])) > WANTED


def test_a_list_of_generators_is_checked() -> None:
    case, x = REAL["ddim eta"], noise(3)
    for wrong, error, match in (
        ([], ValueError, "list of one for each"),
        ([seeded(), 3], TypeError, r"generator must be a torch\.Generator, or a list"),
        ([seeded(), seeded()], ValueError, r"one for each sample of the pipeline's state, \(3, .*got 2"),
    ):
        with pytest.raises(error, match=match):
            runs(case, x, Resampling(steps=1), renoise=wrong)


def test_frames_that_are_folded_into_the_batch_are_their_samples() -> None:
    """A state of `B·F` rows and `B` generators: those of a sample are drawn as by itself."""
    from zigzag.adapters.diffusers.draws import Draws

    def draw(rows: int, generators: list[torch.Generator]) -> torch.Tensor:
        scheduler = diffusers.DDIMScheduler(clip_sample=False)
        scheduler.set_timesteps(4)
        plan = plans.plan_of(scheduler)
        given = {"sample": noise(rows), "model_output": noise(rows)}
        return Draws(scheduler, plan.rehearsed, 0, given, {}, generators)(noise(rows), None)

    plans = pytest.importorskip("zigzag.adapters.diffusers.plans")
    both = draw(6, [seeded(1), seeded(2)])
    assert torch.equal(both, torch.cat([draw(3, [seeded(1)]), draw(3, [seeded(2)])]))
    assert not torch.equal(both[0], both[1])
