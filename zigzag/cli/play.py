"""`zigzag play`: a page on this machine to play with a model, standard sampling and a zigzag side by side."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from copy import copy
from importlib import import_module
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

from zigzag.cli.generate import add_drawing_options, settled
from zigzag.cli.options import Commands
from zigzag.cli.play_fields import fields_of
from zigzag.support.extras import require
from zigzag.zoo.learned import MODELS

__all__ = ["add"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add(commands: Commands) -> None:
    """Adds the command."""
    play = commands.add_parser(
        "play",
        help="open a page to play with a learned model or a diffusers pipeline (extra: play)",
        description="Serves a page on this machine: standard sampling and a method from the same noise side by side, "
        "with their traces, the path as a drawing, and the command line that makes the same. What a page begins with "
        "are the options of `zigzag generate`, so that its command line opens it too. Nothing leaves the machine.",
    )
    add_drawing_options(play)
    page = play.add_argument_group("the page")
    page.add_argument("--port", type=int, default=7860, help="the port to listen on; 0 is any that is free")
    page.add_argument(
        "--host",
        default=LOOPBACK[0],
        help="the address to listen on. Any but this machine's own lets whoever reaches it run the model, without a "
        "password: a decision of yours",
    )
    play.set_defaults(run=_play, model="shapes-dit")


def _play(args: argparse.Namespace) -> None:
    given = copy(args)
    module, settings, _ = settled(args)
    form, prompt = fields_of(given, settings), (given.prompt or module.PROMPTS)[0]
    port = _free(args.host, args.port)
    with TemporaryDirectory(prefix="zigzag-play-") as folder:
        # Before gradio is imported, which reads these once: where pictures lie until the page is closed, that nobody is
        # told of it, and that it asks itself whether it runs by no way round.
        os.environ |= {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_TEMP_DIR": folder,
            "no_proxy": _unproxied(args.host),
        }
        require("gradio", "a page needs gradio", "play")
        require("matplotlib", "the traces of a page need matplotlib", "play")
        made: Any = import_module("zigzag.cli.play_page")
        model = module.load_model(settings)
        blocks = made.page(model, settings, form, prompt, _known(settings.model))
        try:
            blocks.launch(
                server_name=args.host, server_port=port, share=False, inbrowser=False, quiet=True, show_error=False,
                prevent_thread_lock=True, ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False,
                run_history=False, footer_links=[], theme=made.THEME, css=made.CSS,
            )  # fmt: skip
            shown = f"[{args.host}]" if ":" in args.host else args.host
            print(f"zigzag play: http://{shown}:{port} (Ctrl-C ends it)", flush=True)
            if args.host not in LOOPBACK:
                print("zigzag play: whoever reaches this address may run the model", file=sys.stderr, flush=True)
            Event().wait()
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the page is closed") from None
        finally:
            made.stop_all()
            blocks.close(verbose=False)


def _free(host: str, port: int) -> int:
    """The port itself, or of 0 one that is free.

    Raises:
        ValueError: for a port that is none, or is taken, and for an address that is not of this machine.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be from 0 to 65535, got {port}")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))
            found: int = tried.getsockname()[1]
            return found
    except socket.gaierror as error:
        raise ValueError(f"host {host} is not to be had: {error.strerror}") from None
    except OSError as error:
        raise ValueError(f"port {port} of {host} is not to be had ({error.strerror}): pass another --port") from None


def _unproxied(host: str) -> str:
    """The hosts that are reached without a proxy: those that the user says, and this one."""
    said = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    return ",".join([*filter(None, [said]), *LOOPBACK, host])


def _known(model: str) -> str | None:
    """What a prompt may be, of a model that does not take any."""
    if model not in MODELS:
        return None
    from zigzag.zoo.shapes import WORDS

    return f"of these words: {', '.join(WORDS)}"
