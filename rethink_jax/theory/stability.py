"""The table of section 2.2: each measure of complexity, on true labels beside random ones.

The same network is trained on true and on random labels of two classes, and again with one training example
replaced. Uniform stability is the greatest change of a loss over all training sets, labels included, and all
points: what is seen with random labels bounds it for true ones too. The loss is one less the probability of the
label.
"""

import dataclasses
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict
from scipy.special import softmax

from rethink_jax import data, models
from rethink_jax.config.base import EXPERIMENT
from rethink_jax.config.fields import Field, Fields, within
from rethink_jax.distributed import jax_settings, processes
from rethink_jax.errors import RunFailed, UserError
from rethink_jax.pipeline import inputs
from rethink_jax.pipeline.preprocess import center_crop, whiten
from rethink_jax.runs import display, files
from rethink_jax.sweeps import sweep
from rethink_jax.theory import gram, measures, norms
from rethink_jax.theory.rademacher import (
    CONFIDENCE,
    OF_MLP1,
    RANDOM,
    RUNS,
    TRUE,
    begin,
    summarize_runs,
    train_both,
)
from rethink_jax.training import load

logger = logging.getLogger(__name__)

FIELDS: Fields = {
    **OF_MLP1,
    "experiment": EXPERIMENT._replace(default="stability"),
    "stability.replacements": Field(
        3, "Training examples that are replaced, one at a time.", within(1, 1000)
    ),
}

REPLACED = "replaced"
_BATCH = 1000
# Of which H∞ and its factor are computed; more need more than 10 GB.
_MOST_EXAMPLES = 20_000


@jax_settings.pin_settings()
def run(
    config: ConfigDict, workdir: epath.PathLike | None = None, name: str = "stability"
) -> dict[str, Any]:
    """Trains with and without replaced examples, and measures complexity on true and on random labels.

    Args:
      config: as `rethink_jax.config.experiment("stability", …)` returns it, changed at will.
      workdir: the directory, with a sweep of the runs in `runs/` and one for each replaced example in
        `replaced/`; by default `runs/<name>-<data>-<digits of the config>`.
      name: of the config file, for the default directory.

    Returns:
      The content of `summary.json`.

    Raises:
      UserError: for a config or a directory that cannot be run, before any data is loaded.
      RunFailed: where a run has failed.
      Stopped: when a signal came; the state is saved.
    """
    processes.check_one_process(config)
    path, settings, dataset = begin(config, "stability", workdir, name)
    replacements = config.stability.replacements
    ids = np.random.default_rng(config.seed).choice(dataset.info.num_train, replacements)
    original, *replaced = _train_all(settings, path, dataset, ids.tolist())

    def record() -> dict[str, Any]:
        rademacher = summarize_runs(original, dataset.info.num_train)
        inputs_of = {one.name: inputs.prepare(one.config, dataset) for one in original}
        networks = {
            one.name: _measure(inputs_of[one.name], one, replaced_ones, ids)
            for one, *replaced_ones in zip(original, *replaced, strict=True)
        }
        kernel, fine_grained = _kernel(inputs_of, config.seed), _fine_grained(inputs_of)
        summary = summarize(rademacher, networks, kernel, fine_grained)
        files.write_summary(path, summary)
        return summary

    summary = processes.on_primary(record)
    display.print_rows(*table(summary))
    return summary


def _train_all(
    settings: ConfigDict, path: epath.Path, dataset: data.Dataset, ids: list[int]
) -> list[list[sweep.PlannedRun]]:
    """Trains on the data set, and with each of these examples replaced; a failure does not stop the rest."""
    trained, failed = [], []
    places = [path / RUNS, *(path / REPLACED / str(number) for number in range(len(ids)))]
    for number, place in enumerate(places, -1):
        training_data = dataset if number < 0 else replace(dataset, ids[number], number)
        try:
            trained.append(train_both(settings, place, training_data, 1))
        except RunFailed as error:
            failed.append(error)
    if failed:
        raise RunFailed(
            f"{len(failed)} of {len(ids) + 1} sweeps have failed; the first: {failed[0]}"
        )
    return trained


def replace(dataset: data.Dataset, id_: int, number: int) -> data.Dataset:
    """Returns the data set with one training example replaced by a test example, the next for each number."""
    images, labels = dataset.train.images.copy(), dataset.train.labels.copy()
    other = number % len(dataset.test.labels)
    images[id_], labels[id_] = dataset.test.images[other], dataset.test.labels[other]
    return dataclasses.replace(dataset, train=data.Examples(images, labels))


