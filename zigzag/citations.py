"""Whom to cite for what was used: the BibTeX of methods, solvers, guidance rules and inversion schemes."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from numbers import Real

from zigzag import guidance, methods, solvers

__all__ = ["cite"]

LIBRARY = "zigzag2026"
Table = dict[type, tuple[str, ...]]


@cache
def table() -> Table:
    """The keys in `references.bib` by class; a class that is not here is its base's, and what is nobody's has none."""
    from zigzag import inversion  # here, because importing zigzag does not need it

    return {
        methods.Standard: (),
        methods.Resampling: ("lugmayr2022repaint",),
        methods.EndToEnd: ("bai2025zigzag",),
        methods.ZSampling: ("bai2025zigzag",),
        methods.ImplicitZ: ("li2026z2sampling",),
        methods.Z2Sampling: ("li2026z2sampling",),
        guidance.CFG: ("ho2022cfg",),
        guidance.CFGPlusPlus: ("chung2024cfgpp",),
        guidance.RescaledCFG: ("lin2023flawed",),
        guidance.Interval: ("kynkaanniemi2024interval",),
        guidance.APG: ("sadat2024apg",),
        guidance.CFGZeroStar: ("fan2025cfgzero",),
        guidance.Polaris: ("chen2025polaris",),
        solvers.DDIM: ("song2020ddim",),
        solvers.DDPM: ("ho2020ddpm",),
        solvers.Ancestral: ("song2020ddim", "ho2020ddpm"),
        solvers.FlowEuler: ("lipman2022flow", "esser2024sd3"),
        solvers.FlowAncestral: ("lipman2022flow",),
        solvers.Spherical: ("salimans2022progressive",),
        solvers.DPMSolver: ("lu2022dpmsolverpp",),
        solvers.AdamsBashforth: ("zhang2022deis", "liu2022pndm"),
        solvers.LCM: ("luo2023lcm",),
        solvers.TCD: ("zheng2024tcd",),
        solvers.Heun: ("karras2022edm",),
        solvers.DPM2: ("lu2022dpmsolver", "karras2022edm"),
        inversion.FixedPoint: ("pan2023aidi",),
        inversion.EDICT: ("wallace2022edict",),
        inversion.OBELM: ("wang2024belm",),
        inversion.Rex: ("blasingame2025rex",),
        inversion.Recorded: ("ju2023direct", "huberman2023editfriendly"),
    }


@cache
def entries() -> dict[str, str]:
    """The entries of `references.bib` by key."""
    text = files("zigzag").joinpath("references.bib").read_text(encoding="utf-8")
    found = re.findall(r"^(@\w+\{(.*?),\n.*?^\})$", text, re.MULTILINE | re.DOTALL)
    return {key: entry for entry, key in found}


def cite(*used: object) -> str:
    """The BibTeX of this library and of what was used with it, for `print` or a file.

        print(zigzag.cite(Z2Sampling(warmup=5), DPMSolver.on(solver, order=2), 5.5))

    Args:
        used: methods, solvers, guidance rules or scales (a number is `CFG`), and inversion schemes, in any order.

    Returns:
        The entries, each once, in the order given; what none is on record for (a method of yours, a path) is named in
        a comment.
    """
    keys, unknown = [LIBRARY], []
    for thing in used:
        found = keys_of(thing)
        if found is None:
            unknown.append(f"% {type(thing).__name__}: no reference on record")
        keys += found or ()
    return "\n\n".join([*(entries()[key] for key in dict.fromkeys(keys)), *dict.fromkeys(unknown)])


def keys_of(thing: object) -> tuple[str, ...] | None:
    """The keys of one thing, and of the rule within it; None where there is nothing on record."""
    if isinstance(thing, Real):
        return table()[guidance.CFG]
    known = (table()[cls] for cls in type(thing).__mro__ if cls in table())
    keys = next(known, None)
    if isinstance(thing, guidance.Interval):
        return (*(keys or ()), *(keys_of(thing.guidance) or ()))
    if isinstance(thing, methods.ZSampling) and thing.plain:
        merged = () if thing.strength == 1 else ("zhou2026rfsampling",)  # of which a part is kept
        return (*(keys or ()), "bai2025w2sd", *merged)
    return keys
