"""A run as one page: everything is in it, it opens without a network, and it says what the run says."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from chromium import browser, listened
from jaxconv import InputError, data, explain
from jaxconv.report import attribution_sections, diagnostic_sections, page, write_report
from jaxconv.report.context import load_context
from jaxconv.runs import TrainConfig, load_run, run_training
from report_html import rows, section, tiles


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two quick runs on the digits: a convolutional network, and two seeds of one without convolutions."""
    folder = tmp_path_factory.mktemp("runs")
    small = TrainConfig(epochs=2, batch_size=128, learning_rate=0.01, run_dir=folder / "small")
    flat = TrainConfig(model="mlp", epochs=1, batch_size=128, num_seeds=2, run_dir=folder / "flat")
    return {config.run_dir.name: run_training(config, progress=False)[0] for config in (small, flat)}


@pytest.fixture(scope="module", autouse=True)
def less():
    """Fewer images, filters and steps than a page for people has: the same programs, and less to compute."""
    few = {
        attribution_sections: {"MOST_FILTERS": 3, "MOST_PATCHES": 3, "MOST_LAYERS": 2, "STEPS": 8},
        diagnostic_sections: {
            "MOST_ROBUSTNESS_IMAGES": 60,
            "REPORT_CORRUPTIONS": ("rotation", "noise"),
            "MOST_HEALTH_IMAGES": 100,
            "FEW": 16,
        },
    }
    with pytest.MonkeyPatch.context() as patch:
        for module, names in few.items():
            for name, value in names.items():
                patch.setattr(module, name, value)
        yield


@pytest.fixture(scope="module")
def written(runs, tmp_path_factory):
    picture = tmp_path_factory.mktemp("pictures") / "seven & <co>.png"
    Image.fromarray(np.kron(data.load("digits").test.images[0, ..., 0], np.ones((5, 4), np.uint8))).save(picture)
    return write_report(runs["small"], images=[picture], progress=False)


@pytest.fixture
def html(written):
    return written.page.read_text(encoding="utf-8")


def test_the_page_is_whole(written, html):
    assert written.page.stat().st_size < 5e6
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    assert titles == [
        "How training went",
        "What it gets wrong",
        "Filters",
        "Feature maps",
        "What it looked at",
        "What the filters wait for",
        "Health",
        "Where it looks",
        "What it withstands",
        "The network",
        "The arithmetic of one pixel",
    ]
    links = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"@import|url\(", html)


