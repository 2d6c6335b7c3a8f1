"""HTML report of a run: it is self-contained, opens without a network, and matches the files of the run."""

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
    """Two short runs on the digits: a convolutional network, and two seeds of one without convolutions."""
    folder = tmp_path_factory.mktemp("runs")
    small = TrainConfig(epochs=2, batch_size=128, learning_rate=0.01, run_dir=folder / "small")
    flat = TrainConfig(model="mlp", epochs=1, batch_size=128, num_seeds=2, run_dir=folder / "flat")
    return {config.run_dir.name: run_training(config, progress=False)[0] for config in (small, flat)}


@pytest.fixture(scope="module", autouse=True)
def reduced_workload():
    """Reduce images, filters and steps: the same computations as a full report, in less time."""
    limits = {
        attribution_sections: {"MOST_FILTERS": 3, "MOST_PATCHES": 3, "MOST_LAYERS": 2, "STEPS": 8},
        diagnostic_sections: {
            "MOST_ROBUSTNESS_IMAGES": 60,
            "REPORT_CORRUPTIONS": ("rotation", "noise"),
            "MOST_HEALTH_IMAGES": 100,
            "FEW": 16,
        },
    }
    with pytest.MonkeyPatch.context() as patch:
        for module, constants in limits.items():
            for name, value in constants.items():
                patch.setattr(module, name, value)
        yield


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "seven & <co>.png"
    Image.fromarray(np.kron(data.load("digits").test.images[0, ..., 0], np.ones((5, 4), np.uint8))).save(path)
    return write_report(runs["small"], images=[path], progress=False)


@pytest.fixture
def html(report):
    return report.page.read_text(encoding="utf-8")


def test_report_is_self_contained_with_all_sections(report, html):
    assert report.page.stat().st_size < 5e6
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    assert titles == [
        "Training curves",
        "Misclassified images",
        "Filters",
        "Feature maps",
        "Attribution",
        "Feature visualization",
        "Layer diagnostics",
        "Receptive fields",
        "Robustness",
        "Model summary",
        "Arithmetic of one output",
    ]
    links = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"@import|url\(", html)


