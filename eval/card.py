"""The model card of an artifact, from its meta.json."""

from typing import Any

TERMS = {
    "real": "NVIDIA publishes GR00T N1.5 under a licence for non-commercial use, and this student was distilled from "
    "it: use it likewise, and check the licence of the checkpoint before anything else.",
    "stand-in": "The teacher is a stand-in of GR00T's shape, trained by this project and not by NVIDIA (Apache-2.0): "
    "what the student can do says nothing about the real GR00T.",
    "random": "The teacher's weights are random: this student shows that everything runs, and nothing else.",
    "none": "There was no teacher.",
}
LIMITS = (
    "It knows the embodiment, views, tasks and wordings that it was trained on; anything else is untested.",
    "It answers from one observation and remembers nothing between calls.",
    "A confidence is a prediction, not a guarantee: keep the robot's own limits on workspace, speed and force.",
    "It never refuses an instruction: one that it has not learned gives actions too.",
)


def text(meta: dict[str, Any], size: int) -> str:
    """Markdown. size: bytes of the weights."""
    parts = [_head(meta), _origin(meta), _sizes(meta, size), _inputs(meta), _outputs(meta), _run(meta), _table(meta)]
    limits = "\n".join(("## Known limits", "", *(f"- {limit}" for limit in LIMITS)))
    return "\n\n".join([*parts, *_measured(meta), limits]) + "\n"


def terms(teacher: dict[str, Any]) -> str:
    """What a teacher's origin means for the student, in words."""
    return TERMS.get(teacher["provenance"], f"Check the teacher's licence: {teacher['licence']}.")


def _head(meta: dict[str, Any]) -> str:
    what = "acts on" if meta["actions"] else "sees"
    return (
        f"# SAGE `{meta['preset']}` for `{meta['embodiment']}`, {meta['dtype']}\n\n"
        f"A small student that {what} pixels, distilled from `{meta['teacher']['id']}` by sage-distill and exported as "
        f"StableHLO for {', '.join(meta['platforms'])}. Modules: {', '.join(meta['modules'])}."
    )


def _origin(meta: dict[str, Any]) -> str:
    teacher, run = meta["teacher"], meta["run"]
    averaged = "averaged (EMA)" if meta["averaged"] else "not averaged"
    facts = ", ".join(f"{name} {value}" for name, value in run.items())
    return (
        "## Teacher and licence\n\n"
        f"- Teacher: `{teacher['id']}`, {teacher['provenance']}, licence {teacher['licence']}, weights "
        f"`{teacher['digest'][:16]}`\n"
        f"- {terms(teacher)}\n"
        f"- Training run: {facts}; weights {averaged}, digest `{meta['digest'][:16]}`"
    )


def _sizes(meta: dict[str, Any], size: int) -> str:
    return f"## Size\n\n{meta['parameters']:,} values, {size / 1e6:.1f} MB of weights in {meta['dtype']}."


def _inputs(meta: dict[str, Any]) -> str:
    rows = [("`video`", "uint8", f"[b, {', '.join(map(str, meta['video']))}]", f"RGB; {', '.join(meta['views'])}")]
    if meta["state"]:
        parts = ", ".join(f"{name} [{width}]" for name, width in meta["state"].items())
        rows.append(("`state`", "float32", f"[b, 1, {sum(meta['state'].values())}]", f"physical units; {parts}"))
    if meta["tokenizer"]:
        rows.append(("`instruction`", "text", "b strings", f"{meta['language_length']} tokens at most"))
    rows.append(("`atp`", "float32", "number or [b]", "compute budget, 1 ATP = 10 MFLOP; default all steps"))
    rows.append(("`trust`", "float32", f"[{len(meta['modules'])}] or [b, ...]", f"0..1; {', '.join(meta['modules'])}"))
    return _grid("Inputs", ("name", "type", "shape", "meaning"), rows)


def _outputs(meta: dict[str, Any]) -> str:
    rows = [
        (f"`actions['{name}']`", "float32", f"[b, {meta['horizon']}, {width}]", "physical units")
        for name, width in meta["actions"].items()
    ]
    rows += [
        ("`confidence`", "float32", "[b]", "0..1"),
        ("`energy[module]`", "float32", "[b]", "predicted error, 0..1"),
        ("`steps[module]`, `reason[module]`", "int32", "[b]", "refinement steps taken, and why it stopped"),
        ("`atp`", "float32", "[b]", "spent, never above the budget"),
    ]
    if meta.get("features", True):
        rows.append(("`features[name]`", "float32", "[b, ...]", "what it says of the teacher's features"))
    return _grid("Outputs", ("name", "type", "shape", "meaning"), rows)


def _run(meta: dict[str, Any]) -> str:
    state = f"np.zeros((1, 1, {sum(meta['state'].values())}), np.float32)" if meta["state"] else "None"
    said = '["..."]' if meta["tokenizer"] else "None"
    video = f"np.zeros((1, {', '.join(map(str, meta['video']))}), np.uint8)"
    return (
        "## Run\n\n`pip install numpy jax flatbuffers safetensors tokenizers`, `policy.py` and `runtimes.py` of "
        "sage-distill's `eval/` beside each other, then\n\n```python\n"
        "import types, numpy as np\n"
        "import policy\n"
        'student = policy.load("this/folder")\n'
        f"seen = types.SimpleNamespace(video={video}, state={state}, instruction={said})\n"
        f"print(student.act(seen).{'actions' if meta['actions'] else 'confidence'})\n```\n\n"
        "The first answer compiles the program. With the environment variable `JAX_COMPILATION_CACHE_DIR` set to a "
        "folder that is done once per machine, and later processes start sooner and need less memory."
    )


def _table(meta: dict[str, Any]) -> str:
    atp, measured = meta["atp"], meta.get("measured") or {}
    rows = []
    for name in meta["modules"]:
        row = (name, f"{atp['base'][name]:.3g}", f"{atp['step'][name]:.4g}", str(atp["max_steps"][name]))
        rows.append((*row, f"{measured['ms_per_step'][name]:.2f}") if measured else row)
    columns = ("module", "base ATP", "ATP per step", "steps at most", *(["ms per step"] if measured else []))
    return _grid("Compute", columns, rows) + f"\n\nAll steps: {atp['full']:.4g} ATP; the base is always paid."


def _measured(meta: dict[str, Any]) -> list[str]:
    """Numbers that were measured, and no section where none were."""
    found, parity = meta.get("measured"), meta.get("parity")
    parts = []
    if found:
        parts.append(f"On {found['device']}, one observation: {found['ms_base']:.2f} ms without any step.")
    if parity:
        parts.append(
            f"Against the student computed in {parity['against']}, on {parity['decisions']} random observations at "
            f"several budgets ({parity['agreed']:.0%} took the same steps):"
        )
        rows = [
            (name, _number(one["max_abs"], ".2g"), _number(one["cosine"], ".6f"))
            for name, one in parity["outputs"].items()
        ]
        parts.append(_table_of(("output", "max difference", "cosine"), rows))
    return ["\n\n".join(["## Measured", *parts])] if parts else []


def _number(value: float | None, form: str) -> str:
    return "not finite" if value is None else format(value, form)


def _grid(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return f"## {title}\n\n{_table_of(columns, rows)}"


def _table_of(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ("---",) * len(columns), *rows))
