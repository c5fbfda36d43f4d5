"""Guidance rules: one prediction of a conditional and an unconditional one."""

from zigzag.guidance.apg import APG
from zigzag.guidance.base import Guidance, LinearGuidance, State
from zigzag.guidance.cfg import CFG
from zigzag.guidance.cfgpp import CFGPlusPlus
from zigzag.guidance.cfgzero import CFGZeroStar
from zigzag.guidance.interval import Interval
from zigzag.guidance.polaris import Polaris
from zigzag.guidance.rescaled import RescaledCFG

__all__ = [
    "APG",
    "CFG",
    "CFGPlusPlus",
    "CFGZeroStar",
    "Guidance",
    "Interval",
    "LinearGuidance",
    "Polaris",
    "RescaledCFG",
    "State",
]
