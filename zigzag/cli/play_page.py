"""The page of `zigzag play`, by gradio."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from threading import Event
from typing import Any, Final

import gradio as gr

from zigzag.cli.play_fields import Field
from zigzag.cli.play_run import Stopped, ask, draw
from zigzag.support.commands import FAULTS, one_line
from zigzag.zoo.learned import MODELS

__all__ = ["CSS", "THEME", "page", "stop_all"]

# Fonts that the reader's machine has: a page that fetched one would tell its maker that it was opened.
THEME: Final = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]).set(
    block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300",
    input_placeholder_color="*neutral_500", input_placeholder_color_dark="*neutral_400",
)  # fmt: skip
CSS: Final = """
.zz-said { font-size: .9rem; min-height: 1.4em; }
.zz-status { padding: .5rem .75rem; border-left: 4px solid #888; background: var(--background-fill-secondary); }
.zz-status.zz-error { border-color: #c0392b; }
.zz-path { font-family: ui-monospace, monospace; font-size: .72rem; line-height: 1.05; margin: 0;
  padding-bottom: .5rem; max-height: 22rem; overflow: auto; }
.zz-picture { min-height: 14rem; }
.zz-pixels img { image-rendering: pixelated; }
"""
SLIDERS: Final = {"strong": (0, 20, 0.1), "weak": (-10, 20, 0.1), "steps": (1, 100, 1)}

_walks: dict[str | None, Event] = {}  # by page: what stops its walk


@dataclass(frozen=True)
class _Parts:
    """What of a page is read and written: pictures are an image with what is said of it."""

    prompt: Any
    go: Any
    halt: Any
    inputs: dict[str, Any]
    status: Any
    pictures: tuple[tuple[Any, Any], tuple[Any, Any]]
    figure: Any
    below: Any
    path: Any
    command: Any


def page(model: Any, settings: Any, form: Sequence[Field], prompt: str, known: str | None) -> Any:
    """The page, not yet served.

    Args:
        model: as loaded. settings: with which it was. form: the fields. prompt: at first. known: what a prompt may be,
            of a model that does not take any.
    """
    with gr.Blocks(title=f"zigzag play: {settings.model}", analytics_enabled=False, fill_width=True) as blocks:
        at = _layout(settings, form, prompt, known)
        asks: dict[str, Any] = {
            "fn": _drawing(at, model, settings, form),
            "inputs": [at.prompt, *at.inputs.values()],
            "outputs": [*at.pictures[0], *at.pictures[1], at.figure, at.below, at.path, at.command, at.status],
            "concurrency_limit": 1,
            "show_progress_on": [at.status],
            "api_visibility": "private",
        }
        at.go.click(**asks)
        at.prompt.submit(**asks)
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        at.halt.click(_stop, None, at.status, queue=False, **quiet)
        method = at.inputs["method"]
        method.change(
            lambda name: [gr.update(visible=field.of(name), **_hint(field, name)) for field in form],
            method, list(at.inputs.values()), **quiet,
        )  # fmt: skip
        blocks.unload(_leave)
    return blocks


def stop_all() -> None:
    """Stops what is being drawn."""
    for stop in _walks.values():
        stop.set()


def _leave(request: gr.Request) -> None:
    if request.session_hash in _walks:
        _walks[request.session_hash].set()


def _stop(request: gr.Request) -> Any:
    _leave(request)
    return gr.skip() if request.session_hash in _walks else _status("Nothing of this page is drawn now.")


def _drawing(at: _Parts, model: Any, settings: Any, form: Sequence[Field]) -> Callable[..., Iterator[dict[Any, Any]]]:
    """What Draw does: it gives what is to be shown, as it comes."""

    def drawing(request: gr.Request, progress: Any = gr.Progress(), *given: Any) -> Iterator[dict[Any, Any]]:  # noqa: B008
        stop = _walks[request.session_hash] = Event()
        empty = {part: None for picture in at.pictures for part in picture}
        yield {**empty, at.figure: gr.Plot(visible=False), at.below: gr.Column(visible=False), at.status: _status("…")}
        prompt, values, done = given[0], dict(zip((f.name for f in form), given[1:], strict=True)), 0
        try:
            what = ask(values, form, prompt, settings)
            path = f'<pre class="zz-path">{escape(what.path)}</pre>'
            yield {at.path: path, at.command: what.command, at.below: gr.Column(visible=True)}
            for (image, said), picture in zip(at.pictures, draw(model, what, stop, progress), strict=False):
                done += 1
                figure = gr.Plot(picture.figure, visible=picture.figure is not None)
                yield {image: picture.image, said: _said(picture.title, picture.said), at.figure: figure}
            yield {at.status: _status("Done.")}
        except Stopped:
            yield {at.status: _status(f"Stopped: {done} of {len(what.jobs)} pictures are there.")}
        except FAULTS as error:
            yield {at.status: _status(one_line(error), wrong=True), at.below: gr.Column(visible=done > 0)}
        finally:
            _walks.pop(request.session_hash, None)

    return drawing


def _layout(settings: Any, form: Sequence[Field], prompt: str, known: str | None) -> _Parts:
    gr.Markdown(f"# zigzag play\nStandard sampling and a zigzag from one noise, by `{settings.model}`.")
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            text = gr.Textbox(prompt, label="prompt", info=known, lines=2, elem_id="prompt")
            with gr.Row():
                go = gr.Button("Draw", variant="primary", elem_id="draw")
                halt = gr.Button("Stop", elem_id="stop")
            inputs = _inputs(form)
        with gr.Column(scale=3, min_width=320):
            status = gr.HTML(_status("Nothing is drawn yet."), elem_id="status")
            with gr.Row():
                left, right = (_picture(title, settings.model in MODELS) for title in ("standard", "zigzag"))
            figure = gr.Plot(show_label=False, elem_id="plot", visible=False)
            with gr.Column(visible=False) as below:
                with gr.Accordion("the path: noise at the top, data at the bottom"):
                    path = gr.HTML("", elem_id="path")
                command = gr.Code(
                    label="the same on the command line", language="shell", interactive=False, wrap_lines=True,
                    show_line_numbers=False, lines=1, elem_id="command",
                )  # fmt: skip
    return _Parts(text, go, halt, inputs, status, (left, right), figure, below, path, command)


def _inputs(form: Sequence[Field]) -> dict[str, Any]:
    """A component for each field: those of every picture, then those of the method, then the rest."""
    method = next(field.value for field in form if field.name == "method")
    made: dict[str, Any] = {}

    def add(fields: Sequence[Field]) -> None:
        for begin in range(0, len(fields), 2):
            with gr.Row():
                for field in fields[begin : begin + 2]:
                    made[field.name] = _component(field, method)

    first = [field for field in form if not field.default and (not field.optional or field.name in SLIDERS)]
    add(first)
    with gr.Accordion("options of the method"):
        add([field for field in form if field.default])
    if rest := [field for field in form if not field.default and field not in first]:
        with gr.Accordion("more", open=False):
            add(rest)
    return {field.name: made[field.name] for field in form}


def _component(field: Field, method: str) -> Any:
    given: dict[str, Any] = {"label": field.label, "info": field.help, "elem_id": f"field-{field.name}"}
    given |= {"value": field.value, "visible": field.of(method), "min_width": 140}
    if field.kind == "flag":
        return gr.Checkbox(**given)
    if field.kind == "choice":
        own = field.name == "solver"  # whose names take options after a colon
        return gr.Dropdown(list(field.choices), allow_custom_value=own, **given)
    if field.optional or field.kind in ("text", "list"):  # a field of numbers cannot be left empty
        return gr.Textbox(**{**given, "value": "" if field.value is None else str(field.value)}, **_hint(field, method))
    if field.name in SLIDERS:
        low, high, step = SLIDERS[field.name]
        return gr.Slider(min(low, field.value), max(high, field.value), step=step, **given)
    return gr.Number(precision=0 if field.kind == "integer" else None, **given)


def _hint(field: Field, method: str) -> dict[str, str]:
    """What a field stands for where it is left empty."""
    if not field.optional or field.kind in ("flag", "choice"):
        return {}
    return {"placeholder": field.default.get(method, "not given")}


def _picture(title: str, pixels: bool) -> tuple[Any, Any]:
    with gr.Column(min_width=200):
        image = gr.Image(
            label=title, format="png", interactive=False, buttons=["download"], elem_id=f"image-{title}",
            elem_classes=["zz-picture", *(["zz-pixels"] if pixels else [])],
        )  # fmt: skip
        return image, gr.HTML("", elem_id=f"said-{title}")


def _said(title: str, said: str) -> str:
    return f'<p class="zz-said"><b>{escape(title)}</b><br>{escape(said)}</p>'


def _status(text: str, wrong: bool = False) -> str:
    kind, role = ("zz-status zz-error", "alert") if wrong else ("zz-status", "status")
    return f'<p class="{kind}" role="{role}">{escape(text)}</p>'
