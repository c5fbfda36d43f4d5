"""Inversions in files."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from support.inversions import DDIM5, OPTIONS, every, inverted_by
from support.predictors import field
from support.sampling import X
from zigzag import DDIM
from zigzag.inversion import (
    EDICT,
    OBELM,
    Recorded,
    Scheme,
    fresh,
    load,
    reconstruct,
    save,
)
from zigzag.solvers import Solver


@every
def test_a_file_holds_the_inversion(scheme: Scheme, solver: Solver, tmp_path: Path) -> None:
    inverted, path = inverted_by(scheme, solver, round_trip=True), tmp_path / "folder" / "cat.safetensors"
    save(inverted, path)
    assert [file.name for file in path.parent.iterdir()] == ["cat.safetensors"]
    loaded = load(path, solver=solver, shape=(2, 3))
    assert loaded.scheme == scheme and loaded.dtype == X.dtype and len(loaded.states) == len(inverted.states)
    assert str(loaded.report) == str(inverted.report)
    back = reconstruct(field, inverted, solver, guidance=2.0, **OPTIONS)
    torch.testing.assert_close(
        reconstruct(field, loaded, solver, guidance=2.0, **OPTIONS), back, rtol=0, atol=0
    )  # fmt: skip


def test_a_fresh_noise_can_be_stored(tmp_path: Path) -> None:
    begun = fresh(X, DDIM5, OBELM())
    save(begun, tmp_path / "noise.safetensors")
    loaded = load(tmp_path / "noise.safetensors")
    assert loaded.report is None and len(loaded.states) == 1 and torch.equal(loaded.noise, X)


def test_what_is_stored_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    inverted, path = inverted_by(EDICT(), DDIM5), tmp_path / "a.safetensors"
    save(inverted, path)
    before = path.read_bytes()
    broken = replace(inverted, states=(torch.empty(2, 3, device="meta"),))
    with pytest.raises((NotImplementedError, RuntimeError)):
        save(broken, path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    def written(change: Any) -> Path:
        path = tmp_path / "a.safetensors"
        save(inverted_by(Recorded(), DDIM5), path)
        with safe_open(path, framework="pt") as file:
            metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(metadata["inversion"])
        change(header, tensors)
        save_file(tensors, path, metadata={**metadata, "inversion": json.dumps(header)})
        return path

    with pytest.raises(FileNotFoundError, match=r"there is no file .*none"):
        load(tmp_path / "none")
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(ValueError, match="text is not a safetensors file"):
        load(tmp_path / "text")
    save_file({"weight": X}, tmp_path / "weights")
    with pytest.raises(ValueError, match=r"weights holds no inversion: its format is None, not 'zigzag\.inversion/1'"):
        load(tmp_path / "weights")
    for change, match in (
        (lambda h, t: h["scheme"].update(name="Other"), "a.safetensors: the scheme 'Other' is none of EDICT"),
        (lambda h, t: h["scheme"].update(trajectory="x"), "a.safetensors: trajectory must be 'naive' or 'independent'"),
        (lambda h, t: h["scheme"].update(zeta=1), "a.safetensors is damaged: TypeError"),
        (lambda h, t: t.pop("grid.steps"), "a.safetensors is damaged: KeyError: 'grid.steps'"),
        (lambda h, t: t.pop("state.0"), "a.safetensors: there must be one state or two alike, got"),
        (
            lambda h, t: t.update(residuals=t["residuals"][1:]),
            r"a.safetensors: residuals must have shape \(5, 2, 3\), one a step, got \(4, 2, 3\)",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            load(written(change))
    good = written(lambda h, t: None)
    with pytest.raises(ValueError, match=r"a.safetensors holds states of shape \(2, 3\), not \(1, 3\)"):
        load(good, shape=(1, 3))
    with pytest.raises(ValueError, match="the inversion was made on DDIM"):
        load(good, solver=DDIM.stable_diffusion(6))


def test_only_the_schemes_of_the_library_are_stored(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Own(EDICT):
        pass

    with pytest.raises(TypeError, match=r"a file can hold EDICT, FixedPoint, OBELM, Recorded, Rex, not .*Own\(p"):
        save(inverted_by(Own(), DDIM5), tmp_path / "a")
    with pytest.raises(TypeError, match="inverted must be what invert\\(\\) gave, got Tensor"):
        save(X, tmp_path / "a")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
