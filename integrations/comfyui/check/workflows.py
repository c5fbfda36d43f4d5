"""Writes the example workflows, in the form that ComfyUI's page loads: `python …/check/workflows.py`.

A workflow is nodes with their widgets, in columns; what they are joined by is named where it goes in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

__all__ = ["WORKFLOWS", "saved"]

HOME = Path(__file__).parents[1] / "example_workflows"
PROMPT, NEGATIVE = "a red cube on a blue sphere, studio light", ""

# Of each class the inputs that are joined, and the outputs, by name and type.
SLOTS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "CheckpointLoaderSimple": ({}, {"MODEL": "MODEL", "CLIP": "CLIP", "VAE": "VAE"}),
    "ModelSamplingSD3": ({"model": "MODEL"}, {"MODEL": "MODEL"}),
    "CLIPTextEncode": ({"clip": "CLIP"}, {"CONDITIONING": "CONDITIONING"}),
    "EmptyLatentImage": ({}, {"LATENT": "LATENT"}),
    "EmptySD3LatentImage": ({}, {"LATENT": "LATENT"}),
    "LoadImage": ({}, {"IMAGE": "IMAGE", "MASK": "MASK"}),
    "VAEEncode": ({"pixels": "IMAGE", "vae": "VAE"}, {"LATENT": "LATENT"}),
    "SetLatentNoiseMask": ({"samples": "LATENT", "mask": "MASK"}, {"LATENT": "LATENT"}),
    "BasicScheduler": ({"model": "MODEL"}, {"SIGMAS": "SIGMAS"}),
    "ZigzagSampler": ({}, {"SAMPLER": "SAMPLER"}),
    "SamplerCustom": (
        {
            "model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "sampler": "SAMPLER",
            "sigmas": "SIGMAS", "latent_image": "LATENT",
        },
        {"output": "LATENT", "denoised_output": "LATENT"},
    ),
    "ZigzagReport": ({"sampler": "SAMPLER", "latent": "LATENT"}, {"latent": "LATENT", "report": "STRING"}),
    "PreviewAny": ({"source": "*"}, {}),
    "VAEDecode": ({"samples": "LATENT", "vae": "VAE"}, {"IMAGE": "IMAGE"}),
    "SaveImage": ({"images": "IMAGE"}, {}),
}  # fmt: skip

# method, weak, steps, rounds, span, refine, warmup, strength, eta, solver, rescale
Z2 = ["z2", 0.0, -1, 1, 1, 0, 5, 1.0, 0.0, "euler", True]
Z_HALF = ["z", 0.0, 14, 1, 1, 0, 5, 1.0, 0.0, "euler", True]


class Node(NamedTuple):
    """A node of a workflow: its class, column and row, widgets, and by input the node and output that go in."""

    kind: str
    at: tuple[int, int]
    widgets: list[Any]
    joined: Mapping[str, str] = MappingProxyType({})


def sampled(
    checkpoint: str, latent: dict[str, Node], *, cfg: float, steps: int, sampler: list[Any], denoise: float = 1.0,
    shift: float | None = None,
) -> dict[str, Node]:  # fmt: skip
    """A whole workflow around the nodes that make its latent."""
    model = "shift.MODEL" if shift else "checkpoint.MODEL"
    shifted = {"shift": Node("ModelSamplingSD3", (0, 1), [shift], {"model": "checkpoint.MODEL"})} if shift else {}
    return {
        "checkpoint": Node("CheckpointLoaderSimple", (0, 0), [checkpoint]),
        **shifted,
        "positive": Node("CLIPTextEncode", (1, 0), [PROMPT], {"clip": "checkpoint.CLIP"}),
        "negative": Node("CLIPTextEncode", (1, 1), [NEGATIVE], {"clip": "checkpoint.CLIP"}),
        **latent,
        "sigmas": Node("BasicScheduler", (2, 1), ["normal", steps, denoise], {"model": model}),
        "zigzag": Node("ZigzagSampler", (2, 0), sampler),
        "run": Node(
            "SamplerCustom", (3, 0), [True, 42, "fixed", cfg],
            {
                "model": model, "positive": "positive.CONDITIONING", "negative": "negative.CONDITIONING",
                "sampler": "zigzag.SAMPLER", "sigmas": "sigmas.SIGMAS", "latent_image": "latent.LATENT",
            },
        ),
        "report": Node("ZigzagReport", (3, 1), [], {"sampler": "zigzag.SAMPLER", "latent": "run.output"}),
        "shown": Node("PreviewAny", (4, 1), [], {"source": "report.report"}),
        "decoded": Node("VAEDecode", (4, 0), [], {"samples": "report.latent", "vae": "checkpoint.VAE"}),
        "saved": Node("SaveImage", (5, 0), ["zigzag"], {"images": "decoded.IMAGE"}),
    }  # fmt: skip


def of_image(masked: bool) -> dict[str, Node]:
    """A picture's latent, with or without the mask that is painted on it."""
    nodes = {
        "image": Node("LoadImage", (0, 2), ["example.png", "image"]),
        "latent": Node("VAEEncode", (1, 2), [], {"pixels": "image.IMAGE", "vae": "checkpoint.VAE"}),
    }
    if masked:
        nodes["encoded"] = nodes.pop("latent")
        joined = {"samples": "encoded.LATENT", "mask": "image.MASK"}
        nodes["latent"] = Node("SetLatentNoiseMask", (2, 2), [], joined)
    return nodes


