"""`COMFYUI=path make comfyui`: runs the nodes in ComfyUI itself, on tiny random networks, and compares the latents.

    python integrations/comfyui/check PATH [--python PYTHON]

PATH is a checkout of ComfyUI, PYTHON one that has what ComfyUI and zigzag need.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from graphs import chain, flipped, plain, widgets_of, workflow
from server import Failed, Server, serving

KINDS = ("eps", "v", "edm", "flow")
METHODS: list[dict[str, Any]] = [
    {"method": "z2", "warmup": 1},
    {"method": "z2", "warmup": 2, "strength": 0.5},
    {"method": "z"},
    {"method": "z", "rounds": 2, "span": 2, "steps": 3},
    {"method": "z", "refine": 1},
    {"method": "implicit z"},
    {"method": "end to end"},
    {"method": "resampling"},
]
WEAK = (0.0, 1.0, 1.5)
HELD: list[dict[str, Any]] = [
    {"method": "z", "eta": 1.0},
    {"method": "z2", "warmup": 1, "eta": 0.5},
    {"method": "z", "solver": "dpmpp_2m"},
    {"method": "standard", "solver": "dpmpp_2m"},
    {"method": "z2", "warmup": 1, "solver": "heun"},
]
# Rounding in float32 through up to 70 calls of a network; a wrong step is off by a hundredth and more.
BOUND = 1e-4


def checked(server: Server, prompt: dict[str, Any]) -> dict[str, Any]:
    """What the checking node of a prompt found."""
    found: dict[str, Any] = {}
    for output in server.outputs(server.post(prompt)).values():
        for text in output.get("check", ()):
            found = json.loads(text)
    return found


def compared(server: Server) -> Iterator[tuple[str, bool, str]]:
    """By line: what was looked at, whether it holds, and what was found."""
    defaults = widgets_of(server, "ZigzagSampler")
    for kind in KINDS:
        found = [
            checked(server, chain(kind, defaults | method | {"weak": weak}, seed))
            for seed, (method, weak) in enumerate(product(METHODS, WEAK))
        ]
        worst, rows = max(f["difference"] for f in found), all(f["rows"] == f["ran"] for f in found)
        yield f"{kind}: {len(found)} runs against zigzag.sample", worst < BOUND and rows, said(worst, rows)
    for kind, method in product(KINDS, HELD):
        if kind == "flow" and method.get("eta"):
            continue  # of another definition there, which the tests of the adapter hold
        found_one = checked(server, chain(kind, defaults | method, 7))
        holds = found_one["difference"] < BOUND and found_one["rows"] == found_one["ran"]
        yield f"{kind}: {method}", holds, said(found_one["difference"], found_one["rows"] == found_one["ran"])
    for kind in KINDS:
        for name, prompt in {
            "Standard and euler": plain(kind, defaults | {"method": "standard"}, "euler"),
            "Standard and euler, sigmas flipped": flipped(kind, defaults | {"method": "standard"}, "euler"),
            "the entry of KSampler and the node": plain(kind, defaults | {"method": "z"}, "zigzag_z"),
        }.items():
            difference = checked(server, prompt)["difference"]
            yield f"{kind}: {name}", difference == 0, f"difference {difference:g}"
    pag = checked(server, chain("eps", defaults | {"method": "z"}, 0, patch="PerturbedAttentionGuidance"))
    yield "rows with perturbed attention", pag["rows"] == pag["ran"] > 0, f"{pag['rows']} and {pag['ran']:g}"
    for path in sorted((Path(__file__).parents[1] / "example_workflows").glob("*.json")):
        kind = "flow" if "flow" in path.stem else "eps"
        found_one = checked(server, workflow(server, json.loads(path.read_text()), kind))
        holds = found_one["difference"] < BOUND and found_one["rows"] == found_one["ran"]
        yield f"workflow {path.stem}", holds, f"{found_one['method']}, {said(found_one['difference'], holds)}"


def said(difference: float, rows: bool) -> str:
    """The finding in words."""
    return f"relative difference {difference:.1e}, rows {'equal' if rows else 'DIFFER'}"


def refused(server: Server) -> Iterator[tuple[str, bool, str]]:
    """Errors as they show on the node, and a run that is cancelled."""
    defaults = widgets_of(server, "ZigzagSampler")
    for name, prompt, words in (
        ("flipped sigmas", flipped("eps", defaults | {"method": "z"}, "euler"), "flipped sigmas"),
        ("no negative", chain("eps", defaults | {"method": "z"}, 0, negative=False), "no negative conditioning"),
        ("a warm-up as long as the run", chain("eps", defaults | {"warmup": 6}, 0), "warmup must be smaller"),
    ):
        try:
            server.outputs(server.post(prompt))
            yield f"refused: {name}", False, "it ran"
        except Failed as error:
            yield f"refused: {name}", words in str(error), str(error).strip().splitlines()[0][:90]
    job = server.post(chain("eps", defaults | {"method": "end to end"}, 0, steps=2000))
    while not server.ask("/queue")["queue_running"]:
        pass
    server.ask("/interrupt", {})
    try:
        server.outputs(job)
        yield "a run that is cancelled", False, "it ran to its end"
    except Failed as error:
        yield "a run that is cancelled", "interrupted" in str(error), str(error)


def main() -> int:
    """Prints a line for each finding, and returns 1 if one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="a checkout of ComfyUI")
    parser.add_argument("--python", default=sys.executable, help="the Python to run it with")
    args = parser.parse_args()
    if not (args.checkout / "main.py").is_file():
        parser.error(f"{args.checkout} is no checkout of ComfyUI: it has no main.py")
    missed = 0
    with serving(args.checkout, args.python) as server:
        print("ComfyUI", server.ask("/system_stats")["system"]["comfyui_version"], flush=True)
        for findings in (compared(server), refused(server)):
            for what, holds, found in findings:
                missed += not holds
                print(f"{'ok    ' if holds else 'FAILED'} {what}: {found}", flush=True)
    print("all hold" if not missed else f"{missed} do not hold")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
