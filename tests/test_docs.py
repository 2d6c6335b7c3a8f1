"""Documentation: its examples run, its names exist, every package has a page, and it builds without a warning."""

import contextlib
import functools
import importlib
import importlib.util
import inspect
import io
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import jaxconv
from chromium import browser
from jaxconv import explain, layers, models, ops, train

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
EXAMPLE = re.compile(r"^```python\n(.*?)^```(?:\n\n```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)
FRAMEWORKS = ("torch", "flax")  # their examples are skipped where they are not installed


@pytest.fixture(scope="module")
def docstrings():
    """Return the hook that converts docstrings to Markdown."""
    pytest.importorskip("griffe", reason="the docs extra is not installed")
    spec = importlib.util.spec_from_file_location("docstrings", ROOT / "docs/hooks/docstrings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(page, heading):
    """Return the cells of the table under a heading, without its first two lines."""
    section = (ROOT / "docs" / page).read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def pages_with_examples():
    """Return the pages with Python examples; those that import another framework are marked ``frameworks``."""
    for page in PAGES:
        code = "".join(example for example, _ in EXAMPLE.findall(page.read_text()))
        if code:
            marks = [pytest.mark.frameworks] if re.search(rf"import ({'|'.join(FRAMEWORKS)})\b", code) else []
            yield pytest.param(page, marks=marks, id=page.stem)


@pytest.mark.usefixtures("promoting")
@pytest.mark.parametrize("path", list(pages_with_examples()))
def test_page_examples_print_expected_output(path):
    """The examples of a page run in order, in one session, without those of missing frameworks."""
    session = {}
    missing = [name for name in FRAMEWORKS if importlib.util.find_spec(name) is None]
    examples = EXAMPLE.findall(path.read_text())
    assert len(examples) == path.read_text().count("```python")
    for code, expected in examples:
        if any(re.search(rf"\b{name}\b|\b{name}_", code) for name in missing):
            continue
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, path.name, "exec"), session)
        assert out.getvalue() == expected, code


def test_gradient_table_has_every_implementation():
    table = (ROOT / "docs/gradients.md").read_text().split("<!-- compare_gradients -->")[1].split("<!-- end -->")[0]
    assert [line.split("|")[1].strip() for line in table.strip().splitlines()[2:]] == [
        *("lax", "explicit", "im2col", "toeplitz", "fft", "auto", "manual")
    ]


def test_porting_table_names_exist():
    """Every entry of jaxconv's column of layers and functions is callable or a layer."""
    namespace = vars(jaxconv) | {"functools": functools, "explain": explain, "train": train}
    entries = [code for row in rows("porting.md", "Layers and functions") for code in re.findall(r"`(.+?)`", row[0])]
    assert len(entries) > 30
    for code in entries:
        value = eval(code, dict(namespace))
        assert callable(value) or isinstance(value, layers.Layer | train.EarlyStopping), code


def test_porting_table_arguments_exist():
    """Every entry of jaxconv's column of arguments is a parameter of an operation or layer, with the stated default."""
    functions = [
        *(getattr(module, name) for module in (ops, layers) for name in module.__all__),
        layers.BatchNorm().init,
        layers.BatchNorm().apply,
    ]
    defaults = {}
    for function in filter(inspect.isfunction, functions):
        for parameter in inspect.signature(function).parameters.values():
            defaults.setdefault(parameter.name, set()).add(parameter.default)
    for _, cell, *_ in rows("porting.md", "Arguments"):
        names = re.findall(r"`(\w+)`", cell)
        assert names and set(names) <= set(defaults), cell
        for default in re.findall(r"= (\S+)$", cell):
            assert float(default) in defaults[names[0]], cell


def test_errata_tests_exist():
    """Every test is in the linked file, and every number but two has a row."""
    text = (ROOT / "docs/errata.md").read_text()
    tests = re.findall(r"\[`(test_\w+)`\]\(\.\./(.*?)\)", text)
    assert len(tests) > 30
    for test, file in tests:
        assert f"def {test}(" in (ROOT / file).read_text(), test
    numbers = {int(number) for number in re.findall(r"^\| E(\d+)", text, re.MULTILINE)}
    assert numbers == set(range(1, 39)) - {34, 37}