SDXL = "sd_xl_base_1.0.safetensors"
WORKFLOWS = {
    "zigzag_text_to_image": sampled(
        SDXL, {"latent": Node("EmptyLatentImage", (1, 2), [1024, 1024, 1])}, cfg=5.5, steps=50, sampler=Z2
    ),
    "zigzag_flow": sampled(
        "sd3_medium_incl_clips.safetensors", {"latent": Node("EmptySD3LatentImage", (1, 2), [1024, 1024, 1])},
        cfg=5.0, steps=28, sampler=Z_HALF, shift=3.0,
    ),
    "zigzag_inpainting": sampled(SDXL, of_image(masked=True), cfg=5.5, steps=30, sampler=Z_HALF),
    "zigzag_image_to_image": sampled(SDXL, of_image(masked=False), cfg=5.5, steps=30, sampler=Z2, denoise=0.6),
}  # fmt: skip


def saved(nodes: dict[str, Node]) -> dict[str, Any]:
    """A workflow as ComfyUI's page saves it."""
    numbers = {name: k for k, name in enumerate(nodes, 1)}
    links: list[list[Any]] = []
    for name, node in nodes.items():
        inputs = list(SLOTS[node.kind][0])
        for slot, source in node.joined.items():
            origin, output = source.split(".")
            outputs = SLOTS[nodes[origin].kind][1]
            place = list(outputs).index(output)
            links.append([len(links) + 1, numbers[origin], place, numbers[name], inputs.index(slot), outputs[output]])
    made = []
    for order, (name, node) in enumerate(nodes.items()):
        inputs_of, outputs_of = SLOTS[node.kind]
        into = {link[4]: link[0] for link in links if link[3] == numbers[name]}
        out = {k: [link[0] for link in links if link[1:3] == [numbers[name], k]] for k in range(len(outputs_of))}
        made.append(
            {
                "id": numbers[name], "type": node.kind, "pos": [60 + 380 * node.at[0], 80 + 340 * node.at[1]],
                "size": [330, 290 if node.kind in ("ZigzagSampler", "LoadImage") else 160], "flags": {}, "order": order,
                "mode": 0,
                "inputs": [{"name": n, "type": t, "link": into[k]} for k, (n, t) in enumerate(inputs_of.items())],
                "outputs": [
                    {"name": n, "type": t, "links": out[k], "slot_index": k}
                    for k, (n, t) in enumerate(outputs_of.items())
                ],
                "properties": {"Node name for S&R": node.kind}, "widgets_values": node.widgets,
            }
        )  # fmt: skip
    return {
        "last_node_id": len(nodes), "last_link_id": len(links), "nodes": made, "links": links, "groups": [],
        "config": {}, "extra": {}, "version": 0.4,
    }  # fmt: skip


def main() -> None:
    """Writes them."""
    for name, nodes in WORKFLOWS.items():
        (HOME / f"{name}.json").write_text(json.dumps(saved(nodes), indent=1) + "\n")


if __name__ == "__main__":
    main()
