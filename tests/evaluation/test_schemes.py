"""Inversion schemes as words."""

from __future__ import annotations

import pytest

from zigzag.evaluation.schemes import SCHEMES, parse_scheme
from zigzag.inversion import EDICT, OBELM, FixedPoint, Recorded, Rex, Scheme


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("edit-friendly", Recorded("independent")),
        ("direct", Recorded("naive")),
        ("edict", EDICT()),
        ("edict:p=0.9", EDICT(0.9)),
        ("obelm", OBELM()),
        ("rex:zeta=0.99", Rex(0.99)),
        ("fixed-point:tol=1e-6,most=9,anderson=0", FixedPoint(1e-6, 9, 0)),
    ],
)
def test_a_scheme_is_a_word_with_options(text: str, scheme: Scheme) -> None:
    assert parse_scheme(text) == scheme


def test_every_name_makes_another_scheme() -> None:
    made = [parse_scheme(name) for name in SCHEMES]
    assert all(isinstance(scheme, Scheme) for scheme in made)
    assert len(set(made)) == len(SCHEMES)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ddim", r"scheme must be one of direct, edit-friendly, edict, obelm, rex, fixed-point, got 'ddim'"),
        ("edict:q=1", "edict has no option 'q'; it has: p"),
        ("obelm:p=1", "obelm has no option 'p'; it has: none"),
        ("direct:trajectory=independent", "direct has no option 'trajectory'; it has: none"),
        ("edict:p=most", "edict: p must be a number, got 'most'"),
        ("fixed-point:most=1.5", "fixed-point: most must be an integer, got '1.5'"),
        ("edict:p=2", r"p must lie in \(0, 1\], got 2.0"),
    ],
)
def test_what_is_no_scheme_is_said(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_scheme(text)
