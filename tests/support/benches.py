"""What the tests of `zigzag bench` share: prompts, the command on a pipeline in a folder, what it measures on."""

from __future__ import annotations

from pathlib import Path

from zigzag.cli import main
from zigzag.evaluation.beds import PipelineBed, Shown
from zigzag.evaluation.prompts import Prompt

PROMPTS = 'Prompt,Category\na dog,animals\n"a cat, on a hat",animals\na red cube,things\n'
TEXTS = ["a dog", "a cat, on a hat", "a red cube"]
T, STRONG = 3, 4.0


def bench(model: Path, out: Path, *more: str, size: int = 16, scored: str = "support.scores:Red") -> int:
    """The command on a pipeline in a folder."""
    (out.parent / "prompts.csv").write_text(PROMPTS, encoding="utf-8")
    words = ["bench", "--model", str(model), "--prompts", str(out.parent / "prompts.csv"), "--steps", str(T)]
    words += ["--strong", str(STRONG), "--image-size", str(size), "--device", "cpu", "--dtype", "float32"]
    words += ["--methods", "implicit", "--scores", scored, "--out", str(out)]
    return main([*words, *more])


def shown(model: Path, size: int = 16) -> Shown:
    """Which pipeline."""
    return Shown(str(model), size, "float32", "keep", "cpu")


def bed(model: Path, out: Path, *, batch: int = 1, texts: list[str] = TEXTS, size: int = 16) -> PipelineBed:
    """What the command measures on."""
    return PipelineBed(shown(model, size), [Prompt(text) for text in texts], [0], out, (), batch)
