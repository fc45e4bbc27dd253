"""The real command on untrained students, with simulators and a teacher that only pretend."""

import json

import numpy as np
import pytest

from bridge import conditions, lanes, metaworld_tasks, outcomes
from eval import benchmark, contestants, metaworld, options, report, runs, tally, videos
from eval import teacher as teachers

TASKS = ("drawer-open", *metaworld_tasks.LOOK_ALIKE)
pytestmark = pytest.mark.usefixtures("quickly")


def pretend(command):
    """What teacher_torch.closed_loop would write: the blind one solves nothing, another one everything."""
    given = dict(zip(command[3::2], command[4::2], strict=False))
    tasks = [word for word in command[command.index("--tasks") + 1 :] if word in metaworld_tasks.TASKS]
    if "--videos" in command:
        folder = outcomes.pathlib.Path(command[command.index("--videos") + 1])
        for task in tasks:
            videos.write(folder / f"{task}-{command[-1]}.mp4", np.zeros((3, 32, 64, 3), np.uint8))
        return ""
    seeds = metaworld_tasks.split_seeds(given["--split"], int(given["--episodes"]))
    with open(given["--out"], "a") as file:
        for job in conditions.jobs(given["--condition"], tasks, seeds):
            solved = given["--condition"] not in ("blind", "swapped")
            made = outcomes.Outcome(
                "teacher", "d7", given["--condition"], job.task, job.seed, None, job.instruction, solved, 9
            )
            file.write(json.dumps(vars(made) | {"rules": conditions.rules(made.condition)}) + "\n")
    return ""


@pytest.fixture(scope="module")
def pretending(fake_lanes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes, "Lanes", fake_lanes)
        patch.setattr(teachers, "run", pretend)
        patch.setattr(tally, "BLIND_MOST", 0.5)  # here everybody solves half, blind or not
        yield patch


@pytest.fixture(scope="module")
def arguments(make_acting):
    """One student seed, a control that is the same student, three tasks, four goals."""
    given = ["--run", str(make_acting()), "--control", f"demonstrations={make_acting()}", "--quick", "--draws", "50"]
    return [*given, "--tasks", *TASKS, "--episodes", "4", "--suite", "metaworld"]


@pytest.fixture(scope="module")
def out(arguments, pretending, tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite") / "report"
    assert benchmark.main([*arguments, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def rows(out):
    return {row.id: row for row in report.read(out / "report.json").rows}


def test_everybody_met_the_same_test_goals(out):
    ledger = outcomes.Ledger(out / "raw" / "episodes.jsonl")
    goals = {(task, seed) for task in TASKS for seed in metaworld_tasks.split_seeds("test", 4)}
    everybody = [
        ("teacher", None),
        ("student", 0),
        ("demonstrations", 0),
        *((name, None) for name in metaworld.trivial.ALL),
    ]
    for policy, seed in everybody:
        assert {(one.task, one.goal_seed) for one in ledger.of(policy, seed, "normal")} == goals, policy
    assert len(ledger.of("student", 0, "swapped")) == 8
    assert {one.task for one in ledger.of("student", 0, "swapped")} == set(metaworld_tasks.LOOK_ALIKE)
    held = {text for task in TASKS for text in metaworld_tasks.TASKS[task].held_out}
    assert {one.instruction for one in ledger.of("student", 0, "held-out")} <= held


def test_rows_say_what_the_pretenders_did(rows):
    assert rows["metaworld.teacher.success_headline.test"].value == 1
    assert rows["metaworld.teacher_blind.success.test"].value == 0
    assert rows["metaworld.student.success.test"].value == 0.5
    assert rows["metaworld.student.ratio_headline.test"].value == 0.5
    assert rows["metaworld.student.value_over_demonstrations.test"].value == 0
    assert rows["metaworld.student.action_r2.validation"].value is not None
    assert {row.context.environment for row in rows.values()} == {"sim"}
    assert {row.context.teacher for row in rows.values()} == {"stand-in"}


def test_a_quick_look_at_three_tasks_judges_size_alone(rows):
    judged = [name for name, row in rows.items() if row.passed is not None]
    assert judged == ["metaworld.student.parameters_ratio.test"]
    assert sum(row.verdict == "not judged" for row in rows.values()) == 14


def test_the_page_has_tables_plot_and_playable_videos(out):
    text = (out / "report.html").read_text()
    assert text.index("Value of the teacher") < text.index("Success per task") < text.index("<video")
    files = sorted(path.name for path in (out / "videos").glob("*.mp4"))
    assert files
    assert all(f'src="videos/{name}"' in text for name in files)
    assert "://" not in text
    assert (out / "raw" / "offline_seed_0.npz").is_file()


def test_resuming_runs_nothing_again_and_says_the_same(arguments, out, rows, pretending):
    pretending.setattr(teachers, "run", lambda command: pytest.fail(f"ran {command}"))
    before = (out / "raw" / "episodes.jsonl").read_bytes()
    assert benchmark.main([*arguments, "--out", str(out), "--resume"]) == 0
    pretending.setattr(teachers, "run", pretend)
    assert (out / "raw" / "episodes.jsonl").read_bytes() == before
    again = {row.id: (row.value, row.ci_low) for row in report.read(out / "report.json").rows}
    assert again == {name: (row.value, row.ci_low) for name, row in rows.items()}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "--resume"),
        (["--resume", "--tasks", "fly"], "there are button-press-topdown"),
        (["--resume", "--full"], "exclude each other"),
        (["--resume", "--suite", "arc"], "--suite arc needs another store"),
        (["--resume", "--control", "teacher=runs/x"], "is taken"),
        (["--resume", "--control", "bc="], "NAME=RUN"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, out, capsys, more, words):
    assert benchmark.main([*arguments, "--out", str(out), *more]) == 2
    assert words in capsys.readouterr().err


def test_another_student_under_the_same_out_is_refused(arguments, out, make_acting, capsys):
    # The same seed with other weights would be; another seed is simply missing.
    ledger = outcomes.Ledger(out / "raw" / "episodes.jsonl")
    with pytest.raises(outcomes.OutcomeError, match="another student"):
        ledger.claim("student", 0, contestants.control.digest(contestants.control.load(
            runs.load([make_acting(1)])[0], rows=contestants.ROWS)))  # fmt: skip


def test_levels_follow_the_options():
    made = metaworld.plan(options.Config(), "validation")
    assert (len(made.seeds), made.tasks) == (50, tuple(metaworld_tasks.TASKS))
    assert made.level.teacher == ("normal", "blind")
    assert len(metaworld.plan(options.Config(quick=True), "validation").seeds) == 10
    full = metaworld.plan(options.Config(full=True), "validation").level
    assert full.every_seed
    assert full.teacher == conditions.NAMES


def test_a_controls_names_and_folders_are_read():
    name, folders = contestants.parse("demonstrations+tokens=runs/a,runs/b")
    assert (name, [str(one) for one in folders]) == ("demonstrations+tokens", ["runs/a", "runs/b"])
