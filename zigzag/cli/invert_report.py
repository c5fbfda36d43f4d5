"""What `zigzag invert` says and writes, whatever the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from zigzag.evaluation.edits import kept
from zigzag.evaluation.schemes import parse_scheme
from zigzag.guidance.base import finite
from zigzag.inversion import Inverted, save
from zigzag.support.commands import one_line
from zigzag.support.files import replacing, write_json
from zigzag.support.machine import versions

__all__ = ["check_inverting", "open_image", "pictures", "report_of", "warned", "write"]

Judge = Callable[[str, Tensor], "bool | None"]


def check_inverting(settings: Any) -> None:
    """Says whether scales, steps, prompts and scheme can be.

    Raises:
        ValueError, TypeError: if they cannot.
    """
    for name in ("strong", "edit_strong"):
        if getattr(settings, name) is not None:
            finite(name.replace("_", "-"), getattr(settings, name))
    if settings.steps < 1:
        raise ValueError(f"steps must be at least 1, got {settings.steps}")
    if not all(text.strip() for text in (settings.prompt, *settings.edit)):
        raise ValueError("prompt and edit must not be empty")
    parse_scheme(settings.scheme)


@contextmanager
def warned() -> Iterator[list[str]]:
    """What is warned of in the block, in place of being printed."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield texts
    texts += [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]


def open_image(path: Path, pil: Any) -> Any:
    """The PIL image of a file, in RGB.

    Raises:
        ValueError: for what is no image. OSError: for a file that is not there, or may not be read.
    """
    try:
        with pil.open(path) as file:
            return file.convert("RGB")
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # what a damaged file raises is of many kinds
        raise ValueError(f"image {path} cannot be read: {one_line(error)}") from error


def report_of(
    settings: Any,
    inverted: Inverted,
    original: Tensor | None,
    back: Tensor,
    edits: Sequence[Tensor],
    warnings: Sequence[str],
    judge: Judge,
) -> dict[str, Any]:
    """The report, of images `(1, 3, H, W)` in [0, 1] on the host; without an original the edits are held to `back`."""
    how, before = inverted.report, back if original is None else original
    assert how is not None
    return {
        **{name: str(value) if isinstance(value, Path) else value for name, value in asdict(settings).items()},
        "scheme": repr(inverted.scheme),
        "rows of the inversion": how.rows,
        "deviation of the noise": float(how.deviation[0]),
        "growth of rounding": how.growth,
        "residual": None if how.residual is None else float(how.residual.max()),
        "converged": None if how.converged is None else bool(how.converged[0]),
        "original": None if original is None else {"right": judge(settings.prompt, original)},
        "reconstruction": {
            "right": judge(settings.prompt, back),
            "off by at most": None if original is None else float((back - original).abs().max()),
        },
        "edits": [
            {"prompt": text, "right": judge(text, image), "kept": kept(before, image)}
            for text, image in zip(settings.edit, edits, strict=True)
        ],
        "warnings": list(warnings),
        "versions": f"{versions()}, diffusers {version('diffusers')}",
    }


def pictures(original: Any, back: Any, edits: Sequence[Any]) -> dict[str, Any]:
    """Images by the names of their files; `original` may be None."""
    named = {} if original is None else {"original": original}
    numbered = {"edit" if len(edits) == 1 else f"edit-{k}": image for k, image in enumerate(edits, 1)}
    return {**named, "reconstruction": back, **numbered}


def write(
    out: Path, images: Mapping[str, Any], inverted: Inverted, report: Mapping[str, Any], say: Callable[[str], None]
) -> None:
    """Writes PIL images, the inversion and the report, each all at once, and says the report.

    Raises:
        OSError: for a folder that cannot be written.
        KeyboardInterrupt: when interrupted, saying what is there.
    """
    try:
        for name, image in images.items():
            with replacing(out / f"{name}.png") as temporary:
                image.save(temporary, format="PNG")
        save(inverted, out / "inversion.safetensors")
        write_json(out / "report.json", report)
        with replacing(out / "report.txt") as temporary:
            temporary.write_text(_text(report), encoding="utf-8")
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"what {out} held before is as it was, or new, file by file") from None
    say(_text(report).rstrip())
    say(f"wrote {', '.join(f'{name}.png' for name in images)}, inversion.safetensors and report to {out}")


_MARKS = {None: "", True: "  ✓ as the prompt says", False: "  ✗ not what the prompt says"}


def _text(report: Mapping[str, Any]) -> str:
    """The report in lines."""
    growth, residual, noise = (report[key] for key in ("growth of rounding", "residual", "deviation of the noise"))
    how = [f"{report['rows of the inversion']} rows up", f"deviation of the noise {noise:.3f}"]
    how += [] if growth is None else [f"growth of rounding {growth:.3g}"]
    how += [] if residual is None else [f"residual {residual:.2g}"]
    what = f"{report['model']}, {report['steps']} steps, w = {report['strong']:g}"
    lines = [f"{what}: {report['scheme']}; {'; '.join(how)}"]
    if report["original"] is not None:
        lines.append(f"original        {report['prompt']}{_MARKS[report['original']['right']]}")
    off = report["reconstruction"]["off by at most"]
    said = "" if off is None else f"  (off by {off:.1e} at most)"
    lines.append(f"reconstruction  {report['prompt']}{_MARKS[report['reconstruction']['right']]}{said}")
    for edited in report["edits"]:
        lines.append(
            f"edit            {edited['prompt']}{_MARKS[edited['right']]}  ({edited['kept']:.1%} of pixels kept)"
        )
    lines += [f"warning: {text}" for text in report["warnings"]]
    return "\n".join(lines) + "\n"
