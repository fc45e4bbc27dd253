"""The arc suite's real command on a tiny student of grids: who is in the table, what lies beside it."""

import json

import pytest

from bridge import arc, rearc
from eval import arc_grid_suite, arc_grids, benchmark, report, runs, seed_grids
from train import data

pytestmark = pytest.mark.usefixtures("quickly")


@pytest.fixture(scope="module")
def asked(reader):
    """The small store's test tasks, two of ARC-2, and one that is said to be RE-ARC's."""
    held = dict.fromkeys(reader.manifest.records["task"][i] for i in reader.records("test"))
    known = {task.id: task for task in arc.splits(1)["test"]}
    small = [task for task in arc.splits(2)["test"] if arc_grids.queries([task])[0].canvas <= 16][:2]
    sets = {"arc1": [known[name] for name in held], "arc2": small, "rearc": arc.splits(1)["train"][:1]}
    return {name: arc_grids.queries(tasks) for name, tasks in sets.items()}


@pytest.fixture(scope="module")
def out(solving, asked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("arc-report")
    fixed = ["--run", str(solving["cells"]), "--control", f"alone={solving['cells']}", "--quick", "--draws", "20"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arc_grid_suite, "published", lambda split, most, seed: asked)
        patch.setattr(arc_grid_suite.teacher, "run", lambda command: "no torch here")
        assert benchmark.main([*fixed, "--control", f"seed={solving['seed']}", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def rows(out):
    return {row.id: row for row in report.read(out / "report.json").rows}


def test_everybody_is_in_the_table_of_every_set(rows):
    for dataset in ("arc1", "arc2", "rearc"):
        for name in ("student.pass2", "alone.pass1", "copy_input.pass1", "student_over_alone.pass2"):
            assert f"{dataset}.{name}.test" in rows, (dataset, name)
    assert "trivial" in rows["arc1.student.pass2.test"].note
    for name in ("seed.pass1", "student_over_seed.cell_accuracy"):
        assert "true size" in rows[f"arc1.{name}.test"].note
    assert "arc1.seed.size_accuracy.test" not in rows, "it is told"
    assert "2 views" in rows["arc1.student.pass2.test"].note
    assert "arc2.seed.pass1.test" not in rows, "it reads a store of ARC-1"
    assert "rules that were trained" in rows["rearc.student.pass2.test"].note


def test_without_its_teacher_the_share_of_the_probe_is_empty_and_says_why(rows):
    row = rows["arc1.student.share_of_probe_pass2.test"]
    assert (row.value, row.note, row.bar, row.passed) == (None, "no torch here", 0.9, None)
    assert "rearc.student.share_of_probe_pass2.test" not in rows


def test_the_same_student_gains_nothing_over_itself(rows):
    assert rows["arc1.student_over_alone.cell_accuracy.test"].value == 0


def test_every_attempt_lies_beside_the_report(out, asked):
    for name in ("student", "alone", "seed"):
        said = json.loads((out / "raw" / f"predictions_{name}_arc1_seed_0.json").read_text())
        assert set(said) == {query.task.id for query in asked["arc1"]}
    assert "ARC-AGI-2: failed" in (out / "report.html").read_text()


def test_answers_are_timed_on_published_tasks(rows):
    assert rows["arc.grid_p50.test"].value > 0
    assert "8 views" in rows["arc.task_p50.test"].note


def test_re_arc_is_there_where_its_generators_are(monkeypatch):
    monkeypatch.setattr(rearc, "available", lambda: False)
    assert list(arc_grid_suite.published("test", 2, 0)) == ["arc1", "arc2"]
    monkeypatch.setattr(rearc, "available", lambda: True)
    monkeypatch.setattr(rearc, "task", lambda name, seed: next(t for t in arc.splits(1)["train"] if t.id == name))
    found = arc_grid_suite.published("test", 3, 0)
    assert len({query.task.id for query in found["rearc"]}) == 3
    assert {query.task.id for query in found["rearc"]} <= {task.id for task in arc.splits(1)["train"]}


def test_a_rule_that_gives_too_little_is_left_out(monkeypatch):
    def refuse(name, seed):
        raise rearc.ReArcError("too few")

    monkeypatch.setattr(rearc, "available", lambda: True)
    monkeypatch.setattr(rearc, "task", refuse)
    assert "rearc" not in arc_grid_suite.published("test", 3, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--control", "student={cells}"], "choose another"),
        (["--control", "probe={cells}"], "choose another"),
        (["--control", "not-a-row={cells}"], "a-z, 0-9 and _ alone"),
        (["--control", "a={cells}", "--control", "a={cells}"], "choose another"),
        (["--control", "a={puzzled}"], "solves no ARC grids"),
        (["--run", "{puzzled}"], "solves no ARC grids"),
        (["--run", "{seed}"], "--control seed="),
    ],
)
def test_who_does_not_belong_is_refused(words, said, solving, puzzled, stored, tmp_path, capsys):
    known = {"cells": solving["cells"], "seed": solving["seed"], "puzzled": puzzled}
    given = [word.format(**known) for word in words]
    given = given if "--run" in given else ["--run", str(solving["cells"]), *given]
    assert benchmark.main([*given, "--store", str(stored), "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_a_store_of_some_tasks_cannot_feed_the_original_student(solving, asked, reader):
    (student,) = runs.load([solving["seed"]], "last")
    others = [query for query in arc_grids.queries(arc.splits(1)["test"][:40]) if query not in asked["arc1"]]
    with pytest.raises(data.DataError, match="lacks"):
        seed_grids.solve(student.student, reader, others, lambda *given: None, split="test")


def test_a_vision_component_is_reported_as_vision(solving, trained, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(benchmark, "_arc", lambda *given: asked.append("vision") or report.Report((), {}))
    grids = benchmark.arc_grid_suite
    monkeypatch.setattr(grids, "benchmark", lambda *given, **more: asked.append("grids") or report.Report((), {}))
    for run in (trained, solving["cells"]):
        benchmark.main(["--run", str(run), "--out", str(tmp_path)])
    config = json.loads((solving["cells"] / "config.json").read_text())
    config["config"]["stage"] = "components"
    (tmp_path / "component").mkdir()
    (tmp_path / "component" / "config.json").write_text(json.dumps(config))
    benchmark.main(["--run", str(tmp_path / "component"), "--out", str(tmp_path)])
    assert asked == ["vision", "grids", "vision"]
