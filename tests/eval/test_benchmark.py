"""The real command on a tiny store and a two-step run, in an environment whose children cannot import torch."""

import json

import numpy as np
import pytest

from eval import benchmark, policy, report, statistics


@pytest.fixture(scope="module")
def no_torch(tmp_path_factory):
    """Children import this instead of torch, as on a machine without it."""
    folder = tmp_path_factory.mktemp("path")
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        yield


@pytest.fixture(scope="module")
def out(trained, no_torch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    assert benchmark.main(["--run", str(trained), "--out", str(folder), "--quick", "--draws", "100"]) == 0
    return folder


@pytest.fixture(scope="module")
def rows(out):
    return {row.id: row for row in report.read(out / "report.json").rows}


def test_every_suite_has_rows(rows):
    assert {name.split(".")[0] for name in rows} == {"vision", "speed", "memory", "size", "store"}
    assert {row.context.teacher for row in rows.values()} == {"random"}


def test_a_student_of_two_steps_fails_its_bars(rows):
    assert rows["vision.student.r2_mean.test"].verdict == "FAIL"
    assert rows["vision.student.r2_margin.test"].verdict == "FAIL"


def test_all_baselines_and_steps_are_there(rows):
    for subject in ("position_mean", "ridge_pixels", "untrained"):
        assert rows[f"vision.{subject}.r2_mean.test"].value is not None
    assert [f"vision.student.r2_mean_step_{k}.test" in rows for k in range(5)] == [True] * 4 + [False]


def test_without_torch_the_teachers_cells_are_empty_and_say_why(rows):
    row = rows["speed.teacher_float32_eager.image_tokens_p50"]
    assert row.value is None
    assert "No module named 'torch'" in row.note
    assert rows["speed.student.image_tokens_p50"].value > 0


def test_anyone_can_score_again_from_the_raw_outcomes(out, rows):
    with np.load(out / "raw" / "channels.npz") as sums:
        total = [sums[name].sum(0) for name in ("sse_student_seed_0", "total", "square", "count")]
        r2 = statistics.r_squared(*total)
    assert rows["vision.student.r2_mean.test"].value == pytest.approx(r2.mean())
    lines = [json.loads(line) for line in (out / "raw" / "frames.jsonl").read_text().splitlines()]
    rank = statistics.Spearman(*(np.array([line[name] for line in lines]) for name in ("energy", "error")))
    assert rows["vision.student.energy_rank_correlation.test"].value == pytest.approx(rank())
    assert {line["kind"] for line in lines} == {"demonstration", "query"}


def test_the_page_has_its_pictures_and_needs_nobody(out):
    text = (out / "report.html").read_text()
    assert text.count("data:image/png;base64,") == 5
    assert "://" not in text


def test_the_artifact_acts(out):
    with np.load(out / "raw" / "observation.npz") as observation:
        decision = policy.load(out / "artifact").act(observation["video"])
    assert decision.features["image_tokens"].shape == (1, 1, 9, 8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "metaworld"], "--suite metaworld needs another store"),
        (["--run", "nowhere"], "python -m train.main"),
        (["--store", "nowhere"], "python -m teacher_torch.extract"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(trained, capsys, arguments, words, tmp_path):
    base = [] if "--run" in arguments else ["--run", str(trained)]
    assert benchmark.main([*base, *arguments, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


@pytest.mark.parametrize(("needs", "value", "code"), [("", 1.0, 0), ("", 0.1, 1), (">= 8 tasks", 1.0, 1)])
def test_strict_asks_for_every_bar_to_be_met(monkeypatch, capsys, needs, value, code):
    context = report.Context("stand-in", "sim", "tiny", 1, "cpu", "abc", "command")
    found = report.Report((report.Row("a.b.c", value, "R²", context, bar=0.5, needs=needs),), {})
    monkeypatch.setattr(benchmark, "benchmark", lambda options, command: found)
    assert benchmark.main(["--strict"]) == code
    assert benchmark.main([]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["not_judged"] == [f"not judged: needs {needs}"] * bool(
        needs
    )


def test_only_the_benchmark_opens_the_test_split():
    folder = benchmark.pathlib.Path(benchmark.__file__).parent
    named = {path.name for path in folder.glob("*.py") if '"test"' in path.read_text()}
    # The duel plays on the simulator's test placements and opens no store; the curve only reads reports.
    assert named == {"benchmark.py", "duel.py", "size_curve.py"}
