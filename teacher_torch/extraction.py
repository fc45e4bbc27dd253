"""The extraction loop: inputs are prepared ahead of the model, groups are written behind it."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
from collections.abc import Callable, Iterator, Sequence

from bridge import batches
from bridge.manifest import Manifest
from bridge.store import Writer
from teacher_torch import groups, plan
from teacher_torch.groot.model import Groot
from teacher_torch.groups import Batch, Source
from teacher_torch.packing import Packing

AHEAD = 3  # batches whose inputs wait for the model
Job = tuple[int, list[int]]  # group, the records of one of its batches
Executor = concurrent.futures.ThreadPoolExecutor


def write_groups(
    writer: Writer,
    pending: Sequence[int],
    *,
    model: Groot | None,
    source: Source,
    packing: Packing,
    report: Callable[[int, int], None],
) -> None:
    """Compute and commit groups; `report(records, bytes)` is told of every batch and of every commit.

    source: the records that the manifest lays out; packing: what is written of them. Raises plan.PlanError where a
    batch does not fit into memory: its size is part of the store and cannot change.
    """
    manifest = packing.computed
    jobs = [(group, batch) for group in pending for batch in batches.of(manifest, group)]
    with Executor(1) as preparing, Executor(1) as writing:
        saving: concurrent.futures.Future[int] | None = None
        prepared = _ahead(preparing, lambda job: _prepare(manifest, source, job), jobs)
        for group, ready in itertools.groupby(zip(jobs, prepared, strict=True), lambda pair: pair[0][0]):
            arrays = groups.empty(manifest, group)
            for (_, records), batch in ready:
                values = _run(model, source, batch, manifest)
                groups.fill(arrays, manifest, group=group, batch=records, values=values)
                report(len(records), 0)
            if saving is not None:
                report(0, saving.result())
            saving = writing.submit(_save, writer, packing, group, arrays)
        if saving is not None:
            report(0, saving.result())


def _save(writer: Writer, packing: Packing, group: int, arrays: groups.Arrays) -> int:
    return writer.write(group, packing.pack(arrays))


def _prepare(manifest: Manifest, source: Source, job: Job) -> Batch:
    batch = source.prepare(job[1])
    groups.check_length(batch, manifest)
    return batch


def _run(model: Groot | None, source: Source, batch: Batch, manifest: Manifest) -> groups.Arrays:
    try:
        return groups.run(model, source, batch, manifest.features)
    except RuntimeError as error:
        if not groups.out_of_memory(error):
            raise
        size = manifest.extraction["batch_size"]
        raise plan.PlanError(
            f"out of memory with the store's batch size {size}, settled when the store was begun: free the device and "
            f"run the same command again, or begin another with --batch-size {max(size // 2, 1)} --out FOLDER"
        ) from error


def _ahead(executor: Executor, function: Callable[[Job], Batch], jobs: Sequence[Job]) -> Iterator[Batch]:
    """function(job) of every job in order, computed up to AHEAD jobs before they are asked for."""
    waiting: collections.deque[concurrent.futures.Future[Batch]] = collections.deque()
    for job in jobs:
        waiting.append(executor.submit(function, job))
        if len(waiting) > AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
