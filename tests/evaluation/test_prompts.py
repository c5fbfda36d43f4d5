"""Files of prompts, as benchmarks publish them, and what is wrong with those that are not read."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from zigzag.evaluation.prompts import Check, Prompt, read_prompts

SAID: list[dict[str, Any]] = [
    {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red"}], "prompt": "a photo of a red dog"},
    {
        "tag": "counting",
        "include": [{"class": "cup", "count": 2}],
        "exclude": [{"class": "cup", "count": 3}],
        "prompt": "a photo of two cups",
    },
    {
        "tag": "position",
        "include": [{"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 0]}],
        "prompt": "a photo of a dog left of a cat",
    },
]
READ = [
    Prompt("a photo of a red dog", "colors", (Check("dog", 1, colour="red"),)),
    Prompt("a photo of two cups", "counting", (Check("cup", 2), Check("cup", 3, excluded=True))),
    Prompt(
        "a photo of a dog left of a cat", "position", (Check("cat", 1), Check("dog", 1, relation=("left of", 0)))
    ),
]  # fmt: skip


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def jsonl(said: list[Any]) -> str:
    return "".join(json.dumps(line) + "\n" for line in said)


def texts(path: Path) -> list[str]:
    return [prompt.text for prompt in read_prompts(path)]


def test_genevals_metadata_keep_what_is_to_be_seen(tmp_path: Path) -> None:
    assert read_prompts(written(tmp_path, "evaluation_metadata.jsonl", jsonl(SAID))) == READ


def test_partiprompts_have_tabs_and_quotes_of_their_own(tmp_path: Path) -> None:
    lines = 'Prompt\tCategory\tChallenge\tNote\n"G I G" on a wall \tArts\tBasic\t\na "b\tArts\tBasic\tof "c"\n'
    assert read_prompts(written(tmp_path, "PartiPrompts.tsv", lines)) == [
        Prompt('"G I G" on a wall ', "Arts"),
        Prompt('a "b', "Arts"),
    ]


@pytest.mark.parametrize("header", [("Prompts", "Category"), ("id", "caption"), ("caption",), ("Category", "prompt")])
def test_tables_are_read_as_csv_writes_them(tmp_path: Path, header: tuple[str, ...]) -> None:
    said = ['a "red" car, parked', "two\nlines", "日本の猫", " spaces of its own "]
    rows = [{"Prompts": s, "prompt": s, "caption": s, "Category": f"kind {k}", "id": k} for k, s in enumerate(said)]
    path = tmp_path / "prompts.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, header, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    kinds = [f"kind {k}" if "Category" in header else "" for k in range(len(said))]
    assert read_prompts(path) == [Prompt(text, kind) for text, kind in zip(said, kinds, strict=True)]


@pytest.mark.parametrize("text", ["a cat\nein Hündchen\n", "a cat\r\nein Hündchen\r\n", "a cat\nein Hündchen"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "marked"])
def test_a_line_is_a_prompt_whatever_ends_it(tmp_path: Path, text: str, mark: bytes) -> None:
    assert texts(written(tmp_path, "mine.txt", mark + text.encode())) == ["a cat", "ein Hündchen"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv"])
def test_a_mark_hides_no_column_and_no_brace(tmp_path: Path, name: str) -> None:
    text = jsonl(SAID[:1]) if name == "a.jsonl" else "Prompt\na photo of a red dog\n"
    assert texts(written(tmp_path, name, b"\xef\xbb\xbf" + text.encode())) == ["a photo of a red dog"]


def test_a_prompt_twice_is_said_with_both_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "mine.txt", "a\nb\na\n")
    with pytest.warns(UserWarning, match=r"mine\.txt: line 3 is the prompt of line 1 again; it counts twice: 'a'"):
        assert texts(path) == ["a", "b", "a"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_prompts(written(tmp_path, "other.txt", "a\nb\nA\n"))


LATIN = "a cat\nein Hündchen\n".encode("latin-1")
UNLIKE = jsonl([SAID[0], {**SAID[0], "include": [{"class": "dog", "count": "1"}]}])
UNTAGGED = jsonl([{"include": [], "prompt": "a"}])
STRANGE = jsonl([{**SAID[0], "include": [{"class": "dog", "count": 1, "size": 3}]}])
AHEAD = jsonl([{**SAID[0], "include": [{"class": "dog", "count": 1, "position": ["left of", 0]}]}])
WRONG: dict[str, tuple[str, str | bytes, str]] = {
    "latin": ("a.txt", LATIN, r"line 2: byte 0xfc is not UTF-8; save the file as UTF-8"),
    "utf-16": ("a.txt", "a cat".encode("utf-16"), r"line 1: byte 0x.. is not UTF-8"),
    "utf-16 without a mark": ("a.txt", "a\ncat".encode("utf-16-le"), r"line 1: has a null byte"),
    "suffix": ("a.json", "[]", r"a\.json: a file of prompts must end in \.jsonl, \.tsv, \.csv, \.txt"),
    "no byte": ("a.txt", "", r"a\.txt: has no prompt"),
    "no byte of csv": ("a.csv", "", r"a\.csv: has no prompt"),
    "no byte of tsv": ("a.tsv", "", r"a\.tsv: has no prompt"),
    "no byte of jsonl": ("a.jsonl", "", r"a\.jsonl: has no prompt"),
    "header alone": ("a.csv", "caption\n", r"a\.csv: has no prompt"),
    "empty line": ("a.txt", "a\n\nb\n", r"line 2: an empty prompt"),
    "line of spaces": ("a.txt", "a\nb\n  \n", r"line 3: an empty prompt"),
    "line at the end": ("a.txt", "a\n\n", r"line 2: an empty prompt"),
    "empty line of csv": ("a.csv", "caption\na\n\nb\n", r"line 3: an empty line; remove it"),
    "empty first line of csv": ("a.csv", "\ncaption\na\n", r"line 1: must name a column .* got an empty line"),
    "empty line of tsv": ("a.tsv", "Prompt\na\n\n", r"line 3: an empty line; remove it"),
    "empty line of jsonl": ("a.jsonl", jsonl(SAID) + "\n", r"line 4: an empty line; remove it"),
    "empty cell": ("a.csv", 'caption,id\na,1\n"",2\n', r"line 3: an empty prompt"),
    "column": ("a.csv", "text,id\na,1\n", r"line 1: must name a column Prompt, Prompts or caption, got text, id"),
    "short row": ("a.tsv", "Prompt\tCategory\na\tb\nc\n", r"line 3: must have the 2 columns of the first line, got 1"),
    "row after two lines": ("a.csv", 'caption,id\n"a\nb",1\nc\n', r"line 4: must have the 2 columns"),
    "quote": ("a.csv", 'caption\na\n"b" c\n', r"line 3: no row of comma-separated values"),
    "json": ("a.jsonl", jsonl(SAID[:1]) + "{", r"line 2: is not of GenEval's metadata: Expecting"),
    "json of another kind": ("a.jsonl", "[1]\n", r"line 1: is not of GenEval's metadata"),
    "no number": ("a.jsonl", UNLIKE, r"line 2: .*'count' must be of type int, got '1'"),
    "no tag": ("a.jsonl", UNTAGGED, r"line 1: .*'tag' must be of type str, got None"),
    "unknown key": ("a.jsonl", STRANGE, r"line 1: .*unknown key 'size' in a clause"),
    "relation to itself": ("a.jsonl", AHEAD, r"line 1: .*to a clause before it, got 0 in clause 0"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, what: str) -> None:
    name, text, message = WRONG[what]
    path = written(tmp_path, name, text)
    with pytest.raises(ValueError, match=message) as caught:
        read_prompts(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        read_prompts(tmp_path / "none.txt")


def test_a_prompt_can_be_a_key() -> None:
    assert len({*READ, *READ}) == len(READ)
