"""Small data sets on disk, and how tests ask for them."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from rethink_jax import config as config_lib, data
from rethink_jax.data import tfds_writer
from rethink_jax.errors import UserError

FEATURES = {
    "image": tfds.features.Image(shape=(4, 5, 3)),
    "label": tfds.features.ClassLabel(num_classes=10),
}


def fields(name, data_dir=None, examples=None):
    """Returns `config.data` as a run has it."""
    config = config_lib.base()
    config.data.update(
        name=name, data_dir=None if data_dir is None else str(data_dir), examples=examples
    )
    return config.data


def error(function, *args):
    """Returns the one line of the `UserError` that a call raises."""
    with pytest.raises(UserError) as caught:
        function(*args)
    line = str(caught.value)
    assert "\n" not in line
    return line


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(buffer, "png")
    return buffer.getvalue()


def random_examples(count, shape=(4, 5, 3), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *shape), np.uint8), rng.integers(0, 10, count)


def rows(images, labels):
    return [
        {"image": png(image), "label": int(label)}
        for image, label in zip(images, labels, strict=True)
    ]


def write_set(
    root,
    splits,
    features=FEATURES,
    supervised_keys=None,
    shards=1,
    form="array_record",
    full_name="toy/1.0.0",
):
    """Prepares a TFDS data set, its records in the order of the rows, and returns its folder."""

    class Toy(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name, version_number = full_name.split("/")
        VERSION = tfds.core.Version(version_number)
        code_path = tfds_writer.NO_CODE_PATH

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=supervised_keys,
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {split: enumerate(examples) for split, examples in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError

    Toy(data_dir=root, file_format=form).download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=shards, try_download_gcs=False)
    )
    return root / full_name


def write_images(folder, names, shape=(4, 5, 3), seed=0):
    """Writes random PNGs and returns their pixels."""
    images, _ = random_examples(len(names), shape, seed)
    for name, image in zip(names, images, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(image))
    return images


def assert_same(first, second):
    assert first.info == second.info
    for one, other in zip((*first.train, *first.test), (*second.train, *second.test), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one is other is None or one.dtype == other.dtype


def of_size(shape=(32, 32, 3), num_train=50_000, name="sized"):
    """Returns a data set of which only the sizes are there, as handed over to `resolve`."""
    nothing = data.Examples(np.zeros((0, *shape), np.uint8), np.zeros(0, np.int32))
    info = data.DatasetInfo(name, num_train, 100, shape, 10)
    return data.Dataset(info, nothing, nothing)


def kernel_config(name, gammas, ridges=(0.0,)):
    config = config_lib.experiment("kernel", name)
    config.kernel.update(gammas=gammas, ridges=ridges)
    return config
