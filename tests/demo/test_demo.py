"""The live page: what a drawing becomes, what is answered, and the page itself in a real browser."""

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
def programs(folder):
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


def test_the_answer_is_what_the_run_predicts_with_the_maps_of_each_layer(programs):
    images = data.load("digits").test[0][:2]
    want = programs.run.predict(images)
    for image, probabilities in zip(images, want):
        found = predict(programs, image)
        assert list(found.probabilities) == [str(i) for i in range(10)]
        np.testing.assert_allclose(list(found.probabilities.values()), probabilities, rtol=1e-4, atol=1e-6)
        assert found.attribution is None
        np.testing.assert_array_equal(found.seen, np.repeat(image, 3, axis=-1))
        run = programs.run
        maps = explain.feature_maps(run.model, run.params, run.state, image[None])
        assert [title.split()[0] for title, _ in found.maps] == list(programs.layers)
        for title, shown in found.maps:
            y = maps[title.split()[0]][0]
            assert title.split(maxsplit=1)[1] == f"({'×'.join(map(str, y.shape))})"
            difference = np.abs(shown.astype(int) - rgb.feature_maps(y))
            assert difference.max() <= 3, title  # of 255: rounding, which may meet the next colour
    assert programs.look._cache_size() == 1


def test_each_method_has_a_picture_of_its_own_over_the_likeliest_class(programs):
    image = data.load("digits").test[0][0]
    assert set(programs.heat) == set(explain.ATTRIBUTION_METHODS) - {"class_activation_map"}
    shown = {name: predict(programs, image, name).attribution for name in ("saliency", "occlusion", "grad_cam")}
    assert len({picture.tobytes() for picture in shown.values()}) == 3
    run, label = programs.run, int(programs.run.predict(image[None]).argmax())
    heat = np.asarray(explain.ATTRIBUTION_METHODS["saliency"](run.model, run.params, run.state, image[None], label))[0]
    difference = np.abs(shown["saliency"].astype(int) - rgb.overlay(image, heat))
    assert difference.max() <= 3
    assert [programs.heat[name]._cache_size() for name in ("saliency", "deconvnet")] == [1, 0]


def test_what_this_network_cannot_be_asked_is_left_out():
    assert {"grad_cam", "class_activation_map"}.isdisjoint(Predictor(untrained("mlp", (8, 8, 1))).heat)
    one = Predictor(untrained("mlp", (4, 4, 1), classes=1))
    assert not one.heat and predict(one, np.zeros((4, 4, 1), np.uint8)).probabilities == {"class 0": 1.0}


def test_an_image_is_enlarged_as_in_training(rng):
    programs = Predictor(untrained("mlp", (28, 28, 1), (8, 8, 1)))
    image = rng.integers(0, 256, (8, 8, 1), np.uint8)
    want = programs.run.predict(upscale_and_pad(image[None], (28, 28)))[0]
    found = predict(programs, image)
    np.testing.assert_allclose(list(found.probabilities.values()), want, rtol=1e-4)
    assert found.seen.shape == (28, 28, 3)


def test_of_several_seeds_the_first_network_is_shown_and_it_says_so(rng):
    run = untrained("mlp", (4, 4, 1), seeds=3)
    image = rng.integers(0, 256, (4, 4, 1), np.uint8)
    one = [
        run._replace(config=run.config | {"num_seeds": 1}, params=jax.tree.map(lambda leaf, i=i: leaf[i], run.params))
        for i in range(2)
    ]
    want = [network.predict(image[None])[0] for network in one]
    programs = Predictor(run)
    got = list(predict(programs, image).probabilities.values())
    np.testing.assert_allclose(got, want[0], rtol=1e-4)
    assert np.abs(want[0] - want[1]).max() > 1e-2
    assert "the first of the run's 3 networks" in _heading(programs)
    assert "first of" not in _heading(Predictor(one[0]))


def test_a_name_is_shown_as_it_is():
    assert "<h1>mlp on folder:&lt;b&gt;_x_</h1>" in _heading(
        Predictor(untrained("mlp", (4, 4, 1), dataset="folder:<b>_x_"))
    )


def test_what_cannot_be_answered_is_told(programs):
    image = np.zeros((8, 8, 1), np.uint8)
    with pytest.raises(InputError, match=r"predict: unknown method 'salience': did you mean 'saliency'\?"):
        predict(programs, image, "salience")
    for wrong in (np.zeros((9, 8, 1), np.uint8), np.zeros((8, 8, 1))):
        with pytest.raises(
            InputError, match=r"predict: an image \(.*\) of (uint8|float64) is none of \(8, 8, 1\) of uint8"
        ):
            predict(programs, wrong)


# What comes from the canvas


def centre_of_mass(frame):
    total = frame.astype(float).sum()
    return [sum(i * float(line.sum()) for i, line in enumerate(np.moveaxis(frame, axis, 0))) / total for axis in (0, 1)]


