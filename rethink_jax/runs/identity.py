"""Which data a run is made of: where it lies by default, and whether a directory's run was made of the same."""

from collections.abc import Callable

from etils import epath
from ml_collections import ConfigDict

from rethink_jax import config as config_lib, data
from rethink_jax.data import image_folder, label_files
from rethink_jax.errors import UserError
from rethink_jax.runs import files, own_files, run_directory

# In `run.json`, of the data before any corruption; `fingerprint` is of what a training run sees of them.
KEY = "data_fingerprint"


def path_of(
    workdir: epath.PathLike | None,
    config: ConfigDict,
    fingerprint: Callable[[], str],
    *words: str,
    dataset: data.Dataset | None = None,
) -> epath.Path:
    """Returns a run's directory.

    Without a `workdir` equal configs on equal data get the same one. The name of a TFDS data set stands for its
    content. For arrays and a folder of images the fingerprint does, wherever the folder is.

    Args:
      workdir: the directory, if it is named.
      config: resolved.
      fingerprint: returns the data's; it is called only where the name needs it.
      words: of the name: the config file's, the data set's, perhaps the model's.
      dataset: what is handed over.
    """
    is_handed_over = dataset is not None and dataset.loaded is None
    if workdir is not None or not (is_handed_over or _is_folder(config)):
        return run_directory.path_of(workdir, *words, config_lib.digest(config))
    anywhere = ConfigDict(config.to_dict())
    anywhere.data.data_dir = None
    return run_directory.path_of(None, *words, config_lib.digest(anywhere), fingerprint()[:8])


def _is_folder(config: ConfigDict) -> bool:
    return config.data.name == image_folder.NAME and not config.data.fake


def check_same_data(
    path: epath.Path,
    config: ConfigDict,
    fingerprint: str,
    older: Callable[[], str] | None = None,
) -> bool:
    """Returns whether the run in a directory is known to be of these data; writes nothing.

    Args:
      path: the run's directory, whose config is this one but for what may be changed.
      config: resolved.
      fingerprint: of the data before any corruption.
      older: returns what an older version has noted as `fingerprint`.

    Returns:
      False where no run is there, or none that noted its data.

    Raises:
      UserError: they are others, with both fingerprints.
    """
    noted, place = files.read_environment(path), _changed_place(path, config)
    if (of_file := noted.get(run_directory.CORRUPTION_FILE)) and config.corruption.file:
        file = config.corruption.file
        if label_files.digest(file) != of_file:
            raise UserError(
                f"{path} was made from another file than config.corruption.file, {file!r}, now is; "
                "choose another --workdir"
            )
    if KEY in noted:
        before, now = noted[KEY], fingerprint
    elif older is not None and "fingerprint" in noted:
        before, now = noted["fingerprint"], older()
    elif place:
        raise UserError(
            f"{path} does not say which data its run was made of, and {place}; choose another --workdir"
        )
    else:
        return False
    if before != now:
        raise UserError(
            f"{path} was made from other data: fingerprint {str(before)[:8]}, now {now[:8]}"
            f"{f' ({place})' if place else ''}; choose another --workdir"
        )
    return True


def unnoted(path: epath.Path) -> UserError:
    """Returns the error of a directory whose result cannot be told to be of these data."""
    return UserError(
        f"{path} does not say which data its run was made from; choose another --workdir"
    )


def _changed_place(path: epath.Path, config: ConfigDict) -> str:
    """Returns in words how `config.data.data_dir` differs from a run's; nothing where it does not."""
    file = path / own_files.CONFIG
    before = files.read_json(file).get("data") if file.exists() else None
    if not isinstance(before, dict) or before.get("data_dir") == config.data.data_dir:
        return ""
    return f"config.data.data_dir {before.get('data_dir')!r} → {config.data.data_dir!r}"
