"""Command lines that end in one line, whatever ends them."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

__all__ = ["FAULTS", "Help", "Parser", "Several", "add_older", "ending", "one_line"]

FAULTS = (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError)  # of what was asked for
INTERRUPTED = 130  # what a shell says of a process that SIGINT ended

_HINTS = {
    errno.ENOSPC: "no space is left for {file}: make room, or name another folder with --out",
    errno.EDQUOT: "no space is left for {file}: make room, or name another folder with --out",
    errno.EACCES: "no permission for {file}: see whose it is, or name another place",
    errno.EPERM: "no permission for {file}: see whose it is, or name another place",
    errno.EROFS: "{file} is on a read-only file system: name another place",
    errno.ENOTDIR: "{file} cannot be: a part of this path is a file, where a folder is wanted; name another place",
    errno.EEXIST: "{file} is a file, where a folder is wanted; name another place",
    errno.EISDIR: "{file} is a folder, where a file is wanted",
    errno.ENOENT: "there is no {file}: look at the path",
    errno.ENAMETOOLONG: "the name {file} is longer than this file system takes",
}


class Several(RuntimeError):
    """What went wrong more than once: said in all, and a line each."""

    def __init__(self, said: str, lines: Sequence[str]) -> None:
        super().__init__("\n".join([said, *lines]))
        self.said, self.lines = said, list(lines)


class Help(argparse.HelpFormatter):
    """Help that says each default once, as it would be typed: the parser's, unless the text of the option says it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        said = "(default: " in text or action.nargs == 0  # a flag is off
        if said or default is None or default == argparse.SUPPRESS or default == []:
            return text
        shown = " ".join(map(str, default)) if isinstance(default, list) else str(default)
        return f"{text} (default: {shown.replace('%', '%%')})"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line (a usage text above it would hide what is wrong), with `Help`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"formatter_class": Help, **options})

    def options(self) -> dict[str, argparse.Action]:
        """Its options by their destinations; of those with several names, the one that its help lists."""
        return {each.dest: each for each in self._actions if each.help != argparse.SUPPRESS}

    def error(self, message: str) -> NoReturn:
        """Says what is wrong, and exits with 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def add_older(parser: argparse._ActionsContainer, to: argparse.Action, *names: str) -> None:
    """Other names of an option that takes one value: they mean the same, and its help does not list them."""
    kind: Any = to.type
    for name in names:
        parser.add_argument(name, dest=to.dest, type=kind, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


@contextmanager
def ending(program: str, kept: str = "nothing new was written") -> Iterator[None]:
    """Ends the process in one line on standard error: with 2 where something is wrong, with 130 where it is stopped.

    `Several` has a line each before.

    What is a fault of the program itself (a KeyError, say) keeps its traceback.

    Args:
        program: its name, as the user typed it.
        kept: what a stop leaves behind; a `KeyboardInterrupt` with a text of its own says it better.

    Raises:
        SystemExit: in these cases.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt as stop:
        after = "\n" if sys.stderr.isatty() else ""  # the terminal's own ^C, or a bar, stands in this line
        _end(INTERRUPTED, f"{after}{program}: stopped; {str(stop) or kept}")
    except Several as error:
        print(*error.lines, sep="\n", file=sys.stderr)
        _end(2, f"{program}: error: {error.said}")
    except FAULTS as error:
        _end(2, f"{program}: error: {one_line(error)}")


def one_line(error: BaseException) -> str:
    """What an error says, in one line; of the system's own and of an exhausted memory also what to do."""
    said = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in _HINTS and error.strerror:
        name = error.filename if error.filename2 is None else error.filename2
        return _HINTS[error.errno].format(file="the file" if name is None else name)
    if isinstance(error, MemoryError) or "out of memory" in said:
        return f"{said or 'out of memory'} (fewer or smaller images at a time, or another --device, need less)"
    return said or type(error).__name__


def _end(code: int, text: str) -> NoReturn:
    print(text, file=sys.stderr)
    raise SystemExit(code) from None
