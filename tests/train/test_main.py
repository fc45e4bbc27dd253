"""The real command on a tiny store: exact resume, early errors, clean stops. Every run shares one set of programs."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from flax import nnx
from orbax.checkpoint import v1 as ocp

from bridge import store
from student_jax import irp
from train import checkpoint, config, data, main, metrics, record, vision

OPTIONS = ["--preset", "tiny", "--steps", "400", "--eval-every", "4", "--share-every", "4", "--log-every", "1"]


def command(source, out, *more: str) -> list[str]:
    return ["--store", str(source), "--out", str(out), "--host-devices", "2", *OPTIONS, *more]


def leaves(run: pathlib.Path, which: str) -> dict[str, np.ndarray]:
    """Every array of the newest checkpoint, by name."""
    slot = checkpoint.Slot(run / which)
    saved = ocp.metadata(slot.folder / str(slot.newest())).metadata
    tree, _ = slot.load({name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in saved.items()})
    return {name: np.asarray(value) for name, value in tree.items()}


def assert_same_run(a: pathlib.Path, b: pathlib.Path):
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()
    for which in ("last", "best"):
        assert checkpoint.Slot(a / which).newest() == checkpoint.Slot(b / which).newest()
        ours, theirs = leaves(a, which), leaves(b, which)
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            np.testing.assert_array_equal(value, theirs[name], err_msg=f"{which}: {name}")


@pytest.fixture(scope="module")
def straight(stored, tmp_path_factory):
    """Eight steps without interruption."""
    out = tmp_path_factory.mktemp("straight") / "run"
    assert main.main(command(stored, out, "--stop-after", "8")) == 0
    return out


def rows(run: pathlib.Path, kind: str) -> list[dict]:
    return [row for row in metrics.read(run / "metrics.jsonl") if row["kind"] == kind]


def test_five_steps_and_three_more_equal_eight_bit_for_bit(stored, straight, tmp_path, capsys):
    assert main.main(command(stored, tmp_path / "run", "--stop-after", "5")) == 0
    assert f"--out {tmp_path / 'run'}" in capsys.readouterr().out
    assert main.main(command(stored, tmp_path / "run", "--stop-after", "8", "--resume")) == 0
    assert_same_run(straight, tmp_path / "run")


def test_killed_and_resumed_equals_straight(stored, straight, tmp_path):
    run = tmp_path / "run"
    child = subprocess.Popen(
        [sys.executable, "-m", "train.main", *command(stored, run, "--stop-after", "8")], stdout=subprocess.DEVNULL
    )
    while child.poll() is None and not (run / "last" / "4").exists():
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert main.main(command(stored, run, "--stop-after", "8", "--resume")) == 0
    assert_same_run(straight, run)


def test_the_log_holds_losses_shares_and_the_task_metric(straight):
    steps = rows(straight, "train")
    assert [row["step"] for row in steps] == list(range(1, 9))
    assert {"loss", "loss/tokens", "loss/cosine", "loss/attention", "loss/energy", "learning_rate"} < steps[0].keys()
    shares = [sum(value for name, value in row.items() if name.startswith("share/")) for row in steps]
    np.testing.assert_allclose(shares, [0, 0, 0, 1, 0, 0, 0, 1], rtol=1e-5)
    np.testing.assert_allclose(
        steps[0]["loss"], sum(v for k, v in steps[0].items() if k.startswith("loss/")), rtol=1e-5
    )
    assert {"r2_mean", "r2_p10", "r2_mean/step_0", "energy_rank_correlation"} < rows(straight, "validation")[0].keys()
    assert list((straight / "tensorboard").iterdir())


def test_training_learns(straight):
    losses = [row["loss"] for row in rows(straight, "train")]
    assert losses[-1] < losses[0]


def last_tokens(graph, weights, batch):
    """The tokens after the last refinement step."""
    module = nnx.merge(graph, weights).vision
    states = irp.unroll(module, vision.inputs(batch), jax.random.key(0), module.description.max_steps)
    return module.output(states[-1])["image_tokens"]


def test_a_loaded_student_scores_what_the_log_says(stored, straight):
    student, run = checkpoint.load_student(straight, which="best", weights="ema")
    frames = data.Frames(store.open(stored), "validation", features=("image_tokens",), cache_bytes=0.0)
    batch = jax.tree.map(jax.numpy.asarray, frames.read(np.arange(len(frames))))
    graph, weights = nnx.split(student)
    predicted = np.asarray(jax.jit(last_tokens, static_argnums=0)(graph, weights, batch), np.float64)
    truth, axes = np.asarray(batch["image_tokens"], np.float64), (0, 1, 2)
    sse, total, square = np.square(truth - predicted).sum(axes), truth.sum(axes), np.square(truth).sum(axes)
    r2 = vision.r_squared(sse, total, square, float(truth[..., 0].size))
    np.testing.assert_allclose(r2.mean(), max(row["r2_mean"] for row in rows(straight, "validation")), rtol=1e-4)
    assert run.teacher["id"] == "tiny-teacher"


def test_the_energy_scale_is_the_median_validation_error(straight):
    student, _ = checkpoint.load_student(straight, which="last")
    last = rows(straight, "validation")[-1]
    np.testing.assert_allclose(student.vision.error_scale[...], last["median_error"], rtol=1e-6)


def test_frozen_leaves_are_not_in_the_optimiser(straight):
    names = leaves(straight, "last").keys()
    assert not [name for name in names if name.startswith("opt_state") and "basis" in name]
    moments = {name.partition("/mu/")[2] for name in names if "/mu/" in name}
    assert moments == {name.partition("params/")[2] for name in names if name.startswith("params/")}


def test_a_run_folder_is_not_overwritten(stored, straight, capsys):
    assert main.main(command(stored, straight)) == 2
    assert "already holds a run; add --resume" in capsys.readouterr().err


def test_a_resume_with_another_setting_names_it(stored, straight, capsys):
    assert main.main(command(stored, straight, "--resume", "--lr", "0.5")) == 2
    assert re.search(r"config\.recipe\.lr: 0\.002 -> 0\.5", capsys.readouterr().err)


def test_a_resume_on_other_devices_names_them(stored, straight, capsys):
    assert main.main(command(stored, straight, "--resume", "--host-devices", "4")) == 2
    assert "devices: 2 -> 4" in capsys.readouterr().err


def test_a_run_begun_on_four_devices_goes_on_on_one(stored, straight, tmp_path, capsys):
    run = tmp_path / "run"
    assert main.main(command(stored, run, "--stop-after", "5", "--host-devices", "4", "--fsdp", "2")) == 0
    again = command(stored, run, "--stop-after", "8", "--host-devices", "1", "--resume")
    assert main.main(again) == 2
    assert re.search(r"scale\.fsdp: 2 -> 1.*devices: 4 -> 1.*--elastic to go on", capsys.readouterr().err)
    assert main.main([*again, "--elastic"]) == 0
    ours, theirs = leaves(straight, "last"), leaves(run, "last")
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(theirs[name], value, rtol=1e-2, atol=5e-4, err_msg=name)


def test_a_dry_run_says_what_a_run_needs_and_writes_nothing(stored, tmp_path, capsys):
    assert main.main(command(stored, tmp_path / "run", "--dry-run")) == 0
    told = capsys.readouterr().out
    assert re.search(r"trainable parameters +9,226", told)
    assert re.search(r"predicted peak +\d+ MiB", told)
    assert re.search(r"FLOPs of a step +[\d.]+e\+\d+", told)
    assert not (tmp_path / "run").exists()


def test_a_resume_with_another_store_names_it(make_store, straight, tmp_path, capsys):
    assert main.main(command(make_store(tmp_path / "other", seed=1), straight, "--resume")) == 2
    assert re.search(r"store: '\w+' -> '\w+'", capsys.readouterr().err)


def test_a_resume_of_nothing_says_so(stored, tmp_path, capsys):
    assert main.main(command(stored, tmp_path / "none", "--resume")) == 2
    assert "holds no run" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["", "missing"])
def test_a_missing_store_names_the_command_that_makes_one(source, tmp_path, capsys):
    assert main.main(command(source and tmp_path / source, tmp_path / "run")) == 2
    assert "python -m teacher_torch.extract" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_stage_that_is_not_built_stops_before_anything_is_read(tmp_path, capsys):
    assert main.main(["--stage", "beyond", "--store", "nowhere", "--out", str(tmp_path / "run")]) == 2
    assert "not built yet" in capsys.readouterr().err


def test_a_batch_that_does_not_divide_is_refused(stored, tmp_path, capsys):
    assert main.main(command(stored, tmp_path / "run", "--batch", "7")) == 2
    assert "--batch 7 does not divide over 2 devices" in capsys.readouterr().err


def test_a_non_finite_loss_stops_the_run_names_the_term_and_keeps_the_checkpoint(make_store, tmp_path, capsys):
    source = make_store(tmp_path / "store", poison=True)
    code = main.main(command(source, tmp_path / "run", "--eval-every", "1"))
    assert code == 3
    assert re.search(r"stopped: step \d+: .*loss/attention = nan", capsys.readouterr().err)
    step = checkpoint.Slot(tmp_path / "run" / "last").newest()
    assert step == len(rows(tmp_path / "run", "validation")) > 0
    assert all(np.isfinite(value.astype(np.float32)).all() for value in leaves(tmp_path / "run", "last").values())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_prints_the_resume_command_and_exits(stored, tmp_path, number, capsys):
    run = tmp_path / "run"

    def interrupt():
        while not rows(run, "train") if (run / "metrics.jsonl").exists() else True:
            time.sleep(0.005)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert main.main(command(stored, run)) == 128 + number
    thread.join()
    step = checkpoint.Slot(run / "last").newest()
    assert rows(run, "train")[-1]["step"] == step
    assert re.search(rf"saved at step {step}; go on: python -m train\.main .*--resume", capsys.readouterr().out)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_config_json_tells_the_whole_run(straight):
    run = record.read(straight)
    assert (run.steps, run.devices, run.config.preset, run.student.target.width) == (400, 2, "tiny", 8)
    assert json.loads((straight / "config.json").read_text())["versions"]["jax"] == jax.__version__


def test_a_damaged_record_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"config":')
    with pytest.raises(config.ConfigError, match="damaged"):
        record.read(tmp_path)


def test_a_record_from_before_the_students_later_modules_is_read(tmp_path, straight):
    tree = json.loads((straight / record.FILE).read_text())
    del tree["student"]["language"], tree["student"]["control"], tree["student"]["actions"]
    del tree["student"]["vision"]["objects"]
    (tmp_path / record.FILE).write_text(json.dumps(tree))
    assert record.read(tmp_path) == record.read(straight)
