"""The sandbox stands alone."""

import ast
import sys
from pathlib import Path

import mautic_sync.sandbox

PACKAGE = Path(mautic_sync.sandbox.__file__).parent
ALLOWED = {"orjson", "pycountry"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def test_it_imports_nothing_of_the_worker():
    """A mistake of the worker must not be able to agree with itself."""
    for path in PACKAGE.glob("**/*.py"):
        for name in imported(path):
            if name.startswith("."):
                assert not name.startswith(".."), f"{path.name} imports {name}"
            else:
                head = name.split(".")[0]
                assert head in sys.stdlib_module_names | ALLOWED, f"{path.name} imports {name}"
