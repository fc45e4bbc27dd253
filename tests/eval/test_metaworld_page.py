"""The metaworld suite's page: the teacher's worth first, success per task, warnings, videos."""

import dataclasses

import numpy as np
import pytest

from bridge import metaworld_tasks
from eval import metaworld_page, report, success, tally

TASKS = tuple(metaworld_tasks.TASKS)[:8]
CONTEXT = report.Context("stand-in", "sim", "standin", 1000, "cpu", "abc", "command")


def results(teacher=0.9, control=0.5, *, episodes=50):
    array = lambda share: np.broadcast_to(np.arange(10) < share * 10, (1, len(TASKS), 10))  # noqa: E731
    found = {("teacher", "normal"): array(teacher), ("teacher", "blind"): array(0.1), ("student", "normal"): array(0.9)}
    if control is not None:
        found["demonstrations", "normal"] = array(control)
    sizes = {"student": 1, "teacher": 4}
    return tally.Results(TASKS, "test", episodes, found, {}, ("demonstrations",), sizes)


def before(made, provenance="stand-in"):
    rows = success.Book(made, CONTEXT, draws=100, seed=0).rows()
    return metaworld_page.before(made, rows, provenance)


def test_the_value_of_the_teacher_is_the_first_table():
    value, table, said = before(results())
    assert "distilled less demonstrations" in value
    assert "+40.0 points" in value
    assert '<td class="PASS">PASS</td>' in value
    assert "Success per task" in table
    assert "simulator" in said


def test_a_value_that_is_not_there_says_so():
    value = before(results(control=None))[0]
    assert '<td class="FAIL">FAIL</td>' in value
    assert "--control demonstrations=RUN" in value


def test_a_bar_met_without_significance_fails():
    made = results()
    control = np.array(made.found["student", "normal"])
    control[0, :7, :2], control[0, :6, 9] = False, True  # 14 goals won, 6 lost: p = 0.12
    value = before(dataclasses.replace(made, found={**made.found, ("demonstrations", "normal"): control}))[0]
    assert "+10.0 points" in value
    assert '<td class="FAIL">FAIL</td>' in value


def test_a_value_on_few_episodes_is_not_judged():
    value = before(results(episodes=10))[0]
    assert "<td>not judged</td>" in value
    assert "+40.0 points" in value


def test_an_uneven_control_is_named_in_the_first_table():
    made = dataclasses.replace(results(), uneven={"demonstrations": "not like for like: other steps"})
    assert "not like for like" in before(made)[0]


def test_success_is_by_task_and_policy_with_both_means():
    table = before(results())[1]
    assert "<tr><td>drawer-open *</td><td>90 %</td><td>90 %</td><td>50 %</td><td>10 %</td></tr>" in table
    assert table.count("<td>mean of") == 2
    assert "teacher (blind)" in table


def test_a_poor_teacher_is_the_first_thing_said():
    first = before(results(teacher=0.3))[0]
    assert "means little" in first
    assert 'class="verdict bad"' in first


@pytest.mark.parametrize("provenance", ["real", "random"])
def test_only_stand_ins_are_called_stand_ins(provenance):
    assert not any("stand-in" in part for part in before(results(), provenance))


def test_videos_lie_beside_the_page_and_captions_are_escaped():
    (part,) = metaworld_page.after([metaworld_page.Clip("videos/a-1.mp4", "a <b>")])
    assert 'src="videos/a-1.mp4"' in part
    assert "a &lt;b&gt;" in part
    assert metaworld_page.after([]) == []