def test_the_page_says_what_the_run_says(runs, html):
    result = json.loads((runs["small"] / "result.json").read_text())
    assert f"<dd>{result['test_accuracy']:.4f}</dd>" in html and "<dd>30,634</dd>" in html
    charts = [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', html)]
    counts = json.loads((runs["small"] / "classification_report.json").read_text())["confusion_matrix"]
    [confusion] = [trace for chart in charts for trace in chart["data"] if trace["type"] == "heatmap"]
    assert confusion["customdata"] == counts
    lines = [json.loads(line) for line in (runs["small"] / "metrics.jsonl").read_text().splitlines()]
    assert charts[0]["data"][1]["y"] == [line["val_loss"] for line in lines]


def test_the_surest_mistakes_come_first(runs, html):
    run, (images, labels) = load_run(runs["small"]), data.load("digits").test
    probabilities = run.predict(images)
    wrong = [i for i in range(len(images)) if probabilities[i].argmax() != labels[i]]
    wrong.sort(key=lambda i: -probabilities[i].max())
    part = section(html, "mistakes")
    shown = tiles(part)
    assert len(shown) == min(32, len(wrong)) > 3
    for i, (picture, said) in zip(wrong, shown):
        assert said == f"{labels[i]} → {probabilities[i].argmax()}\n{probabilities[i].max():.0%} sure"
        np.testing.assert_array_equal(picture, np.repeat(images[i], 3, axis=-1))
    assert f"<p>{len(images) - len(wrong)} of {len(images)} test images are right." in part
    for label, _, recall, _, count in rows(part)[1:]:
        of = labels == int(label)
        found = np.mean(probabilities[of].argmax(axis=1) == int(label))
        assert (recall, count) == (f"{found:.4f}", f"{of.sum()}")


def test_filters_are_shown_as_they_are_and_as_they_were(runs, html):
    run = load_run(runs["small"])
    kernel = np.asarray(run.params["conv1"]["kernel"])[:, :, 0]
    after, before = (tiles(part) for part in section(html, "filters").split("The same before it"))
    count, moved = kernel.shape[-1], 0
    for k in range(count):
        grey = [pictures[k][0][..., 0].astype(float) - 127.5 for pictures in (after, before)]
        np.testing.assert_allclose(grey[0] / 127.5, kernel[..., k] / np.abs(kernel[..., k]).max(), atol=0.01)
        cosine = (grey[0] * grey[1]).sum() / np.sqrt((grey[0] ** 2).sum() * (grey[1] ** 2).sum())
        name, said = after[k][1].split(": cos ")
        assert name == f"{k}" and float(said) == pytest.approx(cosine, abs=0.01)
        assert before[k][1] == f"{k}" and cosine > 0.9  # it began there,
        moved += np.any(grey[0] != grey[1])
    assert moved > count / 2


def test_where_it_looks_is_asked_of_the_true_class_and_for_a_file_of_the_likeliest(runs, html):
    run, (images, labels) = load_run(runs["small"]), data.load("digits").test
    headings, *lines = rows(section(html, "attention"))
    assert len(lines) == 11  # ten classes and a file
    first = [images[np.flatnonzero(labels == label)[0]] for label in range(10)]
    probabilities = run.predict(np.stack(first))
    for label, line in enumerate(lines[:10]):
        sure = probabilities[label].max()
        assert line[0] == f"{label} → {probabilities[label].argmax()} {sure:.0%}"
        np.testing.assert_array_equal(line[1], np.repeat(first[label], 3, axis=-1))
    network, file = (run.model, run.params, run.state), lines[10][1][..., :1]
    for image, line, label in [*((first[label], lines[label], label) for label in (2, 8)), (file, lines[10], None)]:
        label = run.predict(file[None])[0].argmax() if label is None else label
        heat = np.abs(np.asarray(explain.saliency(*network, image[None], label))[0, ..., 0])
        reds = line[headings.index("saliency")][..., 0] - 0.45 * image[..., 0]
        assert np.corrcoef(reds.ravel(), heat.ravel())[0, 1] > 0.9


def test_each_image_has_its_own_feature_maps(runs, html):
    run, (images, labels) = load_run(runs["small"]), data.load("digits").test
    folded = re.findall(r"<details.*?</details>", section(html, "features"), re.S)
    for label in (0, 4):
        image = images[np.flatnonzero(labels == label)[0]]
        y = np.asarray(explain.feature_maps(run.model, run.params, run.state, image[None])["relu1"])[0]
        grid = tiles(folded[label])[2][0].astype(int).sum(axis=-1)  # after the image and conv1: 4×8 maps, a pixel apart
        maps = grid.reshape(35, 71)[np.arange(35) % 9 < 8][:, np.arange(71) % 9 < 8].reshape(4, 8, 8, 8).swapaxes(1, 2)
        assert np.corrcoef(maps.reshape(32, -1).ravel(), np.moveaxis(y, -1, 0).ravel())[0, 1] > 0.9


def test_a_filter_is_shown_what_excites_it(runs, html, promoting):
    run, images = load_run(runs["small"]), data.load("digits").test.images
    kernel, bias = (np.asarray(run.params["conv1"][name], np.float64) for name in ("kernel", "bias"))
    lines = [row for row in rows(section(html, "wishes").split("<h3>")[1]) if row[0].startswith("filter")]
    padded = np.pad(images[..., 0] / 255, [(0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    answer = lambda patch, k: (patch * kernel[:, :, 0, k]).sum() + bias[k]  # noqa: E731
    options = {"layer": "conv1", "channels": range(3), "key": jax.random.key(0), "num_steps": 8}
    wished = np.asarray(explain.maximize_activation(run.model, run.params, run.state, (8, 8, 1), **options))
    for k, (name, made, *patches) in enumerate(lines):
        best = np.einsum("nhwij,ij->nhw", windows, kernel[:, :, 0, k]).max() + bias[k]
        assert name == f"filter {k}" and answer(patches[0][..., 0] / 255, k) == pytest.approx(best, rel=1e-4)
        np.testing.assert_allclose(made, np.repeat(255 * wished[k], 3, axis=-1), atol=2)


def test_fields_are_drawn_where_they_lie(html):
    shown = {caption.split(":")[0]: picture for picture, caption in tiles(section(html, "geometry"))[:5]}
    for name, first, end in [("conv1", 3, 6), ("conv2", 2, 7)]:  # of output 4 of 8, by hand; a pixel is 28 here
        frame = np.argwhere((shown[name] == (255, 140, 0)).all(axis=-1))
        assert (frame.min(axis=0) == 28 * first).all() and (frame.max(axis=0) == 28 * end - 1).all()
    for heat, _ in tiles(section(html, "geometry"))[5:]:
        brightness = heat.astype(int).sum(axis=-1)
        assert brightness[0, 0] == brightness.min() and brightness[4, 4] == brightness.max()


def test_weights_are_counted_as_they_are(runs, html):
    kernel = np.asarray(load_run(runs["small"]).params["conv1"]["kernel"])
    chart = re.search(r'aria-label="weights of conv1/kernel".*?json">(.*?)</script>', html, re.S).group(1)
    [bars] = json.loads(chart)["data"]
    middles, width = np.array(bars["x"]), bars["width"][0]
    want = np.histogram(kernel, bins=[*(middles - width / 2), middles[-1] + width / 2])[0]
    assert sum(bars["y"]) == kernel.size and np.abs(want - bars["y"]).sum() <= 4  # at the edges rounding may decide


def test_its_health_is_that_of_the_first_images(runs, html):
    run, (images, _) = load_run(runs["small"]), data.load("digits").test
    headings, *lines = rows(section(html, "health"))
    maps = explain.feature_maps(run.model, run.params, run.state, images[:100])
    assert [line[0] for line in lines] == [name for name in maps if name.startswith(("conv", "relu", "dense"))]
    for line in lines:
        y = np.asarray(maps[line[0]]).reshape(100, -1, maps[line[0]].shape[-1])
        found = dict(zip(headings, line))
        assert found["zeros"] == f"{np.mean(y == 0):.1%}" and found["live in"] == f"{y.any(axis=1).mean():.1%}"
        if line[0].startswith("relu"):
            assert found["dead"] == f"{sum(not y[..., k].any() for k in range(y.shape[-1]))}"


def test_what_is_moved_by_nothing_is_what_it_was(runs, html):
    run, (images, labels) = load_run(runs["small"]), data.load("digits").test
    right = run.predict(images[:60]).argmax(axis=1) == labels[:60]
    part = section(html, "robustness")
    shift, *others = [json.loads(text)["data"] for text in re.findall(r"json\">(.*?)</script>", part)]
    accuracy, distance = ({x: y for x, y in zip(line["x"], line["y"])} for line in shift)
    assert list(accuracy) == list(range(-2, 3)) and accuracy[0] == pytest.approx(right[:30].mean())
    assert distance[0] == 0 < distance[1] and distance[-2] > distance[-1]
    for [line] in others:  # rotation and noise, of which no strength is zero
        assert line["y"][line["x"].index(0)] == pytest.approx(right.mean())


def test_the_sum_behind_a_pixel_is_the_number_that_the_network_made(runs, html):
    run, test = load_run(runs["small"]), data.load("digits").test
    image = test.images[np.flatnonzero(test.labels == 0)[0]]
    y = explain.feature_maps(run.model, run.params, run.state, image[None], layers=("conv1",))["conv1"]
    written = re.search(r"<pre>(.*?)</pre>", html, re.S).group(1)
    assert float(written.split("=")[-1]) == pytest.approx(float(y.max()), rel=1e-3)


def test_a_picture_of_another_size_is_resized_and_it_says_so(written, html):
    assert written.notes == ["seven & <co>.png is 40×32; the network was shown it as 8×8."]
    assert "seven &amp; &lt;co&gt;.png is 40×32" in html and "<co>" not in html


def test_a_browser_shows_all_of_it_without_a_network(written):
    with browser() as chromium:
        for width, scheme in [(1280, "light"), (390, "dark")]:
            context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
            shown = context.new_page()
            complaints, asked = listened(shown)
            shown.goto(written.page.as_uri())
            shown.wait_for_function("document.documentElement.dataset.drawn", timeout=30_000)
            assert complaints == []
            assert {url.split(":")[0] for url in asked} <= {"file", "data", "blob"}
            pictures = shown.evaluate("[...document.images].map(image => image.complete && image.naturalWidth)")
            assert len(pictures) > 100 and all(pictures)
            charts = shown.evaluate(
                "[...document.querySelectorAll('.chart')].map(c => c.querySelectorAll('svg').length)"
            )
            assert len(charts) >= 6 and all(charts)
            assert shown.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out to the side
            paper, ink = shown.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
            darkness = [sum(map(int, re.findall(r"\d+", color)[:3])) for color in (paper, ink)]
            assert (darkness[0] < darkness[1]) == (scheme == "dark")
            letters = shown.evaluate("getComputedStyle(document.querySelector('.chart .xtitle')).fill")
            assert letters == ink  # the charts follow the reader's theme
            context.close()


def test_what_a_network_has_not_is_left_out_and_of_several_the_first_is_shown(runs, tmp_path):
    report = write_report(runs["flat"], output_dir=tmp_path / "page", progress=False)
    html = report.page.read_text()
    assert report.page == tmp_path / "page" / "index.html"
    assert report.notes == ["This run trained 2 networks; the page looks at the first, of seed 0."]
    for title in ("Filters", "What the filters wait for", "Where it looks", "The arithmetic of one pixel"):
        assert f"<h2>{title}</h2>" not in html
    assert "<h2>What it looked at</h2>" in html and "grad cam" not in html
    first = load_context(runs["flat"])
    members = json.loads((runs["flat"] / "result.json").read_text())["test_accuracy_per_seed"]
    assert f"<dd>{members[0]:.4f}</dd>" in html
    assert (first.probabilities.argmax(1) == first.labels).mean() == pytest.approx(members[0])


def test_a_write_that_fails_leaves_the_page_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "index.html"
    page.write_page(path, "first", [], [], [])
    before = path.read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InputError, match=r"index.html cannot be written: No space left on device"):
        page.write_page(path, "second", [], [], [])
    assert path.read_text() == before and list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_shown_is_told(runs, tmp_path, jaxconv):
    (tmp_path / "no.png").write_text("no picture")
    (tmp_path / "file").write_text("")
    small = runs["small"]
    shutil.copytree(small, tmp_path / "other", ignore=shutil.ignore_patterns("explain"))
    config = json.loads((small / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"model": "mlp"}))
    for line, said in [
        (f"{tmp_path}/none", "there is no run folder"),
        (f"{tmp_path}", "is not a run folder: it has no config.json"),
        (
            "other",
            "other/config.json has model='mlp', but the run was trained with model='small_cnn': restore the file",
        ),
        (f"{small} --layer conv9", "explain --layer: unknown layer 'conv9': did you mean 'conv"),
        (f"{small} --layer dense1", "explain --layer: grad_cam: layer dense1"),
        (f"{small} --images no.png", "no.png is not an image that Pillow can read"),
        (f"{small} --images gone.png", "there is no image gone.png"),
        (f"{small} --output-dir file", "the folder file cannot be made"),
        (f"{runs['flat']} --layer dense1", "explain --layer: grad_cam: layer dense1"),
    ]:
        code, _, err = jaxconv(f"explain {line}")
        assert (code, said in err) == (2, True), err
        assert err.count("\n") == 1


def test_a_run_that_did_not_end_is_told(runs, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(runs["small"], half, ignore=shutil.ignore_patterns("explain"))
    (half / "result.json").write_text("{")
    with pytest.raises(InputError, match=r"result.json is not JSON"):
        write_report(half, progress=False)
    (half / "result.json").unlink()
    with pytest.raises(
        InputError, match=r"has no result.json: its training did not finish: run jaxconv train --resume"
    ):
        write_report(half, progress=False)
