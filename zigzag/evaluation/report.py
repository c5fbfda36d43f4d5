"""A comparison of samplers from the first model call to the table on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from zigzag.evaluation.compare import Line, Results, duels, errors, figures, table
from zigzag.evaluation.evaluation import Evaluation, Trial
from zigzag.evaluation.samplers import Sampler
from zigzag.support.files import replacing, write_json
from zigzag.support.machine import machine, versions

__all__ = ["report", "samplers_of"]


def samplers_of(lines: Sequence[Line]) -> list[Sampler]:
    """The samplers of lines, each once."""
    return list(dict.fromkeys(line.sampler for line in lines))


def report(
    evaluation: Evaluation,
    stem: str,
    title: str,
    lines: Sequence[Line],
    trials: Sequence[Trial],
    terms: bool = False,
    progress: bool = False,
    engine: str | None = None,
) -> tuple[str, Results]:
    """Samples what is not on record, and writes `stem.txt` and `stem.json` into the evaluation's folder.

    Args:
        terms: with a table of δ, τ₁ and τ₂. engine: as in `Evaluation.run`.

    Returns:
        The text, and the results it is made of.

    Raises:
        ValueError, ImportError, OSError, Failed: as `Evaluation.run`; where the folder cannot be written.
    """
    results = evaluation.run(samplers_of(lines), trials, progress, engine)
    seconds = sum(result.seconds * len(result.verdicts) for result in results.values())
    clock = "processor time" if evaluation.model.device.type == "cpu" else "wall-clock time"
    note = (
        f"{evaluation.model.name}, {sum(trial.prompts for trial in trials)} prompts a line, "
        f"seed {', '.join(str(trial.seed) for trial in trials)}, "
        f"{'bfloat16 products' if trials[0].amp else 'float32'}; ms of {clock} a sample; differences in points "
        f"with 95 % intervals; {seconds:.0f} s of sampling in all.\n{machine()}; {versions(['diffusers'])}"
    )
    parts = [title, table(lines, results), errors(lines, results) if terms else "", duels(lines, results), note]
    text = "\n\n".join(part for part in parts if part)
    with replacing(evaluation.folder / f"{stem}.txt") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    content = {
        "title": title,
        "model": evaluation.model.name,
        "weights": evaluation.weights,
        "trials": [asdict(trial) for trial in trials],
        "machine": machine(),
        "versions": versions(["diffusers"]),
        "lines": figures(lines, results),
    }
    write_json(evaluation.folder / f"{stem}.json", content)
    return text, results
