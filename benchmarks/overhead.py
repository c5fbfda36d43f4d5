"""The loop's own cost per step, without the model, beside diffusers, k-diffusion and azula.

    python benchmarks/overhead.py [--peers FOLDER] [--json FILE]

The model is a function that hands out predictions made beforehand, so that what is timed is the loop alone: for zigzag
all of `sample(…)`, for diffusers the lines that a pipeline runs between two model calls, for the others `sample_euler`
and `DDIMSampler`; each unguided, with two calls for the two branches, and with one doubled batch, where each side also
pays for the doubling. zigzag and the peer take turns within one process and must arrive at the same sample; the figure
is the median ratio of neighbouring runs, with its quartiles. On a shared machine take `--clock cpu`, with
OMP_NUM_THREADS=1.

k-diffusion and azula run in an environment of their own, made in FOLDER by the first run (default: out/peers), by this
script under that environment's Python with zigzag from this checkout. `--without-peers` leaves the two out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import arguments, in_turns, median, ratio, write
from peers import CALLS, PEERS, SCALE, STEPS, VERSIONS, Calls, Peer, environment
from torch import Tensor

from zigzag import MISSING, Standard, Z2Sampling, sample

SIZES = ((1, 4, 128, 128), (2, 16, 64, 64))
QUICK = ((1, 4, 8, 8),)


def zigzag_loop(peer: Peer, calls: Calls, method: Any) -> Callable[[], Tensor]:
    """`sample`, all of it, with a model that costs nothing."""
    e_u, e_c, both = peer.e_u, peer.e_c, torch.cat([peer.e_u, peer.e_c])
    doubled, guided = calls == "one doubled batch", calls != "unguided"

    def eps_fn(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        # In a doubled batch the answer is `both`; in two calls the conditions, shaped alike, are the answers.
        return both if doubled else cond

    def loop() -> Tensor:
        return sample(
            eps_fn, peer.x, peer.solver, method, cond=e_c, uncond=e_u if guided else MISSING,
            strong=SCALE if guided else 1.0, batched=doubled,
        )  # fmt: skip

    return loop


def measure(name: str, shape: tuple[int, ...], calls: Calls, runs: int, clock: str) -> dict[str, Any]:
    """Standard sampling and Z² by zigzag, and standard sampling by the peer, in turns."""
    peer = PEERS[name](shape, calls)
    loops = {"Standard": zigzag_loop(peer, calls, Standard())}
    if calls != "unguided":  # a gap needs both branches
        loops["Z2Sampling"] = zigzag_loop(peer, calls, Z2Sampling(warmup=5))
    mine, theirs = loops["Standard"](), peer.loop()
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))  # the same work is timed
    *seconds, other = in_turns([*loops.values(), peer.loop], runs, warm=3, clock=clock)
    return {
        "peer": name, "shape": shape, "calls": calls, "peer_us": 1e6 * median(other, per=STEPS),
        "methods": [
            {"method": method, "zigzag_us": 1e6 * median(own, per=STEPS), "ratio": ratio(own, other)._asdict()}
            for method, own in zip(loops, seconds, strict=True)
        ],
    }  # fmt: skip


def measure_all(name: str, runs: int, clock: str, quick: bool) -> list[dict[str, Any]]:
    """All sizes and ways to call the model that the peer has."""
    ways = [calls for calls in CALLS if (name, calls) != ("azula", "one doubled batch")]
    return [measure(name, shape, calls, runs, clock) for shape in (QUICK if quick else SIZES) for calls in ways]


def in_its_environment(names: list[str], python: Path, runs: int, clock: str, quick: bool) -> list[dict[str, Any]]:
    """`measure_all` of these peers under another Python, with zigzag from this checkout."""
    command: list[str | Path] = [
        python,
        __file__,
        "--only",
        *names,
        "--runs",
        str(runs),
        *(["--quick"] if quick else []),
    ]
    checkout = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    done = subprocess.run(command, env=checkout, check=True, stdout=subprocess.PIPE, text=True)
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


def show(result: dict[str, Any]) -> None:
    """One line a method."""
    for row in result["methods"]:
        r, shape = row["ratio"], "×".join(map(str, result["shape"]))
        print(
            f"{shape:<12}{result['calls']:<19}{row['method']:<12}zigzag / {result['peer']:<12}= {r['median']:.2f} "
            f"[{r['low']:.2f}, {r['high']:.2f}]   ({row['zigzag_us']:.0f} / {result['peer_us']:.0f} us a step)"
        )


def main() -> None:
    """Runs the benchmark, prints it and writes it on request."""
    parser = arguments(__doc__, runs=60, clock=True)
    parser.add_argument("--peers", type=Path, default=Path("out/peers"), help="environment of k-diffusion and azula")
    parser.add_argument("--without-peers", action="store_true", help="diffusers alone")
    parser.add_argument("--only", nargs="+", choices=PEERS, help="these, in this process, as JSON on standard output")
    args = parser.parse_args()
    runs = 2 if args.quick else args.runs

    if args.only:
        json.dump(
            [result for name in args.only for result in measure_all(name, runs, args.clock, args.quick)], sys.stdout
        )
        return
    python = None if args.without_peers else environment(args.peers)
    results = measure_all("diffusers", runs, args.clock, args.quick)
    if python is not None:
        elsewhere = [name for name in PEERS if name != "diffusers"]
        results += in_its_environment(elsewhere, python, runs, args.clock, args.quick)
    for result in results:
        show(result)
    others = VERSIONS if python is not None else ()
    print(", ".join([f"float32, {STEPS} steps, {runs} runs each, {args.clock} time", *others]))
    write(args.json, results, ["diffusers"], steps=STEPS, runs=runs, clock=args.clock, peers=others)


if __name__ == "__main__":
    main()
