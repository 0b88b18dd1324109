import gc
import io
import resource
import shutil
import subprocess
import sys
import tarfile
from collections import namedtuple

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import hashing, shuffle
from tensorflow_datasets.datasets.imagenet2012 import imagenet2012_dataset_builder as official

from rethink_jax import paper
from rethink_jax.data import imagenet, synthetic_imagenet, tfds_reader
from rethink_jax.errors import UserError
from tests.data_helpers import random_examples, rows, write_set

TRAIN, VALIDATION = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
FOLDER = official.imagenet_common.label_names_file().parent
CLASSES = (FOLDER / "labels.txt").read_text().split()
VALIDATION_LABELS = (FOLDER / "validation_labels.txt").read_text().split()
CMYK, PNG = "n01739381_1309.JPEG", "n02105855_2933.JPEG"


def smooth(seed):
    """A picture that JPEG keeps as it is to within a few values."""
    grid = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    return Image.fromarray(grid).resize((48, 40), Image.Resampling.BICUBIC)


def encoded(picture, form="jpeg"):
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


def tar_of(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def files():
    """What the tars hold, per split: file name → encoded image."""
    train = {f"n01440764_{number}.JPEG": encoded(smooth(number)) for number in (10026, 18, 7)}
    train |= {"n01739381_3.JPEG": encoded(smooth(3)), CMYK: encoded(smooth(4).convert("CMYK"))}
    train |= {PNG: encoded(smooth(5).convert("RGBA"), "png")}
    # Not in the order of their numbers, as in the official tar, and one is missing.
    numbers = (4, 50_000, 1, 3)
    validation = {f"ILSVRC2012_val_{n:08d}.JPEG": encoded(smooth(n)) for n in numbers}
    return {"train": train, "validation": validation}


@pytest.fixture(scope="module")
def manual_dir(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tars")
    synsets = {name.partition("_")[0] for name in files["train"]}
    write_tars(
        folder,
        {
            f"{synset}.tar": tar_of(
                {name: image for name, image in files["train"].items() if name.startswith(synset)}
            )
            for synset in sorted(synsets)
        },
        files["validation"],
    )
    return folder


def write_tars(folder, train, validation):
    (folder / TRAIN).write_bytes(tar_of(train))
    (folder / VALIDATION).write_bytes(tar_of(validation))


@pytest.fixture(scope="module")
def command(manual_dir, tmp_path_factory):
    """What the real command did, and where."""
    root = tmp_path_factory.mktemp("imagenet") / "tfds"
    arguments = [f"--manual_dir={manual_dir}", f"--data_dir={root}"]
    result = subprocess.run(
        [sys.executable, "-m", "rethink_jax.data.imagenet", *arguments],
        capture_output=True,
        text=True,
    )
    return result, root


def read(root, split):
    """Returns the encoded images and the labels by the file names, in the order of the records."""
    source = tfds_reader.open_source("imagenet2012", root)
    part = {"train": source.train, "validation": source.test}[split]
    builder = tfds.builder("imagenet2012", data_dir=root)
    skip = {"image": tfds.decode.SkipDecoding()}
    names = [row["file_name"].decode() for row in builder.as_data_source(split, decoders=skip)]
    parsed = map(part.parse, part.fetch(range(part.count)))
    return dict(zip(names, parsed, strict=True))


def test_command_tells_what_it_made(command):
    result, root = command
    assert result.returncode == 0
    assert result.stderr == ""
    assert result.stdout == (
        f"{root}/imagenet2012/5.1.0 is prepared: 6 images to train and 4 to validate; "
        "all of ImageNet are 1,281,167 and 50,000\n"
    )
    assert [path.name for path in root.iterdir()] == ["imagenet2012"]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_images_are_those_of_the_tars_in_tfds_order(command, files, split):
    _, root = command
    found = read(root, split)
    assert list(found) == sorted(files[split], key=hashing.Hasher(split).hash_key)
    for name in {*found} - {CMYK, PNG}:
        assert found[name][0] == files[split][name]


def test_labels(command):
    _, root = command
    for name, (_, label) in read(root, "train").items():
        assert CLASSES[label] == name.partition("_")[0]
    for name, (_, label) in read(root, "validation").items():
        assert CLASSES[label] == VALIDATION_LABELS[int(name[-13:-5]) - 1]


def test_the_few_that_are_no_rgb_jpegs_become_ones(command):
    found = read(command[1], "train")
    for name, seed in ((CMYK, 4), (PNG, 5)):
        with Image.open(io.BytesIO(found[name][0])) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            difference = np.asarray(image, int) - np.asarray(smooth(seed), int)
        assert np.abs(difference).mean() < 3


def test_labels_of_all_validation_images_are_tfds_own():
    labels = imagenet._validation_labels()
    assert len(labels) == paper.IMAGENET_VALIDATION
    assert dict(zip(sorted(labels), VALIDATION_LABELS, strict=True)) == labels


def test_data_set_is_there_already(command, manual_dir, capsys):
    _, root = command
    imagenet.main([f"--manual_dir={manual_dir}", f"--data_dir={root}"])
    assert capsys.readouterr() == (f"{root}/imagenet2012/5.1.0 is there already\n", "")


def refused(capsys, *arguments):
    """Returns the one line on stderr of a command that leaves with 2."""
    with pytest.raises(SystemExit) as caught:
        imagenet.main(list(arguments))
    assert caught.value.code == 2
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert stderr.startswith("rethink_jax: ")
    assert stderr.count("\n") == 1
    assert len(stderr) < 500 + sum(map(len, arguments))
    return stderr


def refused_tars(capsys, manual_dir, root):
    """Returns the line for tars that cannot be used; nothing may be left of what they held."""
    line = refused(capsys, f"--manual_dir={manual_dir}", f"--data_dir={root}")
    assert not root.exists() or list(root.iterdir()) == []
    return line


@pytest.mark.parametrize(
    "arguments", [[], ["--data_dir=x"], ["--manual_dir=x", "--data_dir=x", "y"]]
)
def test_wrong_flags(capsys, arguments):
    assert "--manual_dir=DIR --data_dir=DIR" in refused(capsys, *arguments)


def test_missing_folder_and_tars(capsys, manual_dir, tmp_path):
    line = refused_tars(capsys, tmp_path / "nothing", tmp_path / "tfds")
    assert f"--manual_dir is '{tmp_path}/nothing'" in line
    assert line.endswith(f"and it has no {TRAIN} and no {VALIDATION}\n")
    (tmp_path / "one").mkdir()
    shutil.copy(manual_dir / TRAIN, tmp_path / "one")
    line = refused_tars(capsys, tmp_path / "one", tmp_path / "tfds")
    assert line.endswith(f"and it has no {VALIDATION}\n")


@pytest.mark.parametrize(("name", "members"), [(TRAIN, 0), (VALIDATION, 2), (VALIDATION, 2.5)])
def test_tar_cut_short(capsys, manual_dir, tmp_path, name, members):
    shutil.copytree(manual_dir, tmp_path / "tars")
    path = tmp_path / "tars" / name
    with tarfile.open(path) as tar:
        offsets = [member.offset for member in tar]
    length = int(np.interp(members, range(len(offsets)), offsets))
    path.write_bytes(path.read_bytes()[:length])
    line = refused_tars(capsys, tmp_path / "tars", tmp_path / "tfds")
    assert f"{path} is no tar, or cut short" in line


@pytest.mark.parametrize("damaged", [b"no tar", tar_of({"a.JPEG": bytes(1000)})[:1000]])
def test_damaged_class(capsys, files, tmp_path, damaged):
    write_tars(tmp_path, {"n01440764.tar": damaged}, files["validation"])
    line = refused_tars(capsys, tmp_path, tmp_path / "tfds")
    assert f"a tar in {tmp_path} is damaged: " in line


def test_tars_of_something_else(capsys, files, tmp_path):
    write_tars(tmp_path, {"train/n01440764.tar": tar_of(files["train"])}, files["validation"])
    line = refused_tars(capsys, tmp_path, tmp_path / "tfds")
    assert f"{tmp_path}/{TRAIN} holds 'train/n01440764.tar', which" in line
    write_tars(tmp_path, {"n01440764.tar": tar_of(files["train"])}, {"cat.JPEG": b""})
    line = refused_tars(capsys, tmp_path, tmp_path / "tfds")
    assert f"{tmp_path}/{VALIDATION} holds 'cat.JPEG', which" in line


def test_disk_too_small(capsys, manual_dir, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")(1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    line = refused_tars(capsys, manual_dir, tmp_path / "tfds")
    assert f"--data_dir is '{tmp_path}/tfds', with 0.0 GB free; it must have 0.0 GB" in line


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("shuffled_on_disk", [False, True])
def test_disk_that_fills_up(capsys, manual_dir, tmp_path, monkeypatch, shuffled_on_disk):
    if shuffled_on_disk:
        monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 100)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        line = refused_tars(capsys, manual_dir, tmp_path / "tfds")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"imagenet2012 cannot be prepared in {tmp_path}/tfds: " in line
    assert "File too large" in line
    gc.collect()  # TFDS leaves its shuffler's files open, which Python warns of


def test_folder_in_the_way(capsys, manual_dir, tmp_path):
    target = tmp_path / "imagenet2012" / "5.1.0"
    target.mkdir(parents=True)
    line = refused(capsys, f"--manual_dir={manual_dir}", f"--data_dir={tmp_path}")
    assert f"{target} is in the way" in line


def test_unprepared_set_names_the_command(tmp_path):
    with pytest.raises(UserError, match=r"rethink_jax\.data\.imagenet --manual_dir=") as caught:
        tfds_reader.describe("imagenet2012", tmp_path)
    assert f"--data_dir={tmp_path}` prepares it" in str(caught.value)
    assert "tensorflow" not in str(caught.value)


def test_unlabelled_test_split_is_not_taken(tmp_path):
    examples = rows(*random_examples(3))
    unlabelled = [{**row, "label": -1} for row in examples]
    splits = {"train": examples, "validation": examples[:2], "test": unlabelled}
    write_set(tmp_path, splits, full_name="imagenet2012/5.1.0")
    assert tfds_reader.describe("imagenet2012", tmp_path).num_test == 2


@pytest.fixture(scope="module")
def made_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    synthetic_imagenet.prepare(root, 12, 5)
    return root


def test_made_images_have_imagenets_sizes_labels_and_layout(made_root):
    info = tfds_reader.describe("imagenet2012", made_root)
    assert (info.num_train, info.num_test, info.num_classes) == (12, 5, 1000)
    builder = tfds.builder("imagenet2012", data_dir=made_root)
    assert str(builder.version) == "5.1.0"
    assert builder.info.features["label"].names == CLASSES
    found = {**read(made_root, "train"), **read(made_root, "validation")}
    for name, (image, label) in found.items():
        assert 0 <= label < 1000
        with Image.open(io.BytesIO(image)) as opened:
            portrait = int(name[-13:-5]) % 3 == 2
            assert (opened.format, opened.mode) == ("JPEG", "RGB")
            assert opened.size == ((375, 500) if portrait else (500, 375))
    assert len({image for image, _ in found.values()}) == 17
    assert len({label for _, label in found.values()}) > 12
    assert 95_000 < np.mean([len(image) for image, _ in found.values()]) < 125_000


def test_made_images_depend_on_the_seed_alone(tmp_path):
    for folder, count, seed in (("a", 6, 0), ("b", 3, 0), ("c", 3, 1)):
        synthetic_imagenet.prepare(tmp_path / folder, count, 2, height=30, width=41, seed=seed)
    a, b, c = (read(tmp_path / folder, "train") for folder in "abc")
    assert b.items() < a.items()
    assert not {image for image, _ in b.values()} & {image for image, _ in c.values()}
    assert read(tmp_path / "a", "validation") == read(tmp_path / "b", "validation")


def test_shuffling_on_disk_gives_the_same_records(tmp_path, monkeypatch):
    synthetic_imagenet.prepare(tmp_path / "memory", 20, 2, height=30, width=41)
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 10_000)
    buckets = []
    add = shuffle._Bucket.add
    monkeypatch.setattr(
        shuffle._Bucket, "add", lambda self, *args: (buckets.append(self), add(self, *args))
    )
    synthetic_imagenet.prepare(tmp_path / "disk", 20, 2, height=30, width=41)
    assert len(buckets) == 20
    first, second = (read(tmp_path / folder, "train") for folder in ("memory", "disk"))
    assert list(first.items()) == list(second.items())


def test_made_images_do_not_replace_a_data_set(made_root):
    with pytest.raises(UserError, match=r"imagenet2012/5\.1\.0 is there already"):
        synthetic_imagenet.prepare(made_root, 1, 1)
