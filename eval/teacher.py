"""The teacher in the simulator, as a command of its own: torch is not needed here, and its absence stops nothing."""

import dataclasses
import json
import math
import pathlib
import subprocess
import sys
from collections.abc import Callable, Sequence

import safetensors

from bridge.outcomes import Ledger, OutcomeError

NAME = "teacher"
HOMES = (pathlib.Path("runs/teachers"), pathlib.Path(__file__).parents[1] / "teacher_torch" / "standins")
ACCOUNTS = ("provenance.json", "posttrain.json")
Runner = Callable[[list[str]], str]


@dataclasses.dataclass(frozen=True)
class Teacher:
    """Who acts: as `--teacher` names it, the digest that the store and the students know it by, its tokenizer."""

    name: str
    digest: str
    tokenizer: str = ""

    def command(
        self, out: pathlib.Path, condition: str, *, split: str, tasks: Sequence[str], episodes: int
    ) -> list[str]:
        """Runs what `out` lacks of these episodes."""
        base = [sys.executable, "-m", "teacher_torch.closed_loop", "--teacher", self.name]
        base += ["--episodes", str(episodes), "--split", split, "--condition", condition, "--out", str(out)]
        base += ["--tokenizer", self.tokenizer] if self.tokenizer else []
        base += ["--digest", self.digest]
        return [*base, "--tasks", *tasks]


def run(command: list[str]) -> str:
    """Run a command to its end; "" where it succeeds, else its last words."""
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return "" if done.returncode == 0 else (said or [f"ended with exit code {done.returncode}"])[-1]


def act(
    teacher: Teacher,
    ledger: Ledger,
    condition: str,
    *,
    split: str,
    tasks: Sequence[str],
    seeds: Sequence[int],
    runner: Runner | None = None,
) -> str:
    """Complete the teacher's episodes of a condition in the ledger's file; "" or the reason why there are none.

    OutcomeError where the file's are of a teacher other than the students'.
    """
    ledger.claim(NAME, None, teacher.digest)
    known = {(one.task, one.goal_seed) for one in ledger.of(NAME, None, condition)}
    left = [task for task in tasks if any((task, seed) not in known for seed in seeds)]
    if not left:
        return ""
    ledger.path.parent.mkdir(parents=True, exist_ok=True)
    command = teacher.command(ledger.path, condition, split=split, tasks=left, episodes=len(seeds))
    reason = (runner or run)(command)
    ledger.reload()
    try:
        ledger.claim(NAME, None, teacher.digest)
    except OutcomeError as error:
        raise OutcomeError(
            f"{error}. The students' teacher is {teacher.digest[:12]}: name that one (--teacher)"
        ) from None
    return reason


def film(
    teacher: Teacher,
    ledger: Ledger,
    folder: pathlib.Path,
    *,
    split: str,
    episodes: int,
    pairs: Sequence[tuple[str, int]],
    runner: Runner | None = None,
) -> str:
    """Write TASK-SEED.mp4 of these (task, seed) pairs into a folder; "" or why there is none."""
    for seed in dict.fromkeys(seed for _, seed in pairs):
        tasks = [task for task, at in pairs if at == seed]
        command = teacher.command(ledger.path, "normal", split=split, tasks=tasks, episodes=episodes)
        if reason := (runner or run)([*command, "--videos", str(folder), "--video-seeds", str(seed)]):
            return reason
    return ""


def folder(name: str) -> pathlib.Path | None:
    """Where a teacher's files are, if they are on this machine under that name."""
    places = [pathlib.Path(name), *(home / name for home in HOMES)]
    return next((place for place in places if any(place.glob("*.safetensors"))), None)


def parameters(name: str) -> int | None:
    """Values in the teacher's weights; None where its folder is not here."""
    place = folder(name)
    return place and sum(_values(path) for path in sorted(place.glob("model*.safetensors")))


def measured(name: str) -> dict[str, float]:
    """What its post-training measured of it, by name; empty where nothing is known."""
    place = folder(name)
    for account in ACCOUNTS if place else ():
        if (place / account).is_file():
            return dict(json.loads((place / account).read_text(encoding="utf-8")).get("measured", {}))
    return {}


def _values(path: pathlib.Path) -> int:
    with safetensors.safe_open(path, framework="numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - not a dict
