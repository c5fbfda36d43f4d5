"""Inversions as files: safetensors, with the scheme and the grid in the header."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zigzag.inversion.edict import EDICT
from zigzag.inversion.fixed_point import FixedPoint
from zigzag.inversion.inverted import GridMark, Inverted, Report
from zigzag.inversion.obelm import OBELM
from zigzag.inversion.recorded import Recorded
from zigzag.inversion.rex import Rex
from zigzag.inversion.scheme import Scheme
from zigzag.solvers import Solver
from zigzag.support.extras import require
from zigzag.support.files import replacing

__all__ = ["load", "save"]

FORMAT = "zigzag.inversion/1"
SCHEMES = {scheme.__name__: scheme for scheme in (EDICT, FixedPoint, OBELM, Recorded, Rex)}
GRID = ("alphas", "sigmas", "times", "steps")
HELD = ("residuals", "noises")
FIGURES = ("deviation", "residual", "contraction", "converged", "round_trip")


def save(inverted: Inverted, path: str | Path) -> None:
    """Writes an inversion to a file, all at once or not at all.

    Raises:
        TypeError: for what is no `Inverted`, and a scheme of one's own. ImportError: without safetensors.
        OSError: where it cannot be written.
    """
    if not isinstance(inverted, Inverted):
        raise TypeError(f"inverted must be what invert() gave, got {type(inverted).__name__}")
    scheme, grid, report = inverted.scheme, inverted.grid, inverted.report
    if type(scheme) not in SCHEMES.values():
        raise TypeError(f"a file can hold {', '.join(SCHEMES)}, not {scheme!r}")
    tensors = {f"state.{k}": state for k, state in enumerate(inverted.states)}
    tensors |= {f"grid.{name}": getattr(grid, name) for name in GRID}
    tensors |= {name: value for name in HELD if (value := getattr(inverted, name)) is not None}
    tensors |= {f"report.{name}": value for name in FIGURES if (value := getattr(report, name, None)) is not None}
    header = {
        "scheme": {"name": type(scheme).__name__, **asdict(scheme)},  # type: ignore[call-overload]
        "solver": grid.name,
        "prediction": grid.prediction,
        "dtype": str(inverted.dtype).removeprefix("torch."),
        "report": None if report is None else {"rows": report.rows, "growth": report.growth},
    }
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    files = require("safetensors.torch", "saving an inversion needs safetensors", "shapes")
    with replacing(Path(path)) as temporary:
        files.save_file(plain, str(temporary), metadata={"format": FORMAT, "inversion": json.dumps(header)})


def load(
    path: str | Path,
    *,
    solver: Solver | None = None,
    shape: tuple[int, ...] | None = None,
    device: torch.device | str = "cpu",
) -> Inverted:
    """What `save` wrote.

    Args:
        path: of the file. solver: held against the grid that the inversion was made on, if given.
        shape: `(B, …)` that the states must have, if given. device: where its tensors go.

    Raises:
        ValueError: for a file of something else, or that does not hang together, naming it and what is wrong; and where
            the solver or the shape is another. OSError: where it cannot be read. ImportError: without safetensors.
    """
    files = require("safetensors", "loading an inversion needs safetensors", "shapes")
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with files.safe_open(str(path), framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except files.SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from None
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} holds no inversion: its format is {metadata.get('format')!r}, not {FORMAT!r}")
    try:
        inverted = _read(json.loads(metadata["inversion"]), tensors)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if shape is not None and inverted.noise.shape != tuple(shape):
        raise ValueError(f"{path} holds states of shape {tuple(inverted.noise.shape)}, not {tuple(shape)}")
    if solver is not None:
        inverted.grid.check(solver)
    return inverted


def _read(header: dict[str, Any], tensors: dict[str, Tensor]) -> Inverted:
    settings = dict(header["scheme"])
    name = settings.pop("name")
    if name not in SCHEMES:
        raise ValueError(f"the scheme {name!r} is none of {', '.join(SCHEMES)}")
    scheme: Scheme = SCHEMES[name](**settings)
    states = tuple(tensors[f"state.{k}"] for k in range(2) if f"state.{k}" in tensors)
    grid = GridMark(header["solver"], header["prediction"], *(tensors[f"grid.{name}"].cpu() for name in GRID))
    held = {name: tensors.get(name) for name in HELD}
    report = None
    if header["report"] is not None:
        figures: dict[str, Any] = {name: tensors.get(f"report.{name}") for name in FIGURES}
        report = Report(**header["report"], **figures)
    dtype = getattr(torch, header["dtype"])
    _check_shapes(states, held, len(grid.times))
    return Inverted(scheme, grid, states, dtype, report=report, **held)


def _check_shapes(states: tuple[Tensor, ...], held: dict[str, Tensor | None], T: int) -> None:
    if not states or any(state.shape != states[0].shape for state in states):
        raise ValueError(f"there must be one state or two alike, got {[tuple(state.shape) for state in states]}")
    for name, value in held.items():
        if value is not None and value.shape != (T, *states[0].shape):
            wanted = (T, *states[0].shape)
            raise ValueError(f"{name} must have shape {wanted}, one a step, got {tuple(value.shape)}")
