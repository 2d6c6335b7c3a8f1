"""The notebooks run in a clean kernel with small settings, and are stored without output."""

import ast
import importlib.util
import os
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the notebooks extra is not installed")
nbclient = pytest.importorskip("nbclient", reason="the notebooks extra is not installed")

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
ALL_NOTEBOOKS = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
# Small settings by notebook, which replace the cell tagged "settings".
SMALL_SETTINGS = {
    "01_convolution_by_hand": 'ROW, COLUMN, FILTER, STEPS = 2, 4, "BLUR", 20',
    "02_train_mnist": """
DATASET, MODEL, EPOCHS = "digits", "small_cnn", 4
BATCH_SIZE, LEARNING_RATE, SEED = 64, 0.003, 0""",
    "03_cifar10_on_tpu": """
DATASET, MODEL, EPOCHS, BATCH_SIZE, LEARNING_RATE = "digits", "small_cnn", 2, 64, 0.05
DTYPE, TRAIN_IMAGES, SEED = "auto", 600, 0""",
    "04_what_the_network_sees": """
DATASET, MODEL, EPOCHS, BATCH_SIZE = "digits", "small_cnn", 4, 64
NUM_IMAGES, NUM_FILTERS, ASCENT_STEPS = 100, 4, 8""",
    "05_compare_gradients": """
BATCH, SIZE, FEATURES, KERNEL, STRIDE = 2, 6, 3, 3, 2
MODEL, REPEATS = "small_cnn", 1""",
}
# Text that each notebook must print.
EXPECTED_OUTPUT = {
    "01_convolution_by_hand": [
        "total: 75 + 75 + 75 = 225",
        "= 4 ",
        "d x is the full convolution with the rotated kernel: True",
    ],
    "02_train_mnist": ["30,634 parameters", "test accuracy 0.9"],
    "03_cifar10_on_tpu": ["small_cnn on digits: test accuracy 0."],
    "04_what_the_network_sees": ["validation accuracy 0.9", "dead filters in 100 images", "saliency "],
    "05_compare_gradients": ["DIFFERS", " WRONG", "all differences are within the rounding bounds: True"],
}
LOCAL_PATHS = ("/work", "/home", "/root", "/content", "/tmp", "/Users", "/mnt", "/usr", "file:", "localhost")


def run_notebook(path, tmp_path, **environment):
    """Run a notebook with small settings, check its figures, and return the printed text."""
    notebook = nbformat.read(path, as_version=4)
    [settings] = settings_cells(notebook)
    settings.source = SMALL_SETTINGS[path.stem]
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute(env=os.environ | environment)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    results = [output.get("data", {}) for output in outputs]
    assert any("image/png" in data for data in results)
    assert not any("Figure" in data.get("text/plain", "") and "image/png" not in data for data in results)
    printed = "".join(output.get("text", "") for output in outputs)
    assert "Warning" not in printed and "\x1b" not in printed
    return printed


def settings_cells(notebook):
    return [cell for cell in notebook.cells if "settings" in cell.metadata.get("tags", [])]


@ALL_NOTEBOOKS
def test_notebook_runs_with_expected_output(path, tmp_path):
    printed = run_notebook(path, tmp_path)
    assert [text for text in EXPECTED_OUTPUT[path.stem] if text not in printed] == []


def test_cifar10_notebook_runs_on_four_devices(tmp_path):
    """A CPU simulates four devices: each gets a shard of the batch, and the gradient equals that of one device."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    printed = run_notebook(FOLDER / "03_cifar10_on_tpu.ipynb", tmp_path, XLA_FLAGS=flags)
    assert "{'data': 4}" in printed and printed.count(" has (16, 8, 8, 1)") == 4
    assert int(re.search(r"all-reduce operations: (\d+)", printed)[1]) >= 1
    assert float(re.search(r"largest entry: (\S+)", printed)[1]) < 1e-4


@ALL_NOTEBOOKS
def test_notebook_is_stored_without_output(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    assert set(notebook.metadata) <= {"accelerator", "kernelspec", "language_info"}
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)


@ALL_NOTEBOOKS
def test_notebook_cells_have_unique_ids(path):
    """Stable ids keep the diff of an edited notebook small."""
    ids = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    assert len(set(ids)) == len(ids) and {"title", "install", "settings", "next"} <= set(ids)
    assert (ids[0], ids[1], ids[-1]) == ("title", "install", "next")


def install_cell():
    """Return the source of the installation cell, which is equal in all notebooks."""
    cells = {
        cell.source for path in NOTEBOOKS for cell in nbformat.read(path, as_version=4).cells if cell.id == "install"
    }
    [install] = cells
    return install


def run_install_cell(monkeypatch, source, *missing):
    """Run the installation cell with SOURCE filled in, as if modules were missing; return the arguments of pip."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else find_spec(name))
    field = 'SOURCE = ""  # @param {type: "string"}'
    cell = install_cell()
    assert cell.count("%pip") == 1 and field in cell.splitlines()
    cell = re.sub(
        r"%pip install --quiet (.*)", r"pip_arguments.append(f\1)", cell.replace(field, f"SOURCE = {source!r}")
    )
    pip_arguments = []
    exec(cell, {"pip_arguments": pip_arguments})
    return pip_arguments


def test_install_cell_with_jaxconv_installs_nothing(monkeypatch):
    assert run_install_cell(monkeypatch, "") == run_install_cell(monkeypatch, "git+https://example.org/x") == []


def test_install_cell_without_source_raises(monkeypatch):
    with pytest.raises(RuntimeError, match=r"^jaxconv is not installed: fill in SOURCE, a wheel that you uploaded or "):
        run_install_cell(monkeypatch, "", "jaxconv")


def test_install_cell_installs_given_source(monkeypatch, tmp_path):
    missing = ("jaxconv", "libtpu", "jax_cuda12_plugin")
    address = "git+https://example.org/copy"
    assert run_install_cell(monkeypatch, address, *missing) == [f"jaxconv @ {address}"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jaxconv-1.0-py3-none-any.whl").touch()
    pip_arguments = run_install_cell(monkeypatch, "jaxconv-1.0-py3-none-any.whl", *missing)
    assert pip_arguments == [f"jaxconv @ {(tmp_path / 'jaxconv-1.0-py3-none-any.whl').as_uri()}"]


@ALL_NOTEBOOKS
def test_settings_cell_is_a_form_of_literals(path):
    """Each line is a form field; the small settings assign the same names."""
    [settings] = settings_cells(nbformat.read(path, as_version=4))
    assert all(" # @param " in line for line in settings.source.splitlines())
    assert assigned_names(settings.source) == assigned_names(SMALL_SETTINGS[path.stem])


def assigned_names(source):
    """Return the names that a cell assigns, all to literals."""
    names = set()
    for statement in ast.parse(source.strip()).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)
        names |= {node.id for node in ast.walk(statement.targets[0]) if isinstance(node, ast.Name)}
    return names


@ALL_NOTEBOOKS
def test_notebook_contains_no_local_path(path):
    text = path.read_text()
    assert [local for local in LOCAL_PATHS if local in text] == []


def test_every_notebook_has_settings_and_expected_output():
    assert {path.stem for path in NOTEBOOKS} == set(SMALL_SETTINGS) == set(EXPECTED_OUTPUT)
