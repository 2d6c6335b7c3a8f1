"""The documentation: its examples run, its names exist, every package has a page, and it builds without a warning."""

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
OTHERS = ("torch", "flax")  # whose examples are left out where they are missing


@pytest.fixture(scope="module")
def docstrings():
    """The part of the site that makes Markdown of docstrings."""
    pytest.importorskip("griffe", reason="the docs extra is not installed")
    spec = importlib.util.spec_from_file_location("docstrings", ROOT / "docs/hooks/docstrings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(page, heading):
    """The cells of the table under a heading, without its first two lines."""
    section = (ROOT / "docs" / page).read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


@pytest.mark.frameworks
@pytest.mark.usefixtures("promoting")
@pytest.mark.parametrize(
    "path", [page for page in PAGES if "```python" in page.read_text()], ids=lambda path: path.stem
)
def test_the_examples_print_what_is_written_below_them(path):
    """One after another, as a reader types them into one session; what is left out of it is another library's."""
    session = {}
    missing = [name for name in OTHERS if importlib.util.find_spec(name) is None]
    found = EXAMPLE.findall(path.read_text())
    assert len(found) == path.read_text().count("```python")
    for code, printed in found:
        if any(re.search(rf"\b{name}\b|\b{name}_", code) for name in missing):
            continue
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, path.name, "exec"), session)
        assert out.getvalue() == printed, code


def test_what_is_called_so_here_is_there():
    """jaxconv's column of the table of layers and functions: every entry can be called, or is a layer."""
    names = vars(jaxconv) | {"functools": functools, "explain": explain, "train": train}
    written = [code for row in rows("porting.md", "Layers and functions") for code in re.findall(r"`(.+?)`", row[0])]
    assert len(written) > 30
    for code in written:
        value = eval(code, dict(names))
        assert callable(value) or isinstance(value, layers.Layer | train.EarlyStopping), code


def test_arguments_are_called_so_here():
    """jaxconv's column of the table of arguments: each is one of an op or a layer, and defaults are as written."""
    functions = [
        *(getattr(module, name) for module in (ops, layers) for name in module.__all__),
        layers.BatchNorm().init,
        layers.BatchNorm().apply,
    ]
    known = {}
    for function in filter(inspect.isfunction, functions):
        for parameter in inspect.signature(function).parameters.values():
            known.setdefault(parameter.name, set()).add(parameter.default)
    for _, here, *_ in rows("porting.md", "Arguments"):
        names = re.findall(r"`(\w+)`", here)
        assert names and set(names) <= set(known), here
        for default in re.findall(r"= (\S+)$", here):
            assert float(default) in known[names[0]], here


def test_the_errata_name_tests_that_are_there():
    """Each in the file that is linked; and every number up to the last has a row, but for those that are none."""
    text = (ROOT / "docs/errata.md").read_text()
    named = re.findall(r"\[`(test_\w+)`\]\(\.\./(.*?)\)", text)
    assert len(named) > 30
    for test, file in named:
        assert f"def {test}(" in (ROOT / file).read_text(), test
    numbers = {int(number) for number in re.findall(r"^\| E(\d+)", text, re.MULTILINE)}
    assert numbers == set(range(1, 39)) - {34, 37}


def test_errata_that_tests_name_are_held_by_these_tests():
    """A test that has such a number in its docstring is named in the row of it."""
    held = {}
    for row in re.findall(r"^\| E(\d+) .*", (ROOT / "docs/errata.md").read_text(), re.MULTILINE):
        [line] = re.findall(rf"^\| E{row} .*", (ROOT / "docs/errata.md").read_text(), re.MULTILINE)
        held[row] = set(re.findall(r"\[`(test_\w+)`\]", line))
    for file in (ROOT / "tests").rglob("test_*.py"):
        for test, said in re.findall(r'^def (test_\w+)\(.*?\):\n    """(.*?)"""', file.read_text(), re.M | re.S):
            for number in re.findall(r"\bE(\d+)\b", said):
                assert test in held[number], f"{test} says E{number}"


def test_links_lead_somewhere():
    """Into the repository, or to another page of docs/ or of the reference."""
    made = {"api/index.md", *(f"api/{path.stem}.md" for path in (ROOT / "jaxconv").iterdir())}
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert (page.parent / link).exists() or link in made, f"{page.name}: {link}"


