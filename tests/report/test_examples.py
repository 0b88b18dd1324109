"""The report's page on single examples."""

import json

import numpy as np
import pytest
from etils import epath
from matplotlib.figure import Figure
from scipy import stats

from rethink_jax import config as config_lib, data
from rethink_jax.errors import UserError
from rethink_jax.report import contents, examples, images
from rethink_jax.runs import score_table
from rethink_jax.theory import removal

N, N_TEST = 30, 12


def some_data():
    rng = np.random.default_rng(0)

    def split(n):
        return rng.integers(0, 255, (n, 8, 8, 1)).astype(np.uint8), np.arange(n) % 3

    return data.from_arrays(split(N), split(N_TEST), "digits")


def some_table(seed=0, wrong=6, own_ids=None):
    rng = np.random.default_rng(seed)
    true = np.arange(N) % 3
    labels = true.copy()
    labels[:wrong] = (labels[:wrong] + 1) % 3
    losses, events = rng.random(N), rng.integers(-1, 3, N)
    losses[3] = np.nan
    scores = {"cumulative_loss": losses, "forgetting_events": events, "c_score": rng.random(N)}
    return score_table.ScoreTable(labels, true, own_ids, scores)


ESTIMATE = {"mean": 0.5, "deviation": 0.1, "low": 0.4, "high": 0.6, "seeds": 3}
REMOVED = {
    "removed": 2,
    "affected": 5,
    "cost": {
        name: {"affected": ESTIMATE, "test": ESTIMATE}
        for name in (removal.MEMORIZED, removal.OTHERS)
    },
}


def write_run(path, table, pairs=None, history=(), summary=None):
    path.mkdir(parents=True)
    config = config_lib.train("digits", "true_labels")
    config = config_lib.fill_in(config, N, 8).to_dict()
    environment = {
        "num_train": N,
        "cpu": "AMD EPYC",
        "cores": 2,
        "backend": "cpu",
        "devices": ["cpu"],
    }
    environment |= {"matmul_precision": "default"}
    summary = {"status": "finished", "parameters": 7, "epochs": 80.0, "seconds": 1.0} | (
        summary or {}
    )
    content = {"config": config, "run": environment, "summary": summary}
    for name, fields in content.items():
        (path / f"{name}.json").write_text(json.dumps(fields))
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in history))
    (path / "scores.csv").write_text(score_table.to_csv(table))
    if pairs is not None:
        lines = [f"{a},{b},0.5,{influence}" for a, b, influence in pairs]
        (path / "pairs.csv").write_text(
            "\n".join(["train_id,test_id,memorization,influence", *lines])
        )
    return path


def scored(path):
    (run,) = examples.find([epath.Path(path)])
    return run


@pytest.fixture
def from_data(monkeypatch):
    monkeypatch.setattr(data, "load", lambda config: some_data())


def test_correlations_and_areas(tmp_path):
    one, other = some_table(0), some_table(1)
    paths = write_run(tmp_path / "one", one), write_run(tmp_path / "other", other)
    published = np.random.default_rng(2).random(N)
    table = examples.correlations([*map(scored, paths)], published)
    assert table.columns[:4] == [
        "score",
        "area under the curve",
        "published",
        "published, within classes",
    ]
    assert table.columns[4:] == [*"123456"]
    names = ("cumulative loss", "forgetting events", "c score")
    assert [row[0] for row in table.rows] == [
        f"{i + 1} {names[i % 3]} ({'one' if i < 3 else 'other'})" for i in range(6)
    ]
    never = 99
    columns = []
    for own in (one, other):
        events = own.scores["forgetting_events"]
        columns.append(own.scores["cumulative_loss"])
        columns.append(np.where(events == -1, never, events))
        columns.append(-own.scores["c_score"])
    is_wrong = np.arange(N) < 6
    for row, left in zip(table.rows, columns, strict=True):
        known = ~np.isnan(left)
        u = stats.mannwhitneyu(left[known & is_wrong], left[known & ~is_wrong]).statistic
        area = u / (np.sum(known & is_wrong) * np.sum(known & ~is_wrong))
        expected = [area, stats.spearmanr(left, -published, nan_policy="omit")[0]]
        classes = [(np.arange(N) % 3 == c) & known for c in range(3)]
        expected.append(np.mean([stats.spearmanr(left[c], -published[c])[0] for c in classes]))
        expected += [stats.spearmanr(left, right, nan_policy="omit")[0] for right in columns]
        assert [float(cell) for cell in row[1:]] == pytest.approx(expected, abs=6e-4)


def test_extremes():
    table = some_table()
    row_images = np.arange(N, dtype=np.uint8)[:, None, None, None]
    rows = examples.extremes(table, row_images)
    assert [row.title for row in rows][:2] == [
        "cumulative loss:\nhardest",
        "cumulative loss:\neasiest",
    ]
    by_title = {row.title: row for row in rows}
    losses = table.scores["cumulative_loss"]
    order = sorted((i for i in range(N) if i != 3), key=lambda i: -losses[i])
    assert by_title["cumulative loss:\nhardest"].images.ravel().tolist() == order[:8]
    assert by_title["cumulative loss:\neasiest"].images.ravel().tolist() == order[:-9:-1]
    hardest = by_title["forgetting events:\nhardest"].images.ravel()
    assert (table.scores["forgetting_events"][hardest[0]] == -1).all()
    words = dict(zip(order[:8], by_title["cumulative loss:\nhardest"].words, strict=True))
    for i, word in words.items():
        assert word == (f"{i % 3} → {(i % 3 + 1) % 3}" if i < 6 else f"{i % 3}")


