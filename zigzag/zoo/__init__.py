"""Predictors in the box."""

from zigzag.zoo.digits import Digits
from zigzag.zoo.mixture import GaussianMixture

__all__ = ["Digits", "GaussianMixture"]
