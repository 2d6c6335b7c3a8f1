"""The page: a canvas and a place for files on one side, what the network makes of them on the other."""

import html
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxconv.demo.access_control import LARGEST
from jaxconv.demo.canvas import input_style_of, preprocess_drawing, preprocess_upload, read_canvas
from jaxconv.demo.prediction import Prediction, Predictor, predict
from jaxconv.errors import InputError
from jaxconv.plot.rgb import to_data_uri

if TYPE_CHECKING:
    from gradio import Blocks

    from jaxconv.demo.access_control import App

NOTHING = "Draw something, or upload an image."


def build(programs: Predictor) -> "Blocks":
    """The page of a run, for :func:`application`.

    Args:
        programs: of the run.
    """
    import gradio as gr

    config = programs.run.config
    manner = input_style_of(config["dataset"], programs.image_shape[2])
    methods = list(programs.heat)

    def shown(image: np.ndarray | None, note: str, method: str | None) -> tuple[Any, ...]:
        """What the page is given: the image to keep, and note, probabilities, pictures and feature maps."""
        if image is None:
            return image, note, None, "", ""
        found = predict(programs, image, method)
        return image, note, found.probabilities, _pictures(found, method), _maps(found)

    def draw(sent: object, method: str | None) -> tuple[Any, ...]:
        number, _, address = (sent if isinstance(sent, str) else "").partition(" ")
        image, words = None, NOTHING
        try:
            canvas = read_canvas(address)
            image = None if canvas is None else preprocess_drawing(canvas, programs.image_shape, manner)
        except InputError as error:
            words = html.escape(str(error))
        note = f'<p data-drawn="{number if number.isdecimal() else 0}">{words if image is None else ""}</p>'
        return shown(image, note, method)

    def upload(path: str | None, invert: bool, method: str | None) -> tuple[Any, ...]:
        if path is None:
            return shown(None, NOTHING, method)
        try:
            image, note = preprocess_upload(Path(path), programs.image_shape, invert=invert)
        except InputError as error:
            return shown(None, html.escape(str(error)), method)
        return shown(image, html.escape(note), method)

    def choose(image: np.ndarray | None, method: str) -> str:
        return "" if image is None else _pictures(predict(programs, image, method), method)

    with gr.Blocks(title=_title(config), analytics_enabled=False, delete_cache=(600, 600)) as page:
        kept = gr.State(None)
        gr.HTML(_heading(programs))
        with gr.Row():
            with gr.Column(scale=2, min_width=340):
                with gr.Tabs():
                    with gr.Tab("Draw") as drawing:
                        canvas = gr.HTML(
                            "",
                            html_template=_file("canvas.html"),
                            js_on_load=_file("canvas.js"),
                            colored=manner.box is None and not manner.inverted,
                            elem_id="canvas",
                        )
                    with gr.Tab("Upload") as uploading:
                        file = gr.File(file_types=["image"], type="filepath", label="png, jpg, …", height=160)
                        invert = gr.Checkbox(label="dark ink on white paper", value=False)
                note = gr.HTML(NOTHING, elem_id="note")
                said = gr.Label(label="what it says", num_top_classes=10, elem_id="said")
            with gr.Column(scale=3, min_width=340):
                method = gr.Radio(
                    [(name.replace("_", " "), name) for name in methods],
                    value=methods[0] if methods else None,
                    label="where it looks",
                    visible=bool(methods),
                )
                pictures = gr.HTML(elem_id="pictures")
                maps = gr.HTML(elem_id="maps")
        outputs = [kept, note, said, pictures, maps]
        live: Any = {"show_progress": "hidden", "trigger_mode": "always_last", "api_visibility": "private"}
        canvas.input(draw, [canvas, method], outputs, **live | {"trigger_mode": "multiple"})
        drawing.select(draw, [canvas, method], outputs, **live)
        for event in (file.change, invert.change, uploading.select):
            event(upload, [file, invert, method], outputs, **live)
        method.change(choose, [kept, method], pictures, **live)
    return page


def application(page: "Blocks") -> "App":
    """The page as an ASGI application.

    What gradio keeps is limited: 20 tabs' images, 50 events that wait. Four events of a kind are answered at a time,
    eight in all, so that none waits for one that is slow.
    """
    import fastapi
    import gradio as gr

    page.state_session_capacity = 20
    page.max_threads = 8
    page.queue(api_open=False, max_size=50, default_concurrency_limit=4)
    app = fastapi.FastAPI(openapi_url=None)
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=LARGEST,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=_file("page.css"),
    )


def _file(name: str) -> str:
    return resources.files("jaxconv.demo").joinpath(name).read_text(encoding="utf-8")


def _title(config: dict[str, Any]) -> str:
    return f"{config['model']} on {config['dataset']}"


def _heading(programs: Predictor) -> str:
    several = f" It is the first of the run's {programs.seeds} networks." if programs.seeds > 1 else ""
    return (
        f"<h1>{html.escape(_title(programs.run.config))}</h1>"
        f"<p>What the network says, where it looks and what it computes on the way, as you draw.{several}</p>"
    )


def _pictures(found: Prediction, method: str | None) -> str:
    shown = [(found.seen, "what the network gets")]
    if found.attribution is not None:
        likeliest = max(found.probabilities, key=lambda name: found.probabilities[name])
        shown.append((found.attribution, f"what speaks for {likeliest}"))
    figures = "".join(
        f"<figure>{_image(pixels, words)}<figcaption>{html.escape(words)}</figcaption></figure>"
        for pixels, words in shown
    )
    return f'<div class="pair">{figures}</div>'


def _maps(found: Prediction) -> str:
    parts = "".join(f"<h3>{html.escape(name)}</h3>{_image(pixels, name)}" for name, pixels in found.maps)
    return f'<div class="layers">{parts}</div>'


def _image(pixels: np.ndarray, alt: str) -> str:
    source = to_data_uri(pixels, compress_level=1)  # it goes no farther than this machine: quick is best
    return f'<img src="{source}" alt="{html.escape(alt)}" width="{pixels.shape[1]}" height="{pixels.shape[0]}">'
