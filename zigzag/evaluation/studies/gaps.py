"""What the studies of the gap sample: how much of it a Shift applies, against which weak scale and which network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from zigzag.evaluation.compare import Line
from zigzag.evaluation.named import label
from zigzag.evaluation.samplers import Sampler, baselines
from zigzag.evaluation.solvers import solver_label
from zigzag.evaluation.studies.study import STEPS, STRONG, Study
from zigzag.guidance import CFG, Guidance, Polaris
from zigzag.methods import ImplicitZ, Method, Standard, Z2Sampling, ZSampling
from zigzag.presets import w2sd
from zigzag.sampling import Predictor
from zigzag.solvers import StepInfo
from zigzag.strengths import CosineStrength, NormStrength, ShareStrength
from zigzag.zoo.learned import MODELS, LearnedModel, recorded

__all__ = ["WithLora", "lora_roles", "partial", "strengths", "weak_scales"]

WARMUP = 2
_EXPLICIT_AND_Z2: tuple[Method, ...] = (ZSampling(), Z2Sampling(warmup=WARMUP))


def strengths(strong: float = STRONG, steps: int = STEPS) -> Study:
    """Z² and Implicit Z by number and by rule; against standard sampling, their full strength, plain CFG at the matched
    scale, where a number has one, and plain CFG with as many rows.

    Under Z² the cosine has no warm-up but its own, and is held against full strength without one too.
    """
    first = Sampler(Standard(), steps, strong)
    z2, implicit, unwarmed = Z2Sampling(warmup=WARMUP), ImplicitZ(), Z2Sampling(warmup=0)
    methods: dict[Method, list[Method]] = {
        z2: [replace(z2, strength=by) for by in (0.3, -0.3, ShareStrength(0.1), ShareStrength(0.03), NormStrength())],
        implicit: [
            replace(implicit, strength=by) for by in (0.3, -0.3, ShareStrength(0.03), NormStrength(), CosineStrength())
        ],
    }
    every = [Line("Standard", first)]
    for whole, its in methods.items():
        full = replace(first, method=whole)
        every += _beside(full, (first,))
        for method in its:
            every += _beside(replace(first, method=method), (first, full))
        if whole == z2:
            early = replace(first, method=unwarmed)
            every += _beside(early, (first, full))
            every += _beside(replace(first, method=replace(unwarmed, strength=CosineStrength())), (first, full, early))
    return Study("The strength of a shift", "Z², Appendices E and I", "", [], _each_once(every))


def partial(strong: float = STRONG, steps: int = STEPS) -> Study:
    """Z-Sampling, of which all or a part is kept; against standard sampling, and the whole."""
    first, whole = (Sampler(method, steps, strong) for method in (Standard(), ZSampling()))
    part = replace(whole, method=ZSampling(strength=0.3))
    every = [Line("Standard", first), *_beside(whole, (first,)), *_beside(part, (first, whole))]
    return Study("A part of a zigzag", "Z-Sampling, Algorithm 1; W2SD", "", [], _each_once(every))


def _beside(sampler: Sampler, rivals: tuple[Sampler, ...]) -> list[Line]:
    """A line and its baselines, as in `zigzag.evaluation.compare.lines`; with as many rows is one for all."""
    name, others = label(sampler.method), baselines(sampler)
    found = [Line(name, sampler, (*rivals, *others.values()))]
    if (matched := others.get("matched scale")) is not None:
        found.append(Line(f"  CFG at the matched scale of {name}", matched, rivals[:1]))
    if (longer := others.get("same rows")) is not None:
        found.append(Line(f"CFG, {longer.steps} steps", longer, rivals[:1]))
    return found


def _each_once(every: Sequence[Line]) -> list[Line]:
    return list({line.sampler: line for line in reversed(every)}.values())[::-1]


def _falling(step: StepInfo) -> float:
    """The noise's share of the state: from about 1 at the beginning to 0 at the end."""
    return step.sigma_i / math.hypot(step.alpha_i, step.sigma_i)


def _rising(step: StepInfo) -> float:
    return 1 - _falling(step)


def weak_scales(
    strong: float = STRONG,
    steps: int = STEPS,
    methods: Sequence[Method] = _EXPLICIT_AND_Z2,
    solvers: Sequence[str] = ("ddim", "sde-2m"),
    title: str = "The weak scale",
) -> Study:
    """The weak scale of some methods by number and by rule, on some solvers; against 0, and as many rows."""
    rules: dict[str, float | Guidance] = {
        "0": 0.0, "1": 1.0, "2": 2.0, "falling": CFG(_falling), "rising": CFG(_rising), "POLARIS": Polaris(),
    }  # fmt: skip
    every: list[Line] = []
    for solver in solvers:
        first = Sampler(Standard(), steps, strong, solver=solver)
        every.append(Line(f"{solver_label(solver)}: Standard", first))
        longer: dict[str, Sampler] = {}
        for method in methods:
            zero = replace(first, method=method)
            for name, weak in rules.items():
                sampler = replace(zero, weak=weak)
                same = baselines(replace(sampler, weak=2.0 if isinstance(weak, Guidance) else weak)).get("same rows")
                if same is not None:
                    same = longer.setdefault(
                        f"{solver_label(solver)}: CFG, {same.steps} steps", replace(same, weak=0.0)
                    )
                rivals = [rival for rival in (first, zero, same) if rival is not None and rival != sampler]
                every.append(Line(f"{solver_label(solver)}: {label(method)}, w = {name}", sampler, tuple(rivals)))
        every += [Line(name, sampler, (first,)) for name, sampler in longer.items()]
    return Study(title, "Z-Sampling, open question 2", "", [], every)


def _loras() -> tuple[str, ...]:
    return tuple(recorded()[name]["lora"]["sha256"] for name in MODELS)


@dataclass(frozen=True)
class WithLora:
    """The predictor of a model with the LoRA in the package, at a strength.

    Attributes:
        files: the SHA-256 of the LoRAs: verdicts are kept by what decides them.
    """

    strength: float
    files: tuple[str, ...] = field(default_factory=_loras, repr=False)

    def __call__(self, model: LearnedModel) -> Predictor:
        """`eps_fn` of the changed model."""
        return model.with_lora(self.strength).eps_fn


def lora_roles(strong: float = STRONG, steps: int = STEPS) -> Study:
    """W2SD: strong, weak and plain networks are one LoRA at 1.5, −1.5 and 0.8, at the scales `strong`, 1 and `strong`.

    Beside it the plain network alone, with as many steps and with as many rows, and zigzags within that network.
    """
    first = Sampler(Standard(), steps, strong)
    plain, most = (replace(first, strong_fn=WithLora(strength)) for strength in (0.8, 1.5))
    preset = w2sd()
    method, weak = preset["method"], preset["weak"]
    zigzag = replace(plain, method=method, weak=weak)
    roles = replace(zigzag, strong_fn=WithLora(1.5), weak_fn=WithLora(-1.5), plain_fn=WithLora(0.8))
    longer = replace(baselines(zigzag)["same rows"], weak=0.0)
    every = [
        Line("Standard", first),
        Line("LoRA 0.8: Standard", plain, (first,)),
        Line("LoRA 1.5: Standard", most, (first, plain)),
        Line(f"LoRA 0.8: CFG, {longer.steps} steps", longer, (first, plain)),
        Line("LoRA 0.8: zigzags with a plain step", zigzag, (first, plain, longer)),
        Line("LoRA 1.5, −1.5, 0.8: W2SD", roles, (first, plain, zigzag, longer)),
    ]
    return Study("Strong, weak and plain networks", "W2SD, 2502.00473", "", [], every)