def test_errata_rows_name_tests_that_cite_them():
    """A test with an erratum's number in its docstring is named in the row of that number."""
    tests_by_row = {}
    for row in re.findall(r"^\| E(\d+) .*", (ROOT / "docs/errata.md").read_text(), re.MULTILINE):
        [line] = re.findall(rf"^\| E{row} .*", (ROOT / "docs/errata.md").read_text(), re.MULTILINE)
        tests_by_row[row] = set(re.findall(r"\[`(test_\w+)`\]", line))
    for file in (ROOT / "tests").rglob("test_*.py"):
        for test, docstring in re.findall(r'^def (test_\w+)\(.*?\):\n    """(.*?)"""', file.read_text(), re.M | re.S):
            for number in re.findall(r"\bE(\d+)\b", docstring):
                assert test in tests_by_row[number], f"{test} cites E{number}"


def test_page_links_exist():
    """Links point to the repository, to another page of docs/, or to a generated page."""
    generated = {"models.md", "api/index.md", *(f"api/{path.stem}.md" for path in (ROOT / "jaxconv").iterdir())}
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert (page.parent / link).exists() or link in generated, f"{page.name}: {link}"


def test_no_unregistered_address_is_published():
    """The project has no home and no name on PyPI yet; whoever registers such an address could run code at readers."""
    unregistered = re.compile(
        r"git(hub|lab)\.com[/:]jaxconv|/github/jaxconv|jaxconv\.(github\.io|readthedocs\.io|org\b|dev\b)|project/jaxconv"
        r"|\[project\.urls\]|pip install (-U |--upgrade )?jaxconv"
    )
    folders = ("docs", "jaxconv", "notebooks", "experiments", "benchmarks", "tests", ".github", ".ci")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.suffix in (".md", ".toml", ".yml", ".cff")]
    text = {path: path.read_bytes().decode(errors="ignore") for path in files if path.suffix not in (".pyc", ".png")}
    assert len(text) > 300
    assert [str(path) for path, words in text.items() if path != Path(__file__) and unregistered.search(words)] == []


def test_reference_has_every_package_and_public_name(docstrings):
    """The names that the hook reads from files equal those of the imported modules."""
    public = {module.name for module in pkgutil.iter_modules(jaxconv.__path__) if not module.name.startswith("_")}
    assert set(docstrings.packages()) == public
    for package in ("shapes", "ops", "filters", "testing", "layers", "models", "data", "train", "explain", "plot"):
        module = importlib.import_module(f"jaxconv.{package}")
        names = {name.name for name in docstrings.names_of(f"jaxconv.{package}")}
        inner = {name.rpartition(".")[2] for name in docstrings.modules_of(package)}
        missing = set(module.__all__) - names - inner
        if package == "ops":  # functions of jax.nn are in the table of activations
            missing -= {name for name in missing if getattr(ops, name) is getattr(jax.nn, name, None)}
        assert not missing, package


