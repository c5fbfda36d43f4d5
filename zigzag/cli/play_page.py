"""The page of `zigzag play`, by gradio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from threading import Event
from typing import Any, Final

import gradio as gr

from zigzag.cli.play_fields import Field
from zigzag.cli.play_run import Stopped, ask, draw
from zigzag.support.commands import FAULTS, one_line

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
.zz-picture img { image-rendering: pixelated; }
"""
SLIDERS: Final = {"strong": (0, 20, 0.1), "weak": (-10, 20, 0.1), "steps": (1, 100, 1)}

_walks: dict[str | None, Event] = {}


def stop_all() -> None:
    """Stops what is being drawn."""
    for stop in _walks.values():
        stop.set()


def page(model: Any, settings: Any, form: Sequence[Field], prompt: str, known: str) -> Any:
    """The page, not yet served.

    Args:
        model: as loaded. settings: with which it was. form: the fields. prompt: at first. known: what a prompt may be.
    """
    with gr.Blocks(title=f"zigzag play: {settings.model}", analytics_enabled=False, fill_width=True) as blocks:
        gr.Markdown(f"# zigzag play\nStandard sampling and a zigzag from one noise, by `{settings.model}`.")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                asked_for = gr.Textbox(prompt, label="prompt", info=known, lines=2, elem_id="prompt")
                with gr.Row():
                    go = gr.Button("Draw", variant="primary", elem_id="draw")
                    halt = gr.Button("Stop", elem_id="stop")
                inputs = _inputs(form)
            with gr.Column(scale=3, min_width=320):
                status = gr.HTML(_status("Nothing is drawn yet."), elem_id="status")
                with gr.Row():
                    left, right = _picture("standard"), _picture("zigzag")
                figure = gr.Plot(show_label=False, elem_id="plot", visible=False)
                with gr.Column(visible=False) as below:
                    with gr.Accordion("the path: noise at the top, data at the bottom"):
                        path = gr.HTML("", elem_id="path")
                    command = gr.Code(
                        label="the same on the command line", language="shell", interactive=False, wrap_lines=True,
                        show_line_numbers=False, lines=1, elem_id="command",
                    )  # fmt: skip

        def on_draw(request: gr.Request, progress: Any = gr.Progress(), *values: Any) -> Iterator[dict[Any, Any]]:  # noqa: B008
            stop = _walks[request.session_hash] = Event()
            shown = {image: None for image, _ in (left, right)} | {said: "" for _, said in (left, right)}
            yield {**shown, figure: gr.Plot(None, visible=False), below: gr.Column(visible=False), status: _status("…")}
            drawn = 0
            try:
                typed = dict(zip((field.name for field in form), values[1:], strict=True))
                what = ask(typed, form, values[0], settings)
                drawing = f'<pre class="zz-path">{escape(what.path)}</pre>'
                yield {path: drawing, command: what.command, below: gr.Column(visible=True)}
                for (image, said), picture in zip((left, right), draw(model, what, stop, progress), strict=False):
                    drawn += 1
                    plotted = gr.Plot(picture.figure, visible=picture.figure is not None)
                    yield {image: picture.image, said: _said(picture.title, picture.said), figure: plotted}
            except Stopped:
                yield {status: _status(f"Stopped: {drawn} of 2 pictures are there.")}
            except FAULTS as error:
                yield {status: _status(one_line(error), wrong=True), below: gr.Column(visible=drawn > 0)}
            else:
                yield {status: _status("Done.")}
            finally:
                _walks.pop(request.session_hash, None)

        def on_stop(request: gr.Request) -> None:
            if request.session_hash in _walks:
                _walks[request.session_hash].set()

        def on_method(method: str) -> list[Any]:
            return [gr.update(visible=f.of(method), **_hint(f, method)) for f in form]

        outputs = [*left, *right, figure, path, command, below, status]
        given = [asked_for, *(inputs[field.name] for field in form)]
        asks = {
            "fn": on_draw,
            "inputs": given,
            "outputs": outputs,
            "concurrency_limit": 1,
            "show_progress_on": [status],
        }
        go.click(**asks, api_visibility="private")
        asked_for.submit(**asks, api_visibility="private")
        halt.click(on_stop, queue=False, api_visibility="private")
        fields = list(inputs.values())
        inputs["method"].change(on_method, inputs["method"], fields, show_progress="hidden", api_visibility="private")
        blocks.unload(on_stop)
    return blocks


def _inputs(form: Sequence[Field]) -> dict[str, Any]:
    """A component for each field: those of every picture, then those of the method, then the rest."""
    method = next(field.value for field in form if field.name == "method")
    made: dict[str, Any] = {}

    def add(fields: Sequence[Field]) -> None:
        for begin in range(0, len(fields), 2):
            with gr.Row():
                for field in fields[begin : begin + 2]:
                    made[field.name] = _component(field, method)

    add([field for field in form if not field.default and not field.optional])
    with gr.Accordion("options of the method"):
        add([field for field in form if field.default])
    if rest := [field for field in form if not field.default and field.optional]:
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
        return gr.Slider(low, high, step=step, **given)
    return gr.Number(precision=0 if field.kind == "integer" else None, **given)


def _hint(field: Field, method: str) -> dict[str, str]:
    """What a field stands for where it is left empty."""
    if not field.optional or field.kind in ("flag", "choice"):
        return {}
    return {"placeholder": field.default.get(method, "not given")}


def _picture(title: str) -> tuple[Any, Any]:
    with gr.Column(min_width=200):
        image = gr.Image(
            label=title, format="png", interactive=False, buttons=["download"], elem_id=f"image-{title}",
            elem_classes="zz-picture",
        )  # fmt: skip
        return image, gr.HTML("", elem_id=f"said-{title}")


def _said(title: str, said: str) -> str:
    return f'<p class="zz-said"><b>{escape(title)}</b><br>{escape(said)}</p>'


def _status(text: str, wrong: bool = False) -> str:
    kind, role = ("zz-status zz-error", "alert") if wrong else ("zz-status", "status")
    return f'<p class="{kind}" role="{role}">{escape(text)}</p>'
