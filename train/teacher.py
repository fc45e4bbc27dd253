"""The teacher that labels what a student visited: a command in a process of its own, because train knows no torch."""

import json
import pathlib
import subprocess
import sys

from bridge import manifest
from train import config

PACKAGES = "pip install 'sage-distill[teacher]'"


def check(visits: config.Rounds, source: manifest.Manifest) -> None:
    """ConfigError unless the teacher of the rounds is here, can label, and is the one that made the store.

    Its weights are hashed, not loaded; a hub id is downloaded now.
    """
    name, made = visits.teacher or source.teacher.id, source.teacher
    found = ask(identify(name, visits))
    if found["digest"] != made.digest:
        raise config.ConfigError(
            f"--teacher {name} is not the teacher of --store: its digest is {found['digest'][:12]}, {made.id} "
            f"({made.digest[:12]}) made the store. Name that one, or extract the store again with --teacher {name}"
        )


def ask(command: list[str]) -> dict[str, str]:
    """What `teacher_torch.identify` answers; ConfigError with its last words where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.returncode:
        return json.loads(done.stdout.splitlines()[-1])
    reason = ([line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no reason given"])[-1]
    fix = PACKAGES if "No module named" in reason else "name with --teacher a stand-in, a checkpoint folder or a hub id"
    raise config.ConfigError(f"the teacher of the rounds cannot label ({reason.removeprefix('error: ')}); {fix}")


def identify(name: str, visits: config.Rounds) -> list[str]:
    """The command that says whether a teacher could label, and which it is."""
    return [sys.executable, "-m", "teacher_torch.identify", name, "--task", "robot", *passed(visits)]


def labels(visits: config.Rounds, source: manifest.Manifest, folder: pathlib.Path) -> list[str]:
    """The command that labels every row of a visited dataset as the base store was labelled.

    The dataset's own embodiment is the base store's: a teacher may have brought another in its folder.
    """
    like, data = source.extraction, folder / "dataset"
    return [
        *(sys.executable, "-m", "teacher_torch.extract", "--task", "robot"),
        *("--teacher", visits.teacher or source.teacher.id),
        *("--dataset", str(data), "--metadata", str(data / "meta/metadata.json"), "--out", str(folder / "store")),
        *("--stride", "1", "--splits", "train", "--draws", str(like["draws"]), "--steps", str(like["steps"])),
        *("--dtype", like["dtype"], *passed(visits)),
    ]


def passed(visits: config.Rounds) -> list[str]:
    """The options of a round that the teacher's commands share."""
    given = (("--tokenizer", visits.teacher_tokenizer), ("--device", visits.teacher_device))
    return [word for flag, value in given if value for word in (flag, value)]
