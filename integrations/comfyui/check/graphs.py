"""Prompts for ComfyUI, as its server takes them."""

from __future__ import annotations

from typing import Any

from server import Server

__all__ = ["chain", "flipped", "plain", "widgets_of", "workflow"]

STEPS, CFG = 6, 4.0
Prompt = dict[str, Any]


def node(kind: str, /, **inputs: Any) -> Prompt:
    """A node, by its class and inputs; a link is `[node, output]`."""
    return {"class_type": kind, "inputs": inputs}


def begun(kind: str, steps: int = STEPS, batch: int = 2) -> Prompt:
    """Model, conditionings, latent and sigmas."""
    return {
        "model": node("TinyCheckpoint", kind=kind),
        "positive": node("CLIPTextEncode", clip=["model", 1], text="a red circle"),
        "negative": node("CLIPTextEncode", clip=["model", 1], text=""),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=batch),
        "sigmas": node("BasicScheduler", model=["model", 0], scheduler="normal", steps=steps, denoise=1.0),
    }


def custom(sampler: str, sigmas: str, seed: int, model: str = "model") -> Prompt:
    """SamplerCustom on those."""
    links = {name: [name, 0] for name in ("positive", "negative")}
    return node(
        "SamplerCustom", model=[model, 0], add_noise=True, noise_seed=seed, cfg=CFG, **links, sampler=[sampler, 0],
        sigmas=[sigmas, 0], latent_image=["latent", 0],
    )  # fmt: skip


def reference(seed: int, compare: bool = True) -> Prompt:
    """The check of what the node "run" made."""
    links = {name: [name, 0] for name in ("model", "positive", "negative", "sampler", "sigmas")}
    return node(
        "TinyReference", **links, latent_image=["latent", 0], result=["run", 0], seed=seed, cfg=CFG, compare=compare
    )


def chain(
    kind: str, widgets: Prompt, seed: int, *, steps: int = STEPS, negative: bool = True, patch: str | None = None
) -> Prompt:
    """A sampler, its run, its report, and the check.

    Args:
        negative: else a guider without one. patch: a node that changes the model; then rows are checked only.
    """
    prompt = begun(kind, steps) | {
        "sampler": node("ZigzagSampler", **widgets),
        "run": custom("sampler", "sigmas", seed),
    }
    if patch:
        prompt["patched"] = node(patch, model=["model", 0], scale=3.0)
        prompt["run"] = custom("sampler", "sigmas", seed, "patched")
    if not negative:
        prompt["guider"] = node("BasicGuider", model=["model", 0], conditioning=["positive", 0])
        prompt["noise"] = node("RandomNoise", noise_seed=seed)
        links = {name: [name, 0] for name in ("noise", "guider", "sampler", "sigmas")}
        prompt["run"] = node("SamplerCustomAdvanced", **links, latent_image=["latent", 0])
    prompt["report"] = node("ZigzagReport", sampler=["sampler", 0], latent=["run", 0])
    prompt["check"] = reference(seed, compare=not patch)
    return prompt


def plain(kind: str, widgets: Prompt, name: str) -> Prompt:
    """A sampler of the node against one of ComfyUI's list, by KSampler."""
    prompt = begun(kind) | {"sampler": node("ZigzagSampler", **widgets), "run": custom("sampler", "sigmas", 3)}
    links = {name: [name, 0] for name in ("positive", "negative", "model")}
    prompt["other"] = node(
        "KSampler", **links, seed=3, steps=STEPS, cfg=CFG, sampler_name=name, scheduler="normal",
        latent_image=["latent", 0], denoise=1.0,
    )  # fmt: skip
    return prompt | {"check": node("TinyEqual", one=["run", 0], other=["other", 0])}


def flipped(kind: str, widgets: Prompt, name: str) -> Prompt:
    """The same from data to noise, on sigmas between: a flow's ends cannot be turned (`latent/(1 − σ)`)."""
    prompt = begun(kind) | {"sampler": node("ZigzagSampler", **widgets)}
    prompt["high"] = node("SplitSigmas", sigmas=["sigmas", 0], step=STEPS - 1)
    prompt["between"] = node("SplitSigmas", sigmas=["high", 0], step=1)
    prompt["up"] = node("FlipSigmas", sigmas=["between", 1])
    prompt["own"] = node("KSamplerSelect", sampler_name=name)
    prompt |= {"run": custom("sampler", "up", 3), "other": custom("own", "up", 3)}
    return prompt | {"check": node("TinyEqual", one=["run", 0], other=["other", 0])}


def inputs_of(server: Server, kind: str) -> Prompt:
    """The inputs of a node by name, as the server describes them."""
    described = server.ask(f"/object_info/{kind}")[kind]["input"]
    inputs: Prompt = described.get("required", {}) | described.get("optional", {})
    return inputs


def is_widget(described: Any) -> bool:
    """Whether an input is set on the node, rather than linked."""
    return isinstance(described[0], list) or described[0] in ("INT", "FLOAT", "BOOLEAN", "STRING", "COMBO")


def widgets_of(server: Server, kind: str) -> Prompt:
    """The widgets of a node, as they are when it is put down."""
    found = {name: d for name, d in inputs_of(server, kind).items() if is_widget(d)}
    return {name: d[0][0] if isinstance(d[0], list) else d[1]["default"] for name, d in found.items()}


def workflow(server: Server, saved: Prompt, kind: str) -> Prompt:
    """A workflow as ComfyUI's page saves it, on a tiny network of a kind, at a tiny size, with the check behind it."""
    ends = {link[0]: [str(link[1]), link[2]] for link in saved["links"]}
    prompt: Prompt = {}
    for each in saved["nodes"]:
        if each["type"] in ("Note", "MarkdownNote"):
            continue
        values, inputs = list(each.get("widgets_values", ())), {}
        for name, described in inputs_of(server, each["type"]).items():
            if is_widget(described):
                inputs[name] = values.pop(0)
                extra = described[1] if len(described) > 1 else {}
                if extra.get("control_after_generate") or extra.get("image_upload"):
                    values.pop(0)
        if values:
            raise ValueError(f"node {each['id']} ({each['type']}) has widgets left over: {values}")
        inputs |= {i["name"]: ends[i["link"]] for i in each.get("inputs", ()) if i.get("link") is not None}
        prompt[str(each["id"])] = node(each["type"], **inputs)
    tiny(prompt, kind)
    (run,) = [each for each in prompt.values() if each["class_type"] == "SamplerCustom"]
    given = run["inputs"]
    names = ("positive", "negative", "sampler", "sigmas", "latent_image")
    (at,) = [k for k, each in prompt.items() if each is run]
    prompt["check"] = node(
        "TinyReference", model=given["model"], **{name: given[name] for name in names},
        result=[at, 0], seed=given["noise_seed"], cfg=given["cfg"], compare=True,
    )  # fmt: skip
    return prompt


def tiny(prompt: Prompt, kind: str) -> None:
    """Puts the tiny network in the place of the checkpoint, and makes sizes and steps small."""
    for each in prompt.values():
        inputs = each["inputs"]
        if each["class_type"] == "CheckpointLoaderSimple":
            each |= node("TinyCheckpoint", kind=kind)
        if "width" in inputs:
            inputs |= {"width": 64, "height": 64}
        if each["class_type"] == "EmptySD3LatentImage":
            each["class_type"] = "EmptyLatentImage"  # of 4 channels, as the tiny network has
        if each["class_type"] == "LoadImage":
            inputs["image"] = "example.png"
