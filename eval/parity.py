"""How far an artifact is from the student that it was exported from, on random observations at several budgets."""

import dataclasses
import json
import math
import types
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from eval import export, policy, report, variants
from eval.artifact import Kit
from student_jax.student import Student

SHARES = (0.0, 0.4, 1.0)
"""Budgets, as shares of what all steps cost."""
BARS = {"float32": ("max_abs", 1e-5, "lower"), "bfloat16": ("cosine", 0.9999, "higher")}


@dataclasses.dataclass(frozen=True)
class Difference:
    """Between two arrays that should be alike."""

    max_abs: float
    cosine: float
    """Of all values at once; 1 where both are zero."""
    largest: float
    """Magnitude of the student's own values: what `max_abs` is to be seen against."""


@dataclasses.dataclass(frozen=True)
class Parity:
    """Of one artifact."""

    dtype: str
    against: str
    """Type in which the student was computed."""
    outputs: dict[str, Difference]
    """By dotted name, over the decisions in which both took the same steps, and those with values that are not
    finite."""
    agreed: float
    """Share of decisions in which they did."""
    decisions: int

    def record(self) -> dict[str, Any]:
        """For meta.json, where a number that is none is null."""
        found = dataclasses.asdict(self)
        for one in found["outputs"].values():
            one.update({name: None for name, value in one.items() if not math.isfinite(value)})
        return found

    def worst(self) -> Difference:
        """The largest difference and the least cosine of all outputs; NaN where one of them is."""
        found = self.outputs.values()
        return Difference(
            float(np.max([one.max_abs for one in found])),
            float(np.min([one.cosine for one in found])),
            float(np.max([one.largest for one in found])),
        )

    def fault(self) -> str:
        """What is wrong with the artifact, in words: values not finite, or beyond its type's bar; or nothing."""
        for name, one in self.outputs.items():
            if not all(map(math.isfinite, dataclasses.astuple(one))):
                return f"{name} has NaN or infinite values"
        metric, bar, better = BARS.get(self.dtype, ("", 0.0, ""))
        value = getattr(self.worst(), metric) if metric else bar
        if value <= bar if better == "lower" else value >= bar:
            return ""
        sign = "<=" if better == "lower" else ">="
        return f"{metric} of the worst output is {value:.6g}, but {self.dtype} is held to {sign} {bar:g}"

    def rows(self, context: report.Context, target: str = "") -> list[report.Row]:
        """`export.<target>.<metric>`: the worst of all outputs against its type's bar, then every output. target:
        default the type."""
        target = target or self.dtype
        named = {"worst": self.worst(), **self.outputs}
        rows = [row for name, one in named.items() for row in self._rows(target, name, one, context)]
        note = "decisions in which it took as many steps as the student, for the same reason"
        agreed = report.Row(f"export.{target}.agreed", self.agreed, "share", context, n=self.decisions, note=note)
        return [*rows, agreed]

    def _rows(self, target: str, name: str, one: Difference, context: report.Context) -> list[report.Row]:
        metric, bar, _ = BARS.get(self.dtype, ("", 0.0, ""))
        note = f"against the student computed in {self.against}; its values reach {one.largest:.3g}"
        rows = []
        for kind, value, better in (("max_abs", one.max_abs, "lower"), ("cosine", one.cosine, "higher")):
            bars = {"bar": bar} if name == "worst" and kind == metric else {}
            row_id = f"export.{target}.{report.slug(name)}_{kind}"
            told, why = (value, note) if math.isfinite(value) else (None, f"NaN or infinite; {note}")
            rows.append(report.Row(row_id, told, "", context, n=self.decisions, better=better, note=why, **bars))
        return rows


def compare(
    student: Student,
    kit: Kit,
    loaded: policy.Policy,
    *,
    batch: int = 4,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
) -> Parity:
    """The artifact against the student, as it was trained (not folded, no kernel rounded) but for the type of its large
    products, which is the artifact's (bfloat16 for int8)."""
    dtype = loaded.meta["dtype"]
    against = "float32" if dtype == "float32" else "bfloat16"
    weights, call = export.split(variants.computed(student, against), kit.body, features=kit.features)
    model = jax.jit(call)
    pairs = []
    for given in asked(loaded, kit, batch=batch, shares=shares, seed=seed):
        pairs.append((flat(jax.device_get(model(weights, given))), flat(loaded.run(given))))
    return _judged(dtype, against, pairs)


def asked(
    loaded: policy.Policy, kit: Kit, *, batch: int, shares: Sequence[float], seed: int
) -> list[dict[str, np.ndarray]]:
    """Inputs of a call per budget: seeded noise, states of the range trained on, words of the tokenizer."""
    rng, found = np.random.default_rng(seed), []
    for share in shares:
        seen = types.SimpleNamespace(
            video=rng.integers(0, 256, (batch, *kit.video), dtype=np.uint8),
            state=_states(kit, batch, rng),
            instruction=_texts(kit, batch, rng, loaded.meta["language_length"]),
        )
        trust = rng.uniform(0.2, 1.0, (batch, len(loaded.meta["modules"])))
        found.append(loaded.given(seen, atp=share * loaded.meta["atp"]["full"], trust=trust, seed=seed))
    return found


def _states(kit: Kit, batch: int, rng: np.random.Generator) -> np.ndarray | None:
    if kit.body is None:
        return None
    limits = kit.body.statistics["state"].values()
    low, high = (np.concatenate([values[name] for values in limits]) for name in ("min", "max"))
    return rng.uniform(low, high, (batch, 1, len(low))).astype(np.float32)


def _texts(kit: Kit, batch: int, rng: np.random.Generator, length: int) -> list[str] | None:
    if kit.tokenizer is None:
        return None
    pieces = sorted(piece for piece in json.loads(kit.tokenizer)["model"]["vocab"] if piece[1:].isalpha())
    few = max(1, length // 16)
    return [" ".join(piece.lstrip("Ġ") for piece in rng.choice(pieces, few)) for _ in range(batch)]


def flat(outputs: dict[str, Any]) -> dict[str, np.ndarray]:
    """Outputs by dotted name."""
    leaves, _ = jax.tree.flatten_with_path(outputs)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}


def _judged(dtype: str, against: str, pairs: list[tuple[dict, dict]]) -> Parity:
    whole = [{name: np.concatenate([pair[side][name] for pair in pairs]) for name in pairs[0][0]} for side in (0, 1)]
    counted = [name for name in whole[0] if name.startswith(("steps.", "reason."))]
    same = np.all([whole[0][name] == whole[1][name] for name in counted], axis=0)
    told = [name for name in whole[0] if name not in counted]
    finite = [np.isfinite(np.asarray(side[name], np.float64)).reshape(len(same), -1) for side in whole for name in told]
    alike = same | ~np.all(np.concatenate(finite, axis=1), axis=1) if same.any() else np.ones_like(same)
    outputs = {name: difference(whole[0][name][alike], whole[1][name][alike]) for name in told}
    return Parity(dtype, against, outputs, float(same.mean()), len(same))


def difference(wanted: np.ndarray, got: np.ndarray) -> Difference:
    """Of two arrays of one shape."""
    one, other = (np.asarray(array, np.float64).reshape(-1) for array in (wanted, got))
    norms = np.linalg.norm(one) * np.linalg.norm(other)
    cosine = float(one @ other / norms) if norms > 0 else float(np.array_equal(one, other))
    return Difference(float(np.abs(one - other).max()), cosine, float(np.abs(one).max()))