def test_no_address_is_given_that_is_not_ours():
    """Whoever registers it would run code on a reader's machine. The project has no home yet, nor a name on PyPI."""
    ours = re.compile(
        r"git(hub|lab)\.com[/:]jaxconv|/github/jaxconv|jaxconv\.(github\.io|readthedocs\.io|org\b|dev\b)|project/jaxconv"
        r"|\[project\.urls\]|pip install (-U |--upgrade )?jaxconv"
    )
    folders = ("docs", "jaxconv", "notebooks", "experiments", "benchmarks", "tests", ".github", ".ci")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.suffix in (".md", ".toml", ".yml", ".cff")]
    text = {path: path.read_bytes().decode(errors="ignore") for path in files if path.suffix not in (".pyc", ".png")}
    assert len(text) > 300
    assert [str(path) for path, words in text.items() if path != Path(__file__) and ours.search(words)] == []


def test_every_package_has_a_page_with_every_public_name(docstrings):
    """Read from the files, without importing them, it is what the modules say when they are imported."""
    public = {module.name for module in pkgutil.iter_modules(jaxconv.__path__) if not module.name.startswith("_")}
    assert set(docstrings.packages()) == public
    for package in ("shapes", "ops", "filters", "testing", "layers", "models", "data", "train", "explain", "plot"):
        module = importlib.import_module(f"jaxconv.{package}")
        names = {name.name for name in docstrings.names_of(f"jaxconv.{package}")}
        inner = {each.rpartition(".")[2] for each in docstrings.modules_of(package)}
        missing = set(module.__all__) - names - inner
        if package == "ops":  # jax.nn's own functions, which the table of activations has
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
    """The site as it is built: once, and with every warning an error."""
    for name in ("mkdocs", "material", "mkdocstrings_handlers", "mkdocs_jupyter"):
        pytest.importorskip(name, reason="the docs extra is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        # Not --quiet: what is not logged is not counted, and --strict would let it pass.
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "JUPYTER_PLATFORM_DIRS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_it_builds(site):
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks == {path.stem for path in (site / "notebooks").glob("*.html")}
    assert {page.stem for page in PAGES} <= {path.stem for path in site.glob("*.html")}
    scripts = {path.stem for path in (ROOT / "experiments").glob("*.py")}
    assert scripts == {path.stem for path in (site / "experiments/scripts").glob("*.html")}


def test_the_page_of_models_lists_every_registered_model(site):
    """Each with its parameters, counted here as the sizes of its arrays, and linked to its function."""
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


def test_no_page_fetches_anything(site):
    """Scripts, styles and pictures all lie in the folder."""
    for page in site.rglob("*.html"):
        text = page.read_text()
        fetched = re.findall(r'<(?:script|img|iframe)[^>]* src="?(https?:[^"> ]*)', text)
        fetched += re.findall(r'<link[^>]* rel="?stylesheet"?[^>]* href="?(https?:[^"> ]*)', text)
        assert not fetched, f"{page.relative_to(site)}: {fetched}"
        assert "<script data-mkdocs-jupyter" not in text, f"{page.relative_to(site)} loads MathJax"


def test_the_formulas_of_notebooks_are_set(site):
    """Every one: what a page shows outside of its code has no dollar left, and as many formulas as the notebook."""
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = [cell["source"] for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "markdown"]
        said = re.sub(r"`[^`]*`", "", "\n\n".join("".join(source) for source in cells))
        written = len(re.findall(r"\$\$.+?\$\$|\$[^$]+?\$", said, re.DOTALL))
        page = (site / "notebooks" / f"{path.stem}.html").read_text()
        shown = re.sub(r"<(pre|script|style|code)\b.*?</\1>", "", page, flags=re.DOTALL)
        assert written and shown.count("<math ") == written and "$" not in shown, path.stem


def test_links_of_every_page_lead_to_a_file(site):
    """Also those that mkdocs does not look at: in notebooks, in HTML, to sources."""
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue  # whose links begin at the root of wherever it is served
        for link in re.findall(r'(?:href|src)="(?!https?:|#|data:|mailto:|javascript:)([^"#?]+)', page.read_text()):
            assert (page.parent / link).exists(), f"{page.relative_to(site)}: {link}"


def test_search_works_from_the_disk(site):
    """In a browser, without a server and without a network."""
    from chromium import listened

    with browser() as opened:
        page = opened.new_page()
        complaints, asked = listened(page, kinds=("error",))
        page.goto((site / "index.html").as_uri())
        page.keyboard.press("/")
        page.keyboard.type("conv_transpose")
        page.wait_for_selector(".md-search-result__item", timeout=20_000)
        assert "conv_transpose" in page.text_content(".md-search-result__list")
        assert not complaints and all(url.startswith(("file:", "data:", "about:")) for url in asked)
