"""An episode of an orchestrated student in the simulator, decision by decision, for `eval.explain`."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from bridge import conditions, lanes, metaworld_tasks, simulator
from eval import control, decisions, explain_page, runs
from train import cycle

TASK = "faucet-open"
Arrays = dict[str, np.ndarray]


def explain(run: runs.Run, task: str, goal: int, condition: str, atp: float) -> tuple[dict[str, Any], Arrays, str]:
    """(what happened, all that the student was given, the page). RunError for a task that there is not."""
    if task not in metaworld_tasks.TASKS:
        raise runs.RunError(f"--task {task}: there are {', '.join(metaworld_tasks.TASKS)}")
    policy = control.orchestrated(run, rows=1, will=cycle.Will(atp=atp))
    kept: list[tuple[simulator.Query, dict[str, np.ndarray], cycle.Decision]] = []
    policy.note = lambda *told: kept.append(told)
    seed = metaworld_tasks.split_seeds("validation", goal + 1)[goal]
    job = simulator.Job(task, seed, conditions.instruction(condition, task, seed))
    with lanes.Lanes(1, 1) as farm:
        (episode,) = simulator.run(policy, [job], conditions=conditions.cameras(condition), shared=farm)
    records = [
        decisions.record(number, given, said, policy, instruction=job.instruction)
        for number, (_, given, said) in enumerate(kept)
    ]
    found = {
        "policy": control.digest(policy),
        "task": task,
        "success": episode.success,
        "steps": episode.steps,
        "decisions": records,
    }
    arrays = {name: np.concatenate([given[name] for _, given, _ in kept]) for name in kept[0][1]}
    pictures = [given["video"][0, 0] for _, given, _ in kept]
    page = explain_page.render(records, pictures, task=task, condition=condition, success=episode.success)
    return found, arrays, page


def again(run: runs.Run, about: dict[str, Any], given: Arrays) -> tuple[str, Iterator[dict[str, Any]]]:
    """(digest of the policy, every record made once more)."""
    policy = control.orchestrated(run, rows=1, will=cycle.Will(atp=about["atp"]))

    def records() -> Iterator[dict[str, Any]]:
        for number in range(len(given["trust"])):
            row = {name: value[number : number + 1] for name, value in given.items()}
            known = about["decisions"][number] if number < len(about["decisions"]) else {}
            said = policy.answer(row)
            yield decisions.record(number, row, said, policy, instruction=str(known.get("instruction")))

    return control.digest(policy), records()
