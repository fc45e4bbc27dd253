"""The robot suite: Meta-World tasks, where their object is placed, and how each is asked for in words."""

import dataclasses

SPAN = 0.2
"""Metres that the object may stand left or right of the middle. Meta-World's own spans (0 to 0.1) are so narrow that
most of these tasks can be solved without looking: a scripted expert told the mean position alone does."""
SPLITS = {"train": (0, 1_000_000), "validation": (1_000_000, 2_000_000), "test": (2_000_000, 3_000_000)}
"""Seeds [first, past the last] of each split; a seed is a placement, so test goals are never trained on."""
LOOK_ALIKE = ("faucet-open", "faucet-close")
"""With equal seeds the first frames of these two are alike: only the instruction tells what to do."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One task: its Meta-World environment and its instructions. `held_out` phrasings are never trained on."""

    environment: str
    phrasings: tuple[str, ...]
    held_out: tuple[str, ...]


TASKS: dict[str, Task] = {
    "button-press-topdown": Task(
        "button-press-topdown-v3",
        (
            "press the button from above",
            "push the red button down",
            "press down on the button",
            "push the button down from above",
            "move the hand over the button and press it down",
        ),
        ("press the red button from above", "move over the button and push down"),
    ),
    "button-press": Task(
        "button-press-v3",
        (
            "press the button from the front",
            "push the red button in",
            "press the button into the wall",
            "push the button in from the front",
            "move the hand to the button and press it in",
        ),
        ("press the red button from the front", "move to the button and push it in"),
    ),
    "drawer-close": Task(
        "drawer-close-v3",
        (
            "close the drawer",
            "push the drawer shut",
            "shut the green drawer",
            "push the open drawer in until it is closed",
            "slide the drawer shut",
        ),
        ("close the green drawer", "slide the open drawer in"),
    ),
    "drawer-open": Task(
        "drawer-open-v3",
        (
            "open the drawer",
            "pull the drawer open",
            "pull the handle of the green drawer",
            "pull the closed drawer out until it is open",
            "slide the drawer open",
        ),
        ("open the green drawer", "pull the drawer out by the handle"),
    ),
    "window-open": Task(
        "window-open-v3",
        (
            "open the window",
            "slide the window open",
            "push the window to the right",
            "move the handle of the window until it is open",
            "slide the closed window to the right",
        ),
        ("open the closed window", "push the window open by the handle"),
    ),
    "window-close": Task(
        "window-close-v3",
        (
            "close the window",
            "slide the window shut",
            "push the window to the left",
            "move the handle of the window until it is closed",
            "slide the open window to the left",
        ),
        ("close the open window", "push the window shut by the handle"),
    ),
    "faucet-open": Task(
        "faucet-open-v3",
        (
            "open the faucet",
            "turn the faucet on",
            "turn the tap on",
            "rotate the handle of the faucet to open it",
            "turn the handle of the tap to the right",
        ),
        ("open the tap", "rotate the tap to turn it on"),
    ),
    "faucet-close": Task(
        "faucet-close-v3",
        (
            "close the faucet",
            "turn the faucet off",
            "turn the tap off",
            "rotate the handle of the faucet to close it",
            "turn the handle of the tap to the left",
        ),
        ("close the tap", "rotate the tap to turn it off"),
    ),
    "door-unlock": Task(
        "door-unlock-v3",
        (
            "unlock the door",
            "turn the lock of the door",
            "open the lock",
            "rotate the lock to the right until the door is unlocked",
            "unlock the safe",
        ),
        ("open the lock of the door", "turn the lock until the safe is unlocked"),
    ),
    "handle-press": Task(
        "handle-press-v3",
        (
            "press the handle down",
            "push the red handle down",
            "press down on the lever",
            "push the lever down",
            "move the hand over the handle and press it down",
        ),
        ("press the red lever down", "move over the handle and push down"),
    ),
    "coffee-button": Task(
        "coffee-button-v3",
        (
            "press the button of the coffee machine",
            "start the coffee machine",
            "turn the coffee machine on",
            "make a cup of coffee",
            "push the button on the coffee machine",
        ),
        ("push the button to make coffee", "start a cup of coffee"),
    ),
}


DEMONSTRATED = 500_000
"""Placements of the training split from this one on are for a student's own visits; demonstrations use those before."""


def split_seeds(split: str, count: int, *, first: int = 0) -> range:
    """`count` seeds of a split, from its `first`-th on."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    start, end = SPLITS[split]
    if not 0 <= first <= first + count <= end - start:
        raise ValueError(f"split {split!r} has seeds 0..{end - start} of its own, asked for {first}..{first + count}")
    return range(start + first, start + first + count)


def find(name: str) -> Task:
    """A task by name; an unknown one is an error that lists those there are."""
    if name not in TASKS:
        raise ValueError(f"no task {name!r}; there are {', '.join(TASKS)}")
    return TASKS[name]


def asked_for(text: str) -> str | None:
    """The task that a phrasing asks for; None where no task has it."""
    return next((name for name, task in TASKS.items() if text in (*task.phrasings, *task.held_out)), None)


def instruction(name: str, seed: int, *, held_out: bool = False) -> str:
    """The phrasing that an episode of this seed is asked with."""
    task = find(name)
    phrasings = task.held_out if held_out else task.phrasings
    return phrasings[(seed * 2654435761 >> 7) % len(phrasings)]
