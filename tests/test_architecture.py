"""Architecture: packages import lower levels only, importing jaxconv is light, public names are documented."""

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
LEVELS = [
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
PACKAGES = [name for level in LEVELS for name in level]


def imported_packages(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "jaxconv":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("jaxconv."))


def test_packages_import_only_lower_levels():
    level_of = {name: level for level, names in enumerate(LEVELS) for name in names}
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    assert len(files) > 30
    for path in files:
        package = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        allowed = {package, *(name for name, level in level_of.items() if level < level_of[package])}
        imported = set(imported_packages(path)) - {"__version__"}
        assert imported <= allowed, f"{path} imports {imported - allowed}"


def test_private_jax_apis_are_used_in_compat_only():
    """Changes of a new jax version then affect one file only."""
    private = re.compile(r"jax\._src|jax\.extend|jax\.interpreters|manual_axis_type|\bvma\b|jax(lib)?\.__version__")
    files = [path.name for path in PACKAGE.rglob("*.py") if private.search(path.read_text())]
    assert files == ["_compat.py"]


# Files that may write without jaxconv.utils.files, with the reason. Writing to memory or a pipe does not count.
ALLOWED_TO_WRITE = {
    "utils/files.py": "contains the functions that write files",
    "utils/terminal.py": "opens stdout and stderr if they are closed",
    "plot/figures.py": "matplotlib writes to a file that jaxconv.utils.files opened",
    "train/snapshots.py": "writes archive members to a file that jaxconv.utils.files opened",
    "data/download.py": "creates the download folder, with its own error message",
    "data/archives.py": "unpacks an archive into a new folder, which is renamed when it is complete",
    "train/checkpointing.py": "writes a snapshot to a new folder, which is renamed when it is complete",
    "report/figures.py": "reads figures of plotly in memory",
}


def file_calls(path):
    """Yield calls that write or rename a file, create a folder or read JSON without jaxconv.utils.files."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func)
        name = function.rpartition(".")[2]
        always_writes = name in ("write_text", "write_bytes", "savefig", "mkdir", "makedirs", "symlink_to", "rename")
        mode = {word.value for word in ast.walk(node) if isinstance(word, ast.Constant) and isinstance(word.value, str)}
        opens_for_writing = name in ("open", "fdopen") and any(
            re.fullmatch("[rwaxbt+]*[wax+][rwaxbt+]*", word) for word in mode
        )
        if (
            always_writes
            or opens_for_writing
            or function in ("os.replace", "json.load", "json.loads", "json.dump", "shutil.copy", "shutil.move")
        ):
            yield f"{function} in line {node.lineno}"


def test_file_writes_and_json_reads_use_utils_files():
    """Crashes, full disks, symbolic links and damaged files are handled in one module."""
    calls_by_file = {str(path.relative_to(PACKAGE)): list(file_calls(path)) for path in PACKAGE.rglob("*.py")}
    calls_by_file = {path: calls for path, calls in calls_by_file.items() if calls}
    assert not {path: calls for path, calls in calls_by_file.items() if path not in ALLOWED_TO_WRITE}
    assert calls_by_file.keys() == ALLOWED_TO_WRITE.keys()  # every exception is still needed


def test_import_loads_no_heavy_dependency():
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
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output == "fit digits jaxconv.plot sobel compare\n"
    with pytest.raises(AttributeError, match="module 'jaxconv' has no attribute 'trian'"):
        _ = jaxconv.trian


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_have_docstrings_and_examples(package):
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
        is_own = inspect.isfunction(value) and value.__module__.startswith("jaxconv")
        if is_own and package in ("shapes", "ops", "filters", "layers", "plot"):
            assert ">>>" in value.__doc__, f"{package}.{name} has no example"


def test_no_public_name_hides_its_module():
    assert not measure.hidden_modules()


def test_rules_of_names_and_voice_hold():
    """The rules of ``tools/measure.py``; its counts are only reported."""
    assert [check for check in measure.checks() if check.rule and not check.ok] == []


def test_packages_define_nothing_in_init():
    for path in PACKAGE.rglob("__init__.py"):
        if path != PACKAGE / "__init__.py":  # it has a lazy __getattr__
            definitions = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
            assert not definitions, path


def test_layer_kinds_are_compared_in_layers_only():
    assert not measure.kinds_compared()
