"""Pictures of the sage suite: quality against compute, trust under a covered camera, risk against coverage."""

import numpy as np
from matplotlib.figure import Figure

from bridge import conditions
from eval import failure, page, pictures, sage_book


def pictures_of(book: sage_book.Book) -> list[page.Picture]:
    """Those for which there is something to draw."""
    made = [dial(book), reaction(book), risk(book)]
    return [one for one in made if one is not None]


def dial(book: sage_book.Book) -> page.Picture:
    """Action error against the ATP that was spent, with the plan and at fixed depths."""
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axis = figure.subplots()
    lanes = {"as planned within a budget": "budgets", "fixed depth": "depths"}
    for label, name in lanes.items():
        parts = [getattr(one.spent, name) for one in book.offline]
        found = [[(part[key].atp.mean(), part[key].error.mean()) for key in part] for part in parts]
        x, y = np.mean(found, axis=0).T
        axis.plot(x, y, "o-" if name == "budgets" else "s--", label=label)
    axis.set(xlabel="ATP of refinement (1 ATP = 10 MFLOP)", ylabel="action error")
    axis.legend(fontsize=8)
    caption = "Mean squared distance to the teacher's actions at the same x_0, mean over the students."
    return page.Picture("Quality against compute", caption, pictures.png(figure))


def reaction(book: sage_book.Book) -> page.Picture | None:
    """Trust in each module, decision by decision, while the first camera is covered."""
    notes = book.notes("sage", conditions.COVERED)
    if not notes:
        return None
    length = max(len(one.trust) for one in notes)
    padded = np.full((len(notes), length, notes[0].trust.shape[1]), np.nan)
    for row, one in zip(padded, notes, strict=True):
        row[: len(one.trust)] = one.trust
    shown = min(length, 30)
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    for index, name in enumerate(("vision", "language", "control")):
        low, middle, high = np.nanquantile(padded[:, :shown, index], [0.25, 0.5, 0.75], axis=0)
        (line,) = axis.plot(middle, label=name)
        axis.fill_between(np.arange(shown), low, high, alpha=0.2, color=line.get_color())
    first, last = conditions.cameras(conditions.COVERED).covered
    axis.axvspan(first, last, color="grey", alpha=0.2)
    axis.set(xlabel="decision", ylabel="trust", ylim=(0, 1.02))
    axis.legend(fontsize=8)
    caption = (
        f"Grey: the first camera is black. Median and quartiles over {len(notes)} episodes that are still running."
    )
    return page.Picture("Trust under a covered camera", caption, pictures.png(figure))


def risk(book: sage_book.Book) -> page.Picture | None:
    """Failure rate among the surest episodes, by how many are attempted."""
    known, asked = book.notes("sage", split="validation"), book.notes("sage")
    if not known or not asked or all(one.success for one in known):
        return None
    score, good = failure.fit(known)(asked), np.array([one.success for one in asked])
    order = np.argsort(-score, kind="stable")
    rate = np.cumsum(~good[order]) / np.arange(1, len(order) + 1)
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.plot(np.arange(1, len(order) + 1) / len(order), rate, label="surest first")
    axis.axhline((~good).mean(), color="grey", linestyle="--", linewidth=1, label="all")
    axis.set(xlabel="share of episodes attempted", ylabel="failure rate", ylim=(0, None))
    axis.legend(fontsize=8)
    caption = f"What {', '.join(failure.SIGNALS)} of the first {failure.FIRST} decisions say; fitted on validation."
    return page.Picture("Risk against coverage", caption, pictures.png(figure))
