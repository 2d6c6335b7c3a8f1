"""Rename codemod on a small project: imports, names, keywords, doctests and pages."""

import importlib
from pathlib import Path

import pytest

pytest.importorskip("libcst", reason="the dev extra is not installed")
TOOLS = Path(__file__).parents[2] / "tools" / "rename"
FILES = {
    "jaxconv/__init__.py": "",
    "jaxconv/ops/__init__.py": "from jaxconv.ops.pool import max_pool\n",
    "jaxconv/ops/pool.py": '''"""Pooling."""

from jaxconv.ops import checks


def max_pool(x, window, stride=None):
    """Largest value, with ``window`` pixels.

    Args:
        x: images.
        window: size of it.

    >>> from jaxconv.ops.pool import max_pool
    >>> max_pool(3, window=2)
    3
    """
    return checks.array(x, window)
''',
    "jaxconv/ops/checks.py": """LIMIT = 3


def array(x, name):
    return x


def widened(x):
    return array(x, 1)
""",
}
MOVES = """old	names	new
jaxconv.ops.pool		jaxconv.ops.pooling
jaxconv.ops.checks		jaxconv.checks
jaxconv.ops.checks	widened	jaxconv.ops.numerics
"""
NAMES = """old	keyword	new
jaxconv.ops.pool.max_pool	window	window_shape
jaxconv.ops.checks.array		as_array
"""


@pytest.fixture
def rename(tmp_path, monkeypatch):
    """Return a factory of the index, and the modules ``source`` and ``pages`` of the codemod."""
    monkeypatch.syspath_prepend(str(TOOLS))
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    tables, source, pages = (importlib.import_module(name) for name in ("tables", "source", "pages"))

    def index(moves="old\tnames\tnew\n", names="old\tkeyword\tnew\n"):
        (tmp_path / "moves.tsv").write_text(moves)
        (tmp_path / "names.tsv").write_text(names)
        return tables.Index(tmp_path, tmp_path / "moves.tsv", tmp_path / "names.tsv")

    return index, source, pages


def test_moved_module_updates_imports_and_attributes(rename):
    index, source, _ = rename
    before = "from jaxconv.ops import checks, max_pool\nfrom jaxconv.ops.pool import max_pool as largest\n"
    before += "\nchecks.array(1, 2)\n"
    after = source.rename_source(before, index(MOVES))
    assert "from jaxconv import checks\n" in after and "from jaxconv.ops import max_pool\n" in after
    assert "from jaxconv.ops.pooling import max_pool as largest\n" in after and "checks.array(1, 2)" in after


def test_moved_function_is_imported_from_its_new_module(rename):
    index, source, _ = rename
    after = source.rename_source("from jaxconv.ops import checks\n\nchecks.widened(checks.LIMIT)\n", index(MOVES))
    assert "from jaxconv.ops import numerics\n" in after and "numerics.widened(checks.LIMIT)" in after


def test_rename_updates_keywords_and_doctests_but_not_locals(rename):
    index, source, _ = rename
    after = source.rename_source(FILES["jaxconv/ops/pool.py"], index(names=NAMES), "jaxconv.ops.pool")
    assert "def max_pool(x, window_shape, stride=None):" in after and "checks.as_array(x, window_shape)" in after
    assert "with ``window_shape`` pixels" in after and "        window_shape: size of it." in after
    assert ">>> max_pool(3, window_shape=2)\n" in after
    other = "from jaxconv import ops\n\n\ndef array(window):\n    return ops.max_pool(window, window=1)\n"
    assert source.rename_source(other, index(names=NAMES)) == other.replace("window=1", "window_shape=1")


def test_renamed_definition_updates_its_uses(rename):
    index, source, _ = rename
    after = source.rename_source(FILES["jaxconv/ops/checks.py"], index(names=NAMES), "jaxconv.ops.checks")
    assert "def as_array(x, name):" in after and "return as_array(x, 1)" in after


def test_module_in_all_is_renamed_only_if_moved(rename):
    index, source, _ = rename
    text = 'from jaxconv.ops import checks, pool\n\n__all__ = ["checks", "pool"]\n'
    assert source.rename_source(text, index(names=NAMES), "jaxconv.ops") == text
    assert '__all__ = ["checks", "pooling"]' in source.rename_source(text, index(MOVES), "jaxconv.ops")


def test_pages_update_code_roles_and_links(rename):
    index, _, pages = rename
    page = "See `jaxconv.ops.pool.max_pool` in [it](jaxconv/ops/pool.py).\n\n"
    page += "```python\nfrom jaxconv.ops import pool\npool.max_pool(1, 2)\n```\n"
    after = pages.rename_page(page, index(MOVES))
    assert "`jaxconv.ops.pooling.max_pool`" in after and "(jaxconv/ops/pooling.py)" in after
    assert "from jaxconv.ops import pooling\npooling.max_pool(1, 2)\n" in after