def _measure(
    prepared: inputs.Inputs,
    one: sweep.PlannedRun,
    replaced: list[sweep.PlannedRun],
    ids: np.ndarray,
) -> dict[str, Any]:
    """Returns what the network trained on one kind of labels shows, beside those with a replaced example."""
    train, test = prepared.train, prepared.test
    run = load.load_run(one.path)
    on_train, on_test = (_logits(run, images) for images in (train.images, test.images))
    margin = norms.margin(on_train, train.labels)
    is_mlp = one.config.model.name == "mlp"
    path_norm = measures.path_norm(run.params) if is_mlp else None
    changes = []
    for number, (other, id_) in enumerate(zip(replaced, ids.tolist(), strict=True)):
        again = load.load_run(other.path)
        theirs = _logits(again, np.concatenate([train.images[id_][None], test.images]))
        own = np.concatenate([on_train[id_][None], on_test])
        label = train.labels[id_]
        theirs_exact, own_exact = theirs.astype(np.float64), own.astype(np.float64)
        moved = np.abs(softmax(theirs_exact, axis=1) - softmax(own_exact, axis=1)).sum(axis=1) / 2
        # One test example is a training example there.
        kept = np.arange(len(test.labels)) != number % len(test.labels)
        answers = own.argmax(axis=1) != theirs.argmax(axis=1)
        changes.append(
            {
                "example": id_,
                "error_with": int(own[0].argmax() != label),
                "error_without": int(theirs[0].argmax() != label),
                "loss_change": float(moved[0]),
                "answers_changed": float(answers[1:][kept].mean()),
                "greatest_change": float(max(moved[0], moved[1:][kept].max())),
            }
        )
    return {
        "layers": sum(leaf.ndim > 1 for leaf in jax.tree.leaves(run.params)),
        "path_norm": path_norm,
        "margin": margin,
        "path_norm_over_margin": path_norm / margin if path_norm and margin > 0 else None,
        "changes": changes,
    }


def _logits(run: load.Run, images: np.ndarray) -> np.ndarray:
    """Returns a run's logits, float32 [n, 2]."""
    model = models.create(run.config.model, 2, run.config.dtype)
    variables = {"params": run.params, "batch_stats": run.batch_stats}

    @jax.jit
    def apply(variables: Any, images: jax.Array) -> jax.Array:
        cropped = center_crop(images, run.config.data.size)
        return model.apply(variables, whiten(cropped))  # type: ignore[return-value]

    parts = [
        np.asarray(apply(variables, images[start : start + _BATCH]))
        for start in range(0, len(images), _BATCH)
    ]
    return np.concatenate(parts)


def _kernel(inputs_of: dict[str, inputs.Inputs], seed: int) -> dict[str, Any]:
    """Returns norm and test error of the least-norm interpolation of each kind of labels."""
    train, test = (
        np.asarray(whiten(jnp.asarray(split.images))).reshape(len(split.labels), -1)
        for split in (inputs_of[TRUE].train, inputs_of[TRUE].test)
    )
    targets = np.stack([2.0 * inputs_of[kind].train.labels - 1 for kind in (TRUE, RANDOM)], axis=1)
    try:
        norms, values = measures.interpolate(train, test, targets, seed)
    except RunFailed as error:
        logger.warning("no kernel norms: %s", error)
        return {}
    return {
        kind: {
            "norm": float(norms[i]),
            "test_error": float(np.mean((values[:, i] > 0) != inputs_of[kind].test.labels)),
        }
        for i, kind in enumerate((TRUE, RANDOM))
    }


def _fine_grained(inputs_of: dict[str, inputs.Inputs]) -> dict[str, Any]:
    """Returns √(2 yᵀ(H∞)⁻¹y / n) of each kind of labels, and the test error of its interpolation."""
    train, test = inputs_of[TRUE].train, inputs_of[TRUE].test
    n = len(train.labels)
    if n > _MOST_EXAMPLES:
        logger.warning("no measure by H∞ of more than %s examples", f"{_MOST_EXAMPLES:,}")
        return {}
    y = np.stack([2.0 * inputs_of[kind].train.labels - 1 for kind in (TRUE, RANDOM)], axis=1)
    try:
        vectors, across = (
            gram.unit_vectors(split.images, np.arange(len(split.labels))) for split in (train, test)
        )
        found = gram.Factor(gram.matrix(vectors, np.arange(n))).of_labels(y)
    except UserError as error:
        logger.warning("no measure by H∞: %s", error)
        return {}
    values = gram.arc_cosine(across @ vectors.T) @ found.weights
    return {
        kind: {
            "measure": float(found.measure[i]),
            "test_error": float(np.mean((values[:, i] > 0) != inputs_of[kind].test.labels)),
        }
        for i, kind in enumerate((TRUE, RANDOM))
    }


