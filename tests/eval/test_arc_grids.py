"""ARC's evaluation tasks: what is shown, how views are undone, how votes are counted, and what a row means."""

import dataclasses
import json

import numpy as np
import pytest

from bridge import arc
from bridge.arc import Pair, Task
from eval import arc_grid_page, arc_grid_rows, arc_grids, probe, report
from eval.teacher import Teacher

CONTEXT = report.Context("stand-in", "none", "tiny", 1000, "cpu", "abc", "command")


@pytest.fixture(scope="module")
def tasks():
    return arc.splits(1)["test"][:12]


def test_every_view_is_undone_exactly(tasks):
    seen = arc_grids.views(16, seed=0)
    assert len({view.element for view in seen}) == 8
    for view in seen:
        for grid in (tasks[0].train[0].input, tasks[1].train[0].output, np.array([[0, 1, 2]], np.int8)):
            np.testing.assert_array_equal(view.back(view.of(grid)), grid)
    plain = seen[0]
    np.testing.assert_array_equal(plain.of(tasks[0].train[0].input), tasks[0].train[0].input)
    assert all((view.colours != plain.colours).any() and view.colours[0] == 0 for view in seen[1:])


def test_no_output_of_a_query_is_ever_shown(tasks):
    for query in arc_grids.queries(tasks):
        frames = query.frames(arc_grids.views(1, seed=0)[0], query.canvas)
        assert len(frames) == 2 * len(query.task.train) + 1
        blanked = Task(query.task.id, "x", query.task.train, tuple(Pair(p.input, None) for p in query.task.test))
        hidden = arc_grids.Query(blanked, query.index)
        assert hidden.canvas == query.canvas
        np.testing.assert_array_equal(hidden.frames(arc_grids.views(1, seed=0)[0], query.canvas), frames)


@pytest.mark.parametrize(("side", "canvas"), [(1, 10), (10, 10), (11, 16), (30, 30)])
def test_the_canvas_is_the_smallest_that_holds_what_is_shown(side, canvas):
    pair = Pair(np.zeros((1, side), np.int8), np.zeros((1, 1), np.int8))
    assert arc_grids.Query(Task("wide", "x", (pair,), (pair,)), 0).canvas == canvas


def test_the_nearest_demonstration_is_the_one_most_like_the_query(tasks):
    for pair in tasks[0].train:
        task = Task("known", "x", tasks[0].train, (Pair(pair.input, None),))
        np.testing.assert_array_equal(arc_grids.nearest(arc_grids.Query(task, 0)), pair.output)


def codes(grid, size=10):
    made = np.full((size, size), arc.OUTSIDE, np.uint8)
    made[: grid.shape[0], : grid.shape[1]] = grid
    return made


def test_the_most_voted_comes_first_and_what_is_no_rectangle_has_no_vote(tasks):
    (query, *_), seen = arc_grids.queries(tasks), arc_grids.views(4, seed=0)
    right, wrong = np.array([[1, 2], [3, 4]], np.int8), np.array([[5]], np.int8)
    holed = np.full((10, 10), arc.OUTSIDE, np.uint8)
    holed[2, 2] = 1
    found = arc_grids.vote(query, [holed, codes(seen[1].of(wrong)), *(codes(v.of(right)) for v in seen[2:])], seen)
    assert found.votes == (2, 1)
    np.testing.assert_array_equal(found.grids[0], right)
    np.testing.assert_array_equal(found.grids[1], wrong)


def attempts(tasks, *, right):
    """The right answer is told first of a share, second of others, never of the rest: `right` in {1, 2, 0} by query."""
    made = []
    for number, query in enumerate(arc_grids.queries(tasks)):
        answer, other = query.answer, np.full((1, 1), 7, np.int8)
        kind = right[number % len(right)]
        grids = {1: (answer, other), 2: (other, answer), 0: (other,)}[kind]
        made.append(arc_grids.Attempts(query, grids, tuple(range(len(grids), 0, -1)), codes(grids[0], 30)))
    return made


def rows(found):
    book = arc_grid_rows.Book("arc1", found, CONTEXT, 100, 0)
    return {row.id: row for row in report.Report((*book.rows(), *book.trivial()), {}).rows}


def test_one_and_two_attempts(tasks):
    all_first, none = rows([attempts(tasks, right=[1])]), rows([attempts(tasks, right=[0])])
    assert all_first["arc1.student.pass1.test"].value == 1
    assert all_first["arc1.student.cell_accuracy.test"].value == 1
    assert none["arc1.student.pass2.test"].value == 0
    second = rows([attempts(tasks, right=[2])])
    assert (second["arc1.student.pass1.test"].value, second["arc1.student.pass2.test"].value) == (0, 1)
    assert second["arc1.student.pass2.test"].n == len(tasks)
    assert 0 < none["arc1.student.pass2.test"].ci_high < 0.4


def test_a_task_counts_once_whatever_its_queries(tasks):
    double = Task("double", "x", tasks[0].train, (tasks[0].test[0], tasks[0].test[0]))
    found = attempts([double, tasks[1]], right=[1, 0, 0])
    assert rows([found])["arc1.student.pass1.test"].value == pytest.approx(0.25)


