"""Bring a dataset whose writer was killed back to its whole episodes."""

import json
import pathlib
from typing import Any

from bridge import lerobot_files as files
from bridge.lerobot_files import DatasetError
from bridge.lerobot_layout import CHUNK_SIZE, DATA_PATH, VIDEO_PATH

LISTS = ("episodes.jsonl", "episodes_stats.jsonl", "tasks.jsonl")


def resume(folder: pathlib.Path, info: dict[str, Any], videos: list[str]) -> tuple[list[dict], dict[str, int]]:
    """(lines of the whole episodes, {instruction: task index}); what a kill left of the last episode is removed.

    A DatasetError, and nothing is changed, where more than the last episode would be lost.

    info: what meta/info.json must say, without totals: another Spec is a DatasetError. videos: their columns.
    """
    found = files.read_json(folder / "meta/info.json")
    if differs := [name for name in info if found.get(name) != info[name]]:
        raise DatasetError(
            f"{folder} was begun with another Spec ({differs} differ): give the same one or another folder"
        )
    episodes, statistics, tasks = (_whole_lines(folder / "meta" / name) for name in LISTS)
    kept = []
    for row in episodes:
        if row.get("episode_index") != len(kept) or not _whole(folder, row, videos):
            break
        kept.append(row)
    _nothing_follows(folder, len(kept))
    for name, rows in zip(LISTS, (kept, statistics[: len(kept)], tasks), strict=True):
        _rewrite(folder / "meta" / name, rows)
    _clear(folder, len(kept))
    return kept, {row["task"]: row["task_index"] for row in tasks}


def _whole_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines up to the first one that was cut off."""
    rows: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _whole(folder: pathlib.Path, row: dict[str, Any], videos: list[str]) -> bool:
    place = {"episode_index": row["episode_index"], "episode_chunk": row["episode_index"] // CHUNK_SIZE}
    try:
        _, rows = files.survey(folder / DATA_PATH.format(**place))
    except DatasetError:
        return False
    clips = [folder / VIDEO_PATH.format(video_key=key, **place) for key in videos]
    return rows == row["length"] and all(clip.is_file() for clip in clips)


def _nothing_follows(folder: pathlib.Path, last: int) -> None:
    """DatasetError where there are files of episodes after episode `last`, which is not whole."""
    paths = [*folder.glob("data/*/*"), *folder.glob("videos/*/*/*")]
    numbers = {_number(path) for path in paths if not path.name.endswith(".part")}
    if later := sorted(number for number in numbers if number is not None and number > last):
        raise DatasetError(
            f"{folder}: episode {last} is damaged, or its line in meta/episodes.jsonl is, but episodes up to "
            f"{later[-1]} follow: bring it back, or move the folder away and record anew; nothing was changed"
        )


def _number(path: pathlib.Path) -> int | None:
    number = path.name.removeprefix("episode_").partition(".")[0]
    return int(number) if number.isdigit() else None


def _rewrite(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text:
        part = path.with_name(path.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)


def _clear(folder: pathlib.Path, episodes: int) -> None:
    """Remove parts, and files of episodes that do not count."""
    for path in [*folder.glob("data/*/*"), *folder.glob("videos/*/*/*"), *folder.glob("meta/*.part")]:
        number = _number(path)
        if path.name.endswith(".part") or (number is not None and number >= episodes):
            path.unlink()
