"""However a command ends, it ends in one line: interrupted, out of room, or refused by the hub."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from zigzag.cli import main
from zigzag.support.commands import ending, one_line

for name in ("scipy", "diffusers", "safetensors"):
    pytest.importorskip(name)

ROOT = Path(__file__).parents[2]


# A command, when it is well under way (a word in what it printed, a folder that holds something, or with a slash at
# its end one that is there), and what it says is kept. Of those that say and write nothing until they are done: STOPS.
RUNS: dict[str, tuple[list[str], str, str]] = {
    "path": (["zigzag", "path", "z", "--steps", "20000"], "ZSampling(", "nothing new was written"),
    "demo": (["zigzag", "demo", "--steps", "400", "--warmup", "1", "--out", "OUT/page"], "OUT/page/", "nothing new"),
    "generate": (
        ["zigzag", "generate", "--model", "shapes-dit", "--prompt", "a circle", "--prompt", "a square", "--steps",
         "300", "--method", "standard", "--out", "OUT"],
        "wrote",
        "1 of 2 images are in OUT, and the same command makes the others",
    ),
    "invert": (
        ["zigzag", "invert", "--model", "shapes-dit", "--prompt", "a circle", "--steps", "2000", "--out", "OUT"],
        "OUT/",
        "nothing new was written",
    ),
    "eval": (
        ["zigzag", "eval", "--model", "shapes-dit", "--prompts", "6", "--steps", "300", "--methods", "z", "--out",
         "OUT"],
        "OUT/verdicts",
        "finished batches are kept in OUT, and the same command goes on after them",
    ),
    "bench": (
        ["zigzag", "bench", "--model", "shapes-dit", "--prompts", "6", "--steps", "100", "--methods", "z", "--out",
         "OUT"],
        "OUT/verdicts",
        "what is done is kept in OUT, and the same command goes on after it",
    ),
    "studies": (
        ["zigzag.evaluation.studies", "cost", "--model", "shapes-dit", "--out", "OUT"],
        "OUT/verdicts",
        "finished batches are kept in OUT",
    ),
    "attention": (
        ["zigzag.evaluation.studies", "attention", "--out", "OUT"],
        "OUT/",
        "attention is kept when it is done, and finished batches of other studies are in OUT",
    ),
    "train": (
        ["zigzag.zoo.train", "shapes-dit", "--batch", "1", "--save-every", "0", "--out", "OUT"],
        "step 1 of 6000",
        "the same command goes on from the last checkpoint in OUT, if there is one",
    ),
    "shapes": (["zigzag.zoo.shapes"], "category", "nothing is kept"),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_ctrl_c_ends_a_command_in_one_line_with_130_and_says_what_is_kept(name: str, tmp_path: Path) -> None:
    words, begun, kept = RUNS[name]
    words = [word.replace("OUT", str(tmp_path / "out")) for word in words]
    printed = tmp_path / "stdout"
    with printed.open("w") as out:
        run = subprocess.Popen(
            [sys.executable, "-m", *words], stdout=out, stderr=subprocess.PIPE, encoding="utf-8",
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
        )  # fmt: skip
        path = Path(begun.replace("OUT", str(tmp_path / "out")))
        for _ in range(2400):
            there = path.is_dir() and (begun.endswith("/") or any(path.iterdir()))
            if run.poll() is not None or there or begun in printed.read_text(encoding="utf-8"):
                break
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        error = run.communicate(timeout=120)[1]
    assert run.returncode == 130, error
    assert error.count("\n") == 1 and "stopped; " in error, error
    assert kept.replace("OUT", str(tmp_path / "out")) in error


# A module, what is stopped in it, its words, and what it says is kept.
STOPS = [
    ("zigzag.evaluation.accuracy", "load", ["shapes-dit"], "nothing is kept"),
    ("zigzag.evaluation.scorers.__main__", "scorer", ["clip"], "nothing is kept"),
    ("zigzag.zoo.export_web", "built", ["--out", "OUT"], "what OUT held before is as it was, or new, file by file"),
]


@pytest.mark.parametrize(("module", "name", "words", "kept"), STOPS)
def test_ctrl_c_in_what_is_silent_is_one_line_too(
    module: str, name: str, words: list[str], kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    made = importlib.import_module(module)
    monkeypatch.setattr(made, name, stopped)
    monkeypatch.setattr(sys, "argv", ["-", *(word.replace("OUT", str(tmp_path)) for word in words)])
    with pytest.raises(SystemExit) as exit:
        made.main()
    program = f"python -m {module.removesuffix('.__main__')}"
    assert (exit.value.code, capsys.readouterr().err) == (
        130, f"{program}: stopped; {kept.replace('OUT', str(tmp_path))}\n"
    )  # fmt: skip


def stopped(*given: object, **more: object) -> None:
    raise KeyboardInterrupt


def test_an_invert_that_is_stopped_while_it_writes_does_not_say_that_nothing_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("zigzag.cli.invert_report.save", stopped)
    with pytest.raises(SystemExit) as exit:
        main(["invert", "--model", "shapes-dit", "--prompt", "a circle", "--steps", "2", "--out", str(tmp_path)])
    assert exit.value.code == 130
    assert f"stopped; what {tmp_path} held before is as it was, or new, file by file\n" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["original.png", "reconstruction.png"]


def test_ctrl_c_while_torch_is_imported_ends_in_one_line_too() -> None:
    """The import of torch is where it comes: a finder says so."""
    code = (
        "import sys\n"
        "class Stopped:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'torch': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stopped())\n"
        "import zigzag_command\n"
        "sys.exit(zigzag_command.main())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (run.returncode, run.stderr) == (130, "zigzag: stopped; nothing new was written\n")


def test_the_command_that_is_installed_is_the_one_that_hears_ctrl_c() -> None:
    assert 'zigzag = "zigzag_command:main"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_a_stopped_generate_keeps_what_it_says_and_makes_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from zigzag.cli import generate_learned

    draw, stopped = generate_learned.draw, []

    def second(*given: Any) -> Any:
        if stopped == [1]:
            stopped.append(2)
            raise KeyboardInterrupt
        stopped.append(1)
        return draw(*given)

    monkeypatch.setattr(generate_learned, "draw", second)
    words = ["generate", "--model", "shapes-dit", "--steps", "2", "--method", "z2", "--warmup", "1"]
    with pytest.raises(SystemExit) as exit:
        main([*words, "--out", str(tmp_path)])
    assert exit.value.code == 130 and "1 of 2 images are in" in capsys.readouterr().err
    assert len(list(tmp_path.glob("*.png"))) == 1
    assert main([*words, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert (out.count("skipped /"), out.count("wrote /")) == (1, 1)


# What the system says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["demo", "generate", "eval"])
@pytest.mark.parametrize(
    ("place", "said"),
    [("/dev/null/x", "a part of this path is a file, where a folder is wanted"),
     ("FILE", "is a file, where a folder is wanted")],
)  # fmt: skip
def test_a_folder_that_cannot_be_is_one_line_before_a_model_call(
    command: str, place: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from zigzag.zoo.learned import LearnedModel

    def never(*given: object) -> None:
        raise AssertionError("a model was called")

    monkeypatch.setattr(LearnedModel, "eps_fn", never)
    (tmp_path / "FILE").touch()
    with pytest.raises(SystemExit) as exit:
        main([command, "--model", "shapes-dit", "--steps", "2" if command != "demo" else "9", "--out",
              str(tmp_path / place), *(["--prompts", "6", "--methods", "z"] if command == "eval" else [])])  # fmt: skip
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1 and said in error and "[Errno" not in error


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.ENOSPC, "make room, or name another folder with --out"),
        (errno.EDQUOT, "make room"),
        (errno.EACCES, "no permission for /a/b"),
        (errno.EPERM, "no permission for /a/b"),
        (errno.EROFS, "read-only file system"),
        (errno.ENOTDIR, "where a folder is wanted"),
        (errno.EEXIST, "/a/b is a file, where a folder is wanted"),
        (errno.EISDIR, "/a/b is a folder, where a file is wanted"),
        (errno.ENOENT, "there is no /a/b"),
        (errno.ENAMETOOLONG, "longer"),
    ],
)
def test_what_the_system_says_comes_with_what_to_do(code: int, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit, ending("zigzag eval"):
        raise OSError(code, os.strerror(code), "/a/b")
    error = capsys.readouterr().err
    assert exit.value.code == 2
    assert error.startswith("zigzag eval: error: ") and hint in error and error.count("\n") == 1
    assert "Errno" not in error


def test_a_disk_that_fills_up_while_images_are_written_is_one_line_and_leaves_no_half_of_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    def full(self: Any, path: Path, **options: Any) -> None:
        path.write_bytes(b"\x89PNG")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as a write does: without a name

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(SystemExit) as exit:
        main(["generate", "--model", "shapes-dit", "--steps", "2", "--method", "standard", "--out", str(tmp_path)])
    error = capsys.readouterr().err
    assert exit.value.code == 2 and "no space is left" in error and "--out" in error
    assert list(tmp_path.iterdir()) == []


def test_an_exhausted_memory_and_lines_of_lines_are_one_line_too() -> None:
    assert "need less" in one_line(RuntimeError("CUDA out of memory. Tried\nto allocate 2 GiB"))
    assert "out of memory" in one_line(MemoryError())
    assert one_line(ValueError("one\n  two\n")) == "one two"
    assert one_line(ValueError()) == "ValueError"
    assert one_line(OSError("cannot load model x: no")) == "cannot load model x: no"


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(KeyError), ending("zigzag"):
        raise KeyError("x")


def test_the_help_of_the_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    from support.command_line import COMMANDS

    for command in COMMANDS:
        for words in ([command, "--nonsense"], [command, "z", "--nonsense"]):
            with pytest.raises(SystemExit) as exit:
                main(words)
            error = capsys.readouterr().err
            assert exit.value.code == 2 and error.count("\n") == 1
            assert error.endswith(f"(see zigzag {command} --help)\n")
    with pytest.raises(SystemExit):
        main(["evl"])
    assert capsys.readouterr().err.endswith("(see zigzag --help)\n")
