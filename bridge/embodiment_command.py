"""Write GR00T's metadata.json, with our transform entry, for a robot dataset (statistics over its training rows)."""

import argparse
import dataclasses
import pathlib
import sys

import rich.box
import rich.console
import rich.table

from bridge import embodiment as embodiments
from bridge import episodes, normalisation, rotation
from bridge.embodiment import Embodiment, EmbodimentError
from bridge.lerobot_files import DatasetError
from bridge.transform import STYLES


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code: 0, or 2 for a dataset or an option that cannot be used."""
    options = _parser().parse_args(arguments)
    console = rich.console.Console(width=None if sys.stdout.isatty() else 120, soft_wrap=True)
    try:
        body = _build(options)
        path = options.out or options.dataset / "meta/metadata.json"
        embodiments.save(path, body)
    except (DatasetError, EmbodimentError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console.print(_table(body))
    console.print(f"{body.tag}: {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bridge.embodiment", description=__doc__)
    add = parser.add_argument
    add("dataset", type=pathlib.Path, help="folder of a LeRobot dataset (the one that has meta/ in it)")
    add("--tag", help="name of the embodiment (default: the dataset's robot_type, else new_embodiment)")
    add(
        "--video-keys",
        nargs="+",
        metavar="KEY",
        help="cameras, in the order they are shown in (default: all)",
    )
    add("--crop", type=_or_none(float), default=0.95, help="share of each side that is kept, or none (default 0.95)")
    add("--resize", type=_or_none(int), default=224, help="side in pixels after the crop, or none (default 224)")
    add("--max-tiles", type=int, default=12, help="most tiles per image; 1 after a resize to the tile (default 12)")
    add("--horizon", type=int, default=16, help="actions per chunk (default 16)")
    modes = ", ".join(normalisation.MODES)
    add(
        "--normalisation",
        nargs="+",
        default=[],
        metavar="KEY=MODE",
        help=f"such as action.gripper=binary; modes: {modes} (default: min_max for every key)",
    )
    add(
        "--rotations",
        nargs="+",
        default=[],
        metavar="KEY=TYPE",
        help="such as state.eef_quat=rotation_6d: convert from the key's rotation_type in meta/modality.json; types: "
        f"{rotation.names()}, or none. Absolute ones are normalised by fixed bounds, relative ones are not (default: "
        "what the tag's official configuration converts)",
    )
    add("--projector-id", type=int, help="row of the head's per-embodiment tables, 0..31 (default: the tag's, else 31)")
    add("--style", choices=STYLES, default="bracketed", help="how the instruction is rendered (default bracketed)")
    add("--out", type=pathlib.Path, help="file to write, other tags are kept (default DATASET/meta/metadata.json)")
    return parser


def _or_none(kind: type):
    def parse(text: str):
        return None if text.lower() == "none" else kind(text)

    parse.__name__ = f"{kind.__name__} or none"
    return parse


def _build(options: argparse.Namespace) -> Embodiment:
    dataset = episodes.open(options.dataset)
    body = dataset.measure(options.tag)
    modes, rotations = _modes_and_rotations(options, body)
    keys = tuple(options.video_keys or body.transform.video_keys)
    if unknown := sorted(set(keys) - set(dataset.modality.video)):
        raise EmbodimentError(f"--video-keys {' '.join(unknown)}: the cameras are {', '.join(dataset.modality.video)}")
    projector = body.transform.projector_id if options.projector_id is None else options.projector_id
    transform = dataclasses.replace(
        body.transform,
        video_keys=keys,
        crop=options.crop,
        resize=options.resize,
        max_tiles=options.max_tiles,
        normalisation=modes,
        rotations=rotations,
        projector_id=projector,
        horizon=options.horizon,
        instruction_style=options.style,
    )
    return dataclasses.replace(body, transform=transform)


def _modes_and_rotations(options: argparse.Namespace, body: Embodiment) -> tuple[dict[str, str], dict[str, str]]:
    known = list(body.transform.normalisation)
    modes = _settings("--normalisation", options.normalisation, known)
    rotations = _settings("--rotations", options.rotations, known)
    for key, target in rotations.items():
        group, name = key.split(".", 1)
        if target != "none" and not body.modalities[group][name]["absolute"]:
            modes.setdefault(key, "none")
    kept = {key: target for key, target in {**body.transform.rotations, **rotations}.items() if target != "none"}
    return {**body.transform.normalisation, **modes}, kept


def _settings(option: str, given: list[str], known: list[str]) -> dict[str, str]:
    """{key: value} of KEY=VALUE texts."""
    found = {}
    for setting in given:
        key, _, value = setting.partition("=")
        if key not in known:
            raise EmbodimentError(f"{option} {setting}: the keys are {', '.join(known)}, given as KEY=VALUE")
        found[key] = value
    return found


def _table(body: Embodiment) -> rich.table.Table:
    table = rich.table.Table("key", "mode", "min", "max", "mean", "std", "q01", "q99", box=rich.box.SIMPLE)
    for group in embodiments.GROUPS:
        for key, values in body.statistics[group].items():
            turn = body.scaling(group, key).turn
            mode = f"{turn[1]}, {body.mode(group, key)}" if turn else body.mode(group, key)
            for i in range(len(values["mean"])):
                numbers = [f"{values[name][i]:.4g}" for name in ("min", "max", "mean", "std", "q01", "q99")]
                table.add_row(f"{group}.{key}[{i}]", mode, *numbers)
    return table
