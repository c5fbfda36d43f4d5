"""How much of a gap a Shift applies: a number, or a rule that reads what is there already, per sample."""

from zigzag.strengths.base import Seen, Strength, StrengthRule
from zigzag.strengths.cosine import CosineStrength
from zigzag.strengths.norm import NormStrength
from zigzag.strengths.share import ShareStrength

__all__ = ["CosineStrength", "NormStrength", "Seen", "ShareStrength", "Strength", "StrengthRule"]