def test_pairs_name_each_image_once(tmp_path):
    pairs = [(1, 0, 0.3), (1, 2, 0.9), (4, 2, 0.8), (4, 5, 0.2), (7, 0, 0.25)]
    run, dataset = scored(write_run(tmp_path / "run", some_table(), pairs)), some_data()
    train, test = examples.memorized_pairs(run, dataset)
    np.testing.assert_array_equal(train.images, dataset.train.images[[1, 7, 4]])
    np.testing.assert_array_equal(test.images, dataset.test.images[[2, 0, 5]])
    assert test.words == ["0.90", "0.25", "0.20"]
    assert examples.memorized_pairs(scored(write_run(tmp_path / "no", some_table())), dataset) == []


def test_images_have_their_words():
    figure = Figure()
    rows = [
        images.Row("grey", np.zeros((2, 4, 4, 1), np.uint8), ["a", "b"]),
        images.Row("colours", np.zeros((1, 4, 4, 3), np.uint8), ["c"]),
    ]
    images.fill(figure, rows)
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["a", "b", "c"]
    assert [text.get_text() for text in figure.texts] == ["grey", "colours"]
    assert [axes.images[0].get_array().shape for axes in figure.axes] == [(4, 4, 3)] * 3


HISTORY = [
    {"epoch": e, "step": e, "train_loss": 1 / e, "test_loss": 1.0}
    | {f"{split}_accuracy": 0.5 for split in ("train", "test")}
    | {f"train_accuracy_{kind}": 0.4 for kind in ("kept", "replaced", "replaced_true")}
    for e in (1.0, 2.0)
]


def test_a_page_beside_the_report(tmp_path, from_data):
    """Runs on the same examples are held together, one with other labels is by itself."""
    write_run(tmp_path / "a", some_table(), [(1, 0, 0.5)], summary={"removal": REMOVED})
    write_run(tmp_path / "b", some_table(1), history=HISTORY)
    write_run(tmp_path / "c", some_table(2, wrong=0))
    folder = contents.write(tmp_path)
    text = (folder / "examples.md").read_text()
    assert text.count("\n## ") == 2
    assert "\n## digits, 30 training examples, 6 wrong labels\n" in text
    assert "\n## digits, 30 training examples, 0 wrong labels\n" in text
    assert "| 4 cumulative loss (b) | " in text
    assert "| 1 cumulative loss (c) | " in text
    assert text.count("area under the curve |") == 1
    assert "cost on 5 affected test points | 50.00 [40.00, 60.00] points |" in text
    drawn = {"a-extremes", "b-extremes", "c-extremes", "a-pairs", "b-kept_and_replaced"}
    listed = json.loads((folder / "report.json").read_text())["files"]
    assert {name for name in drawn if f"({name}.png)" in text} == drawn
    assert {f"{name}.png" for name in drawn} | {"examples.md", "examples.html"} <= {*listed}
    assert "<svg" in (folder / "examples.html").read_text()
    for run in "abc":
        (tmp_path / run / "scores.csv").unlink()
    contents.write(tmp_path)
    assert not {file.name for file in folder.iterdir()} & {f"{name}.png" for name in drawn}
    assert not (folder / "examples.md").exists()


def test_without_the_images_the_numbers_are_there(tmp_path, monkeypatch):
    def load(config):
        raise UserError("digits is not here")

    monkeypatch.setattr(data, "load", load)
    write_run(tmp_path / "a", some_table())
    text = (contents.write(tmp_path) / "examples.md").read_text()
    assert "Images cannot be shown: digits is not here." in text
    assert "| 1 cumulative loss (a) | " in text
    assert ".png" not in text


def test_published_scores(tmp_path, from_data):
    run = write_run(tmp_path / "a", some_table())
    np.save(tmp_path / "truth.npy", np.linspace(0, 1, N))
    text = (contents.write(run, published=tmp_path / "truth.npy") / "examples.md").read_text()
    assert "| published | published, within classes |" in text
    np.save(tmp_path / "short.npy", np.ones(3))
    with pytest.raises(
        UserError, match=r"short\.npy has scores of shape \(3,\); the run has 30 ex"
    ):
        contents.write(run, published=tmp_path / "short.npy")
    (run / "scores.csv").unlink()
    with pytest.raises(UserError, match=r"--c_scores is .*; no run in --workdir has a scores\.csv"):
        contents.write(run, published=tmp_path / "truth.npy")


def test_a_damaged_table_is_named(tmp_path):
    run = write_run(tmp_path / "a", some_table())
    (run / "scores.csv").write_text("id,label\n0,1\n")
    with pytest.raises(UserError, match=r"scores\.csv is no table of scores"):
        contents.write(run)


def test_runs_of_equal_names_are_told_apart(tmp_path, from_data):
    for place in ("x", "y"):
        write_run(tmp_path / place / "run", some_table())
    folder = contents.write(tmp_path)
    text = (folder / "examples.md").read_text()
    assert "| 1 cumulative loss (run) | " in text
    assert "| 4 cumulative loss (run-2) | " in text
    assert (folder / "run-2-extremes.png").exists()
