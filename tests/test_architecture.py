"""The architecture holds: packages import lower floors only, import is light, every public name explains itself."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxconv
import measure

PACKAGE = Path(jaxconv.__file__).parent
FLOORS = [
    ["errors"],
    ["utils"],
    ["_compat", "shapes"],
    ["xla_options", "checks"],
    ["runtime"],
    ["ops"],
    ["filters", "distributed", "layers", "testing", "data"],
    ["models", "train"],
    ["explain"],
    ["plot", "bench"],
    ["runs"],
    ["report"],
    ["demo"],
    ["cli"],
]
PACKAGES = [name for floor in FLOORS for name in floor]


def imported_packages(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "jaxconv":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("jaxconv."))


def test_packages_import_only_lower_floors():
    floor_of = {name: number for number, names in enumerate(FLOORS) for name in names}
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    assert len(files) > 30
    for path in files:
        package = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        allowed = {package, *(name for name, floor in floor_of.items() if floor < floor_of[package])}
        used = set(imported_packages(path)) - {"__version__"}
        assert used <= allowed, f"{path} imports {used - allowed}"


def test_what_jax_does_not_promise_is_in_one_file():
    """So what a new jax moves or renames is looked for there alone."""
    private = re.compile(r"jax\._src|jax\.extend|jax\.interpreters|manual_axis_type|\bvma\b|jax(lib)?\.__version__")
    users = [path.name for path in PACKAGE.rglob("*.py") if private.search(path.read_text())]
    assert users == ["_compat.py"]


# What goes past jaxconv.utils.files, and why it may. What is written into memory or a pipe is no file.
PAST_THE_WRITER = {
    "utils/files.py": "is the writer",
    "utils/terminal.py": "opens stdout and stderr where they are closed",
    "plot/figures.py": "matplotlib writes into a file that the writer opened",
    "train/snapshots.py": "an archive's members are written into a file that the writer opened",
    "data/download.py": "makes the folder of a download, and says how to choose another",
    "data/archives.py": "an archive is unpacked into a new folder, which is renamed when it is whole",
    "train/checkpointing.py": "a snapshot is a new folder, which is renamed when it is whole",
    "report/figures.py": "reads plotly's figures, in memory",
}


def past_the_writer(path):
    """Calls that write or rename a file, make a folder, or read JSON, and are not of jaxconv.utils.files."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        name = called.rpartition(".")[2]
        always = name in ("write_text", "write_bytes", "savefig", "mkdir", "makedirs", "symlink_to", "rename")
        mode = {word.value for word in ast.walk(node) if isinstance(word, ast.Constant) and isinstance(word.value, str)}
        opened = name in ("open", "fdopen") and any(re.fullmatch("[rwaxbt+]*[wax+][rwaxbt+]*", word) for word in mode)
        if (
            always
            or opened
            or called in ("os.replace", "json.load", "json.loads", "json.dump", "shutil.copy", "shutil.move")
        ):
            yield f"{called} in line {node.lineno}"


def test_files_are_written_and_json_is_read_in_one_place():
    """So that a crash, a full disk, a symbolic link or a damaged file is thought of once."""
    users = {str(path.relative_to(PACKAGE)): list(past_the_writer(path)) for path in PACKAGE.rglob("*.py")}
    users = {path: calls for path, calls in users.items() if calls}
    assert not {path: calls for path, calls in users.items() if path not in PAST_THE_WRITER}
    assert users.keys() == PAST_THE_WRITER.keys()  # and no exception outlives its reason


def test_importing_jaxconv_loads_nothing_heavy():
    program = "import sys, jaxconv; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "jaxconv" in loaded
    heavy = {
        "jax",
        "numpy",
        "optax",
        "matplotlib",
        "orbax",
        "sklearn",
        "rich",
        "tyro",
        "PIL",
        "pooch",
        "requests",
        "flax",
        "torch",
        "equinox",
        "keras",
    }
    assert not heavy & set(loaded)


def test_other_packages_load_on_first_use():
    program = (
        "import jaxconv; print(jaxconv.train.fit.__name__, jaxconv.data.load('digits').name, jaxconv.plot.__name__, "
        "jaxconv.filters.sobel.__name__, jaxconv.testing.compare.__name__)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == "fit digits jaxconv.plot sobel compare\n"
    with pytest.raises(AttributeError, match="module 'jaxconv' has no attribute 'trian'"):
        _ = jaxconv.trian


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_a_docstring_and_what_computes_an_example(package):
    module = importlib.import_module(f"jaxconv.{package}")
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    for name in names:
        value = getattr(module, name)
        if not callable(value):
            continue
        assert (value.__doc__ or "").strip(), f"{package}.{name} has no docstring"
        ours = inspect.isfunction(value) and value.__module__.startswith("jaxconv")
        if ours and package in ("shapes", "ops", "filters", "layers", "plot"):
            assert ">>>" in value.__doc__, f"{package}.{name} has no example"


def test_no_public_name_hides_its_module():
    assert not measure.hidden_modules()


def test_packages_define_nothing_in_init():
    for path in PACKAGE.rglob("__init__.py"):
        if path != PACKAGE / "__init__.py":  # which has a lazy __getattr__
            defined = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
            assert not defined, path


def test_kinds_are_read_in_layers_only():
    assert not measure.kinds_compared()