def summarize(
    rademacher: dict[str, Any],
    networks: dict[str, dict[str, Any]],
    kernel: dict[str, Any],
    fine_grained: dict[str, Any],
) -> dict[str, Any]:
    """Returns `summary.json`: every measure of the networks on true and on random labels.

    Args:
      rademacher: as `rethink_jax.theory.rademacher.summarize` returns it.
      networks: for each kind of labels what changed with each replaced example, and norms.
      kernel: for each kind of labels norm and test error of its interpolation; empty where there is none.
      fine_grained: likewise `measure` and `test_error` by H∞.
    """
    n, changes = rademacher["points"], [c for kind in networks.values() for c in kind["changes"]]
    beta = max(change["greatest_change"] for change in changes)
    layers = networks[TRUE]["layers"]
    shown = {}
    for kind, network in networks.items():
        own = network["changes"]
        shown[kind] = {
            **rademacher["networks"][kind],
            **{name: network[name] for name in ("path_norm", "margin", "path_norm_over_margin")},
            "error_without": float(np.mean([change["error_without"] for change in own])),
            "answers_changed": float(np.mean([change["answers_changed"] for change in own])),
            "greatest_change": max(change["greatest_change"] for change in own),
            "changes": own,
            "kernel": kernel.get(kind),
            "fine_grained": fine_grained.get(kind),
        }
    return {
        "status": "finished",
        "model": rademacher["model"],
        "points": n,
        "parameters": rademacher["parameters"],
        "vc_dimension": measures.vc_dimension(rademacher["parameters"], layers),
        "rademacher_at_least": rademacher["at_least"],
        "stability_at_least": beta,
        "stability_bound": measures.uniform_stability_bound(beta, n, CONFIDENCE),
        "replacements": len(changes) // len(networks),
        "networks": shown,
        "seconds": rademacher["seconds"],
    }


def table(summary: dict[str, Any]) -> display.Rows:
    """Returns the table of section 2.2: each measure on true and on random labels, in words."""
    n, kinds = summary["points"], [summary["networks"][kind] for kind in (TRUE, RANDOM)]

    def both(name: str, value: str) -> tuple[str, str, str]:
        return name, value, value

    def each(name: str, show: Any) -> tuple[str, str, str]:
        return name, *(show(kind) for kind in kinds)  # type: ignore[return-value]

    def number(value: float | None) -> str:
        return "—" if value is None else f"{value:.3g}"

    def of(group: str, field: str, show: Any) -> Any:
        return lambda kind: show(kind[group][field]) if kind.get(group) else "—"

    percent = display.percent
    title = "{model} on {points:,} points of two classes, {replacements} of them replaced"
    rows = [
        each("training error", lambda kind: percent(kind["train_error"]["mean"])),
        each("test error", lambda kind: percent(kind["test_error"]["mean"])),
        both("parameters over examples", f"{summary['parameters'] / n:.1f}"),
        both("VC dimension over examples, up to a constant", number(summary["vc_dimension"] / n)),
        both("Rademacher complexity, at least", f"{summary['rademacher_at_least']:.3f}"),
        each("test error by it, at most", lambda kind: percent(kind["bound"])),
        both("uniform stability, at least", f"{summary['stability_at_least']:.3f}"),
        both("test less training loss by it, at most", percent(summary["stability_bound"])),
        each("seen on these labels", lambda kind: f"{kind['greatest_change']:.3f}"),
        each("errors on replaced examples", lambda kind: percent(kind["error_without"])),
        each("other answers on test examples", lambda kind: percent(kind["answers_changed"])),
        each("path norm over margin", lambda kind: number(kind["path_norm_over_margin"])),
        each("kernel norm over √n", of("kernel", "norm", number)),
        each("its test error", of("kernel", "test_error", percent)),
        each("√(2 yᵀ(H∞)⁻¹y / n)", of("fine_grained", "measure", number)),
        each("test error of the interpolation", of("fine_grained", "test_error", percent)),
    ]
    return title.format(**summary), ("", "true labels", "random labels"), rows
