"""Each folder imports only folders above it in a list; files and functions are short."""

import ast

import pytest

from tests.entry_point import ROOT

# Folders of one line may not import each other.
ORDER = (
    ("errors", "output", "paper"),
    ("config", "corruptions", "data", "distributed"),
    ("cli", "models", "pipeline"),
    ("runs",),
    ("training",),
    ("kernels", "sweeps"),
    ("theory",),
    ("report", "bench", "chaos"),
    ("main",),
)
LEVELS = {name: level for level, names in enumerate(ORDER) for name in names}
PACKAGE = ROOT / "rethink_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 400, 60


def name_of(file):
    """The folder of a module, or its own name at the top."""
    first = file.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(source):
    """The folders and modules at the top of the package that a module's text imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide where they lead"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in names]
    return {rest[0] for package, *rest in parts if package == "rethink_jax" and rest}


def test_imports_are_found_wherever_they_are():
    source = "import rethink_jax.main\ndef f():\n from rethink_jax import data as d, cli\nimport os"
    assert imported(source) == {"main", "data", "cli"}


def test_every_folder_has_its_place():
    assert {name_of(file) for file in FILES} - {"__init__"} == set(LEVELS)
    assert len(LEVELS) <= 22


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_module_imports_only_what_is_above_it(file):
    own = name_of(file)
    wrong = {
        name
        for name in imported(file.read_text()) - {own}
        if own != "__init__" and LEVELS[name] >= LEVELS[own]
    }
    assert not wrong


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_and_functions_are_short(file):
    source = file.read_text()
    assert len(source.splitlines()) <= LONGEST_FILE
    functions = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    long = {
        function.name
        for function in functions
        if function.end_lineno - function.lineno + 1 > LONGEST_FUNCTION
    }
    assert not long
