"""The student's own tokenizer: byte-level BPE, small because it only knows the sentences it was trained on.

A tokenizer is one JSON string that the `tokenizers` library reads; lower-casing and the like are inside it.
"""

import dataclasses
import functools
import json
from collections.abc import Iterable, Sequence

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

PADDING = "<pad>"  # no text gives it: a piece never joins letters and punctuation
SMALLEST, LARGEST = 257, 4096


class WordsError(ValueError):
    """A tokenizer that cannot be made or read, or a text that does not fit."""


@dataclasses.dataclass(frozen=True)
class Words:
    """Sentences to ids. Id 0 is padding; every other id is a byte or a run of bytes, so no text is unknown."""

    json: str

    def __len__(self) -> int:
        """Pieces, padding included: the rows of the embedding."""
        return self._tokenizer.get_vocab_size()

    def longest(self, texts: Iterable[str]) -> int:
        """Tokens of the longest text."""
        return max((len(self.ids(text)) for text in texts), default=0)

    def encode(self, texts: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
        """(tokens int32 [b, length], mask bool [b, length]), padded on the right with 0.

        A text of more than `length` tokens is a WordsError that names the limit and the text.
        """
        tokens = np.zeros((len(texts), length), np.int32)
        for row, text in zip(tokens, texts, strict=True):
            ids = self.ids(text)
            if len(ids) > length:
                raise WordsError(
                    f"{len(ids)} tokens in {text!r}, but the limit is {length}: shorten the instruction, or train a "
                    "student on data that holds one as long"
                )
            row[: len(ids)] = ids
        return tokens, tokens > 0

    def ids(self, text: str) -> list[int]:
        """Ids of one text, without padding."""
        try:
            return self._tokenizer.encode(text).ids
        except (UnicodeEncodeError, TypeError) as error:  # half a character, by the version of tokenizers
            raise WordsError(f"not a valid unicode text: {text!r}") from error

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The normalised text; padding vanishes."""
        return self._tokenizer.decode([int(i) for i in ids if i]).removeprefix(" ")

    def normalise(self, text: str) -> str:
        """Lower case, compatibility forms, single spaces, hyphens as spaces, no punctuation that ends a word."""
        return self._tokenizer.normalizer.normalize_str(text)

    @functools.cached_property
    def _tokenizer(self) -> tokenizers.Tokenizer:
        return tokenizers.Tokenizer.from_str(self.json)

    def to_json(self) -> str:
        """The whole tokenizer as one string."""
        return self.json

    @classmethod
    def from_json(cls, text: str) -> "Words":
        """Inverse of `to_json`; anything else is a WordsError."""
        words = cls(text)
        try:
            found = words._tokenizer.id_to_token(0)
        except Exception as error:  # the library raises bare Exception for a damaged string
            raise WordsError(f"no tokenizer: {error}; write it with Words.to_json") from error
        if found != PADDING:
            raise WordsError(f"id 0 must be {PADDING}, got {found!r}; write it with Words.to_json")
        return words


def train(sentences: Iterable[str], size: int, *, least: int = 2) -> Words:
    """A tokenizer of at most `size` pieces (257 to 4,096): padding, 256 bytes, then what the sentences say at least
    `least` times.

    The same sentences, in any order, give the same tokenizer.
    """
    if not SMALLEST <= size <= LARGEST:
        raise WordsError(f"a tokenizer has {SMALLEST} to {LARGEST} pieces (all bytes must fit), asked for {size}")
    made = _blank(models.BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1, min_frequency=least, show_progress=False, special_tokens=[], initial_alphabet=alphabet
    )
    made.train_from_iterator(sorted(sentences), trainer)
    # Padding is a plain entry before all others, not a special token, which would be found in a text.
    learned = json.loads(made.to_str())["model"]
    vocabulary = {PADDING: 0} | {piece: index + 1 for piece, index in learned["vocab"].items()}
    return Words(_blank(models.BPE(vocabulary, [tuple(pair) for pair in learned["merges"]])).to_str())


def _blank(model: models.Model) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(model)
    space, ending = tokenizers.Regex(r"[\s_\-\u2010-\u2015]+"), tokenizers.Regex(r"[.,;:!?]+(?=\s|$)")
    made.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(space, " "),
            normalizers.Replace(ending, ""),
            normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    made.decoder = decoders.ByteLevel()
    return made