def test_docstrings_become_markdown(docstrings):
    text = """Say x, ``y`` and :func:`jaxconv.ops.conv` <twice>.

        y[n] = Σ x[n]

    Args:
        x, *rest: the images,
            channels last: a[0].
        stride: see :func:`_private`.

    Returns:
        ``(N, C)``.

    Lecture row 000-01.

    >>> f(1)
    2

    >>> f(2)
    4

    ====  =====
    name  value
    ====  =====
    a     |x|
    ====  =====
    """
    assert re.sub(r"\n\n+", "\n\n", docstrings.readable(text)) == (
        "Say x, ``y`` and [`jaxconv.ops.conv`][jaxconv.ops.conv] &lt;twice>.\n\n"
        "```text\ny[n] = Σ x[n]\n```\n\n"
        "**Args**{.doc-section}\n\n"
        "- `x`, `*rest`: the images,\n    channels last: a\\[0\\].\n"
        "- `stride`: see `_private`.\n\n"
        "**Returns**{.doc-section}\n\n``(N, C)``.\n\n"
        "[Lecture row][lecture-rows] 000-01.\n\n"
        "```pycon\n>>> f(1)\n2\n\n>>> f(2)\n4\n```\n\n"
        "| name | value |\n|---|---|\n| a | \\|x\\| |\n"
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site once, with every warning an error."""
    for name in ("mkdocs", "material", "mkdocstrings_handlers", "mkdocs_jupyter"):
        pytest.importorskip(name, reason="the docs extra is not installed")
    folder = tmp_path_factory.mktemp("site")
    process = subprocess.run(
        # Not --quiet: --strict counts only warnings that are logged.
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "JUPYTER_PLATFORM_DIRS": "1"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return folder


def test_site_has_every_page(site):
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks == {path.stem for path in (site / "notebooks").glob("*.html")}
    assert {page.stem for page in PAGES} <= {path.stem for path in site.glob("*.html")}
    scripts = {path.stem for path in (ROOT / "experiments").glob("*.py")}
    assert scripts == {path.stem for path in (site / "experiments/scripts").glob("*.html")}


def test_models_page_lists_registered_models(site):
    """Every row has the number of parameters, counted here from array sizes, and a link to the function."""
    text = (site / "models.html").read_text()
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in re.findall(r"<tr>.*?</tr>", text, re.DOTALL)]
    table = {re.sub("<.*?>", "", row[0]): row for row in cells if row}
    assert list(table) == models.list_models()
    for name, (link, description, shape, params) in table.items():
        spec = models.get_model(name)
        arrays, _ = jax.eval_shape(lambda key, spec=spec: spec.create().init(key, spec.input_shape), jax.random.key(0))
        assert int(params.replace(",", "")) == sum(leaf.size for leaf in jax.tree.leaves(arrays))
        assert tuple(map(int, shape.split("×"))) == spec.input_shape
        assert description.startswith(spec.description) and '"api/models.html#jaxconv.models.' in link
    assert "batch_norm=True, dropout=0.3" in table["vgg6_bn"][1] and "depth=110" in table["resnet110"][1]
    assert '="models.html"' in (site / "index.html").read_text()


def test_site_pages_are_offline(site):
    """Scripts, styles and pictures are in the site's folder."""
    for page in site.rglob("*.html"):
        text = page.read_text()
        fetched = re.findall(r'<(?:script|img|iframe)[^>]* src="?(https?:[^"> ]*)', text)
        fetched += re.findall(r'<link[^>]* rel="?stylesheet"?[^>]* href="?(https?:[^"> ]*)', text)
        assert not fetched, f"{page.relative_to(site)}: {fetched}"
        assert "<script data-mkdocs-jupyter" not in text, f"{page.relative_to(site)} loads MathJax"


def test_notebook_formulas_are_rendered(site):
    """A page has as many formulas as its notebook, and no dollar sign outside of code."""
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = [cell["source"] for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "markdown"]
        text = re.sub(r"`[^`]*`", "", "\n\n".join("".join(source) for source in cells))
        expected = len(re.findall(r"\$\$.+?\$\$|\$[^$]+?\$", text, re.DOTALL))
        page = (site / "notebooks" / f"{path.stem}.html").read_text()
        shown = re.sub(r"<(pre|script|style|code)\b.*?</\1>", "", page, flags=re.DOTALL)
        assert expected and shown.count("<math ") == expected and "$" not in shown, path.stem


def test_site_links_exist(site):
    """Links that mkdocs does not check are included: in notebooks, in HTML, to sources."""
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue  # its links start at the server's root
        for link in re.findall(r'(?:href|src)="(?!https?:|#|data:|mailto:|javascript:)([^"#?]+)', page.read_text()):
            assert (page.parent / link).exists(), f"{page.relative_to(site)}: {link}"


def test_site_search_works_from_disk(site):
    """A browser searches the site without a server and without a network."""
    from chromium import listened

    with browser() as opened:
        page = opened.new_page()
        errors, requests = listened(page, kinds=("error",))
        page.goto((site / "index.html").as_uri())
        page.keyboard.press("/")
        page.keyboard.type("conv_transpose")
        page.wait_for_selector(".md-search-result__item", timeout=20_000)
        assert "conv_transpose" in page.text_content(".md-search-result__list")
        assert not errors and all(url.startswith(("file:", "data:", "about:")) for url in requests)
