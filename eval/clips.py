"""Solved and failed episodes of a student beside the teacher's on the same goals."""

import pathlib
from collections.abc import Sequence

from bridge import simulator
from bridge.outcomes import Ledger, Outcome
from eval import teacher as teachers
from eval import videos
from eval.metaworld_page import Clip
from eval.rollouts import Farm


def make(
    policy: simulator.Policy,
    chosen: Sequence[Outcome],
    *,
    theirs: pathlib.Path,
    out: pathlib.Path,
    why: str,
    farm: Farm,
) -> list[Clip]:
    """Film a policy again on the chosen goals and put it beside the videos of `theirs` (alone, and `why`, where there
    is none). The files lie in out/videos."""
    clips = []
    for one, frames in zip(chosen, videos.film(policy, chosen, farm.lanes) if chosen else [], strict=True):
        shown = videos.read(name(theirs, one))
        path = name(out / "videos", one)
        videos.write(path, videos.beside([frames] if shown is None else [shown, frames]))
        who = f"student alone ({why})" if shown is None else "teacher left, student right"
        end = "solved" if one.success else "failed"
        text = f"{one.task}, goal {one.goal_seed}: {who}; student {end} after {one.steps} actions: “{one.instruction}”"
        clips.append(Clip(f"videos/{path.name}", text))
    return clips


def film_teacher(
    teacher: teachers.Teacher,
    ledger: Ledger,
    chosen: Sequence[Outcome],
    folder: pathlib.Path,
    *,
    split: str,
    episodes: int,
) -> str:
    """Have the teacher filmed on the chosen goals that the folder lacks; "" or why it could not."""
    pairs = [(one.task, one.goal_seed) for one in chosen if not name(folder, one).is_file()]
    return teachers.film(teacher, ledger, folder, split=split, episodes=episodes, pairs=pairs)


def name(folder: pathlib.Path, one: Outcome) -> pathlib.Path:
    """Where the video of an episode's goal is kept."""
    return folder / f"{one.task}-{one.goal_seed}.mp4"
