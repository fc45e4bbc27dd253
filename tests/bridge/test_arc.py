"""ARC data: what a grid looks like in pixels and back, what crosses no split, and what a query must not show."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from bridge import arc, arc_content

TASKS = [*arc.load(1)["training"], *arc.load(1)["evaluation"]]
GOOD = {"train": [{"input": [[1]], "output": [[2, 3]]}], "test": [{"input": [[4], [5]], "output": [[6]]}]}


def with_labels(task: arc.Task, output: np.ndarray | None) -> arc.Task:
    return dataclasses.replace(task, test=tuple(dataclasses.replace(p, output=output) for p in task.test))


def test_counts_are_those_published():
    counts = {
        (version, name): (len(tasks), sum(len(t.train) for t in tasks), sum(len(t.test) for t in tasks))
        for version in (1, 2)
        for name, tasks in arc.load(version).items()
    }
    assert counts == {
        (1, "training"): (400, 1302, 416),
        (1, "evaluation"): (400, 1363, 419),
        (2, "training"): (1000, 3232, 1076),
        (2, "evaluation"): (120, 359, 167),
    }


def test_unknown_version():
    with pytest.raises(arc.ArcError, match=r"version 3: expected one of \[1, 2\]"):
        arc.load(3)


def test_every_grid_of_arc_1_is_read_back_from_its_pixels():
    grids = {g.tobytes() + bytes(g.shape): g for t in TASKS for p in t.train + t.test for g in (p.input, p.output)}
    assert len(grids) > 6_000
    for start in range(0, len(grids), 32):
        batch = list(grids.values())[start : start + 32]
        images = arc.render(np.stack([arc.cells(g) for g in batch]))
        assert images.shape[1:] == (900, 900, 3)
        for grid, cells in zip(batch, arc.read_cells(images), strict=True):
            assert np.array_equal(arc.grid(cells), grid)


def test_read_back_of_one_picture():
    grid = np.array([[0, 9, 5]], np.int8)
    assert np.array_equal(arc.read_back(arc.render(arc.cells(grid), pixels=7), 7), grid)


def test_canvas_is_white_and_no_colour_is():
    image = arc.render(arc.cells(np.arange(10, dtype=np.int8)[None]))
    assert (image[30:] == 255).all()
    assert (image[:, 300:] == 255).all()
    assert not (image[:30, :300] == 255).all(axis=-1).any()
    assert len(np.unique(arc.PALETTE, axis=0)) == 11


def test_black_padding_paints_the_outside_like_colour_0():
    cells = arc.cells(np.ones((2, 2), np.int8))
    assert (arc.render(cells, padding="black")[60:] == 0).all()
    with pytest.raises(arc.ArcError, match="expected white or black"):
        arc.render(cells, padding="grey")


def test_coarse_render_is_the_fine_one_sampled():
    cells = arc.records(TASKS[0])[0].cells
    assert np.array_equal(arc.render(cells, pixels=15), arc.render(cells)[:, ::2, ::2])


def test_pictures_that_hold_no_grid():
    image = arc.render(arc.cells(np.ones((2, 2), np.int8)))
    with pytest.raises(arc.ArcError, match="not in the palette"):
        arc.read_back(image ^ 1)
    with pytest.raises(arc.ArcError, match=r"expected a uint8 picture \[900, 900, 3\]"):
        arc.read_back(image[:-1])
    with pytest.raises(arc.ArcError, match="not one rectangle"):
        arc.read_back(np.roll(image, 30, axis=0))


@pytest.mark.parametrize(("version", "sizes"), [(1, (358, 40, 400)), (2, (900, 100, 120))])
def test_splits_share_no_task_by_id_or_content(version, sizes):
    splits = arc.splits(version)
    assert tuple(map(len, splits.values())) == sizes
    assert list(splits) == ["train", "validation", "test"]
    for first, second in itertools.combinations(splits.values(), 2):
        assert not {t.id for t in first} & {t.id for t in second}
        assert not {arc_content.content_hash(t) for t in first} & {arc_content.content_hash(t) for t in second}
        assert not arc_content.overlaps(first, second)


def test_arc_1_publishes_a_task_twice():
    sets = arc.load(1)
    assert arc_content.overlaps(sets["training"], sets["evaluation"]) == [
        ("40853293", "070dd51e"),
        ("caa06a1f", "50a16a69"),
    ]
    twice = [t for t in TASKS if t.id in ("40853293", "070dd51e")]
    assert arc_content.content_hash(twice[0]) == arc_content.content_hash(twice[1])


def test_nothing_trainable_for_a_report_on_arc_1_is_in_its_evaluation():
    published = {t.id for t in arc.load(2)["training"]} & {t.id for t in arc.load(1)["evaluation"]}
    assert len(published) == 376
    allowed = arc.trainable(2, 1)
    held_out = arc.splits(1)["validation"] + arc.splits(1)["test"]
    assert len(allowed) == 565
    assert not {t.id for t in allowed} & {t.id for t in held_out}
    assert not arc_content.overlaps(allowed, held_out)


def test_trainable_of_the_reported_version_is_its_train_split():
    assert arc.trainable(1, 1) == arc.splits(1)["train"]


def test_records_of_a_task():
    records = arc.records(TASKS[0])
    assert [(r.kind, r.pair, len(r.cells)) for r in records[:2]] == [("demonstration", 0, 2), ("demonstration", 1, 2)]
    assert [(r.kind, r.pair, len(r.cells)) for r in records[-1:]] == [("query", 0, 1)]
    assert {r.cells.dtype for r in records} == {np.dtype(np.uint8)}


def test_labels_reach_no_record():
    for task in TASKS[::40]:
        for label in (np.zeros((3, 3), np.int8), None):
            blanked = arc.records(with_labels(task, label))
            for record, blank in zip(arc.records(task), blanked, strict=True):
                assert np.array_equal(record.cells, blank.cells)


def test_observation_of_a_query_and_a_demonstration():
    records = arc.records(TASKS[0])
    shown, asked = arc.observation(records[0]), arc.observation(records[-1])
    assert shown.video.shape == (1, 2, 1, 900, 900, 3)
    assert asked.video.shape == (1, 1, 1, 900, 900, 3)
    assert shown.state.shape == (1, 1, 16)
    assert not shown.state.any()
    assert (shown.instruction, shown.embodiment) == (("Solve the pattern transformation task",), "arc")
    assert np.array_equal(arc.read_back(asked.video[0, 0, 0]), TASKS[0].test[0].input)


def test_augmentation_is_one_symmetry_and_one_recolouring_for_the_whole_task():
    rng = np.random.default_rng(0)
    for task in TASKS[:20]:
        other = arc.augment(task, rng)
        pairs = list(zip(task.train + task.test, other.train + other.test, strict=True))
        grids = [(p.input, q.input) for p, q in pairs] + [(p.output, q.output) for p, q in pairs]
        assert any(map(one_to_one, (recolouring(grids, k) for k in range(8))))


def recolouring(grids: list[tuple[np.ndarray, np.ndarray]], element: int) -> set[tuple[int, int]]:
    """(colour before, colour after) of every cell if `element` was the symmetry; not one to one if it was not."""
    images = [(arc_content.dihedral(before, element), after) for before, after in grids]
    if any(image.shape != after.shape for image, after in images):
        return {(0, 0), (0, 1)}
    return {
        pair for image, after in images for pair in zip(image.ravel().tolist(), after.ravel().tolist(), strict=True)
    }


def one_to_one(colours: set[tuple[int, int]]) -> bool:
    background = all(after == 0 for before, after in colours if before == 0)
    return background and len(colours) == len({a for a, _ in colours}) == len({b for _, b in colours})


def test_the_eight_symmetries_differ():
    grid = np.arange(6).reshape(2, 3)
    assert len({(arc_content.dihedral(grid, k).shape, arc_content.dihedral(grid, k).tobytes()) for k in range(8)}) == 8
    with pytest.raises(ValueError, match=r"symmetries 0\.\.7"):
        arc_content.dihedral(grid, 8)


def test_overlap_sees_through_symmetry_and_colour_but_not_through_one_cell():
    task = TASKS[5]
    pair = task.train[0]
    mirrored = arc.Pair(9 - pair.input[:, ::-1], 9 - pair.output[:, ::-1])
    other = arc.Task("other", "test", (mirrored,), (arc.Pair(np.ones((1, 1), np.int8), None),))
    assert arc_content.overlaps([task], [other]) == [(task.id, "other")]
    changed = mirrored.output.copy()
    changed[0, 0] = (changed[0, 0] + 1) % 10
    assert not arc_content.overlaps([task], [dataclasses.replace(other, train=(arc.Pair(mirrored.input, changed),))])


def test_file_round_trip_and_withheld_output(tmp_path):
    path = tmp_path / "puzzle.json"
    path.write_text(json.dumps(GOOD | {"test": [{"input": [[4], [5]]}]}))
    task = arc.load_file(path)
    assert task.id == "puzzle"
    assert task.train[0].output.tolist() == [[2, 3]]
    assert task.test[0].output is None
    assert [r.kind for r in arc.records(arc.augment(task, np.random.default_rng(0)))] == ["demonstration", "query"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"train": [', "not JSON"),
        ("[]", "needs the two lists 'train' and 'test'"),
        ({"train": []}, "empty list 'train'"),
        ({"test": []}, "empty list 'test'"),
        ({"train": [{"input": [[1]]}]}, "train pair 0: expected an object with input and output"),
        ({"train": [{"input": [[1]] * 31, "output": [[1]]}]}, "31x1 cells; the largest ARC grid is 30x30"),
        ({"train": [{"input": [[1] * 31] * 31, "output": [[1]]}]}, "31x31 cells"),
        ({"train": [{"input": [[10]], "output": [[1]]}]}, r"input: colour 10; colours are 0\.\.9"),
        ({"train": [{"input": [[-1]], "output": [[1]]}]}, "colour -1"),
        ({"train": [{"input": [[1, 2], [3]], "output": [[1]]}]}, "rows of unequal length"),
        ({"train": [{"input": [], "output": [[1]]}]}, "expected rows of whole numbers"),
        ({"train": [{"input": [[1.5]], "output": [[1]]}]}, "expected rows of whole numbers"),
    ],
)
def test_malformed_files_are_named_with_their_fault(tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_text(content if isinstance(content, str) else json.dumps(GOOD | content))
    with pytest.raises(arc.ArcError, match=message) as error:
        arc.load_file(path)
    assert "bad" in str(error.value)


def test_a_file_may_say_more_than_its_grids(tmp_path):
    pair = {"input": [[1]], "output": [[2]], "id": "x"}
    path = tmp_path / "task.json"
    path.write_text(json.dumps({"train": [pair], "test": [pair]}))
    assert arc.load_file(path).train[0].output.tolist() == [[2]]


def test_what_is_no_grid_or_canvas_or_file_is_an_arc_error(tmp_path):
    for grid in (np.full((2, 2), 10), np.full((2, 2), -1), np.zeros((31, 31), int)):
        with pytest.raises(arc.ArcError, match="expected a grid"):
            arc.cells(grid)
    with pytest.raises(arc.ArcError, match="expected cells"):
        arc.render(np.zeros((5, 5), np.uint8))
    with pytest.raises(arc.ArcError, match="give the path"):
        arc.load_file(tmp_path)
