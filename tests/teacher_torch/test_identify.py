"""Which weights these are, and whether they could label."""

import json

import pytest

from teacher_torch import identify, standin


def test_a_teacher_is_known_by_the_digest_that_a_store_holds(capsys):
    assert identify.main(["standin-robot", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"id": "standin-robot", "provenance": "stand-in", "digest": standin.resolve("standin-robot").digest}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["nowhere"], "no checkpoint folder nowhere"),
        (["random"], "train a teacher first"),
        (["standin-robot", "--task", "arc"], "was trained for --task robot"),
        (["standin-robot", "--tokenizer", "nowhere"], "nowhere"),
        (["standin-robot", "--device", "tpu"], "--device tpu: "),
        (["standin-robot", "--device", "cuda:99"], "take auto or cpu"),
    ],
)
def test_one_that_could_not_label_is_refused(capsys, asked, message):
    assert identify.main(asked) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
