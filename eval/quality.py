"""The vision suite: scores runs and baselines on one split, and makes rows, pictures and raw outcomes of them."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from eval import fidelity, page, pictures, report, scoring, statistics
from eval.frames import Frames
from eval.runs import Run


@dataclasses.dataclass(frozen=True)
class Splits:
    """What is read: the split that is reported, and those that baselines are fitted and chosen on."""

    reported: Frames
    train: Frames
    validation: Frames


@dataclasses.dataclass(frozen=True)
class Quality:
    """All scores of one benchmark."""

    runs: Sequence[Run]
    splits: Splits
    runners: Sequence[scoring.Runner]
    ground: scoring.Ground
    students: Sequence[fidelity.Student]
    baselines: dict[str, list[fidelity.Scores]]

    def rows(self, context: report.Context, *, draws: int, seed: int) -> list[report.Row]:
        """Every row of the suite."""
        weights = statistics.resamples(len(self.splits.reported.tasks), draws, np.random.default_rng(seed))
        book = fidelity.Book(self.ground.everywhere, self.ground.inside, weights, self.splits.reported.split, context)
        rows = book.quality("student", [student.output for student in self.students])
        rows += book.energies(self.students)
        rows += [book.margin(self.students, self.baselines), *book.steps(self.students)]
        for name, scores in self.baselines.items():
            rows += book.quality(name, scores)
        missing = "this student has no language module yet, so it gives no backbone features"
        name = f"vision.student.backbone_features_r2_mean.{book.split}"
        return [*rows, report.Row(name, None, "R²", context, note=missing)]

    def pages(self, rows: Sequence[report.Row]) -> list[page.Picture]:
        """Token maps, energy, steps and channels of the first run."""
        frames, student = self.splits.reported, self.students[0]
        ones = np.ones((1, len(frames.tasks)))
        steps = sorted((row for row in rows if ".error_step_" in row.id), key=lambda row: row.id)
        levels = np.array([(row.value, row.ci_low, row.ci_high) for row in steps]).T
        subjects = {"student": student.output} | {name: scores[0] for name, scores in self.baselines.items()}
        r2 = {name: scores.r2(self.ground.everywhere)(ones)[0] for name, scores in subjects.items()}
        return [
            page.Picture(
                "Token maps of teacher and student",
                "Both in the same colours: the three main directions of the teacher's tokens over these frames as red, "
                f"green and blue. The frames are not chosen by hand: {pictures.SHOWN} of the {frames.split} frames "
                "have a smaller error. Error: squared error of a token over the teacher's mean variance. Attention: "
                "one scale for both.",
                pictures.token_maps(self._examples(), frames.layout),
            ),
            page.Picture(
                "Energy against true error",
                "One dot is one frame after halting. Both axes are e / (e + median validation e); on the dashed line "
                "the student knows its own error.",
                pictures.energy(student.energy, student.true_energy()),
            ),
            page.Picture(
                "Error after each refinement step",
                "Mean error e (squared error over the teacher's variance), 95 % interval over tasks; no halting.",
                pictures.steps(*levels),
            ),
            page.Picture(
                "R² of every channel",
                "Channels of the teacher's own basis, each curve from worst to best. Dashed: the bar of the mean.",
                pictures.channels(r2, fidelity.BARS["r2_mean"]),
            ),
        ]

    def _examples(self) -> list[pictures.Example]:
        frames, error = self.splits.reported, self.students[0].output.frames().error
        positions = pictures.spread(error)
        batch = frames.read(positions)
        answer = self.runners[0].answer(batch.image)
        examples = []
        for i, position in enumerate(positions):
            source = frames.describe(int(position))
            title = f"{source['task']} {source['kind']} {source['pair']}\ne = {error[position]:.3f}"
            maps = (batch.tokens[i], answer.tokens[i], batch.attention[i].reshape(-1), answer.attention[i])
            examples.append(pictures.Example(title, batch.image[i], *maps))
        return examples

    def write_raw(self, folder: pathlib.Path) -> None:
        """`frames.jsonl`: one line per run and frame. `channels.npz`: per-task sums from which every R² follows."""
        folder.mkdir(parents=True, exist_ok=True)
        sources = [self.splits.reported.describe(i) for i in range(len(self.splits.reported))]
        with (folder / "frames.jsonl").open("w") as file:
            for run, student in zip(self.runs, self.students, strict=True):
                for source, line in zip(sources, _lines(student), strict=True):
                    file.write(json.dumps({"run": str(run.folder), **source, **line}, allow_nan=False) + "\n")
        sums = {"tasks": self.splits.reported.tasks, **vars(self.ground.everywhere)}
        sums |= {f"{name}_inside": value for name, value in vars(self.ground.inside).items()}
        scored = {f"student_seed_{run.seed}": s.output for run, s in zip(self.runs, self.students, strict=True)}
        scored |= {f"{name}_{i}": s for name, scores in self.baselines.items() for i, s in enumerate(scores)}
        for name, scores in scored.items():
            sums |= {f"sse_{name}": scores.sse, f"sse_inside_{name}": scores.sse_inside}
        np.savez_compressed(folder / "channels.npz", **sums)


def measure(runs: Sequence[Run], splits: Splits, *, seed: int, tick: Callable[[str, int, int], None]) -> Quality:
    """Fit the baselines, then read the reported split once past everybody; `tick(what, done, total)` is told."""
    frames = splits.reported
    runners = [scoring.Runner(run.student, batch=frames.batch, seed=seed) for run in runs]
    fresh = [
        scoring.Runner(scoring.untrained(run.student, run.record.student, seed=run.seed), batch=frames.batch, seed=seed)
        for run in runs
    ]
    tick("baselines", 0, 1)
    predictors = {"position_mean": [scoring.position_mean(splits.train)]}
    predictors["ridge_pixels"] = [scoring.ridge(splits.train, splits.validation)]
    predictors["untrained"] = [scoring.blind(runner) for runner in fresh]
    unit = scoring.unit(runs[0].student)
    references = {name: [scoring.Reference(p, frames, unit) for p in made] for name, made in predictors.items()}
    ground, tallies = scoring.Ground(frames), [scoring.Tally(runner, frames) for runner in runners]
    takers = [*tallies, *(reference for made in references.values() for reference in made)]
    scoring.stream(frames, [ground, *takers], lambda done: tick("frames", done, len(frames)))
    scores = {name: [reference.scores for reference in made] for name, made in references.items()}
    return Quality(runs, splits, runners, ground, [tally.student() for tally in tallies], scores)


def _lines(student: fidelity.Student) -> list[dict]:
    """What is known of each frame, as plain numbers."""
    output, steps = student.output.frames(), [scores.frames().error for scores in student.steps]
    columns = {
        "error": output.error,
        "cosine": output.cosine,
        "attention_kl": output.kl,
        "energy": student.energy,
        "steps": student.taken,
        "step_error": np.stack(steps, axis=1),
        "step_energy": student.step_energy,
    }
    return [{name: values[i].tolist() for name, values in columns.items()} for i in range(len(output.error))]
