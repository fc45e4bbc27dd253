import random
import subprocess
import sys
import unicodedata

import numpy as np
import pytest

from train import words

SENTENCES = [
    f"{verb} the {thing}" for verb in ("Open", "close", "push") for thing in ("drawer", "window", "green door")
]


@pytest.fixture(scope="module")
def made():
    return words.train(SENTENCES, 400)


def strange_texts(count=400):
    rng = random.Random(0)
    ranges = [(0, 128), (0, 0x800), (0x300, 0x370), (0, 0xD800), (0xE000, 0x10FFFF)]
    return ["".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(20))) for _ in range(count)]


def test_any_text_comes_back_from_its_bytes(made):
    for text in [*strange_texts(), "", " ", "<pad>", "<unk> <pad>", "\x00", "🤖 naïve"]:
        ids = made.ids(text)
        assert 0 not in ids
        assert max(ids, default=1) < len(made)
        assert made.decode(ids) == made.normalise(text)


def test_known_words_are_few_pieces_and_unknown_ones_bytes(made):
    assert len(made.ids("open the green drawer")) <= 6
    assert len(made.ids("日本")) >= 6
    assert 257 < len(made) <= 400


@pytest.mark.parametrize(
    "text", ["Open  the DRAWER.", " open the drawer!", "open-the_drawer", "open\tthe\ndrawer ?", "ｏｐｅｎ the drawer"]
)
def test_spelling_does_not_matter(made, text):
    assert made.ids(text) == made.ids("open the drawer")


def test_numbers_keep_their_point(made):
    assert made.normalise("Move 1.5 cm, now.") == "move 1.5 cm now"
    assert unicodedata.is_normalized("NFKC", made.normalise("ﬁne"))


def test_encode_pads_with_zero_on_the_right(made):
    tokens, mask = made.encode(["open the drawer", "", "push the green door"], 12)
    assert tokens.dtype == np.int32
    assert tokens.shape == mask.shape == (3, 12)
    assert mask.sum(axis=1).tolist() == [len(made.ids(text)) for text in ("open the drawer", "", "push the green door")]
    assert not tokens[~mask].any()
    assert (np.diff(mask.astype(int), axis=1) <= 0).all()
    assert made.decode(tokens[2]) == "push the green door"


def test_a_single_sentence_is_kept_whole_where_that_is_asked_for():
    said = "pick up the red cube and place it into the blue bowl"
    often, ever = words.train([said], 512), words.train([said], 512, least=1)
    assert often.longest([said]) > 32 > ever.longest([said])
    assert ever.longest([]) == 0


def test_a_long_text_names_the_limit(made):
    with pytest.raises(words.WordsError, match="limit is 3"):
        made.encode(["open the drawer", "xyzzy plugh"], 3)


def test_half_a_character_is_named(made):
    with pytest.raises(words.WordsError, match="not a valid unicode text"):
        made.ids("open the \ud83d drawer")


def test_training_is_deterministic_in_any_order_and_process(made):
    assert words.train(reversed(SENTENCES), 400) == made
    program = f"from train import words; import sys; sys.stdout.write(words.train({SENTENCES!r}, 400).to_json())"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout == made.to_json()


def test_json_and_back_and_what_is_none(made):
    assert words.Words.from_json(made.to_json()) == made
    assert len(words.Words.from_json(made.to_json())) == len(made)
    for text in ("", "{}", made.to_json()[:-20], made.to_json().replace('"<pad>":0', '"<pad>":9999')):
        with pytest.raises(words.WordsError):
            words.Words.from_json(text)


@pytest.mark.parametrize("size", [256, 4097])
def test_sizes_that_cannot_be(size):
    with pytest.raises(words.WordsError, match="257 to 4096"):
        words.train(SENTENCES, size)


def test_nothing_to_learn_from_still_gives_the_bytes():
    assert len(words.train([], 300)) == 257
