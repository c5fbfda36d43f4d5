"""Exact inversion under a model: data in, noise out, and the same data back.

from zigzag.inversion import EDICT, invert, reconstruct
inverted = invert(eps_fn, x0, solver, EDICT(), cond=cat, uncond=null, guidance=3.0)
edit = reconstruct(eps_fn, inverted, solver, cond=dog, uncond=null, guidance=3.0)
"""

from zigzag.inversion.edict import EDICT
from zigzag.inversion.endings import ending_above, telling_last
from zigzag.inversion.fixed_point import FixedPoint
from zigzag.inversion.inverted import Inverted, Report
from zigzag.inversion.inverting import fresh, invert, reconstruct
from zigzag.inversion.obelm import OBELM
from zigzag.inversion.recorded import Recorded
from zigzag.inversion.reversible import reversible
from zigzag.inversion.rex import Rex
from zigzag.inversion.scheme import Reversible, Scheme
from zigzag.inversion.storing import load, save

__all__ = [
    "EDICT",
    "OBELM",
    "FixedPoint",
    "Inverted",
    "Recorded",
    "Report",
    "Reversible",
    "Rex",
    "Scheme",
    "ending_above",
    "fresh",
    "invert",
    "load",
    "reconstruct",
    "reversible",
    "save",
    "telling_last",
]
