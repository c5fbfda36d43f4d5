"""`cite` names what was used, and nothing without a source has one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import zigzag
from zigzag import guidance, inversion, methods, solvers
from zigzag.citations import entries, table
from zigzag.presets import rf_sampling

ROOT = Path(__file__).parents[1]
BIB = (ROOT / "zigzag/references.bib").read_text(encoding="utf-8")
PUBLIC = [
    getattr(module, name)
    for module in (methods, guidance, solvers, inversion)
    for name in module.__all__
    if isinstance(getattr(module, name), type)
]
SOURCED = [cls for cls in PUBLIC if re.search(r"Source: (?!this library)", cls.__doc__ or "")]


def keys(text: str) -> list[str]:
    return re.findall(r"^@\w+\{(.*),$", text, re.MULTILINE)


def test_what_was_used_is_cited_once_and_in_order() -> None:
    solver = solvers.DPMSolver.on(zigzag.FlowEuler.uniform(8))
    text = zigzag.cite(zigzag.Z2Sampling(warmup=2), solver, 5.5, zigzag.CFG(0.0), zigzag.ImplicitZ())
    assert keys(text) == ["zigzag2026", "li2026z2sampling", "lu2022dpmsolverpp", "ho2022cfg"]


def test_the_paper_of_z2_has_its_authors_and_number() -> None:
    entry = entries()["li2026z2sampling"]
    assert "2604.23536" in entry
    assert re.findall(r"(\w+), \w+(?: and|\})", entry) == ["Li", "Chen", "Liang", "Wang", "Yuan", "Yue"]


def test_a_rule_in_an_interval_and_a_plain_role_are_cited_too() -> None:
    rule = zigzag.Interval(zigzag.CFGPlusPlus(0.6), 1, 4)
    assert keys(zigzag.cite(rule))[1:] == ["kynkaanniemi2024interval", "chung2024cfgpp"]
    assert keys(zigzag.cite(zigzag.ZSampling(plain=True)))[1:] == ["bai2025zigzag", "bai2025w2sd"]
    merged = ["bai2025zigzag", "bai2025w2sd", "zhou2026rfsampling"]
    assert keys(zigzag.cite(rf_sampling(28)["method"]))[1:] == merged


def test_what_is_yours_is_named_and_what_you_derive_is_its_base() -> None:
    @dataclass(frozen=True)
    class Mine:
        def path(self, T: int) -> tuple[zigzag.Move, ...]:
            return zigzag.Standard().path(T)

    class Faster(zigzag.DDIM):
        pass

    text = zigzag.cite(Mine(), Faster([0.1, 1.0], [0.9, 0.0], [1]))
    assert keys(text)[1:] == ["song2020ddim"]
    assert "% Mine: no reference on record" in text


@pytest.mark.parametrize("cls", SOURCED, ids=lambda cls: cls.__name__)
def test_a_class_that_names_a_source_is_cited(cls: type) -> None:
    assert table()[cls], cls


def test_every_key_has_an_entry_and_every_entry_a_use() -> None:
    used = {key for found in table().values() for key in found} | {"zigzag2026", "bai2025w2sd", "zhou2026rfsampling"}
    assert used == set(entries()) == set(keys(BIB))
    assert len(keys(BIB)) == len(entries())


@pytest.mark.parametrize("key", entries())
def test_an_entry_is_whole(key: str) -> None:
    entry = entries()[key]
    assert entry.count("{") == entry.count("}")
    for field in ("title", "author", "year"):
        assert re.search(rf"^  {field}\s+= \{{.+\}},?$", entry, re.MULTILINE), field
