"""`python -m teacher_torch.identify TEACHER`: which weights are these, and could they label here?"""

import argparse
import json
import sys

import torch

from teacher_torch import provenance, request
from teacher_torch.groot.checkpoint import CheckpointError
from teacher_torch.groot.config import ConfigError
from teacher_torch.groot.tokenizer import TokenizerError
from teacher_torch.plan import PlanError

EXPECTED = (
    *(PlanError, ConfigError, CheckpointError, TokenizerError, provenance.ProvenanceError),
    FileNotFoundError,
)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m teacher_torch.identify",
        description="Find a teacher and its tokenizer (downloading what is not here) and print one line of JSON about "
        "the weights: id, provenance, digest.",
    )
    parser.add_argument("teacher", help="folder, hub id or stand-in")
    parser.add_argument("--task", choices=("arc", "robot"), default="robot", help="what it would label [%(default)s]")
    parser.add_argument("--tokenizer", help="folder, hub id or 'packaged' [the teacher's own, else the hub's copy]")
    parser.add_argument("--device", default="auto", help="torch device that must be here, e.g. cuda [%(default)s]")
    return parser.parse_args(argv)


def identify(asked: argparse.Namespace) -> dict[str, str]:
    """What the weights are; one of EXPECTED where they could not label with this tokenizer on this device."""
    teacher = request.find_teacher(asked.teacher, asked.task)
    if teacher is None:
        raise PlanError("random weights are drawn for one dataset and cannot label another: train a teacher first")
    request.load_tokenizer(asked.tokenizer, teacher)
    check_device(asked.device)
    return {"id": teacher.id, "provenance": teacher.provenance, "digest": teacher.digest}


def check_device(name: str) -> None:
    """PlanError where torch cannot compute there."""
    try:
        if name != "auto":
            torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise PlanError(f"--device {name}: {str(error).splitlines()[0]}; take auto or cpu") from error


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    try:
        found = identify(parse(argv))
    except EXPECTED as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