def test_report_matches_result_json(runs, html):
    result = json.loads((runs["small"] / "result.json").read_text())
    assert f"<dd>{result['test_accuracy']:.4f}</dd>" in html and "<dd>30,634</dd>" in html
    charts = [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', html)]
    counts = json.loads((runs["small"] / "classification_report.json").read_text())["confusion_matrix"]
    [confusion] = [trace for chart in charts for trace in chart["data"] if trace["type"] == "heatmap"]
    assert confusion["customdata"] == counts
    records = [json.loads(line) for line in (runs["small"] / "metrics.jsonl").read_text().splitlines()]
    assert charts[0]["data"][1]["y"] == [record["val_loss"] for record in records]


def test_report_orders_errors_by_confidence(runs, html):
    run, (images, labels) = load_run(runs["small"]), data.load("digits").test
    probabilities = run.predict(images)
    wrong = [i for i in range(len(images)) if probabilities[i].argmax() != labels[i]]
    wrong.sort(key=lambda i: -probabilities[i].max())
    part = section(html, "mistakes")
    error_tiles = tiles(part)
    assert len(error_tiles) == min(32, len(wrong)) > 3
    for i, (image, caption) in zip(wrong, error_tiles):
        assert caption == f"{labels[i]} → {probabilities[i].argmax()}\n{probabilities[i].max():.0%}"
        np.testing.assert_array_equal(image, np.repeat(images[i], 3, axis=-1))
    assert f"<p>{len(images) - len(wrong)} of {len(images)} test images are classified correctly." in part
    for label, _, recall, _, count in rows(part)[1:]:
        mask = labels == int(label)
        expected = np.mean(probabilities[mask].argmax(axis=1) == int(label))
        assert (recall, count) == (f"{expected:.4f}", f"{mask.sum()}")


def test_report_shows_filters_before_and_after_training(runs, html):
    run = load_run(runs["small"])
    kernel = np.asarray(run.params["conv1"]["kernel"])[:, :, 0]
    after, before = (tiles(part) for part in section(html, "filters").split("conv1 before training"))
    num_filters, num_changed = kernel.shape[-1], 0
    for k in range(num_filters):
        trained, untrained = (filters[k][0][..., 0].astype(float) - 127.5 for filters in (after, before))
        np.testing.assert_allclose(trained / 127.5, kernel[..., k] / np.abs(kernel[..., k]).max(), atol=0.01)
        cosine = (trained * untrained).sum() / np.sqrt((trained**2).sum() * (untrained**2).sum())
        index, printed = after[k][1].split(": cos ")
        assert index == f"{k}" and float(printed) == pytest.approx(cosine, abs=0.01)
        assert before[k][1] == f"{k}" and cosine > 0.9  # "before" is this network's own initialization,
        num_changed += np.any(trained != untrained)
    assert num_changed > num_filters / 2  # and training changed it


def test_report_attribution_targets_true_or_predicted_class(runs, html):
    run, (images, labels) = load_run(runs["small"]), data.load("digits").test
    headings, *table = rows(section(html, "attention"))
    assert len(table) == 11  # ten classes and a file
    first = [images[np.flatnonzero(labels == label)[0]] for label in range(10)]
    probabilities = run.predict(np.stack(first))
    for label, row in enumerate(table[:10]):
        confidence = probabilities[label].max()
        assert row[0] == f"{label} → {probabilities[label].argmax()} {confidence:.0%}"
        np.testing.assert_array_equal(row[1], np.repeat(first[label], 3, axis=-1))
    network, file_image = (run.model, run.params, run.state), table[10][1][..., :1]
    predicted = run.predict(file_image[None])[0].argmax()
    cases = [*((first[label], table[label], label) for label in (2, 8)), (file_image, table[10], predicted)]
    for image, row, label in cases:
        heatmap = np.abs(np.asarray(explain.saliency(*network, image[None], label))[0, ..., 0])
        reds = row[headings.index("saliency")][..., 0] - 0.45 * image[..., 0]
        assert np.corrcoef(reds.ravel(), heatmap.ravel())[0, 1] > 0.9


def test_report_shows_feature_maps_of_each_image(runs, html):
    run, (images, labels) = load_run(runs["small"]), data.load("digits").test
    details = re.findall(r"<details.*?</details>", section(html, "features"), re.S)
    for label in (0, 4):
        image = images[np.flatnonzero(labels == label)[0]]
        y = np.asarray(explain.feature_maps(run.model, run.params, run.state, image[None])["relu1"])[0]
        # Element 2 follows the image and conv1: 4×8 maps, one pixel apart.
        grid = tiles(details[label])[2][0].astype(int).sum(axis=-1)
        maps = grid.reshape(35, 71)[np.arange(35) % 9 < 8][:, np.arange(71) % 9 < 8].reshape(4, 8, 8, 8).swapaxes(1, 2)
        assert np.corrcoef(maps.reshape(32, -1).ravel(), np.moveaxis(y, -1, 0).ravel())[0, 1] > 0.9


def test_report_shows_top_patches_of_filters(runs, html, promoting):
    run, images = load_run(runs["small"]), data.load("digits").test.images
    kernel, bias = (np.asarray(run.params["conv1"][name], np.float64) for name in ("kernel", "bias"))
    part = section(html, "feature-visualization").split("<h3>")[1]
    table = [row for row in rows(part) if row[0].startswith("filter")]
    padded = np.pad(images[..., 0] / 255, [(0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    activation = lambda patch, k: (patch * kernel[:, :, 0, k]).sum() + bias[k]  # noqa: E731
    options = {"layer": "conv1", "channels": range(3), "key": jax.random.key(0), "num_steps": 8}
    maximized = np.asarray(explain.maximize_activation(run.model, run.params, run.state, (8, 8, 1), **options))
    for k, (name, image, *patches) in enumerate(table):
        highest = np.einsum("nhwij,ij->nhw", windows, kernel[:, :, 0, k]).max() + bias[k]
        assert name == f"filter {k}" and activation(patches[0][..., 0] / 255, k) == pytest.approx(highest, rel=1e-4)
        np.testing.assert_allclose(image, np.repeat(255 * maximized[k], 3, axis=-1), atol=2)


def test_report_draws_receptive_fields_at_their_bounds(html):
    images = {caption.split(":")[0]: image for image, caption in tiles(section(html, "geometry"))[:5]}
    for name, first, end in [("conv1", 3, 6), ("conv2", 2, 7)]:  # by hand, for output 4 of 8; one pixel is 28 here
        frame = np.argwhere((images[name] == (255, 140, 0)).all(axis=-1))
        assert (frame.min(axis=0) == 28 * first).all() and (frame.max(axis=0) == 28 * end - 1).all()
    for heatmap, _ in tiles(section(html, "geometry"))[5:]:
        brightness = heatmap.astype(int).sum(axis=-1)
        assert brightness[0, 0] == brightness.min() and brightness[4, 4] == brightness.max()


def test_report_weight_histograms_match_kernels(runs, html):
    kernel = np.asarray(load_run(runs["small"]).params["conv1"]["kernel"])
    chart = re.search(r'aria-label="weights of conv1/kernel".*?json">(.*?)</script>', html, re.S).group(1)
    [bars] = json.loads(chart)["data"]
    centers, width = np.array(bars["x"]), bars["width"][0]
    expected = np.histogram(kernel, bins=[*(centers - width / 2), centers[-1] + width / 2])[0]
    # Rounding may move a value that lies on an edge to the next bin.
    assert sum(bars["y"]) == kernel.size and np.abs(expected - bars["y"]).sum() <= 4


def test_report_diagnostics_match_feature_maps(runs, html):
    run, (images, _) = load_run(runs["small"]), data.load("digits").test
    headings, *table = rows(section(html, "health"))
    maps = explain.feature_maps(run.model, run.params, run.state, images[:100])
    assert [row[0] for row in table] == [name for name in maps if name.startswith(("conv", "relu", "dense"))]
    for row in table:
        y = np.asarray(maps[row[0]]).reshape(100, -1, maps[row[0]].shape[-1])
        cells = dict(zip(headings, row))
        assert cells["zeros"] == f"{np.mean(y == 0):.1%}" and cells["active in"] == f"{y.any(axis=1).mean():.1%}"
        if row[0].startswith("relu"):
            assert cells["dead"] == f"{sum(not y[..., k].any() for k in range(y.shape[-1]))}"


def test_report_robustness_at_identity_is_test_accuracy(runs, html):
    run, (images, labels) = load_run(runs["small"]), data.load("digits").test
    correct = run.predict(images[:60]).argmax(axis=1) == labels[:60]
    part = section(html, "robustness")
    shift, *corruptions = [json.loads(text)["data"] for text in re.findall(r"json\">(.*?)</script>", part)]
    accuracy, distance = ({x: y for x, y in zip(line["x"], line["y"])} for line in shift)
    assert list(accuracy) == list(range(-2, 3)) and accuracy[0] == pytest.approx(correct[:30].mean())
    assert distance[0] == 0 < distance[1] and distance[-2] > distance[-1]
    for [line] in corruptions:  # rotation and noise, whose severity 0 leaves the image unchanged
        assert line["y"][line["x"].index(0)] == pytest.approx(correct.mean())


def test_report_arithmetic_total_is_largest_output(runs, html):
    run, test = load_run(runs["small"]), data.load("digits").test
    image = test.images[np.flatnonzero(test.labels == 0)[0]]
    y = explain.feature_maps(run.model, run.params, run.state, image[None], layers=("conv1",))["conv1"]
    steps = re.search(r"<pre>(.*?)</pre>", html, re.S).group(1)
    assert float(steps.split("=")[-1]) == pytest.approx(float(y.max()), rel=1e-3)


def test_report_notes_resized_files(report, html):
    assert report.notes == ["seven & <co>.png was resized from 40×32 to 8×8."]
    assert "seven &amp; &lt;co&gt;.png was resized from 40×32" in html and "<co>" not in html


def test_report_renders_in_browser_without_network(report):
    with browser() as chromium:
        for width, scheme in [(1280, "light"), (390, "dark")]:
            context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
            tab = context.new_page()
            console_messages, requested_urls = listened(tab)
            tab.goto(report.page.as_uri())
            tab.wait_for_function("document.documentElement.dataset.drawn", timeout=30_000)
            assert console_messages == []
            assert {url.split(":")[0] for url in requested_urls} <= {"file", "data", "blob"}
            widths = tab.evaluate("[...document.images].map(image => image.complete && image.naturalWidth)")
            assert len(widths) > 100 and all(widths)
            charts = tab.evaluate("[...document.querySelectorAll('.chart')].map(c => c.querySelectorAll('svg').length)")
            assert len(charts) >= 6 and all(charts)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width  # no horizontal overflow
            colors = tab.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
            background, text = (sum(map(int, re.findall(r"\d+", color)[:3])) for color in colors)
            assert (background < text) == (scheme == "dark")
            chart_text_color = tab.evaluate("getComputedStyle(document.querySelector('.chart .xtitle')).fill")
            assert chart_text_color == colors[1]  # charts follow the color scheme of the reader
            context.close()


def test_report_omits_inapplicable_sections_of_first_seed(runs, tmp_path):
    report = write_report(runs["flat"], output_dir=tmp_path / "page", progress=False)
    html = report.page.read_text()
    assert report.page == tmp_path / "page" / "index.html"
    assert report.notes == ["This run trained 2 networks; the report shows the first, seed 0."]
    for title in ("Filters", "Feature visualization", "Receptive fields", "Arithmetic of one output"):
        assert f"<h2>{title}</h2>" not in html
    assert "<h2>Attribution</h2>" in html and "grad cam" not in html
    context = load_context(runs["flat"])
    accuracies = json.loads((runs["flat"] / "result.json").read_text())["test_accuracy_per_seed"]
    assert f"<dd>{accuracies[0]:.4f}</dd>" in html
    assert (context.probabilities.argmax(1) == context.labels).mean() == pytest.approx(accuracies[0])


def test_write_page_failure_leaves_previous_page(tmp_path, monkeypatch):
    path = tmp_path / "index.html"
    page.write_page(path, "first", [], [], [])
    previous = path.read_text()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(InputError, match=r"index.html cannot be written: No space left on device"):
        page.write_page(path, "second", [], [], [])
    assert path.read_text() == previous and list(tmp_path.iterdir()) == [path]


def test_explain_invalid_arguments_exit_with_one_line(runs, tmp_path, jaxconv):
    (tmp_path / "no.png").write_text("not an image")
    (tmp_path / "file").write_text("")
    small = runs["small"]
    shutil.copytree(small, tmp_path / "other", ignore=shutil.ignore_patterns("explain"))
    config = json.loads((small / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"model": "mlp"}))
    for line, message in [
        (f"{tmp_path}/none", "there is no run folder"),
        (f"{tmp_path}", "is not a run folder: it has no config.json"),
        (
            "other",
            "other/config.json has model='mlp', but the run was trained with model='small_cnn': restore the file",
        ),
        (f"{small} --layer conv9", "explain --layer: unknown layer 'conv9': did you mean 'conv"),
        (f"{small} --layer dense1", "explain --layer: grad_cam: the output (1, 10) of layer dense1"),
        (f"{small} --images no.png", "no.png is not an image that Pillow can read"),
        (f"{small} --images gone.png", "there is no image gone.png"),
        (f"{small} --output-dir file", "the folder file cannot be created"),
        (f"{runs['flat']} --layer dense1", "explain --layer: grad_cam: the output (1, 128) of layer dense1"),
    ]:
        code, _, err = jaxconv(f"explain {line}")
        assert (code, message in err) == (2, True), err
        assert err.count("\n") == 1


def test_report_of_unfinished_run_raises(runs, tmp_path):
    folder = tmp_path / "unfinished"
    shutil.copytree(runs["small"], folder, ignore=shutil.ignore_patterns("explain"))
    (folder / "result.json").write_text("{")
    with pytest.raises(InputError, match=r"result.json is not JSON"):
        write_report(folder, progress=False)
    (folder / "result.json").unlink()
    with pytest.raises(
        InputError, match=r"has no result.json: its training did not finish: run jaxconv train --resume"
    ):
        write_report(folder, progress=False)
