"""The gradio page: a canvas and file upload on the left, prediction, attribution and feature maps on the right."""

import html
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxconv.demo.access_control import MAX_BODY_BYTES
from jaxconv.demo.canvas import input_style_of, preprocess_drawing, preprocess_upload, read_canvas
from jaxconv.demo.prediction import Prediction, Predictor, predict
from jaxconv.errors import InputError
from jaxconv.plot.rgb import to_data_uri

if TYPE_CHECKING:
    from gradio import Blocks

    from jaxconv.demo.access_control import App

EMPTY_NOTE = "Draw something, or upload an image."


def build(predictor: Predictor) -> "Blocks":
    """Build the page of a run, for :func:`application`.

    Args:
        predictor: network of the run.
    """
    import gradio as gr

    config = predictor.run.config
    style = input_style_of(config["dataset"], predictor.image_shape[2])
    methods = list(predictor.attributions)

    def outputs_for(image: np.ndarray | None, note: str, method: str | None) -> tuple[Any, ...]:
        """Return the contents of ``outputs``: the image to keep, note, probabilities, images and feature maps."""
        if image is None:
            return image, note, None, "", ""
        prediction = predict(predictor, image, method)
        return image, note, prediction.probabilities, _images_html(prediction), _feature_maps_html(prediction)

    def draw(value: object, method: str | None) -> tuple[Any, ...]:
        index, _, address = (value if isinstance(value, str) else "").partition(" ")
        image, message = None, EMPTY_NOTE
        try:
            canvas = read_canvas(address)
            image = None if canvas is None else preprocess_drawing(canvas, predictor.image_shape, style)
        except InputError as error:
            message = html.escape(str(error))
        note = f'<p data-drawn="{index if index.isdecimal() else 0}">{message if image is None else ""}</p>'
        return outputs_for(image, note, method)

    def upload(path: str | None, invert: bool, method: str | None) -> tuple[Any, ...]:
        if path is None:
            return outputs_for(None, EMPTY_NOTE, method)
        try:
            image, note = preprocess_upload(Path(path), predictor.image_shape, invert=invert)
        except InputError as error:
            return outputs_for(None, html.escape(str(error)), method)
        return outputs_for(image, html.escape(note), method)

    def choose_method(image: np.ndarray | None, method: str) -> str:
        return "" if image is None else _images_html(predict(predictor, image, method))

    with gr.Blocks(title=_title(config), analytics_enabled=False, delete_cache=(600, 600)) as page:
        current_image = gr.State(None)
        gr.HTML(_heading(predictor))
        with gr.Row():
            with gr.Column(scale=2, min_width=340):
                with gr.Tabs():
                    with gr.Tab("Draw") as draw_tab:
                        canvas = gr.HTML(
                            "",
                            html_template=_file("canvas.html"),
                            js_on_load=_file("canvas.js"),
                            colored=style.box is None and not style.inverted,
                            elem_id="canvas",
                        )
                    with gr.Tab("Upload") as upload_tab:
                        file = gr.File(file_types=["image"], type="filepath", label="png, jpg, …", height=160)
                        invert = gr.Checkbox(label="dark strokes on a light background", value=False)
                note = gr.HTML(EMPTY_NOTE, elem_id="note")
                probabilities = gr.Label(label="prediction", num_top_classes=10, elem_id="prediction")
            with gr.Column(scale=3, min_width=340):
                method = gr.Radio(
                    [(name.replace("_", " "), name) for name in methods],
                    value=methods[0] if methods else None,
                    label="attribution method",
                    visible=bool(methods),
                )
                images = gr.HTML(elem_id="images")
                maps = gr.HTML(elem_id="maps")
        outputs = [current_image, note, probabilities, images, maps]
        options: Any = {"show_progress": "hidden", "trigger_mode": "always_last", "api_visibility": "private"}
        canvas.input(draw, [canvas, method], outputs, **options | {"trigger_mode": "multiple"})
        draw_tab.select(draw, [canvas, method], outputs, **options)
        for event in (file.change, invert.change, upload_tab.select):
            event(upload, [file, invert, method], outputs, **options)
        method.change(choose_method, [current_image, method], images, **options)
    return page


def application(page: "Blocks") -> "App":
    """Wrap the page as an ASGI application.

    gradio's state is limited to the images of 20 tabs and a queue of 50 events. Four events of a kind run at a time,
    eight in all, so that a slow event does not block the others.
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
        max_file_size=MAX_BODY_BYTES,
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


def _heading(predictor: Predictor) -> str:
    note = f" Shown is the first of the run's {predictor.seeds} networks." if predictor.seeds > 1 else ""
    return (
        f"<h1>{html.escape(_title(predictor.run.config))}</h1>"
        f"<p>Predicted probabilities, attribution and feature maps, updated as you draw.{note}</p>"
    )


def _images_html(prediction: Prediction) -> str:
    images = [(prediction.seen, "network input")]
    if prediction.attribution is not None:
        most_probable = max(prediction.probabilities, key=lambda name: prediction.probabilities[name])
        images.append((prediction.attribution, f"attribution of {most_probable}"))
    figures = "".join(
        f"<figure>{_image_html(pixels, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>"
        for pixels, caption in images
    )
    return f'<div class="pair">{figures}</div>'


def _feature_maps_html(prediction: Prediction) -> str:
    parts = "".join(f"<h3>{html.escape(name)}</h3>{_image_html(pixels, name)}" for name, pixels in prediction.maps)
    return f'<div class="layers">{parts}</div>'


def _image_html(pixels: np.ndarray, alt: str) -> str:
    source = to_data_uri(pixels, compress_level=1)  # the fastest level: the image does not leave this machine
    return f'<img src="{source}" alt="{html.escape(alt)}" width="{pixels.shape[1]}" height="{pixels.shape[0]}">'