@pytest.mark.parametrize(("size", "beyond"), [((28, 28), 0.5), ((9, 9), 0.0), ((30, 24), 0.0)])
def test_ink_is_fitted_to_its_box_and_centred_by_its_mass(size, beyond, rng):
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
        for place, outer, ink in zip(centre_of_mass(frame), size, (rows, columns)):
            at_border = ink[0] == 0 or ink[-1] == outer - 1
            assert abs(place - beyond - (outer - 1) / 2) <= 0.5 + 1e-9 or at_border


def test_ink_is_made_small_by_means_of_blocks(rng):
    ink = rng.integers(1, 256, (140, 70))
    canvas = np.zeros((320, 320), np.uint8)
    canvas[11:151, 200:270] = ink
    frame = center_by_mass(canvas, (28, 28), 20 / 28)
    blocks = ink.reshape(20, 7, 10, 7).mean(axis=(1, 3))
    np.testing.assert_allclose(
        frame[frame.any(1)][:, frame.any(0)], blocks, atol=1
    )  # Pillow rounds twice: rows, then columns


def test_ink_stays_in_the_frame_and_a_dot_fills_the_box():
    canvas = np.zeros((100, 100), np.uint8)
    canvas[:, 40:42], canvas[:8, :] = 40, 255  # its mass is at the top
    frame = center_by_mass(canvas, (8, 8), 1.0)
    assert frame[0].any() and frame[-1].any()
    canvas[:] = 0
    canvas[7, 9] = 255
    frame = center_by_mass(canvas, (28, 28), 20 / 28)
    assert (frame > 0).sum() == 400 and frame[4:24, 4:24].all()


@pytest.mark.skipif("JAXCONV_DATA" not in os.environ, reason="needs the official MNIST files")
def test_a_digit_of_mnist_that_is_drawn_large_and_elsewhere_comes_back_to_where_it_was():
    images = data.load("mnist").test[0][:200, :, :, 0]
    same = 0
    for image in images:
        canvas = np.zeros((320, 320), np.uint8)
        canvas[3:227, 77:301] = image.repeat(8, 0).repeat(8, 1)
        same += np.array_equal(center_by_mass(canvas, (28, 28), MNIST.box, MNIST.beyond), image)
    assert same >= 150, same


def test_a_drawing_is_ink_for_digits_and_a_picture_for_others():
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
    half = preprocess_drawing(canvas, (8, 8, 3), input_style_of("cifar10", 3))
    assert min(*half[1, 1], *half[6, 6]) >= 253  # the filter that resizes overshoots a little
    np.testing.assert_allclose(half[6, 1], [200, 0, 0], atol=2)
    grey = preprocess_drawing(canvas, (8, 8, 1), InputStyle(None))
    np.testing.assert_array_equal(preprocess_drawing(canvas, (8, 8, 1), input_style_of("fashion_mnist", 1)), 255 - grey)
    assert abs(int(grey[6, 1, 0]) - 60) <= 2  # 0.299 × 200
    assert (
        preprocess_drawing(canvas, (8, 8, 1), DIGITS).tolist() == np.full((8, 8, 1), 255).tolist()
    )  # whatever its colour
    for manner in (DIGITS, InputStyle(None), InputStyle(None, inverted=True)):
        nothing = np.zeros((64, 64, 4), np.uint8)
        nothing[..., :3] = 9  # a colour that is not seen
        assert preprocess_drawing(nothing, (8, 8, 1), manner) is None


def test_a_canvas_is_read_with_what_is_transparent(rng):
    canvas = rng.integers(1, 256, (5, 7, 4), np.uint8)
    written = io.BytesIO()
    Image.fromarray(canvas).save(written, "PNG")
    address = "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()
    np.testing.assert_array_equal(read_canvas(address), canvas)
    assert read_canvas("") is None and read_canvas(None) is None


def test_an_upload_says_what_became_of_it(tmp_path, rng):
    picture = rng.integers(0, 256, (10, 20, 3), np.uint8)
    path = tmp_path / "seven.png"
    Image.fromarray(picture).save(path)
    image, note = preprocess_upload(path, (8, 8, 1))
    np.testing.assert_array_equal(image, data.read_image(path, (8, 8, 1)))
    assert note == "seven.png: resized from 10×20 in colour to 8×8 grey"
    swapped, note = preprocess_upload(path, (8, 8, 1), invert=True)
    np.testing.assert_array_equal(swapped, 255 - image)
    assert note.endswith("to 8×8 grey, dark and bright swapped")
    assert preprocess_upload(path, (10, 20, 3))[1] == "seven.png: 10×20 in colour, taken as it is"
    path.write_text("no picture")
    with pytest.raises(InputError, match=r"^seven.png is not an image that Pillow can read"):
        preprocess_upload(path, (8, 8, 1))


