"""The model card of an artifact, from its meta.json."""

from typing import Any


def text(meta: dict[str, Any], size: int) -> str:
    """Markdown. size: bytes of the weights."""
    return f"# {meta['preset']}, {size / 1e6:.1f} MB\n"
