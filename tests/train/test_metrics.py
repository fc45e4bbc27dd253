"""metrics.jsonl: exact after a resume, loud about what is not finite."""

import jax.numpy as jnp
import pytest

from train import metrics


def write(folder, steps, *, start=0):
    log = metrics.MetricLog(folder, step=start)
    for step in steps:
        log.write(step, "train", {"loss": 1.0 / step})
    log.close()


def test_rows_after_the_checkpoint_are_written_again(tmp_path):
    write(tmp_path, [1, 2, 3, 4])
    straight = (tmp_path / "metrics.jsonl").read_bytes()
    write(tmp_path, [3, 4], start=2)
    assert (tmp_path / "metrics.jsonl").read_bytes() == straight


def test_a_row_cut_short_by_a_kill_is_dropped(tmp_path):
    write(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    write(tmp_path, [2], start=1)
    assert [row["step"] for row in metrics.read(path)] == [1, 2]


def test_rows_carry_no_clock(tmp_path):
    write(tmp_path, [1])
    assert metrics.read(tmp_path / "metrics.jsonl") == [{"step": 1, "kind": "train", "loss": 1.0}]


def test_metrics_are_fetched_one_step_late():
    delayed = metrics.Delayed()
    assert delayed.swap(1, {"loss": jnp.float32(1)}) is None
    assert delayed.swap(2, {"loss": jnp.float32(2)}) == (1, {"loss": 1.0})
    assert delayed.take() == (2, {"loss": 2.0})
    assert delayed.take() is None


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_term_that_is_not_finite_is_named(value):
    delayed = metrics.Delayed()
    delayed.swap(7, {"loss/tokens": jnp.float32(1), "loss/attention": jnp.float32(value)})
    with pytest.raises(metrics.NonFiniteError, match=r"step 7: loss/attention = ") as raised:
        delayed.take()
    assert "loss/tokens" not in str(raised.value)