# The command


@pytest.fixture
def busy():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_port_that_cannot_be_served_is_told_before_anything_is_loaded(jaxconv, busy):
    code, _, said = jaxconv(f"demo nowhere --port {busy}")
    assert (
        code == 2
        and f"demo: port {busy} of 127.0.0.1 cannot be served (Address already in use): give another --port" in said
    )
    assert "demo: --port 70000: give a number from 1 to 65535" in jaxconv("demo nowhere --port 70000")[2]


def test_without_gradio_it_says_what_to_install(jaxconv, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, _, said = jaxconv(f"demo nowhere --port {free()}")
    assert code == 2 and 'jaxconv demo needs gradio: pip install "jaxconv[demo]"' in said


def free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# The page


needs = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
needs += [] if CHROMIUM else ["a Chromium"]


@pytest.fixture
def served(folder):
    """``jaxconv demo`` as users start it."""
    ours = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    command = [sys.executable, "-m", "jaxconv.cli", "demo", str(folder), "--port", str(free())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    late = threading.Timer(400, process.kill)
    late.start()
    yield process
    late.cancel()
    process.kill()
    process.communicate()


@pytest.mark.skipif(bool(needs), reason=f"needs {', '.join(needs)}")
def test_in_a_browser_the_page_answers_while_one_draws(served):  # row 004-15
    address = served.stdout.readline().removeprefix("the page is at ").strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}", address), served.communicate()
    assert served.stdout.readline() == "Ctrl-C stops it\n"
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": 400, "height": 900})
        page.set_default_timeout(120_000)  # of a machine that does other things too
        errors, asked = listened(page, kinds=("error",))
        home = address.partition("?")[0]
        page.goto(address)
        page.wait_for_url(home)  # the token is gone to a cookie
        page.locator("#canvas canvas").hover()  # once it can be drawn on: gradio covers the page while it starts
        assert "Draw something, or upload an image." in page.inner_text("#note")
        assert not page.query_selector("#maps img")

        said = "#said [data-testid=label-output-value]"

        def stroke(*points, lift=True):
            box = page.locator("#canvas canvas").bounding_box()
            places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
            page.mouse.move(*places[0])
            page.mouse.down()
            for place in places[1:]:
                page.mouse.move(*place, steps=6)
            if lift:
                page.mouse.up()

        def likeliest():
            return page.inner_text(said)

        def until(digit):
            page.wait_for_function(f"document.querySelector('{said}')?.innerText.trim() === '{digit}'")

        def picture(n):
            return page.get_attribute(f"#pictures figure:nth-child({n}) img", "src")

        stroke((0.5, 0.15), (0.5, 0.85), lift=False)
        until("1")  # it answers before the pen is lifted
        page.mouse.up()
        page.wait_for_function("document.querySelector('#note').innerText.trim() === ''")
        heat = picture(2)
        page.click("#canvas [data-do=clear]")
        page.wait_for_function("document.querySelector('#note').innerText.startsWith('Draw something')")
        assert not page.query_selector("#maps img") and not page.query_selector("#pictures img")
        ring = [(0.5 + 0.25 * np.sin(t), 0.5 - 0.35 * np.cos(t)) for t in np.linspace(0, 2 * np.pi, 13)]
        stroke(*ring)
        until("0")
        page.wait_for_timeout(300)
        assert picture(2) != heat
        assert len(page.query_selector_all("#maps img")) == len(page.query_selector_all("#maps h3")) >= 5
        seen, before = picture(1), picture(2)
        page.click("text=grad cam")
        page.wait_for_function(
            "before => document.querySelector('#pictures figure:nth-child(2) img').src !== before", arg=before
        )
        assert picture(1) == seen and likeliest() == "0"

        image = np.kron(
            255 - data.load("digits").train[0][data.load("digits").train[1] == 4][0][..., 0], np.ones((4, 4), np.uint8)
        )
        written = io.BytesIO()
        Image.fromarray(image).save(written, "PNG")
        page.get_by_role("tab", name="Upload").click()
        page.set_input_files(
            "input[type=file]", {"name": "four.png", "mimeType": "image/png", "buffer": written.getvalue()}
        )
        page.wait_for_function(
            "document.querySelector('#note').innerText === 'four.png: resized from 32×32 grey to 8×8 grey'"
        )
        page.click("text=dark ink on white paper")
        until("4")
        assert "dark and bright swapped" in page.inner_text("#note")
        page.get_by_role("tab", name="Draw").click()  # what was drawn is there again
        until("0")
        assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert not errors
    assert asked and all(url.startswith((home, "data:", "blob:")) for url in asked)
    served.send_signal(signal.SIGINT)
    _, told = served.communicate(timeout=20)
    assert (served.returncode, told) == (130, "jaxconv: interrupted\n")
