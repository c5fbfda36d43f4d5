"""Predictors in the box."""

from zigzag.zoo.digits import Digits
from zigzag.zoo.learned import LearnedModel, load
from zigzag.zoo.mixture import GaussianMixture

__all__ = ["Digits", "GaussianMixture", "LearnedModel", "load"]
