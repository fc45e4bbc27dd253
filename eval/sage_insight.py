"""Rows of the sage suite about insight: where the student looks, whether it knows, whom it trusts."""

import dataclasses

import numpy as np

from bridge import conditions
from eval import economy, failure, report, statistics
from eval.notebook import Noted
from eval.sage_book import Book
from eval.statistics import Estimate
from student_jax.sage import trust
from train import orchestra, orchestra_scores

BARS = {"saliency": 0.50, "auroc": 0.80, "calibration": 0.05, "cut": 0.30, "reacted": 0.95, "recovered": 0.95}
REACTION = 5
"""Decisions within which trust must have fallen."""
FALL = 0.2
"""How far trust must fall below what it was before the camera was covered."""
RECOVERY = 10
"""Decisions after the camera was uncovered at which half of what was lost must be back: counts decay by 0.9 each, and
an episode has 25."""
FAILURES = 20
"""Without so many, knowing beforehand is not judged."""


def rows(book: Book) -> list[report.Row]:
    """Every row about insight."""
    return [row for part in (saliency, confidence, reactions) for row in part(book)]


def saliency(book: Book) -> list[report.Row]:
    """Overlap with the teacher's saliency, beside those who look without looking."""
    teacher = book.offline[0].spent.teacher_saliency
    maps = [one.spent.saliency for one in book.offline]
    ours = np.mean([economy.compared(orchestra_scores.overlap, told, teacher) for told in maps], axis=0)
    frames, tokens = teacher.shape[1:]
    priors = {
        "centre": economy.compared(orchestra_scores.overlap, economy.centre(frames, tokens), teacher).mean(),
        "mean_map": economy.compared(orchestra_scores.overlap, book.offline[0].prior, teacher).mean(),
        "untrained": np.mean([one.chance for one in book.offline]),
    }
    best = max(priors.values())
    overlap, n = book.mean(ours), len(ours)
    score = Estimate(*(float((value - best) / (1 - best)) for value in (overlap.value, overlap.low, overlap.high)))
    kl = book.mean(np.mean([economy.compared(orchestra.saliency_divergence, told, teacher) for told in maps], axis=0))
    line = book.mean(np.mean([economy.correlation(told, teacher) for told in maps], axis=0))
    note = "(o - p) / (1 - p), o the overlap, p the best prior: " + max(priors, key=priors.get)
    return [
        book.row("student.saliency_score", score, "of what is left", n=n, bar=BARS["saliency"], note=note),
        book.row("student.saliency_overlap", overlap, "of the top tenth", n=n),
        *(book.plain(f"{name}.saliency_overlap", float(value), "of the top tenth") for name, value in priors.items()),
        book.row("student.saliency_kl", kl, "nats", n=n, better="lower"),
        book.row("student.saliency_correlation", line, "r", n=n),
    ]  # fmt: skip


def confidence(book: Book) -> list[report.Row]:
    """Whether an episode's first decisions tell that it will fail; the judge is fitted on validation episodes."""
    known, asked = book.notes("sage", split="validation"), book.notes("sage")
    good = np.array([one.success for one in asked])
    if not known or all(one.success for one in known) or good.all() or not good.any():
        note = "episodes of one outcome alone: nothing to tell apart"
        return [book.row("student.failure_auroc", None, "AUROC", bar=BARS["auroc"], note=note)]
    score = failure.fit(known)(asked)
    found = {
        "failure_auroc": lambda i: failure.auroc(score[i], good[i]),
        "calibration_error": lambda i: statistics.calibration_error(score[i], good[i].astype(float)),
        "failures_cut": lambda i: failure.cut(score[i], good[i]),
    }
    rng = np.random.default_rng(book.seed)
    picks = rng.integers(0, len(good), size=(min(book.draws, 400), len(good)))
    whole = np.arange(len(good))
    made = {name: Estimate(metric(whole), *statistics.interval(np.array([metric(i) for i in picks])))
            for name, metric in found.items()}  # fmt: skip
    note = f"{int((~good).sum())} failures; fitted on {len(known)} validation episodes, first {failure.FIRST} decisions"
    n, needs = len(good), book.enough
    if not needs and min((~good).sum(), sum(not one.success for one in known)) < FAILURES:
        needs = f">= {FAILURES} failures on validation and on test"
    return [
        book.row("student.failure_auroc", made["failure_auroc"], "AUROC", n=n, bar=BARS["auroc"], note=note,
                 needs=needs),
        book.row("student.calibration_error", made["calibration_error"], "probability", n=n, better="lower",
                 bar=BARS["calibration"], note="ten groups of equal size", needs=needs),
        book.row("student.failures_cut", made["failures_cut"], "of failures", n=n, bar=BARS["cut"],
                 note="where the surest 80 % alone are attempted", needs=needs),
        _dispersion(book),
    ]  # fmt: skip


