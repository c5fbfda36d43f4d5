"""The scripts of the page, run by node, are what they say: torch's noise, the library's walk, its detector."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from support import node
from zigzag import DDIM, FlowEuler, Solver, Spherical, Trace, sample
from zigzag.evaluation.named import parse_method
from zigzag.zoo.shapes import CATEGORIES, Caption, alterations, detect, draw_caption, draw_scene, holds, render
from zigzag.zoo.web.tables import caption_entry, move_table, world

pytestmark = pytest.mark.skipif(node.found() is None, reason="needs node (extra `docs` has one)")
pytest.importorskip("scipy")

SHAPE = (3, 4, 4)


@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1])
def test_a_seed_is_the_noise_that_it_is_in_torch(seed: int) -> None:
    drawn = node.run(
        ("noise.js",),
        "(seed) => { const g = new Generator(seed); return [1, 2].map(() => [...g.normal(3072)]); }",
        seed,
    )
    generator = torch.Generator().manual_seed(seed)
    for z in drawn:
        torch.testing.assert_close(torch.tensor(z), torch.randn(1, 3072, generator=generator)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("heights", [[50.0], [50.0, 51.0, 49.0], [100.0, 20.0, 99.0], [7.0, 7.0, 7.0]], ids=str)
def test_names_behind_lines_that_meet_stand_apart_in_the_same_order(heights: list[float]) -> None:
    placed = node.run(("plot.js",), "(heights) => apart(heights)", heights)
    ranked = sorted(range(len(heights)), key=lambda k: (heights[k], k))
    assert all(placed[below] - placed[above] >= 12 - 1e-9 for above, below in pairwise(ranked))
    assert sum(placed) == pytest.approx(sum(heights))
    assert node.run(("plot.js",), "(heights) => apart(heights)", [10.0, 60.0]) == [10, 60]


WALKS = """async (solvers) => {
  const results = [];
  for (const { table, walks } of solvers) {
    for (const { method, strong, weak, x, noises } of walks) {
      const rest = noises.map((noise) => Float64Array.from(noise));
      const predict = async (x, t, branches) =>
        Object.fromEntries(branches.map((branch) =>
          [branch, x.map((v) => Math.sin((branch === "cond" ? 1.3 : 0.4) * v) + t / 1000)]));
      const scales = { strong, weak };
      const record = tracer(scales);
      const records = [];
      let last;
      const path = table.paths[method].map((number) => table.moves[number]);
      for await (const visit of walk(path, Float64Array.from(x), scales, predict, () => rest.shift())) {
        records.push(record(visit));
        last = visit.x;
      }
      results.push({ x: [...last], records });
    }
  }
  return results;
}"""


def predict(x: Tensor, t: Tensor, cond: float) -> Tensor:
    return torch.sin(cond * x) + t.double().reshape(-1, 1, 1, 1) / 1000


def cases(solver: Solver) -> list[dict[str, Any]]:
    """Every path of a grid, at scales that need both branches, and at such that need one."""
    table, T = move_table(solver), len(solver)
    x = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    draw = torch.Generator().manual_seed(0)
    noises = [torch.randn(1, *SHAPE, generator=draw, dtype=torch.float64).flatten().tolist() for _ in range(T)]
    kept = [method for method, path in table["paths"].items() if not isinstance(path, str)]
    return [
        {"method": method, "strong": strong, "weak": weak, "x": x.flatten().tolist(), "noises": noises}
        for method in kept
        for strong, weak in [(2.0, 0.0), (5.5, -0.5), (1, 0), (3, 1)]
    ]


def check_walks(solvers: list[Solver], mutant: tuple[str, str] | None = None) -> int:
    """Holds every walk against `sample` and `Trace`; how many values of δ and τ were compared."""
    given = [{"table": move_table(solver), "walks": cases(solver)} for solver in solvers]
    results = iter(node.run(("walk.js",), WALKS, given, mutant=mutant))
    close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)
    compared = 0
    for solver, one in zip(solvers, given, strict=True):
        for case in one["walks"]:
            trace, got = Trace(), next(results)
            x = torch.tensor(case["x"], dtype=torch.float64).reshape(1, *SHAPE)
            end = sample(
                predict, x, solver, parse_method(case["method"], len(solver)), cond=1.3, uncond=0.4,
                strong=case["strong"], weak=case["weak"], generator=torch.Generator().manual_seed(0), trace=trace,
            )  # fmt: skip
            close(torch.tensor(got["x"], dtype=torch.float64), end.flatten())
            for record, its in zip(trace.records, got["records"], strict=True):
                assert (type(record.move).__name__, record.knot, record.rows) == (its["move"], its["knot"], its["rows"])
                for name in ("delta", "tau1", "tau2"):
                    value = getattr(record, name)
                    assert (value is None) == (its[name] is None), (case["method"], record)
                    if value is not None:
                        close(value[0], torch.tensor(its[name], dtype=torch.float64))
                        compared += 1
    return compared


def test_the_interpreter_walks_every_path_as_sample_does_with_its_rows_and_its_trace() -> None:
    flow, geometry = FlowEuler.uniform(5, time_scale=1000.0), Spherical.cosine(4, phi_max=1.4)
    assert check_walks([flow, DDIM.stable_diffusion(4), geometry]) > 100


@pytest.mark.parametrize(
    "mutant",
    [
        ("combine(1, x, -d, gap)", "combine(1, x, d, gap)"),
        ("combine(c, x, d, e)", "combine(c, x, -b, e)"),  # which is right where a = 1
        ('branch === "cond" ? 0 : 1', 'branch === "cond" ? null : null'),  # evaluates what no scale needs
        ("norm(combine(1, pending.down.e, -1, weak))", "norm(combine(1, pending.up.e, -1, weak))"),
    ],
)
def test_an_interpreter_that_is_wrong_in_one_place_does_not(mutant: tuple[str, str]) -> None:
    with pytest.raises(AssertionError):
        check_walks([DDIM.stable_diffusion(4)], mutant)


JUDGED = """(images, world, captions) => images.map((image, k) => {
  const things = detect(Float32Array.from(image), world);
  return [things, captions[k].map((caption) => holds(caption, things, world.margin))];
})"""


def blurred(images: Tensor, rng: torch.Generator) -> Tensor:
    """Images as a network draws them, and worse: soft, noisy, and with blots."""
    kernel = torch.ones(3, 1, 3, 3) / 9
    soft = torch.nn.functional.conv2d(images, kernel, padding=1, groups=3)
    blots = torch.nn.functional.interpolate(torch.rand(len(images), 3, 8, 8, generator=rng), scale_factor=4)
    share, noise = torch.rand(len(images), 1, 1, 1, generator=rng), torch.randn(images.shape, generator=rng)
    return torch.cat([images, (soft + 0.05 * noise).clamp(0, 1), torch.lerp(images, blots, share)])


def test_the_detector_sees_what_the_librarys_sees_and_judges_captions_alike() -> None:
    rng = Random(0)
    captions = [draw_caption(category, rng) for category in CATEGORIES for _ in range(20)]
    clean = render([draw_scene(caption, rng) for caption in captions])
    images = blurred(clean, torch.Generator().manual_seed(0))
    asked: list[list[Caption]] = [[caption, *alterations(caption)] for caption in captions] * 3
    entries = [[caption_entry(caption) for caption in several] for several in asked]
    judged = node.run(("detector.js",), JUDGED, images.flatten(1).tolist(), world(), entries)
    true, shapes = 0, set()
    for things, several, (found, verdicts) in zip(detect(images), asked, judged, strict=True):
        assert [(thing.shape, thing.colour) for thing in things] == [(its["shape"], its["colour"]) for its in found]
        for thing, its in zip(things, found, strict=True):
            assert [its["x"], its["y"], its["size"]] == pytest.approx([thing.x, thing.y, thing.size], rel=1e-9)
        assert verdicts == [holds(caption, things) for caption in several]
        true += sum(verdicts)
        shapes |= {thing.shape for thing in things}
    assert true >= len(captions) and "other" in shapes
