import json

import pytest
import torch

from bridge import arc, embodiment
from teacher_torch import provenance, standin
from teacher_torch.groot import checkpoint, inputs, tokenizer
from teacher_torch.groot.model import Groot


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Groot(standin.make_config(standin.make_tokenizer()))


@pytest.fixture
def folder(model, tmp_path):
    """An untrained stand-in as a bare checkpoint folder."""
    checkpoint.save(model, tmp_path / "weights")
    standin.make_tokenizer().save(tmp_path / "weights")
    return tmp_path / "weights"


def stretch(folder, model):
    """Weights whose rows differ in length, as training makes them."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    changed = Groot(model.config)
    changed.load_state_dict(state)
    weight = changed.tower.encoder.layers[0].mlp.fc1.weight
    with torch.no_grad():
        weight.mul_(torch.linspace(0.2, 2, len(weight))[:, None])
    checkpoint.save(changed, folder)


def test_sizes_are_the_agreed_ones(model):
    config = model.config
    assert (config.tile, config.tokens_per_tile, config.width) == (224, 64, 128)
    assert 1.0e6 < sum(p.numel() for p in model.parameters()) < 3e6


def test_token_table_keeps_what_its_prompts_use(folder):
    words = tokenizer.load(folder)
    for record in arc.records(arc.splits(1)["train"][0]):
        given = inputs.prepare(arc.observation(record), embodiment.arc(1), words, tokens_per_tile=64)
        assert int(given.input_ids.max()) < standin.make_config(words).language.vocab_size


def test_missing_stand_in_names_the_command(tmp_path):
    with pytest.raises(standin.MissingStandIn, match=r"python -m teacher_torch\.posttrain --task arc"):
        standin.resolve("standin-arc", home=tmp_path)


def test_weights_without_an_account_are_a_stand_in_not_finished(folder, tmp_path):
    folder.rename(tmp_path / "standin-arc")
    with pytest.raises(standin.MissingStandIn):
        standin.resolve("standin-arc", home=tmp_path)


def test_unknown_stand_in_is_not_looked_for_on_the_hub():
    with pytest.raises(standin.MissingStandIn, match="there is standin-arc"):
        standin.resolve("standin-chess")


def test_resolve_by_name_and_by_folder_agree(folder, tmp_path):
    provenance.write(folder, {"provenance": "stand-in", "licence": "Apache-2.0"})
    folder.rename(tmp_path / "standin-arc")
    named = standin.resolve("standin-arc", home=tmp_path)
    by_folder = standin.resolve(tmp_path / "standin-arc")
    assert (named.id, named.provenance, named.licence) == ("standin-arc", "stand-in", "Apache-2.0")
    assert (named.digest, named.config) == (by_folder.digest, by_folder.config)


def test_digest_follows_the_weights(folder, model):
    before = standin.resolve(folder).digest
    stretch(folder, model)
    assert standin.resolve(folder).digest != before


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        standin.resolve(tmp_path / "none" / "here")


def test_entries_drawn_alike_are_random_whatever_their_number(folder, monkeypatch, model):
    monkeypatch.setattr(provenance, "PUBLISHED_VALUES", sum(p.numel() for p in model.parameters()))
    assert provenance.of(folder) == "random"


def test_golden_weights_are_random(golden_folder):
    assert provenance.of(golden_folder) == "random"


def test_trained_weights_of_another_size_are_a_stand_in(folder, model):
    stretch(folder, model)
    assert provenance.of(folder) == "stand-in"


def test_trained_weights_of_the_published_size_are_real(folder, model, monkeypatch):
    stretch(folder, model)
    monkeypatch.setattr(provenance, "PUBLISHED_VALUES", sum(p.numel() for p in model.parameters()))
    assert provenance.of(folder) == "real"
    assert "non-commercial" in provenance.licence(folder, "real")


def test_published_size_is_that_of_the_default_config():
    with torch.device("meta"):
        values = sum(p.numel() for p in Groot(standin.sizes.GrootConfig()).parameters())
    assert values == provenance.PUBLISHED_VALUES


def test_account_decides_against_real(folder, model, monkeypatch):
    stretch(folder, model)
    monkeypatch.setattr(provenance, "PUBLISHED_VALUES", sum(p.numel() for p in model.parameters()))
    provenance.write(folder, {"provenance": "stand-in"})
    assert provenance.of(folder) == "stand-in"


@pytest.mark.parametrize("content", ['{"provenance": "real"}', "{}", "[]", "{"])
def test_account_that_claims_too_much_or_nothing(folder, content):
    (folder / provenance.FILE).write_text(content)
    with pytest.raises(provenance.ProvenanceError, match=str(folder)):
        provenance.of(folder)


def test_real_is_never_written(tmp_path):
    with pytest.raises(provenance.ProvenanceError):
        provenance.write(tmp_path, {"provenance": "real"})
    assert not list(tmp_path.iterdir())


def test_account_is_json_without_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        provenance.write(tmp_path, {"provenance": "stand-in", "measured": float("nan")})
    provenance.write(tmp_path, {"provenance": "random"})
    assert json.loads((tmp_path / provenance.FILE).read_text()) == {"provenance": "random"}
