"""The writer: what breaks the Spec is refused, and an interruption at any point leaves whole episodes to go on from."""

import contextlib
import dataclasses
import json
import pathlib
import resource
import shutil

import numpy as np
import pytest

from bridge import episodes, lerobot_files, lerobot_resume, lerobot_video, lerobot_writer
from bridge.lerobot_files import DatasetError

LENGTHS = (6, 9, 7)


def contents(folder):
    """{path: bytes, or the number of frames of a video}."""
    paths = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {n: lerobot_video.packets(p) if p.suffix == ".mp4" else p.read_bytes() for n, p in paths.items()}


@pytest.fixture
def write(spec, make_episode):
    """(folder, first episode, last episode, resume) -> the writer, closed."""

    def make(folder, first=0, last=3, *, resume=False, close=True):
        writer = episodes.create(folder, spec, resume=resume)
        for index in range(first, last):
            extra = {"split": ("train", "validation", "test")[index], "task": "toy", "seed": index}
            writer.add(**make_episode(index, LENGTHS[index]), extra=extra)
        if close:
            writer.close()
        return writer

    return make


def test_same_episodes_same_files(robot, tmp_path, write):
    write(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(robot)


@pytest.mark.parametrize("whole", [0, 1, 2])
def test_resumed_dataset_equals_an_uninterrupted_one(robot, tmp_path, write, whole):
    write(tmp_path / "new", 0, whole, close=False)
    write(tmp_path / "new", whole, 3, resume=True)
    assert contents(tmp_path / "new") == contents(robot)


def test_readable_after_every_episode(tmp_path, write):
    write(tmp_path / "new", 0, 2, close=False)
    dataset = episodes.open(tmp_path / "new")
    assert len(dataset.episodes) == 2
    dataset.check()


class Killed(BaseException):
    pass


PLACES = {"lerobot_video.encode": 3, "pq.write_table": 2, "files.append_line": 5, "files.write_json": 4}


@pytest.mark.parametrize(("place", "call"), [(place, call) for place, calls in PLACES.items() for call in range(calls)])
def test_killed_at_any_point(robot, tmp_path, spec, write, monkeypatch, place, call):
    """The call in which the kill falls has done its work; nothing is tidied up after it."""
    folder, calls = tmp_path / "new", []
    module, name = place.split(".")
    target = getattr(lerobot_writer, module)
    original = getattr(target, name)
    write(folder, 0, 1, close=False)

    def cut(*arguments, **settings):
        original(*arguments, **settings)
        calls.append(place)
        if len(calls) > call:
            monkeypatch.setattr(pathlib.Path, "unlink", killed)
            raise Killed

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(target, name, cut)
        with pytest.raises(Killed):
            write(folder, 1, 3, resume=True)
    monkeypatch.undo()
    episodes.open(folder).check(deep=False)
    done = len(episodes.create(folder, spec, resume=True).episodes)
    files = [path.name for path in (*folder.glob("data/*/*"), *folder.glob("videos/*/*/*"))]
    assert sorted(files) == sorted(f"episode_{i:06d}{end}" for i in range(done) for end in (".parquet", ".mp4", ".mp4"))
    write(folder, done, 3, resume=True)
    assert contents(folder) == contents(robot)


@pytest.mark.parametrize(
    "lost", ["videos/*/*/episode_000001.mp4", "data/*/episode_000000.parquet", "meta/episodes.jsonl"]
)
def test_more_than_an_unfinished_last_episode_is_never_removed(robot, tmp_path, write, lost):
    folder = tmp_path / "new"
    shutil.copytree(robot, folder)
    next(folder.glob(lost)).unlink()
    before = contents(folder)
    with pytest.raises(DatasetError, match=r"episodes up to 2 follow: bring it back.*nothing was changed"):
        write(folder, 1, 3, resume=True)
    assert contents(folder) == before


def test_line_that_was_cut_off(robot, tmp_path, write):
    folder = tmp_path / "new"
    write(folder, 0, 2, close=False)
    for name in lerobot_resume.LISTS:
        path = folder / "meta" / name
        path.write_bytes(path.read_bytes()[:-4])
    (folder / "data/chunk-000/episode_000002.parquet.part").write_bytes(b"half")
    with pytest.raises(DatasetError, match=r"line 2: not JSON .*resume=True"):
        episodes.open(folder)
    write(folder, 1, 3, resume=True)
    assert contents(folder) == contents(robot)


@contextlib.contextmanager
def file_limit(size):
    """No file may grow beyond this size: a write that would fails with an OSError, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk(robot, tmp_path, write, make_episode):
    """Whichever file no longer fits: a clear error, the episodes before it readable, and the writer can go on."""
    folder = tmp_path / "new"
    writer, before, refused = write(folder, 0, 2, close=False), contents(folder), 0
    for limit in (50, 1500, 3000, 4500, 6000, 9000):
        with file_limit(limit), contextlib.suppress(DatasetError):
            writer.add(**make_episode(2, 7), extra={"split": "test", "task": "toy", "seed": 2})
            break
        refused += 1
        assert contents(folder) == before
    assert refused
    episodes.open(folder).check(deep=False)
    write(folder, len(writer.episodes), 3, resume=True)
    assert contents(folder) == contents(robot)


@pytest.mark.parametrize(("failing", "whole"), [("episodes.jsonl", 2), ("tasks.jsonl", 1), ("info.json", 3)])
def test_no_space_for_a_metadata_file(tmp_path, spec, write, monkeypatch, make_episode, failing, whole):
    """The disk fills up at this very file; once a line is in episodes.jsonl the episode counts."""
    folder, kept = tmp_path / "new", min(whole, 2)
    writer = write(folder, 0, kept, close=False)
    for name in ("append_line", "write_json"):
        original = getattr(lerobot_files, name)

        def full(path, value, original=original):
            if path.name == failing:
                raise OSError(28, "No space left on device")
            original(path, value)

        monkeypatch.setattr(lerobot_files, name, full)
    with pytest.raises(DatasetError, match=rf"No space left on device\); {whole} whole episodes are there: make room"):
        writer.add(**make_episode(kept, LENGTHS[kept]))
    monkeypatch.undo()
    dataset = episodes.open(folder)
    assert len(dataset.episodes) == whole
    dataset.check(deep=False)
    writer.add(**make_episode(1, 9))
    assert json.loads((folder / "meta/info.json").read_text())["total_episodes"] == whole + 1


def test_a_folder_of_something_else_is_left_alone(tmp_path, spec):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"is no dataset but holds config\.json: give a new folder"):
        episodes.create(tmp_path, spec, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_another_dataset_is_not_written_over(robot, spec):
    with pytest.raises(DatasetError, match=r"holds a dataset already: .*resume=True"):
        episodes.create(robot, spec)
    with pytest.raises(DatasetError, match=r"begun with another Spec \(\['fps'\, 'features'\] differ\)"):
        episodes.create(robot, dataclasses.replace(spec, fps=10), resume=True)


def test_nothing_to_close(tmp_path, spec):
    with pytest.raises(DatasetError, match="no episode was added"):
        episodes.create(tmp_path / "new", spec).close()


def change(given, *path, value):
    inner = given
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return given


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("state", "hand"), np.full((6, 3), np.nan), r"state has NaN or infinite values in \['hand'\]"),
        (("state", "hand"), np.zeros((6, 2)), r"state\.hand must be numbers \[n, 3\], got float64 \[6, 2\]"),
        (("state", "hand"), np.zeros((5, 3)), r"keys of state differ in rows: \[5, 6\]"),
        (("action", "leg"), np.zeros((6, 3)), r"action must have exactly the keys \['delta', 'gripper'\], got"),
        (("action", "delta"), np.full((6, 3), "x"), r"action\.delta must be numbers"),
        (("labels",), {}, r"labels must have exactly the keys \['objects'\]"),
        (("frames", "top"), np.zeros((7, 32, 48, 3), np.uint8), "same number of rows"),
        (("frames", "top"), np.zeros((6, 48, 32, 3), np.uint8), r"'top' must be uint8 \[n, 32, 48, 3\], got uint8"),
        (("frames", "top"), np.zeros((6, 32, 48, 3), np.float32), r"uint8 \[n, 32, 48, 3\], got float32"),
        (("instruction",), " ", "instruction must be a text"),
        (("extra",), {"split": "dev"}, "split must be one of train, validation, test, got 'dev'"),
    ],
)
def test_what_breaks_the_spec_is_refused(tmp_path, spec, make_episode, path, value, message):
    writer = episodes.create(tmp_path / "new", spec)
    before = contents(tmp_path)
    with pytest.raises(DatasetError, match=message):
        writer.add(**change(make_episode(0, 6), *path, value=value))
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "changes", [{"fps": 0}, {"videos": {}}, {"relative": ("action.leg",)}, {"rotations": {"state.leg": "quaternion"}}]
)
def test_faulty_spec(spec, changes):
    with pytest.raises(DatasetError, match=r"a Spec needs|name \['(action|state)\.leg'\]"):
        dataclasses.replace(spec, **changes)
