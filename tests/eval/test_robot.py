"""The real command on a robot that no simulator knows: rows against the store, and no word of success."""

import numpy as np
import pytest

from eval import benchmark, report, robot

pytestmark = pytest.mark.usefixtures("quickly")


@pytest.fixture(scope="module")
def out(toys, toy_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite") / "report"
    more = ["--quick", "--draws", "50", "--environment", "real", "--out", str(folder)]
    assert benchmark.main(["--run", str(toy_run), *more]) == 0
    return folder


@pytest.fixture(scope="module")
def rows(out):
    return {row.id: row for row in report.read(out / "report.json").rows}


def test_its_suite_is_chosen_from_the_store_and_everything_offline_is_there(rows):
    assert {name.split(".")[0] for name in rows} == {"robot"}
    judged = ("action_r2", "action_mse", "action_r2_noise", "demonstration_r2", "demonstration_mse", "token_r2_mean")
    stepped = [f"action_mse_over_floor_step_{k}" for k in range(3)]
    for name in (*judged, *stepped, "shuffled_images_drop", "parameters"):
        row = rows[f"robot.student.{name}.validation"]
        assert row.value is not None, name
    assert rows["robot.student.action_r2.validation"].n == 12


def test_both_provenances_are_said(rows):
    assert {(row.context.teacher, row.context.environment) for row in rows.values()} == {("stand-in", "real")}


def test_success_is_an_empty_cell_that_says_why_and_what_to_do(rows, out):
    row = rows["robot.student.success"]
    assert (row.value, row.bar) == (None, None)
    for text in (row.note, (out / "report.html").read_text()):
        assert "Success was not measured: there is no simulator for this robot." in text
        assert "act on the robot in turn" in text


def test_objects_are_scored_and_drawn(rows, out):
    for camera in ("wrist_left", "front"):
        for who in ("student", "mean_position"):
            assert rows[f"robot.{who}.objects_error_{camera}.validation"].value > 0
    assert "Where the student sees the objects" in (out / "report.html").read_text()


def test_all_sums_lie_beside_the_report_and_no_episode_does(out):
    assert sorted(path.name for path in (out / "raw").iterdir()) == ["offline_seed_0.npz"]
    with np.load(out / "raw" / "offline_seed_0.npz") as found:
        assert "actions_sse" in found.files


def test_the_simulated_robots_store_can_be_reported_without_the_simulator(make_acting, tmp_path):
    more = ["--suite", "robot", "--quick", "--draws", "5", "--out", str(tmp_path)]
    assert benchmark.main(["--run", str(make_acting()), *more]) == 0
    found = {row.id: row for row in report.read(tmp_path / "report.json").rows}
    assert robot.NOT_ASKED in found["robot.student.success"].note
    assert next(iter(found.values())).context.environment == "none"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--suite", "metaworld"], "has no simulator; --suite robot"),
        (["--suite", "arc"], "--suite arc needs another store"),
        (["--control", "demonstrations=runs/x", "--episodes", "3"], "--control, --episodes: for --suite metaworld"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(toy_run, tmp_path, capsys, more, words):
    assert benchmark.main(["--run", str(toy_run), *more, "--out", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err


def test_a_run_of_other_statistics_is_refused(toys, make_acting, tmp_path, capsys):
    """The same teacher, but other units."""
    given = ["--run", str(make_acting()), "--store", str(toys), "--out", str(tmp_path)]
    assert benchmark.main(given) == 2
    assert "another embodiment" in capsys.readouterr().err
