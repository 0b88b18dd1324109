"""README's Python, run as a reader of it would."""

import os
import re
import subprocess
import sys

from tests.entry_point import ROOT

OF_THE_READER = """
import numpy as np
rng = np.random.default_rng(0)
train_images = rng.integers(0, 256, (40, 28, 28, 3)).astype(np.uint8)
test_images = train_images[:8]
train_labels, test_labels = np.arange(40) % 4, np.arange(8) % 4
ids, images, labels = np.arange(40), train_images, train_labels
"""


def snippets():
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)


def test_the_snippets_run_and_print_nothing_of_the_libraries(tmp_path):
    first, second = snippets()
    # One epoch of a small model tells as much.
    quick = (
        'settings.update_from_flattened_dict({"epochs": 1, "model.name": "mlp", "model.width": 4})'
    )
    first = first.replace("summary =", f"{quick}\nsummary =")
    checks = "print(run.summary['status'], labels.dtype)"
    code = "\n".join([OF_THE_READER, first, second, checks])
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("\nfinished int32\n")