def test_colours_are_scored_where_the_size_is_right(tasks):
    found = rows([attempts(tasks, right=[1])])
    used = set(np.unique(np.concatenate([q.answer.reshape(-1) for q in arc_grids.queries(tasks)])).tolist())
    for colour in range(10):
        assert found[f"arc1.student.f1_colour_{colour}.test"].value == (1 if colour in used else 0)


def test_a_gain_is_paired_by_task(tasks):
    mine, other = (
        arc_grid_rows.Book("arc1", [attempts(tasks, right=right)], CONTEXT, 200, 0, name)
        for name, right in (("student", [1, 1, 0]), ("alone", [1, 0, 0]))
    )
    rows = {row.id: row for row in mine.gain(other)}
    gain = rows["arc1.student_over_alone.pass2.test"]
    assert gain.value == pytest.approx(float(np.mean(mine.by_task(lambda one: one.solved(2))
                                                     - other.by_task(lambda one: one.solved(2)))))  # fmt: skip
    assert gain.ci_low <= gain.value <= gain.ci_high
    assert mine.gain(mine)[0].ci_low == mine.gain(mine)[0].ci_high == 0
    none = arc_grid_rows.Book("arc1", [attempts(tasks, right=[0])] * 2, CONTEXT, 200, 0)
    empty, _ = none.gain(dataclasses.replace(none, name="alone"))
    assert empty.ci_low < -0.1 < 0 < 0.1 < empty.ci_high, "two noughts of twelve tasks are not known to be equal"
    assert "by seed: +0.0000, +0.0000; t over seeds" in empty.note


def test_the_share_of_the_probe_is_judged_where_it_solves_anything(tasks):
    mine, probe, lost = (
        arc_grid_rows.Book("arc1", [attempts(tasks, right=right)], CONTEXT, 200, 0, name)
        for name, right in (("student", [1, 0]), ("probe", [1]), ("probe", [0]))
    )
    few = dataclasses.replace(probe, found=[attempts(tasks, right=[1] + [0] * 11)])
    assert (mine.share_of(few)[0].ci_high, mine.share_of(few)[0].passed) == (None, None), "one task is no measure"
    (solved, cells), (empty, _) = mine.share_of(probe), mine.share_of(lost)
    assert solved.value == pytest.approx(float(np.mean(mine.by_task(lambda one: one.solved(2)))))
    assert solved.passed is False
    assert probe.share_of(probe)[0].passed
    assert (cells.bar, empty.value) == (None, None)
    assert "solves 0 of 12" in empty.note


def test_the_probe_is_asked_once_and_only_of_the_stores_teacher(tasks, tmp_path):
    asked, path, told = arc_grids.queries(tasks[:2]), tmp_path / "raw" / "probe.json", []

    def answer(command):
        told.append(command)
        said = {task.id: [{"attempt_1": pair.output.tolist()} for pair in task.test] for task in tasks[:2]}
        path.write_text(json.dumps({"teacher": {"digest": "d1"}, "answers": said}))
        return ""

    someone = Teacher("standin-arc", "d1")
    found, reason = probe.solve(someone, "arc1", asked, path, runner=answer)
    assert not reason
    assert all(one.solved(1) for one in found)
    probe.solve(someone, "arc1", asked, path, runner=answer)
    assert len(told) == 1
    assert told[0][told[0].index("--digest") + 1] == "d1"
    found, reason = probe.solve(Teacher("other", "d2"), "arc1", asked, path, runner=lambda command: "no torch here")
    assert (found, reason) == ([], "no torch here")
    path.write_text("{")
    assert probe.solve(someone, "arc1", asked, path, runner=lambda command: "")[1]


def test_a_trivial_answer_is_scored_inside_the_true_grid(tasks):
    assert arc_grid_rows.overlap(np.zeros((1, 1), np.int8), np.zeros((2, 2), np.int8)) == 0.25
    assert arc_grid_rows.overlap(np.zeros((3, 3), np.int8), np.array([[0, 1]], np.int8)) == 0.5
    found = rows([attempts(tasks, right=[1])])
    assert 0 < found["arc1.all_zeros.cell_accuracy.test"].value < 1


def test_predictions_are_in_arc_prize_form(tasks):
    found = arc_grids.predictions(attempts(tasks, right=[1, 0]))
    assert set(found) == {task.id for task in tasks}
    first = found[tasks[0].id][0]
    assert set(first) == {"attempt_1", "attempt_2"}
    assert first["attempt_1"] == tasks[0].test[0].output.tolist()


def test_pictures_tell_how_many(tasks):
    made = arc_grid_page.drawn(attempts(tasks, right=[1, 0]), title="ARC-AGI-1")
    assert [picture.title for picture in made] == ["ARC-AGI-1: solved", "ARC-AGI-1: failed"]
    assert all(picture.png.startswith(b"\x89PNG") for picture in made)
