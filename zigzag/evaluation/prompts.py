"""Prompts from the files in which benchmarks publish them; none of another author's is in the package.

Two are free to fetch, each by one line:

    curl -LO https://raw.githubusercontent.com/djghosh13/geneval/main/prompts/evaluation_metadata.jsonl  # MIT
    curl -LO https://raw.githubusercontent.com/google-research/parti/main/PartiPrompts.tsv  # Apache-2.0
"""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Final

__all__ = ["Check", "Prompt", "read_prompts"]


@dataclass(frozen=True)
class Check:
    """A clause of what an image must show, as GenEval's files say it.

    Attributes:
        thing: what. count: how many at least; where `excluded`, as many of it are wrong.
        colour: that they must have, or None.
        relation: where they must be, "left of", "right of", "above" or "below", and from which clause's things, its
            number among those not excluded; or None.
    """

    thing: str
    count: int
    colour: str | None = None
    relation: tuple[str, int] | None = None
    excluded: bool = False


@dataclass(frozen=True)
class Prompt:
    """A prompt of a file, in the file's own spelling.

    Attributes:
        text: as it is given to the model. category: its file's word for its kind; "" where the file has none.
        checks: what an image of it must show, where the file says so.
    """

    text: str
    category: str = ""
    checks: tuple[Check, ...] = ()


def read_prompts(path: str | Path) -> list[Prompt]:
    """The prompts of a file, in order. It is UTF-8, and its suffix says how it is read.

    `.jsonl`: GenEval's `evaluation_metadata.jsonl`; the tag is the category, "include" and "exclude" are the checks.
    `.tsv`: PartiPrompts, tabs without quotes; `.csv`: DrawBench, Pick-a-Pic, with quotes. The prompts are the column
    "Prompt", "Prompts" or "caption", the categories the column "Category", if there is one, whatever the case.
    `.txt`: a prompt a line.

    Warns of a prompt that stands in the file twice, which then counts twice.

    Raises:
        ValueError: naming file and line, for another suffix or encoding, an empty file, line or prompt, a missing
            column, a row of another length, and what is no JSON of GenEval's kind.
        OSError: for a file that cannot be read.
    """
    path = Path(path)
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{path}: a file of prompts must end in {', '.join(_READERS)}")
    first: dict[str, int] = {}
    found = []
    try:
        for line, prompt in read(_text(path)):
            if not prompt.text.strip():
                raise _Wrong(line, "an empty prompt; remove the line, or write one")
            if prompt.text in first:
                warnings.warn(
                    f"{path}: line {line} is the prompt of line {first[prompt.text]} again; it counts twice: "
                    f"{prompt.text!r}",
                    stacklevel=2,
                )
            first.setdefault(prompt.text, line)
            found.append(prompt)
    except _Wrong as error:
        raise ValueError(f"{path}, line {error.line}: {error}") from error.__cause__
    if not found:
        raise ValueError(f"{path}: has no prompt")
    return found


class _Wrong(ValueError):
    """What is wrong with a line; who knows the file's name says it."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


def _text(path: Path) -> str:
    """The text of a file without its byte order mark, each line ended by a newline alone."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _Wrong(line, f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8") from error
    if "\0" in text:  # UTF-16 of plain letters, without its mark
        raise _Wrong(text.count("\n", 0, text.index("\0")) + 1, "has a null byte; save the file as UTF-8")
    return text.replace("\r\n", "\n")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    if text:
        yield from enumerate(text.removesuffix("\n").split("\n"), 1)


def _plain(text: str) -> Iterator[tuple[int, Prompt]]:
    for line, prompt in _lines(text):
        yield line, Prompt(prompt)


def _tabs(text: str) -> Iterator[tuple[int, Prompt]]:
    # Prompts may begin with a quotation mark that is their own.
    yield from _columns((line, row.split("\t") if row else []) for line, row in _lines(text))


def _commas(text: str) -> Iterator[tuple[int, Prompt]]:
    yield from _columns(_rows(text))


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    start = 1  # a quoted field may hold newlines: an error is of the line that its row begins in
    try:
        for row in reader:
            yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        raise _Wrong(start, f"no row of comma-separated values: {error}") from error


def _columns(rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, Prompt]]:
    """The prompts of a table whose first row has the names of its columns."""
    line, header = next(rows, (1, ["prompt"]))  # of a file that has no line, none is missing
    names = [name.strip().lower() for name in header]
    where = next((names.index(name) for name in ("prompt", "prompts", "caption") if name in names), -1)
    if where < 0:
        raise _Wrong(line, f"must name a column Prompt, Prompts or caption, got {', '.join(header) or 'an empty line'}")
    kind = names.index("category") if "category" in names else None
    for line, row in rows:
        if not row:
            raise _Wrong(line, "an empty line; remove it")
        if len(row) != len(header):
            raise _Wrong(line, f"must have the {len(header)} columns of the first line, got {len(row)}")
        yield line, Prompt(row[where], "" if kind is None else row[kind].strip())


def _geneval(text: str) -> Iterator[tuple[int, Prompt]]:
    for line, row in _lines(text):
        if not row.strip():
            raise _Wrong(line, "an empty line; remove it")
        try:
            said = json.loads(row)
            included = [_check(clause, False) for clause in _typed(said, "include", list)]
            excluded = [_check(clause, True) for clause in said.get("exclude", [])]
            for k, check in enumerate(included):
                if check.relation and not 0 <= check.relation[1] < k:
                    raise ValueError(f"'position' must be to a clause before it, got {check.relation[1]} in clause {k}")
            prompt = Prompt(_typed(said, "prompt", str), _typed(said, "tag", str), (*included, *excluded))
        except (ValueError, TypeError, AttributeError) as error:
            raise _Wrong(line, f"is not of GenEval's metadata: {error}") from error
        yield line, prompt


def _check(clause: Mapping[str, Any], excluded: bool) -> Check:
    if unknown := sorted(clause.keys() - {"class", "count", "color", "position"}):
        raise ValueError(f"unknown key {unknown[0]!r} in a clause")
    colour = _typed(clause, "color", str) if "color" in clause else None
    relation = None
    if "position" in clause:
        where, other = _typed(clause, "position", list)
        relation = str(where), int(other)
    return Check(_typed(clause, "class", str), _typed(clause, "count", int), colour, relation, excluded)


def _typed(said: Mapping[str, Any], key: str, kind: type) -> Any:
    if not isinstance(said.get(key), kind):
        raise ValueError(f"{key!r} must be of type {kind.__name__}, got {said.get(key)!r}")
    return said[key]


_READERS: Final[dict[str, Callable[[str], Iterator[tuple[int, Prompt]]]]] = {
    ".jsonl": _geneval,
    ".tsv": _tabs,
    ".csv": _commas,
    ".txt": _plain,
}
