"""Wall time of each method over standard sampling, beside the ratio of their model rows, on real networks.

    python benchmarks/methods.py [--json FILE]

A mid-size U-Net and a mid-size Hunyuan-DiT of diffusers with random weights, both branches in one doubled batch. If
everything but the model were free and a row cost the same in every batch, time over rows would be 1. A method that asks
for one branch alone (an explicit zigzag with w = 0 on its way back) pays more than half a doubled batch for it: with r,
the time of one row over that of a doubled row, measured in the same run, three evaluations of five rows should take
(2 + r)/3 of the time of the released algorithm, which spends six. That algorithm is below, and its result is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from common import Loop, arguments, in_turns, median, ratio, write
from models import Network, build
from torch import Tensor

from zigzag import CFG, DDIM, EndToEnd, ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling, count_rows, sample

STRONG, WEAK = 5.5, 0.0


def sampler(network: Network, steps: int, method: Any) -> Callable[[], Tensor]:
    """`sample`, both branches in one doubled batch where both are needed."""
    eps_fn, (x, cond, uncond) = network.predictor(), network.inputs(1)
    solver = DDIM.stable_diffusion(steps)
    generator = torch.Generator()

    def run() -> Tensor:
        generator.manual_seed(0)
        return sample(
            eps_fn, x, solver, method, cond=cond, uncond=uncond, strong=STRONG, weak=WEAK, batched=True,
            generator=generator,
        )  # fmt: skip

    return run


def six_rows(network: Network, steps: int) -> Callable[[], Tensor]:
    """Z-Sampling as released, at every step: down, up, down, both branches at each of the three evaluations.

    The inverse is the exact one: which coefficients it takes has no part in the time, and so the result can be checked.
    """
    eps_fn, (x_T, cond, uncond) = network.predictor(), network.inputs(1)
    both = _doubled(uncond, cond)
    solver = DDIM.stable_diffusion(steps)
    strong, weak = CFG(STRONG), CFG(WEAK)

    @torch.no_grad()
    def run() -> Tensor:
        x = x_T
        for i in range(steps):
            step, at, t = solver.step(i), solver.info(i), solver.times[i]

            def branches(x: Tensor, t: Tensor = t) -> tuple[Tensor, Tensor]:
                e_u, e_c = eps_fn(torch.cat([x, x]), t.expand(2 * len(x)), both).chunk(2)
                return e_u, e_c

            e_u, e_c = branches(x)
            x = step.forward(x, strong(e_c, e_u, at))
            e_u, e_c = branches(x)
            x = step.inverse(x, weak(e_c, e_u, at))
            e_u, e_c = branches(x)
            x = step.forward(x, strong(e_c, e_u, at))
        return x

    return run


def model_alone(network: Network, rows: int, calls: int) -> Callable[[], None]:
    """Calls of the predictor, on one row or on a doubled one."""
    eps_fn, (x, cond, uncond) = network.predictor(), network.inputs(1)
    condition = cond if rows == 1 else _doubled(uncond, cond)
    x, t = torch.cat([x] * rows), torch.full((rows,), 500)

    @torch.no_grad()
    def run() -> None:
        for _ in range(calls):
            eps_fn(x, t, condition)

    return run


def measure(name: str, size: int, steps: int, runs: int, clock: str) -> dict[str, Any]:
    """Every method over standard sampling, and the released algorithm beside the model alone, on one network."""
    methods: dict[str, Any] = {
        "Standard": Standard(), "Z2Sampling": Z2Sampling(warmup=min(5, steps - 1)), "ImplicitZ": ImplicitZ(),
        "Resampling": Resampling(), "EndToEnd": EndToEnd(), "ZSampling": ZSampling(steps=steps),
    }  # fmt: skip
    network = build(name, size)
    samplers: dict[str, Loop] = {key: sampler(network, steps, method) for key, method in methods.items()}
    released = six_rows(network, steps)
    expected = released()
    torch.testing.assert_close(samplers["ZSampling"](), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    explicit: list[Loop] = [
        samplers["ZSampling"], released, model_alone(network, 1, steps), model_alone(network, 2, steps),
    ]  # fmt: skip

    standard, *others = methods
    # What has to be known to a percent is measured by itself, more often.
    z2 = in_turns([samplers["Z2Sampling"], samplers[standard]], 2 * runs, warm=1, clock=clock)
    seconds = dict(zip(samplers, in_turns(list(samplers.values()), runs, warm=1, clock=clock), strict=True))
    zigzag, six, one_row, doubled_row = in_turns(explicit, runs, warm=1, clock=clock)
    rows_of = {key: count_rows(method, steps, STRONG, WEAK) for key, method in methods.items()}
    figures = []
    for key in others:
        over = ratio(*z2) if key == "Z2Sampling" else ratio(seconds[key], seconds[standard])
        rows = rows_of[key] / rows_of[standard]
        figures.append({"method": key, "rows": rows, "time": over._asdict(), "time_over_rows": over.median / rows})
    r, over = ratio(one_row, doubled_row), ratio(zigzag, six)
    wanted = (2 + r.median) / 3
    return {
        "network": name, "size": size, "standard_ms": 1e3 * median(seconds[standard]), "methods": figures,
        "r": r._asdict(), "explicit_over_released": over._asdict(), "wanted": wanted,
        "explicit_over_wanted": over.median / wanted,
    }  # fmt: skip


def show(result: dict[str, Any]) -> None:
    """One line a method, and one for the released algorithm."""
    print(f"{result['network']}, latents {result['size']}² (standard sampling {result['standard_ms']:.0f} ms)")
    for row in result["methods"]:
        t = row["time"]
        print(
            f"  {row['method']:<12}over standard: time {t['median']:.3f} [{t['low']:.3f}, {t['high']:.3f}]   "
            f"rows {row['rows']:.3f}   time / rows {row['time_over_rows']:.3f}"
        )
    e = result["explicit_over_released"]
    print(
        f"  explicit Z over released {e['median']:.3f} [{e['low']:.3f}, {e['high']:.3f}]; (2 + r)/3 = "
        f"{result['wanted']:.3f} with r = {result['r']['median']:.3f}: {result['explicit_over_wanted']:.3f} of it"
    )


def main() -> None:
    """Runs the benchmark, prints it and writes it on request."""
    parser = arguments(__doc__, runs=9, clock=True)
    parser.add_argument("--steps", type=int, default=10, help="sampling steps (default: 10)")
    parser.add_argument("--network", choices=("mid-unet", "mid-hunyuan"), help="this one alone")
    args = parser.parse_args()
    runs, steps = (1, 3) if args.quick else (args.runs, args.steps)
    cases = [("small-unet", 8), ("small-hunyuan", 8)] if args.quick else [("mid-unet", 32), ("mid-hunyuan", 24)]

    results = []
    for name, size in cases:
        if args.network in (None, name):
            results.append(measure(name, size, steps, runs, args.clock))
            show(results[-1])
    print(f"float32, {steps} steps, {runs} runs each, in turns, {args.clock} time")
    write(args.json, results, ["diffusers"], steps=steps, runs=runs, clock=args.clock)


def _doubled(uncond: dict[str, Tensor], cond: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([uncond[name], cond[name]]) for name in cond}


if __name__ == "__main__":
    main()
