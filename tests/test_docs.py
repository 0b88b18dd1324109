"""The Markdown pages: links resolve, what they name exists, lines are filled to 100 to 120 columns."""

import ast
import re

import pytest

from tests.entry_point import ROOT

FOLDERS = ("configs", "docs", "rethink_jax", "tests")
FILES = [
    str(file.relative_to(ROOT))
    for file in (*ROOT.glob("*"), *(file for name in FOLDERS for file in (ROOT / name).rglob("*")))
    if file.is_file()
]
PAGES = [file for file in FILES if file.endswith(".md")]
WRITTEN = [page for page in PAGES if "/report" not in page]  # by hand


def text_of(page):
    return (ROOT / page).read_text()


def anchors(page):
    """Returns the anchors that GitHub gives a page's headings."""
    titles = re.findall(r"^#+ (.*)$", text_of(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_resolve(page):
    folder = (ROOT / page).parent
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        path, _, anchor = target.partition("#")
        if re.match(r"https?:", target):
            continue
        file = (folder / path).resolve() if path else ROOT / page
        if not file.exists() or (anchor and anchor not in anchors(file.relative_to(ROOT))):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", WRITTEN)
def test_files_that_are_named_exist(page):
    named = re.findall(r"(?<![\w$./*-])[\w./*-]*\w\.(?:py|md|toml)\b", text_of(page))
    mine = {"mine.py", "FILE.py", "NAME.py"}
    known = [f"/{file}" for file in FILES]
    missing = [
        name
        for name in {*named} - mine
        if "*" not in name
        and not name.startswith(("../", "runs/"))
        and not any(file.endswith(f"/{name.removeprefix('/')}") for file in known)
    ]
    assert missing == []


def defines(file, name):
    """Returns whether a module's text assigns, defines or imports a name."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).split(".")[-1])
    return name in found


def exists(dotted):
    """Returns whether a dotted name is a module of the project, or a name in one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        path = "/".join(parts[:length])
        module = f"{path}/__init__.py" if (ROOT / path).is_dir() else f"{path}.py"
        if (ROOT / module).exists():
            return length == len(parts) or defines(module, parts[length])
    return False


@pytest.mark.parametrize("page", WRITTEN)
def test_modules_that_are_named_exist(page):
    text = text_of(page)
    named = {*re.findall(r"\brethink_jax(?:\.\w+)+", text)}
    for module, names in re.findall(r"^from (rethink_jax[\w.]*) import (.*)$", text, re.M):
        named |= {f"{module}.{name.strip()}" for name in names.split(",")}
    assert [name for name in sorted(named) if not exists(name)] == []


@pytest.mark.parametrize("page", WRITTEN)
def test_tests_that_are_named_exist(page):
    is_no_metric = r"(?!accuracy|loss|top5|error|evaluated)"
    named = {*re.findall(rf"(?:`|::)(test_{is_no_metric}\w+)`", text_of(page))}
    tests = "\n".join((ROOT / file).read_text() for file in FILES if file.startswith("tests/"))
    assert [name for name in sorted(named) if f"def {name}(" not in tests] == []


def words(line):
    """Returns the parts of a line between which it may be broken: not within code or a link."""
    return re.findall(r"(?:`[^`]*`|!?\[[^]]*\]\([^)]*\)|\S)+", line)


@pytest.mark.parametrize("page", WRITTEN)
def test_lines_are_filled(page):
    """No line of prose has more than 120 columns, or ends where the next word would have fitted into 100."""
    text = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S)
    lines = [line if re.match(r"\S|\s{1,3}\S", line) else "" for line in text.split("\n")]
    wrong = []
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if not line or line.startswith(("|", "#", "!", "<")):
            continue
        is_long = len(line) > 120 and len(words(line)) > 1
        ends = not after or re.match(r"\s*([-*|#!<]|\d+\.) ", after)
        is_short = not ends and len(line) + 1 + len(words(after)[0]) <= 100
        if is_long or is_short:
            wrong.append(line)
    assert wrong == []