def _dispersion(book: Book) -> report.Row:
    """How near the student's confidence is to its teacher's."""
    parts = [(one.spent.confidence, one.spent.teacher_confidence) for one in book.offline]
    explained = [1 - np.square(a - b).sum() / np.square(b - b.mean()).sum() for a, b in parts]
    return book.plain("student.confidence_r2", float(np.mean(explained)), "R²", n=len(book.episode),
                      note="of the teacher's confidence, how little its draws differ")  # fmt: skip


def reactions(book: Book) -> list[report.Row]:
    """A covered camera: how soon trust in vision falls, whether it comes back, and what that is worth."""
    covered = conditions.cameras(conditions.COVERED).covered
    seen = [reaction(one, covered) for one in book.notes("sage", conditions.COVERED)]
    fell = np.array([one.fell for one in seen if one is not None])
    back = np.array([one.back for one in seen if one is not None and one.back is not None])
    rows = [
        _share(book, "student.trust_fell", fell, BARS["reacted"],
                    f"trust in vision {FALL} lower within {REACTION} decisions of a covered camera"),
        _share(book, "student.trust_recovered", back, BARS["recovered"],
                    f"where it fell: at least half of it is back {RECOVERY} decisions after the camera is"),
    ]  # fmt: skip
    calm = [one.trust[:, 0].min() for one in book.notes("sage")]
    alarmed = np.array([(one.trust[:, 0] <= one.trust[0, 0] - FALL).any() for one in book.notes("sage")])
    lost = np.array([not one.views.all() for one in book.notes("sage")])
    rows += [
        book.plain("student.trust_calm", float(np.mean(calm)), "trust", n=len(calm),
                   note="the least trust in vision of an undisturbed episode, mean"),
        _share(book, "student.false_alarms", alarmed, None, f"undisturbed, trust in vision {FALL} lower at any time"),
        _share(book, "student.views_lost", lost, None, "undisturbed, a view not believed at any time"),
    ]  # fmt: skip
    return [*rows, calibration(book)]


def calibration(book: Book) -> report.Row:
    """Whether trust in vision is the rate at which what it implied came true at the next decision."""
    notes = [*book.notes("sage"), *book.notes("sage", conditions.COVERED)]
    pairs = [(np.zeros(0), np.zeros(0)), *(verdicts(one.trust[:, 0].astype(np.float64)) for one in notes)]
    told, came = (np.concatenate(part) for part in zip(*pairs, strict=True))
    note = "ten groups of equal size; undisturbed and covered episodes, decision by decision"
    if not len(told):
        return book.row("student.trust_calibration", None, "probability", note="no episode of two decisions")
    return book.plain("student.trust_calibration", statistics.calibration_error(told, came), "probability",
                      n=len(told), better="lower", note=note)  # fmt: skip


def verdicts(trust_: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(trust before, outcome 0 or 1 after), [d - 2] each, of an episode whose trust [d] followed an outcome at every
    decision but the first: the posterior is undone."""
    count, wins = 0.0, np.zeros(len(trust_))
    found = []
    for index in range(1, len(trust_)):
        count = trust.DECAY * count + (index > 1)
        wins[index] = trust_[index] * (trust.STRENGTH + count) - trust.STRENGTH * trust_[0]
        if index > 1:
            found.append(wins[index] - trust.DECAY * wins[index - 1])
    return trust_[1:-1], np.round(np.array(found)).clip(0, 1)


def _share(book: Book, name: str, values: np.ndarray, bar: float | None, note: str) -> report.Row:
    if not len(values):
        return book.row(name, None, "of episodes", bar=bar, note="no episode was long enough")
    found = Estimate(float(values.mean()), *statistics.wilson(float(values.sum()), len(values)))
    return book.row(name, found, "of episodes", n=len(values), bar=bar, note=note,
                    needs="" if bar is None else book.enough)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Reaction:
    """What trust in vision did in one covered episode."""

    fell: bool
    back: bool | None
    """None where it did not fall, or the episode ended too soon to tell."""


def reaction(one: Noted, covered: tuple[int, int]) -> Reaction | None:
    """None where the episode ended before trust could have moved. covered: from which decision to before which."""
    first, last = covered
    vision = one.trust[:, 0]
    if len(vision) <= first + REACTION:
        return None
    before = vision[first]
    fell = bool((vision[first + 1 : first + REACTION + 1] <= before - FALL).any())
    told = fell and len(vision) > last + RECOVERY
    half = (before + vision[first + 1 : last + 1].min()) / 2
    return Reaction(fell, bool(vision[last + RECOVERY] >= half) if told else None)
