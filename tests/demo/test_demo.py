"""Demo: preprocessing of drawings and uploads, predictions, and the page in a real browser."""

import base64
import importlib.util
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from PIL import Image

from chromium import CHROMIUM, browser, listened
from jaxconv import InputError, cli, data, explain, models
from jaxconv.data import upscale_and_pad
from jaxconv.demo import (
    InputStyle,
    Predictor,
    center_by_mass,
    input_style_of,
    predict,
    preprocess_drawing,
    preprocess_upload,
)
from jaxconv.demo.canvas import DIGITS, MNIST, read_canvas
from jaxconv.demo.page import _heading
from jaxconv.plot import rgb
from jaxconv.runs import load_run
from jaxconv.runs.run_folder import TrainedRun


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert cli.main(["train", "--dataset", "digits", "--epochs", "3", "--run-dir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def predictor(folder):
    return Predictor(load_run(folder))


def untrained(name, input_shape, image_shape=None, seeds=1, dataset="digits", classes=10):
    model = models.create_model(name, classes)
    keys = jax.random.split(jax.random.key(3), seeds)
    init = lambda key: model.init(key, input_shape)  # noqa: E731
    params, state = jax.jit(jax.vmap(init) if seeds > 1 else lambda keys: init(keys[0]))(keys)
    config = {
        "dataset": dataset,
        "model": name,
        "num_seeds": seeds,
        "class_names": [f"class {i}" for i in range(classes)],
        "input_shape": list(input_shape),
        "image_shape": list(image_shape or input_shape),
    }
    return TrainedRun(None, config, model, params, state)


def test_predict_matches_run_with_maps_of_each_layer(predictor):
    images = data.load("digits").test[0][:2]
    expected = predictor.run.predict(images)
    for image, probabilities in zip(images, expected):
        prediction = predict(predictor, image)
        assert list(prediction.probabilities) == [str(i) for i in range(10)]
        np.testing.assert_allclose(list(prediction.probabilities.values()), probabilities, rtol=1e-4, atol=1e-6)
        assert prediction.attribution is None
        np.testing.assert_array_equal(prediction.seen, np.repeat(image, 3, axis=-1))
        run = predictor.run
        maps = explain.feature_maps(run.model, run.params, run.state, image[None])
        assert [title.split()[0] for title, _ in prediction.maps] == list(predictor.layers)
        for title, pixels in prediction.maps:
            y = maps[title.split()[0]][0]
            assert title.split(maxsplit=1)[1] == f"({'×'.join(map(str, y.shape))})"
            difference = np.abs(pixels.astype(int) - rgb.feature_maps(y))
            assert difference.max() <= 3, title  # of 255: rounding can select the next color
    assert predictor.forward._cache_size() == 1


def test_predict_attribution_depends_on_method(predictor):
    image = data.load("digits").test[0][0]
    assert set(predictor.attributions) == set(explain.ATTRIBUTION_METHODS) - {"class_activation_map"}
    overlays = {name: predict(predictor, image, name).attribution for name in ("saliency", "occlusion", "grad_cam")}
    assert len({overlay.tobytes() for overlay in overlays.values()}) == 3
    run, label = predictor.run, int(predictor.run.predict(image[None]).argmax())
    saliency = explain.ATTRIBUTION_METHODS["saliency"]
    heatmap = np.asarray(saliency(run.model, run.params, run.state, image[None], label))[0]
    difference = np.abs(overlays["saliency"].astype(int) - rgb.overlay(image, heatmap))
    assert difference.max() <= 3
    assert [predictor.attributions[name]._cache_size() for name in ("saliency", "deconvnet")] == [1, 0]


def test_predictor_omits_inapplicable_methods():
    assert {"grad_cam", "class_activation_map"}.isdisjoint(Predictor(untrained("mlp", (8, 8, 1))).attributions)
    predictor = Predictor(untrained("mlp", (4, 4, 1), classes=1))
    assert not predictor.attributions
    assert predict(predictor, np.zeros((4, 4, 1), np.uint8)).probabilities == {"class 0": 1.0}


def test_predict_upscales_image_as_in_training(rng):
    predictor = Predictor(untrained("mlp", (28, 28, 1), (8, 8, 1)))
    image = rng.integers(0, 256, (8, 8, 1), np.uint8)
    expected = predictor.run.predict(upscale_and_pad(image[None], (28, 28)))[0]
    prediction = predict(predictor, image)
    np.testing.assert_allclose(list(prediction.probabilities.values()), expected, rtol=1e-4)
    assert prediction.seen.shape == (28, 28, 3)


def test_predictor_uses_first_network_of_several_seeds(rng):
    run = untrained("mlp", (4, 4, 1), seeds=3)
    image = rng.integers(0, 256, (4, 4, 1), np.uint8)
    members = [
        run._replace(config=run.config | {"num_seeds": 1}, params=jax.tree.map(lambda leaf, i=i: leaf[i], run.params))
        for i in range(2)
    ]
    expected = [member.predict(image[None])[0] for member in members]
    predictor = Predictor(run)
    actual = list(predict(predictor, image).probabilities.values())
    np.testing.assert_allclose(actual, expected[0], rtol=1e-4)
    assert np.abs(expected[0] - expected[1]).max() > 1e-2
    assert "the first of the run's 3 networks" in _heading(predictor)
    assert "first of" not in _heading(Predictor(members[0]))


def test_heading_escapes_html():
    assert "<h1>mlp on folder:&lt;b&gt;_x_</h1>" in _heading(
        Predictor(untrained("mlp", (4, 4, 1), dataset="folder:<b>_x_"))
    )


def test_predict_invalid_arguments_raise(predictor):
    image = np.zeros((8, 8, 1), np.uint8)
    with pytest.raises(InputError, match=r"predict: unknown method 'salience': did you mean 'saliency'\?"):
        predict(predictor, image, "salience")
    for invalid in (np.zeros((9, 8, 1), np.uint8), np.zeros((8, 8, 1))):
        message = r"predict: image must be \(8, 8, 1\) uint8, got \([89], 8, 1\) (uint8|float64)"
        with pytest.raises(InputError, match=message):
            predict(predictor, invalid)


# Preprocessing


def center_of_mass(frame):
    total = frame.astype(float).sum()
    return [sum(i * float(line.sum()) for i, line in enumerate(np.moveaxis(frame, axis, 0))) / total for axis in (0, 1)]


@pytest.mark.parametrize(("size", "beyond"), [((28, 28), 0.5), ((9, 9), 0.0), ((30, 24), 0.0)])
def test_center_by_mass_fits_box_and_centers(size, beyond, rng):
    for _ in range(20):
        canvas = np.zeros((320, 320), np.uint8)
        top, left = rng.integers(0, 150, 2)
        height, width = rng.integers(20, 170, 2)
        canvas[top : top + height, left : left + 8] = 255
        canvas[top : top + 12, left : left + width] = rng.integers(100, 256)
        frame = center_by_mass(canvas, size, 20 / 28, beyond)
        assert frame.shape == size and frame.dtype == np.uint8
        rows, columns = frame.any(1).nonzero()[0], frame.any(0).nonzero()[0]
        extent = [rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1]
        tall, wide = max(height, 12), max(width, 8)
        scale = 20 / 28 * min(size) / max(tall, wide)
        np.testing.assert_allclose(extent, [tall * scale, wide * scale], atol=1)
        for position, outer, strokes in zip(center_of_mass(frame), size, (rows, columns)):
            at_border = strokes[0] == 0 or strokes[-1] == outer - 1
            assert abs(position - beyond - (outer - 1) / 2) <= 0.5 + 1e-9 or at_border


def test_center_by_mass_downscales_by_block_means(rng):
    strokes = rng.integers(1, 256, (140, 70))
    canvas = np.zeros((320, 320), np.uint8)
    canvas[11:151, 200:270] = strokes
    frame = center_by_mass(canvas, (28, 28), 20 / 28)
    blocks = strokes.reshape(20, 7, 10, 7).mean(axis=(1, 3))
    # Pillow rounds twice: after the rows, and after the columns.
    np.testing.assert_allclose(frame[frame.any(1)][:, frame.any(0)], blocks, atol=1)


def test_center_by_mass_keeps_strokes_inside_frame():
    canvas = np.zeros((100, 100), np.uint8)
    canvas[:, 40:42], canvas[:8, :] = 40, 255  # the center of mass is near the top
    frame = center_by_mass(canvas, (8, 8), 1.0)
    assert frame[0].any() and frame[-1].any()
    canvas[:] = 0
    canvas[7, 9] = 255
    frame = center_by_mass(canvas, (28, 28), 20 / 28)
    assert (frame > 0).sum() == 400 and frame[4:24, 4:24].all()


@pytest.mark.skipif("JAXCONV_DATA" not in os.environ, reason="needs the official MNIST files")
def test_center_by_mass_recovers_shifted_mnist_digits():
    images = data.load("mnist").test[0][:200, :, :, 0]
    num_equal = 0
    for image in images:
        canvas = np.zeros((320, 320), np.uint8)
        canvas[3:227, 77:301] = image.repeat(8, 0).repeat(8, 1)
        num_equal += np.array_equal(center_by_mass(canvas, (28, 28), MNIST.box, MNIST.beyond), image)
    assert num_equal >= 150, num_equal


def test_preprocess_drawing_follows_dataset_style():
    assert input_style_of("tfds:emnist", 1) == input_style_of("mnist", 1) == MNIST
    assert input_style_of("digits", 1) == DIGITS
    assert (
        input_style_of("folder:mnist", 3)
        == input_style_of("cifar10", 3)
        == input_style_of("npz:x.npz", 1)
        == InputStyle(None)
    )
    canvas = np.zeros((64, 64, 4), np.uint8)
    canvas[32:, :32] = 200, 0, 0, 255
    image = preprocess_drawing(canvas, (8, 8, 3), input_style_of("cifar10", 3))
    assert min(*image[1, 1], *image[6, 6]) >= 253  # the Lanczos filter overshoots slightly
    np.testing.assert_allclose(image[6, 1], [200, 0, 0], atol=2)
    gray = preprocess_drawing(canvas, (8, 8, 1), InputStyle(None))
    np.testing.assert_array_equal(preprocess_drawing(canvas, (8, 8, 1), input_style_of("fashion_mnist", 1)), 255 - gray)
    assert abs(int(gray[6, 1, 0]) - 60) <= 2  # 0.299 × 200
    # Independent of the color.
    assert preprocess_drawing(canvas, (8, 8, 1), DIGITS).tolist() == np.full((8, 8, 1), 255).tolist()
    for style in (DIGITS, InputStyle(None), InputStyle(None, inverted=True)):
        empty = np.zeros((64, 64, 4), np.uint8)
        empty[..., :3] = 9  # an invisible color
        assert preprocess_drawing(empty, (8, 8, 1), style) is None


def test_read_canvas_keeps_transparency(rng):
    canvas = rng.integers(1, 256, (5, 7, 4), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "PNG")
    address = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    np.testing.assert_array_equal(read_canvas(address), canvas)
    assert read_canvas("") is None and read_canvas(None) is None


def test_preprocess_upload_notes_conversion(tmp_path, rng):
    pixels = rng.integers(0, 256, (10, 20, 3), np.uint8)
    path = tmp_path / "seven.png"
    Image.fromarray(pixels).save(path)
    image, note = preprocess_upload(path, (8, 8, 1))
    np.testing.assert_array_equal(image, data.read_image(path, (8, 8, 1)))
    assert note == "seven.png: resized from 10×20 color to 8×8 gray"
    swapped, note = preprocess_upload(path, (8, 8, 1), invert=True)
    np.testing.assert_array_equal(swapped, 255 - image)
    assert note.endswith("to 8×8 gray, dark and bright swapped")
    assert preprocess_upload(path, (10, 20, 3))[1] == "seven.png: 10×20 color, not resized"
    path.write_text("not an image")
    with pytest.raises(InputError, match=r"^seven.png is not an image that Pillow can read"):
        preprocess_upload(path, (8, 8, 1))


# The command


@pytest.fixture
def busy_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_demo_unusable_port_fails_before_loading(jaxconv, busy_port):
    code, _, err = jaxconv(f"demo nowhere --port {busy_port}")
    message = f"demo: port {busy_port} of 127.0.0.1 cannot be served (Address already in use): give another --port"
    assert code == 2 and message in err
    assert "demo: --port must be from 1 to 65535, got 70000" in jaxconv("demo nowhere --port 70000")[2]


def test_demo_without_gradio_names_the_extra(jaxconv, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, _, err = jaxconv(f"demo nowhere --port {free_port()}")
    assert code == 2 and 'jaxconv demo needs gradio: pip install "jaxconv[demo]"' in err


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# The page


missing = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
missing += [] if CHROMIUM else ["a Chromium"]


@pytest.fixture
def served(folder):
    """Run ``jaxconv demo`` in a process, as users do."""
    test_variables = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in test_variables}
    command = [sys.executable, "-m", "jaxconv.cli", "demo", str(folder), "--port", str(free_port())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    timeout = threading.Timer(400, process.kill)
    timeout.start()
    yield process
    timeout.cancel()
    process.kill()
    process.communicate()


@pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")
def test_demo_page_updates_while_drawing(served):  # row 004-15
    address = served.stdout.readline().removeprefix("the page is at ").strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}", address), served.communicate()
    assert served.stdout.readline() == "Ctrl-C stops it\n"
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": 400, "height": 900})
        page.set_default_timeout(120_000)  # for a machine under load
        errors, requested_urls = listened(page, kinds=("error",))
        home = address.partition("?")[0]
        page.goto(address)
        page.wait_for_url(home)  # the token has moved to a cookie
        page.locator("#canvas canvas").hover()  # waits until gradio no longer covers the page
        assert "Draw something, or upload an image." in page.inner_text("#note")
        assert not page.query_selector("#maps img")

        prediction = "#prediction [data-testid=label-output-value]"

        def stroke(*points, lift=True):
            box = page.locator("#canvas canvas").bounding_box()
            positions = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
            page.mouse.move(*positions[0])
            page.mouse.down()
            for position in positions[1:]:
                page.mouse.move(*position, steps=6)
            if lift:
                page.mouse.up()

        def predicted():
            return page.inner_text(prediction)

        def wait_for_prediction(digit):
            page.wait_for_function(f"document.querySelector('{prediction}')?.innerText.trim() === '{digit}'")

        def image_source(n):
            return page.get_attribute(f"#images figure:nth-child({n}) img", "src")

        stroke((0.5, 0.15), (0.5, 0.85), lift=False)
        wait_for_prediction("1")  # before the pen is lifted
        page.mouse.up()
        page.wait_for_function("document.querySelector('#note').innerText.trim() === ''")
        attribution = image_source(2)
        page.click("#canvas [data-do=clear]")
        page.wait_for_function("document.querySelector('#note').innerText.startsWith('Draw something')")
        assert not page.query_selector("#maps img") and not page.query_selector("#images img")
        ring = [(0.5 + 0.25 * np.sin(t), 0.5 - 0.35 * np.cos(t)) for t in np.linspace(0, 2 * np.pi, 13)]
        stroke(*ring)
        wait_for_prediction("0")
        page.wait_for_timeout(300)
        assert image_source(2) != attribution
        assert len(page.query_selector_all("#maps img")) == len(page.query_selector_all("#maps h3")) >= 5
        network_input, before = image_source(1), image_source(2)
        page.click("text=grad cam")
        page.wait_for_function(
            "before => document.querySelector('#images figure:nth-child(2) img').src !== before", arg=before
        )
        assert image_source(1) == network_input and predicted() == "0"

        four = data.load("digits").train[0][data.load("digits").train[1] == 4][0][..., 0]
        image = np.kron(255 - four, np.ones((4, 4), np.uint8))
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        page.get_by_role("tab", name="Upload").click()
        page.set_input_files(
            "input[type=file]", {"name": "four.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
        )
        page.wait_for_function(
            "document.querySelector('#note').innerText === 'four.png: resized from 32×32 gray to 8×8 gray'"
        )
        page.click("text=dark strokes on a light background")
        wait_for_prediction("4")
        assert "dark and bright swapped" in page.inner_text("#note")
        page.get_by_role("tab", name="Draw").click()  # the drawing is still there
        wait_for_prediction("0")
        assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert not errors
    assert requested_urls and all(url.startswith((home, "data:", "blob:")) for url in requested_urls)
    served.send_signal(signal.SIGINT)
    _, err = served.communicate(timeout=20)
    assert (served.returncode, err) == (130, "jaxconv: interrupted\n")
