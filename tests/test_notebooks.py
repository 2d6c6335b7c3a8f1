"""The notebooks run from a clean kernel, on small settings, and are stored without their output."""

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
ALL = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
# What stands for the cell that is tagged "settings".
SMALL = {
    "01_convolution_by_hand": 'ROW, COLUMN, FILTER, STEPS = 2, 4, "BLUR", 20',
    "02_train_mnist": """
DATASET, MODEL, EPOCHS = "digits", "small_cnn", 4
BATCH_SIZE, LEARNING_RATE, SEED = 64, 0.003, 0""",
    "03_cifar10_on_tpu": """
DATASET, MODEL, EPOCHS, BATCH_SIZE, LEARNING_RATE = "digits", "small_cnn", 2, 64, 0.05
DTYPE, TRAIN_IMAGES, SEED = "where it pays", 600, 0""",
    "04_what_the_network_sees": """
DATASET, MODEL, EPOCHS, BATCH_SIZE = "digits", "small_cnn", 4, 64
LOOKED_AT, FILTERS, CLIMB = 100, 4, 8""",
    "05_compare_gradients": """
BATCH, SIZE, FEATURES, KERNEL, STRIDE = 2, 6, 3, 3, 2
MODEL, REPEATS = "small_cnn", 1""",
}
# What has to be among what each prints.
SAID = {
    "01_convolution_by_hand": ["total: 75 + 75 + 75 = 225", "= 4 ", "d x is the full convolution with it: True"],
    "02_train_mnist": ["30,634 parameters", "test accuracy 0.9"],
    "03_cifar10_on_tpu": ["small_cnn on digits: test accuracy 0."],
    "04_what_the_network_sees": ["validation accuracy 0.9", "dead filters in 100 images", "saliency "],
    "05_compare_gradients": ["DIFFERS", " WRONG", "every difference is explained by rounding: True"],
}
PLACES = ("/work", "/home", "/root", "/content", "/tmp", "/Users", "/mnt", "/usr", "file:", "localhost")


def executed(path, tmp_path, **environment):
    """Everything that a notebook prints, after every picture has been looked for."""
    notebook = nbformat.read(path, as_version=4)
    [settings] = tagged(notebook)
    settings.source = SMALL[path.stem]
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute(env=os.environ | environment)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output.get("data", {}) for output in outputs]
    assert any("image/png" in data for data in shown)
    assert not any("Figure" in data.get("text/plain", "") and "image/png" not in data for data in shown)
    printed = "".join(output.get("text", "") for output in outputs)
    assert "Warning" not in printed and "\x1b" not in printed
    return printed


def tagged(notebook):
    return [cell for cell in notebook.cells if "settings" in cell.metadata.get("tags", [])]


@ALL
def test_it_runs(path, tmp_path):
    printed = executed(path, tmp_path)
    assert [said for said in SAID[path.stem] if said not in printed] == []


def test_the_training_on_all_devices_runs_on_four(tmp_path):
    """One CPU is taken for four devices: each has its share of a batch, and their gradient is that of one."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    printed = executed(FOLDER / "03_cifar10_on_tpu.ipynb", tmp_path, XLA_FLAGS=flags)
    assert "{'data': 4}" in printed and printed.count(" has (16, 8, 8, 1)") == 4
    assert int(re.search(r"all-reduce in the program: (\d+)", printed)[1]) >= 1
    assert float(re.search(r"largest entry: (\S+)", printed)[1]) < 1e-4


@ALL
def test_it_is_stored_without_output(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    assert set(notebook.metadata) <= {"accelerator", "kernelspec", "language_info"}
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)


@ALL
def test_its_cells_have_names_of_their_own(path):
    """So that a change of a notebook is a change of few lines."""
    ids = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    assert len(set(ids)) == len(ids) and {"title", "install", "settings", "next"} <= set(ids)
    assert (ids[0], ids[1], ids[-1]) == ("title", "install", "next")


def install_cell():
    """The one source of the cells that install."""
    cells = {
        cell.source for path in NOTEBOOKS for cell in nbformat.read(path, as_version=4).cells if cell.id == "install"
    }
    [install] = cells
    return install


def installing(monkeypatch, source, *missing):
    """Runs the cell with its field filled in, as if these modules were missing; what it gives to pip."""
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else there(name))
    field = 'SOURCE = ""  # @param {type: "string"}'
    cell = install_cell()
    assert cell.count("%pip") == 1 and field in cell.splitlines()
    cell = re.sub(r"%pip install --quiet (.*)", r"given.append(f\1)", cell.replace(field, f"SOURCE = {source!r}"))
    given = []
    exec(cell, {"given": given})
    return given


def test_where_jaxconv_is_installed_there_is_nothing_to_fill_in(monkeypatch):
    assert installing(monkeypatch, "") == installing(monkeypatch, "git+https://example.org/x") == []


def test_where_it_is_missing_and_no_source_is_given_it_says_what_to_fill_in(monkeypatch):
    with pytest.raises(RuntimeError, match=r"^jaxconv is not installed: fill in SOURCE, a wheel that you uploaded or "):
        installing(monkeypatch, "", "jaxconv")


def test_it_installs_what_the_reader_gives(monkeypatch, tmp_path):
    missing = ("jaxconv", "libtpu", "jax_cuda12_plugin")
    address = "git+https://example.org/copy"
    assert installing(monkeypatch, address, *missing) == [f"jaxconv @ {address}"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jaxconv-1.0-py3-none-any.whl").touch()
    given = installing(monkeypatch, "jaxconv-1.0-py3-none-any.whl", *missing)
    assert given == [f"jaxconv @ {(tmp_path / 'jaxconv-1.0-py3-none-any.whl').as_uri()}"]


@ALL
def test_its_settings_are_a_form(path):
    """One cell of literals, each a field; the small settings are of the same names."""
    [settings] = tagged(nbformat.read(path, as_version=4))
    assert all(" # @param " in line for line in settings.source.splitlines())
    assert names(settings.source) == names(SMALL[path.stem])


def names(source):
    """What a cell assigns, all of it literals."""
    found = set()
    for statement in ast.parse(source.strip()).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)
        found |= {node.id for node in ast.walk(statement.targets[0]) if isinstance(node, ast.Name)}
    return found


@ALL
def test_it_names_no_place_of_one_machine(path):
    text = path.read_text()
    assert [place for place in PLACES if place in text] == []


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == set(SMALL) == set(SAID)
