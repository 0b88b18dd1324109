import io
import os
import sys
import tempfile

import jaxlib.version

# Before JAX starts: four simulated devices, of which tests take one, two or all.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Compiling takes most of the tests' time. CI has a part of them compile as a run does.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# XLA ends the process for a flag that it does not know, and later versions have no such emitters.
if (
    jaxlib.version.__version_info__ < (0, 11)
    and os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

from pathlib import Path

import hypothesis
import jax
import numpy as np
import pytest

from rethink_jax import data
from rethink_jax.distributed import jax_settings, memory_maps, parallel
from rethink_jax.runs import writers
from tests.entry_point import ROOT, ForkedEntryPoint, InProcessEntryPoint

hypothesis.settings.register_profile("default", deadline=None, max_examples=25)
hypothesis.settings.load_profile("default")

REAL_DATA = Path(__file__).parents[2] / "shared" / "tfds"


@pytest.fixture(scope="session")
def real_data():
    if not REAL_DATA.is_dir():
        pytest.skip(f"the prepared data sets are not at {REAL_DATA}")
    return REAL_DATA


@pytest.fixture(scope="session", autouse=True)
def own_directories(tmp_path_factory, worker_id):
    """Keeps data sets, caches and temporary files of the tests away from the user's and the checkout.

    The workers of a session and the commands that they run share one cache of compiled programs.
    """
    found = {*os.listdir(ROOT)}
    root = tmp_path_factory.mktemp("home")
    session = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        session = session.parent
    compiled = session / "compiled"
    for folder in (compiled, root / "cache", root / "tmp"):
        folder.mkdir(exist_ok=True)
    (root / "cache" / "compiled").symlink_to(compiled)
    jax_settings.use_compilation_cache(root / "cache" / "compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPILED_BY_TESTS", str(compiled))
        patch.setenv("TMPDIR", str(root / "tmp"))
        patch.setattr(tempfile, "tempdir", None)  # TFDS leaves a directory for each builder
        patch.setenv("TFDS_DATA_DIR", str(root / "tfds"))
        patch.setenv("RETHINK_JAX_CACHE", str(root / "cache"))
        yield root
    left = {name for name in os.listdir(ROOT) if not name.startswith(".")} - found
    assert not left, f"the tests left {', '.join(sorted(left))} in the checkout"


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Drops what tests have compiled without a run, too, before no memory map is left."""
    yield
    memory_maps.drop_if_many()


@pytest.fixture(scope="session")
def entry_point():
    with ForkedEntryPoint() as forked:
        yield forked


@pytest.fixture
def in_process(monkeypatch, capsys):
    return InProcessEntryPoint(monkeypatch, capsys)


@pytest.fixture(params=[1, 2, 4], ids="{} devices".format)
def devices(request, monkeypatch):
    return use_devices(monkeypatch, request.param)


@pytest.fixture(autouse=True)
def two_devices(request, monkeypatch):
    if "devices" not in request.fixturenames:
        use_devices(monkeypatch, 2)


def use_devices(monkeypatch, count):
    chosen = jax.devices()[:count]
    monkeypatch.setattr(parallel, "devices", lambda: chosen)
    return count


def use_terminal(monkeypatch):
    """Puts a terminal where stdout was and returns it; its `getvalue` is what was shown."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    return stream


@pytest.fixture
def curves():
    """Has runs draw their curves, which takes a quarter of a second of each."""


@pytest.fixture(autouse=True)
def no_curves(request, monkeypatch):
    if "curves" not in request.fixturenames:
        monkeypatch.setattr(writers, "draw_curves", lambda *arguments: None)


@pytest.fixture
def from_toy(toy, monkeypatch):
    serve(toy, monkeypatch)


def serve(dataset, monkeypatch):
    """Has this data set loaded whatever is asked for."""
    monkeypatch.setattr(data, "describe", lambda config: dataset.info)
    monkeypatch.setattr(data, "load", lambda config: dataset)


@pytest.fixture(scope="session")
def toy():
    """300 + 60 images of 12×12×3 in five classes that differ in brightness."""
    rng = np.random.default_rng(0)

    def split(n):
        labels = rng.integers(0, 5, n)
        images = rng.integers(0, 60, (n, 12, 12, 3)) + 40 * labels[:, None, None, None]
        return images.astype(np.uint8), labels

    return data.from_arrays(split(300), split(60), name="toy")
