"""Words that no file of the project has."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.entry_point import ROOT

# Said plainly: resumed, continues, instead of; module, entry point.
WORDS = (
    *("taken up", "goes on", "in the place of", "a script that is not kept"),
    *("room", "rooms", "door", "doors"),
)
BY_HAND = {".py", ".md", ".toml", ".cff", ".yml", ""}


def files():
    """Returns what git tracks, or would."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no checkout")
    paths = [ROOT / name for name in listed.stdout.splitlines()]
    return [path for path in paths if path.is_file() and path.suffix in BY_HAND]


def test_words_that_are_avoided():
    pattern = re.compile(rf"\b({'|'.join(WORDS)})\b".replace(" ", r"[\s#]+"), re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in files()
        if path != Path(__file__)
        for match in pattern.finditer(path.read_text())
    ]
    assert found == []
