"""The student's twin says what the student says; its process answers line by line, eager and compiled."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from eval import artifact, clock, export, policy, size_race, size_suite
from eval.options import Config


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    options = Config(suite="size", student="tiny", teacher="none", out=tmp_path_factory.mktemp("size"), device="cpu")
    return options, size_suite.prepare(options, "cpu")


def ask(command, *requests):
    asked = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def telling(bench):
    """An artifact of the same student that says what it knows of the teacher's features."""
    student, kit = size_suite.subject("tiny")
    about = artifact.About(
        "tiny", False, kit.body.tag, {}, {"id": "", "provenance": "random", "licence": "none", "digest": ""}
    )
    folder = bench[0].out / "telling"
    export.write(folder, student, about, dataclasses.replace(kit, features=True), dtype="float32")
    return folder


def test_the_twin_says_what_the_exported_student_says(bench, telling, tmp_path):
    raw, folder = bench[0].out / "raw", telling
    seen = ["--observation", raw / "observation.npz", "--metadata", raw / "metadata.json", "--dtype", "float32"]
    answers = ask(
        size_race.module("teacher_torch.twin", folder, *seen),
        {"do": "answer", "path": str(tmp_path / "twin.npz")},
        {"do": "run", "output": "actions", "warm": 0, "repeats": 2, "batch": 3},
        {"do": "run", "output": "actions", "warm": 0, "repeats": 1, "mode": "compiled"},
        {"do": "memory"},
    )
    assert [answer["event"] for answer in answers] == ["ready", "answer", "result", "error", "memory"]
    assert len(answers[2]["seconds"]) == 2
    student = policy.load(folder, "xla")
    said = student.act(clock.observe(raw / "observation.npz"))
    assert {name: int(steps[0]) for name, steps in said.steps.items()} == student.meta["atp"]["max_steps"]
    want = clock._flat(said)
    with np.load(tmp_path / "twin.npz") as got:
        assert set(got) == set(want) > {"image_tokens", "adapted_features", "actions"}
        assert np.abs(want["actions"]).max() > 1e-3
        for name, array in want.items():
            assert got[name] == pytest.approx(array, abs=1e-4), name


def test_both_act_alone_where_the_artifact_does(bench, tmp_path):
    options, made = bench
    raw, folder = options.out / "raw", made.folders["float32"]
    seen = ["--observation", raw / "observation.npz", "--metadata", raw / "metadata.json"]
    path = tmp_path / "said.npz"
    for command in (
        size_race.module("teacher_torch.twin", folder, *seen, "--dtype", "float32"),
        size_race.module("eval.clock", folder, *seen[:2]),
    ):
        ask(command, {"do": "answer", "path": str(path)})
        with np.load(path) as got:
            assert set(got) == {"actions", "energy.vision", "energy.language", "energy.control"}


def test_heads_that_nobody_reads_are_neither_shipped_nor_counted(bench, telling):
    alone, whole = (
        safetensors.numpy.load_file(one / "weights.safetensors") for one in (bench[1].folders["float32"], telling)
    )
    assert not [name for name in alone if ".readout." in name]
    assert {name for name in whole if ".readout." in name}
    lean, full = bench[1].metas["float32"], policy.read_meta(telling)
    assert lean["parameters"] == sum(array.size for array in alone.values()) < full["parameters"]
    assert full["matrix"]["n"] == size_suite.TEACHER_WIDTH, "the head is a tiny student's largest product"
    assert lean["matrix"]["n"] != size_suite.TEACHER_WIDTH


def test_what_is_timed_is_what_was_asked():
    calls = []
    request = {"do": "run", "output": "actions", "warm": 1, "repeats": 2, "batch": 3, "share": 0.5}
    reply = clock.answer(request, lambda batch, share: calls.append((batch, share)))
    assert len(reply["seconds"]) == 2
    assert calls == [(3, 0.5)] * 3


def test_a_share_of_the_budget_is_told_in_steps(bench):
    options, made = bench
    meta = made.metas["float32"]
    command = size_race.module(
        "eval.clock", made.folders["float32"], "--observation", options.out / "raw/observation.npz"
    )
    ready, half, none = ask(command, {"do": "steps", "share": 0.5}, {"do": "steps", "share": 0.0})
    assert ready["steps"] == meta["atp"]["max_steps"]
    assert 0 < sum(half["steps"].values()) < sum(ready["steps"].values())
    assert not any(none["steps"].values())


@pytest.mark.parametrize("change", [{"grid": {"cells": 1}}, {"h_module": {"width": 8}}])
def test_a_student_that_has_no_twin_is_named(bench, tmp_path, change):
    options, made = bench
    folder = made.folders["float32"]
    meta = json.loads((folder / "meta.json").read_text())
    meta["student"] |= change
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    (tmp_path / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
    command = size_race.module("teacher_torch.twin", tmp_path, "--observation", options.out / "raw/observation.npz")
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert next(iter(change)) in done.stderr


@pytest.mark.soak  # compiles the twins, which takes minutes without a cache
def test_the_whole_suite_at_tiny_size(bench, tmp_path):
    golden = pathlib.Path(__file__).parents[1] / "golden"
    teacher = tmp_path / "teacher"
    subprocess.run([sys.executable, golden / "weights.py", "tiny", teacher], check=True, capture_output=True)
    command = size_race.module("eval.benchmark", "--suite", "size", "--student", "tiny", "--teacher", teacher)
    command += ["--tokenizer", "packaged", "--quick", "--seconds", "0.1", "--lanes", "xla_float32", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "not judged" in done.stdout
    rows = {row["id"]: row for row in json.loads((tmp_path / "report.json").read_text())["rows"]}
    for lane in ("student_xla_float32", "twin_bfloat16_compiled", "teacher_float32_eager"):
        assert rows[f"size.{lane}.p99"]["value"] > 0
    assert rows["size.student_xla_float32.throughput_b16"]["value"] > 0
    assert rows["size.teacher_bfloat16.flops"]["value"] > 0
    assert all(row["needs"] for name, row in rows.items() if row["bar"] is not None and name.startswith("size."))
    assert rows["export.xla_float32.worst_max_abs"]["value"] <= 1e-5
