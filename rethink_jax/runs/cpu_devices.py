"""How many simulated devices a run divides the cores of a CPU among."""

import contextlib
import logging
from collections.abc import Iterator

from etils import epath
from ml_collections import ConfigDict

from rethink_jax import models
from rethink_jax.distributed import parallel, processes
from rethink_jax.errors import require
from rethink_jax.runs import files

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def use(config: ConfigDict, path: epath.Path | None = None) -> Iterator[None]:
    """Uses as many of a CPU's simulated devices as suit a training run; on accelerators it changes nothing.

    XLA divides one convolution badly among cores, and one product of matrices well; docs/performance.md has the
    measurements. Losses on different numbers of devices differ by rounding, so a resumed run keeps its number.

    Args:
      config: resolved.
      path: of the run's directory; None for a run that has none.

    Raises:
      UserError: `config.cpu_devices` is more than there are, does not divide the batch, or has no effect.
    """
    most = parallel.most_cpu_devices()
    if most is None:
        allowed = "left out on accelerators, and where the environment sets the number of devices"
        require(config.cpu_devices is None, "cpu_devices", config.cpu_devices, allowed)
        yield
        return
    count = _count(config, most, path)
    if count > 1:
        logger.info("%d simulated devices on %d cores", count, parallel.cores())
    with parallel.use_cpu_devices(count):
        yield


def _count(config: ConfigDict, most: int, path: epath.Path | None) -> int:
    asked, batch_size = config.cpu_devices, config.batch_size
    if asked is not None:
        allowed = f"at most {most}, the number of cores, and divide config.batch_size"
        require(asked <= most and batch_size % asked == 0, "cpu_devices", asked, allowed)
        return asked
    before = processes.on_primary(lambda: files.read_environment(path)) if path else {}
    if before.get("backend") == "cpu" and 0 < len(before.get("devices", [])) <= most:
        return len(before["devices"])
    if not models.MODELS[config.model.name].convolutions:
        return 1
    return max(count for count in range(1, most + 1) if batch_size % count == 0)
