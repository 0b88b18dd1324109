from rethink_jax.runs import display
from rethink_jax.training import metrics
from tests.conftest import use_terminal
from tests.training.test_metrics import HISTORY, record

# Result.


def test_result_beside_chance(capsys):
    summary = metrics.summarize(HISTORY, "finished", 1_649_402)
    display.print_result("5 epochs, 1,649,402 parameters", summary, 3)
    text = capsys.readouterr().out
    assert "5 epochs, 1,649,402 parameters" in text
    rows = [line.replace("│", " ").split() for line in text.splitlines() if "%" in line]
    assert rows == [
        ["training", "set", "99.80%"],
        ["test", "set,", "true", "labels", "10.00%"],
        ["chance", "33.33%"],
    ]


def test_result_on_corrupted_labels(capsys):
    history = [record(1.0, test_accuracy_corrupted=0.111)]
    display.print_result("a run", metrics.summarize(history, "finished", 5), 10)
    text = capsys.readouterr().out
    assert "corrupted labels" in text
    for percent in ("50.00%", "25.00%", "11.10%", "10.00%"):
        assert percent in text


def test_result_with_the_first_five_answers(capsys):
    top5 = {"train_top5": 0.91, "test_top5": 0.82, "test_top5_corrupted": 0.03}
    history = [record(1.0, test_accuracy_corrupted=0.02, **top5)]
    for shown in (history[0], metrics.summarize(history, "finished", 5)):
        display.print_result("a run", shown, 200)
        lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
        assert ["┃", "┃", "accuracy", "┃", "top-5", "accuracy", "┃"] in lines
        assert [line for line in lines if "%" in "".join(line)] == [
            ["training", "set", "50.00%", "91.00%"],
            ["test", "set,", "true", "labels", "25.00%", "82.00%"],
            ["test", "set,", "corrupted", "labels", "2.00%", "3.00%"],
            ["chance", "0.50%", "2.50%"],
        ]


def test_result_of_no_evaluation(capsys):
    display.print_result("a run", metrics.summarize([], "stopped", 5), 10)
    text = capsys.readouterr().out
    assert [line.split()[1] for line in text.splitlines() if "%" in line] == ["chance"]


# Display.


def test_plain_lines_where_there_is_no_terminal(capsys):
    with display.show_run(50) as shown:
        for step in range(1, 11):
            shown.step(step)
        shown.record(record(1.0))
        shown.record(record(1.5, 0.5, 1.0, 0.125))
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1  step 10  train 50.00% (loss 1.0000)  test 25.00%  1234 images/s",
        "epoch 1.5  step 15  train 100.00% (loss 0.5000)  test 12.50%  1234 images/s",
    ]


def test_other_processes_are_quiet(capsys, monkeypatch):
    monkeypatch.setattr(display.processes, "is_primary", lambda: False)
    display.print_result("title", record(1.0), 10)
    with display.show_run(50) as shown:
        shown.step(1)
        shown.record(record(1.0))
    assert capsys.readouterr().out == ""


def test_a_bar_on_a_terminal(monkeypatch):
    terminal = use_terminal(monkeypatch)
    with display.show_run(50) as shown:
        shown.step(7)
        shown.record(record(1.0))
    text = terminal.getvalue()
    assert "10/50 steps" in text
    assert "train 50.00% (loss 1.0000)  test 25.00%" in text
    assert "images/s" not in text  # the line of other places
