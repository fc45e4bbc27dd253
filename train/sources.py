"""What a run trains on: the splits of a store, and the student that fits them."""

import dataclasses
import pathlib
from typing import Any

from bridge import compaction, manifest, store
from student_jax import config as student_config
from student_jax import presets, sizes
from train import arc_tasks, config, data, loop, puzzles, recipes, record, robot_data, seed_tokens, stages, warm, words

ROUND = 8
"""Text tokens: a longer text is given room for the next multiple of these."""
SAME = ("embodiment_digest", "draws", "steps", "dtype")
"""What two stores must agree on to be trained on together."""


@dataclasses.dataclass(frozen=True)
class Material:
    """The sources of a run, the student's sizes, and (robot) its tokenizer."""

    sources: loop.Sources
    settings: student_config.StudentConfig
    words: words.Words | None


def open_material(
    reader: store.Reader | puzzles.Generated, stage: stages.Stage, options: config.Config, known: words.Words | None
) -> Material:
    """Both splits of the store. known: the tokenizer to keep using; None trains one on the training instructions."""
    preset = recipes.PRESETS[options.preset].student
    check(options.preset, preset, reader, stage, options)
    if reader.manifest.task == puzzles.URL:
        splits = (puzzles.Episodes(split, reader.most) for split in puzzles.LENGTH)
        return Material(loop.Sources(*splits), puzzles.student(preset, reader.most), None)
    room = options.launch.cache_gib * 2**30
    if options.instead.baseline:
        splits = (seed_tokens.Tokens(reader, split, cache_bytes=room) for split in ("train", "validation"))
        return Material(loop.Sources(*splits), presets.seed(preset, target(reader.manifest.teacher)), None)
    if reader.manifest.task == "arc" and stage is stages.ARC_GRID:
        settings = presets.make(preset, target(reader.manifest.teacher))
        return Material(loop.Sources(*map(arc_tasks.Tasks, arc_tasks.TURNS)), settings, None)
    if reader.manifest.task != "robot":
        settings = presets.make(preset, target(reader.manifest.teacher))
        pixels = arc_tasks.PIXELS if settings.vision.crop else data.PIXELS
        splits = (
            data.Frames(reader, split, features=stage.features, cache_bytes=room, pixels=pixels)
            for split in ("train", "validation")
        )
        return Material(loop.Sources(*splits), settings, None)
    settings = presets.make(
        preset, target(reader.manifest.teacher), task="robot", robot=body(reader.manifest, options.loss)
    )
    if stage.orchestrates or warm.orchestrated(options.init):
        settings = presets.orchestrated(settings, preset)
    settings, lexicon = speech(settings, reader, options, known)
    text = lexicon.encode(robot_data.instructions(reader), settings.language.length)
    features = stage.features + (("pixels",) if settings.vision.objects else ())
    train, validation = (
        robot_data.Observations(reader, split, features=features, text=text, cache_bytes=room)
        for split in ("train", "validation")
    )
    if options.also:
        visited = [open_visited(url, reader, features, lexicon, settings, room) for url in options.also]
        return Material(loop.Sources(robot_data.Joined([train, *visited]), validation), settings, lexicon)
    return Material(loop.Sources(train, validation), settings, lexicon)


def check(
    name: str, preset: str, reader: store.Reader | puzzles.Generated, stage: stages.Stage, options: config.Config
) -> None:
    """ConfigError where the preset has no student of this kind, naming those that do."""
    kind, known = "", ()
    if reader.manifest.task == puzzles.URL:
        kind, known = "small puzzles", tuple(presets.PUZZLES)
    elif options.instead.baseline:
        kind, known = "the original student", tuple(presets.SEEDS)
    elif stage is stages.ARC_GRID:
        kind, known = "ARC's grids", presets.SOLVERS
    elif reader.manifest.task == "robot":
        kind, known = "a robot", tuple(each for each in presets.PRESETS if each not in presets.SOLVERS)
    if kind and preset not in known:
        raise config.ConfigError(f"--preset {name} has no student of {kind}; there is {', '.join(known)}")


def speech(
    settings: student_config.StudentConfig, reader: store.Reader, options: config.Config, known: words.Words | None
) -> tuple[student_config.StudentConfig, words.Words]:
    """The student with room for the store's longest instruction, and its tokenizer; both as in --init where it has one.

    A few instructions repeat little: where the usual tokenizer leaves them too long, one keeps whatever they say.
    """
    language, said = settings.language, robot_data.instructions(reader)
    lexicon = known or robot_data.vocabulary(reader, language.vocabulary)
    if not known and lexicon.longest(said) > language.length:
        lexicon = robot_data.vocabulary(reader, language.vocabulary, least=1)
    length = max(language.length, -(-lexicon.longest(said) // ROUND) * ROUND)
    if known and options.init:
        length = record.read(pathlib.Path(options.init)).student.language.length
    return dataclasses.replace(settings, language=dataclasses.replace(language, length=length)), lexicon


def open_visited(
    url: str,
    base: store.Reader,
    features: tuple[str, ...],
    lexicon: words.Words,
    settings: student_config.StudentConfig,
    room: float,
) -> robot_data.Observations:
    """A store of states that a student visited; ConfigError where another teacher or embodiment made it."""
    reader = store.open(url)
    for name, mine, theirs in (
        ("teacher", base.manifest.teacher.digest, reader.manifest.teacher.digest),
        *((key, base.manifest.extraction.get(key), reader.manifest.extraction.get(key)) for key in SAME),
    ):
        if mine != theirs:
            raise config.ConfigError(f"--also {url}: its {name} is {theirs}, --store has {mine}: extract both alike")
    if not compaction.same(base.manifest, reader.manifest):
        raise config.ConfigError(
            f"--also {url}: its features are not coded as those of --store: convert it with "
            f"python -m bridge.compact {url} --like {base.files.url} --out ANOTHER, or train on the exact stores"
        )
    text = lexicon.encode(robot_data.instructions(reader), settings.language.length)
    return robot_data.Observations(reader, "train", features=features, text=text, cache_bytes=room, shown=False)


def target(teacher: manifest.Teacher) -> student_config.Target:
    """What the student imitates, from the store's manifest."""
    names = [field.name for field in dataclasses.fields(student_config.Target)]
    return student_config.Target(**{name: getattr(teacher, name) for name in names})


def body(source: manifest.Manifest, weights: config.LossWeights) -> student_config.Robot:
    """Sizes of the robot, from what the store holds of it."""
    kinds: dict[str, Any] = source.features
    horizon, width = kinds["demonstration"].shape
    objects = kinds["pixels"].shape[1] if weights.objects and "pixels" in kinds else 0
    actions = sizes.ActionSpace(horizon=horizon, width=width, state=kinds["state"].shape[0])
    views = source.axes["frame"].counts[0]
    return student_config.Robot(actions, frames=views, objects=objects)
