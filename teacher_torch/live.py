"""`python -m teacher_torch.live`: what it would cost to run the teacher during training, in place of reading a store.

Takes the options of teacher_torch.extract and times the same forward passes over the first records, writing nothing:
the last line of its output is JSON {records, seconds, views, gflop, features}.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from bridge import batches
from bridge.manifest import Manifest
from teacher_torch import arc_request, extract, groups, lesson, packing, robot_request
from teacher_torch.groot.model import Groot
from teacher_torch.plan import PlanError
from teacher_torch.request import Setting

MOST = 8  # batches


@torch.inference_mode()
def measure(setting: Setting, manifest: Manifest, model: Groot | None) -> dict[str, object]:
    """Median over at most MOST batches, the first left out, of the seconds that a record's features take.

    Preparing a batch's inputs is not counted: it goes on beside the model.
    """
    wanted = {n: f for n, f in packing.expect(manifest, setting.choices).features.items() if n in manifest.features}
    chosen = [batch for group in range(len(manifest.groups)) for batch in batches.of(manifest, group)]
    chosen = [batch for batch in chosen if len(batch) == len(chosen[0])][: MOST + 1]
    if len(chosen) < 2:
        raise PlanError("expected two batches or more: give a smaller --batch-size, or more episodes (--limit)")
    seconds, flop = [], FlopCounterMode(display=False)
    for number, records in enumerate(chosen):
        batch = setting.source.prepare(records)
        started = time.perf_counter()
        if number:
            groups.run(model, setting.source, batch, {name: manifest.features[name] for name in wanted})
            seconds.append((time.perf_counter() - started) / len(records))
        else:  # the first warms up, and is counted
            with flop:
                groups.run(model, setting.source, batch, {name: manifest.features[name] for name in wanted})
    return {
        "records": len(seconds) * len(chosen[0]),
        "seconds": statistics.median(seconds),
        "views": manifest.axes["frame"].counts[0],
        "gflop": flop.get_total_flops() / len(chosen[0]) / 1e9,
        "features": list(wanted),
        "threads": torch.get_num_threads(),
    }


def run(options: arc_request.Options | robot_request.Options) -> dict[str, object]:
    """From options to the result; raises one of extract.USER_ERRORS."""
    robot = isinstance(options, robot_request.Options)
    setting = robot_request.Setting(options) if robot else arc_request.Setting(options)
    manifest = setting.manifest(options.batch_size or 16)
    needed, with_head = setting.needs(manifest)
    return measure(setting, manifest, setting.load_model(with_head=with_head) if needed else None)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code, 2 where the request cannot be met."""
    arguments = sys.argv[1:] if arguments is None else arguments
    kind = robot_request.Options if lesson.task_of(arguments) == "robot" else arc_request.Options
    options = tyro.cli(kind, args=arguments, prog="python -m teacher_torch.live", description=__doc__)
    try:
        print(json.dumps(run(options)))
    except extract.USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
