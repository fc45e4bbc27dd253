"""Folders by path or by hub id."""

import os
import pathlib
from collections.abc import Sequence

import huggingface_hub


def resolve(name: str | os.PathLike[str], patterns: Sequence[str], *, what: str) -> pathlib.Path:
    """The local folder `name`, or that of a hub id (owner/name), downloaded or from the hub's cache.

    patterns: files wanted from the hub; what: "checkpoint" or "tokenizer", for the error (FileNotFoundError).
    """
    folder, text = pathlib.Path(name), str(name)
    if folder.is_dir():
        return folder
    if text.count("/") != 1 or text[0] in "./~" or text.endswith("/"):
        raise FileNotFoundError(f"no {what} folder {text}, and it is no hub id (owner/name): check the path")
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(text, allow_patterns=list(patterns)))
    except Exception as error:  # the client raises many kinds of its own and of its network library
        reason = str(error).splitlines()[0]
        raise FileNotFoundError(
            f"{what} {text} is neither a local folder nor available from the hub ({type(error).__name__}: {reason}). "
            f"On a machine with network: `hf download {text} --local-dir DIR`, then give DIR"
        ) from error
