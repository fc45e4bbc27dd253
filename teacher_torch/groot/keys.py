"""Names of tensors: official GR00T N1.5 state dict <-> this project's modules."""

from collections.abc import Iterable

# official prefix -> ours. Flat and nested vision keys are told apart by `_nest`.
PREFIXES = {
    "backbone.eagle_model.vision_model.vision_model.": "tower.",
    "backbone.eagle_model.mlp1.0.": "connector.",
    "backbone.eagle_model.language_model.model.": "language.",
    "action_head.": "head.",
}
VISION = "backbone.eagle_model.vision_model."
POOLING = VISION + "vision_model.head."
LM_HEAD = "backbone.eagle_model.language_model.lm_head.weight"
EMBEDDING = "backbone.eagle_model.language_model.model.embed_tokens.weight"
LEROBOT = "_groot_model."


def _nest(key: str) -> str:
    """The official (nested) spelling of a vision key that may be flat, as newer transformers write it."""
    if key.startswith(VISION) and not key.startswith(VISION + "vision_model."):
        return VISION + "vision_model." + key.removeprefix(VISION)
    return key


def canonical(key: str) -> str:
    """Official name of a stored key: without LeRobot's prefix, vision keys nested."""
    return _nest(key.removeprefix(LEROBOT))


def unused(key: str) -> bool:
    """Whether an official key is known and never needed: the vision pooling head and the tied output head."""
    return key.startswith(POOLING) or key == LM_HEAD


def ours(key: str) -> str | None:
    """Our name of an official key, or None where there is none."""
    for official, own in PREFIXES.items():
        if key.startswith(official):
            return own + key.removeprefix(official)
    return None


def official(name: str) -> str:
    """Official key of one of our parameters; ValueError on a name of no module of ours."""
    for prefix, own in PREFIXES.items():
        if name.startswith(own):
            return prefix + name.removeprefix(own)
    raise ValueError(f"{name} is not a parameter of Groot")


def sources(stored: Iterable[str], *, with_head: bool) -> tuple[dict[str, str], list[str], list[str]]:
    """Where each of our parameters comes from.

    stored: keys as they are in the files. Returns {our name: stored key}, stored keys of no known meaning,
    and stored keys that name a parameter a second time. Where embed_tokens is missing, lm_head (tied to it) serves.
    """
    found: dict[str, str] = {}
    unknown, doubled = [], []
    keys = {key: canonical(key) for key in stored}
    tied = EMBEDDING not in keys.values()
    for key, name in keys.items():
        if tied and name == LM_HEAD:
            name = EMBEDDING
        if unused(name) or (not with_head and name.startswith("action_head.")):
            continue
        own = ours(name)
        if own is None:
            unknown.append(key)
        elif own in found:
            doubled.append(key)
        else:
            found[own] = key
    return found, unknown, doubled
