"""Students of run folders that act: with their tokenizer and embodiment, and as policies of the simulator."""

import hashlib

from bridge import embodiment as embodiments
from bridge import simulator
from eval import artifact, export, runs
from train import actor, cycle, record, warm, witness, words

ALL_STEPS, MINDFUL = actor.Effort(), cycle.Will()


def load(run: runs.Run, *, rows: int, effort: actor.Effort = ALL_STEPS) -> actor.StudentActor:
    """The student of a run folder with the tokenizer and embodiment that lie beside it, for the simulator.

    EmbodimentError where it is another robot's.
    """
    lexicon, body = equipment(run)
    simulator.cameras(body)
    return actor.StudentActor(run.student, lexicon, body, rows=rows, effort=effort)


def orchestrated(run: runs.Run, *, rows: int, will: cycle.Will = MINDFUL) -> cycle.SageActor:
    """The orchestrated student of a run folder, with what its host judges its modules by."""
    lexicon, body = equipment(run)
    if run.record.student.h_module is None or not (run.folder / witness.FILE).is_file():
        raise runs.RunError(
            f"{run.folder} holds no orchestrated student; train one: python -m train.main --stage orchestration --init "
            f"{run.folder} --store STORE"
        )
    try:
        judge = witness.load(run.folder)
    except witness.WitnessError as error:
        raise runs.RunError(str(error)) from error
    return cycle.SageActor(run.student, lexicon, body, judge, rows=rows, will=will)


def equipment(run: runs.Run) -> tuple[words.Words, embodiments.Embodiment]:
    """What lies beside an acting student's weights; RunError where the run's student does not act."""
    lexicon = warm.words_of(str(run.folder))
    if "control" not in run.student.modules or lexicon is None or not (run.folder / warm.EMBODIMENT).is_file():
        raise runs.RunError(
            f"{run.folder} holds no student that acts (its modules: {', '.join(run.student.modules)}); train one: "
            "python -m train.main --stage end-to-end --store STORE-OF-A-ROBOT"
        )
    if run.record.objective != record.OBJECTIVE:
        raise runs.RunError(
            f"{run.folder} was trained by an earlier version, for actions at drawn x_0 alone; a student now acts from "
            "x_0 = 0: train it again"
        )
    return lexicon, embodiments.load(run.folder / warm.EMBODIMENT)


def digest(policy: actor.StudentActor) -> str:
    """sha256 of all that decides what the actor does."""
    weights = artifact.digest(export.split(policy.student)[0])
    body = repr((policy.body.tag, policy.body.statistics, policy.body.transform))
    text = f"{weights} {policy.words.json} {body} {policy.effort}"
    if isinstance(policy, cycle.SageActor):
        text += f" {policy.will} {policy.student.config.h_module} {witness.digest(policy.witness)}"
    return hashlib.sha256(text.encode()).hexdigest()
