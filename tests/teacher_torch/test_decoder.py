import dataclasses

import numpy as np
import pytest
import torch

from bridge import arc
from teacher_torch import arc_batches, decoder, grid_blocks, probe, records, standin
from teacher_torch.groot.model import Groot

CONFIG = decoder.DecoderConfig(features=12, width=32, heads=2, layers=2, size_layers=1)


@pytest.fixture
def grids():
    torch.manual_seed(0)
    return decoder.GridDecoder(CONFIG).eval()


def make_context(b=2, n=9, seed=0):
    """b tasks of a text token, a demonstration of two frames and a query of four tokens."""
    draw, half = torch.Generator().manual_seed(seed), torch.arange(30) // 15
    role = torch.tensor([0, 1, 1, 2, 2, 3, 3, 3, 3])[:n].expand(b, -1)
    place = 30 * torch.rand(b, n, 2, generator=draw)
    return decoder.Context(
        features=torch.randn(b, n, CONFIG.features, generator=draw),
        valid=torch.ones(b, n, dtype=torch.bool),
        role=role,
        pair=(role == 2).long(),
        place=place,
        first=torch.tensor([5, 1, 3]).expand(b, -1),
        cell_token=(half[:, None] * 2 + half),
        cell_slot=(half[:, None] * 4 + torch.arange(30) % 4),
    )


def pad(context, extra):
    """The same context with rubbish in padded positions."""
    added = {"features": 9.0, "valid": False, "role": 3, "pair": 1, "place": 3.0}
    rows = {}
    for name, value in added.items():
        tensor = getattr(context, name)
        filler = torch.full((len(tensor), extra, *tensor.shape[2:]), value, dtype=tensor.dtype)
        rows[name] = torch.cat([tensor, filler], 1)
    return dataclasses.replace(context, **rows)


def take(context, i):
    per_task = ("features", "valid", "role", "pair", "place", "first")
    return dataclasses.replace(context, **{name: getattr(context, name)[i : i + 1] for name in per_task})


def test_canvas_is_no_larger_than_the_batch_needs(grids):
    logits = grids(make_context(), torch.tensor([[3, 2], [1, 5]]))
    assert logits.size.shape == (2, 2, 30)
    assert logits.cells.shape == (2, 3, 5, 10)
    assert logits.colours.shape == (2, 3, 30, 30, 11)


def test_padded_tokens_change_nothing(grids):
    size = torch.tensor([[3, 2], [1, 5]])
    plain, padded = grids(make_context(), size), grids(pad(make_context(), 4), size)
    torch.testing.assert_close(plain.size, padded.size)
    torch.testing.assert_close(plain.cells, padded.cells)


def test_a_task_does_not_see_its_batch(grids):
    context, size = make_context(), torch.tensor([[3, 2], [7, 5]])
    both, alone = grids(context, size), grids(take(context, 0), size[:1])
    torch.testing.assert_close(both.size[:1], alone.size)
    torch.testing.assert_close(both.cells[:1, :3, :2], alone.cells)


def test_every_token_and_every_other_cell_matter(grids):
    context = make_context(b=1)
    context.features.requires_grad_()
    grids(context, torch.tensor([[2, 3]])).cells[0, 1, 1].sum().backward()
    assert (context.features.grad.abs().sum(-1) > 0).all()


def test_size_does_not_depend_on_the_canvas(grids):
    context = make_context()
    first, second = (grids(context, torch.tensor(size)).size for size in ([[1, 1], [1, 1]], [[30, 30], [4, 4]]))
    assert torch.equal(first, second)


def test_prediction_lays_cells_out_on_the_predicted_size(grids):
    context = make_context()
    answers = grids.predict(context)
    size = grids.sizes(grids.memory(context)).argmax(-1) + 1
    told = grids(context, size).cells.argmax(-1)
    for answer, (h, w), cells in zip(answers, size.tolist(), told, strict=True):
        assert torch.equal(answer, cells[:h, :w])


def test_attention_by_place_is_a_gaussian_and_text_is_as_near_as_can_be():
    layer = grid_blocks.Attention(16, 1)
    for linear in (layer.query, layer.key):
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    for linear in (layer.value, layer.out):
        torch.nn.init.eye_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    place, here = torch.tensor([[[1.0, 2.0], [4.0, 6.0], [9.0, 9.0]]]), torch.tensor([[[1.0, 2.0]]])
    role = torch.nn.functional.one_hot(torch.tensor([[3, 3, grid_blocks.TEXT]]), grid_blocks.ROLES).float()
    seen = grid_blocks.Seen(torch.eye(3, 16)[None], place, role, torch.ones(1, 3, dtype=torch.bool))
    weight = layer(torch.zeros(1, 1, 16), here, seen)[0, 0, :3]
    expected = torch.softmax(torch.tensor([0.0, -25 / (2 * grid_blocks.REACH[0] ** 2), 0.0]), 0)
    torch.testing.assert_close(weight, expected)


def test_text_lies_nowhere():
    layer = grid_blocks.Attention(16, 1)
    role = torch.zeros(1, 1, grid_blocks.ROLES)
    role[..., grid_blocks.TEXT] = 1
    seen = grid_blocks.Seen(torch.zeros(1, 1, 16), torch.full((1, 1, 2), 7.0), role, torch.ones(1, 1, dtype=torch.bool))
    assert layer._key_geometry(seen)[..., :4].abs().sum() == 0


def test_a_cell_s_slot_is_cut_from_the_one_token_over_it():
    slots, context = grid_blocks.CellSlots(8), make_context(b=1)
    tokens = torch.randn(1, 9, 8, requires_grad=True)
    found = slots(tokens, context.first, context.cell_token, context.cell_slot)
    assert found.shape == (1, 3, 30, 30, grid_blocks.SLOT_WIDTH)
    found[0, 0, 2, 20].sum().backward()  # upper right quarter of the query, whose tokens begin at 5
    assert tokens.grad[0].abs().sum(-1).nonzero().flatten().tolist() == [6]


def test_whitened_features_have_unit_covariance_and_faint_directions_stay_faint():
    torch.manual_seed(0)
    scale = torch.tensor([100.0, 1.0, 1e-3])
    sample = torch.randn(4000, 3) * scale + 7
    layer = grid_blocks.Whitening(3)
    layer.fit(sample)
    deviation = layer(sample).std(0)
    assert deviation[0] == pytest.approx(1, abs=0.05)
    assert deviation[2] < 0.1
    assert layer(sample).mean(0).abs().max() < 0.05
    assert layer(1e6 * torch.ones(1, 3)).abs().max() == grid_blocks.LIMIT


def test_whitening_is_taken_from_image_tokens_alone(grids):
    context = make_context()
    grids.fit([context])
    mean = grids.whitening.mean.clone()
    features = context.features.clone()
    features[:, 0] = 1e3  # text
    grids.fit([dataclasses.replace(context, features=features)])
    assert torch.equal(mean, grids.whitening.mean)


def flawless(size, target, shown):
    one_hot = torch.nn.functional.one_hot
    return decoder.Logits(
        30 * one_hot(size - 1, 30).float(), 30 * one_hot(target, 10).float(), 30 * one_hot(shown, 11).float()
    )


def test_loss_counts_true_cells_and_real_frames_alone():
    size = torch.tensor([[1, 2], [2, 2]])
    target = torch.tensor([[[1, 2], [0, 0]], [[3, 4], [5, 6]]])
    shown = torch.randint(0, 11, (2, 3, 30, 30))
    logits = flawless(size, target, shown)
    logits.cells[0, 1] = torch.randn(2, 10)  # outside the first task's grid
    logits.colours[0, 2] = torch.randn(30, 30, 11)  # a frame that it does not have
    shown[0, 2] = -1
    assert all(value < 1e-6 for value in decoder.loss(logits, target, size, shown).values())


def test_loss_is_a_mean_over_tasks_of_means_over_cells():
    size = torch.tensor([[1, 1], [2, 2]])
    target, shown = torch.zeros(2, 2, 2, dtype=torch.long), torch.zeros(2, 1, 30, 30, dtype=torch.long)
    logits = flawless(size, target, shown)
    logits.cells[0] = 0.0
    torch.testing.assert_close(decoder.loss(logits, target, size, shown)["cells"], torch.tensor(10.0).log() / 2)


def test_saved_and_loaded(grids, tmp_path):
    decoder.save(grids, tmp_path)
    again = decoder.load(tmp_path)
    assert again.config == CONFIG
    assert all(torch.equal(a, b) for a, b in zip(grids.parameters(), again.parameters(), strict=True))


def test_missing_decoder_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"teacher_torch\.posttrain"):
        decoder.load(tmp_path)


@pytest.fixture(scope="module")
def layout():
    words = standin.make_tokenizer()
    return records.Layout(standin.make_config(words), words, max_tiles=1)


def test_places_of_one_tile_are_the_patch_centres(layout):
    image = layout.shown.role != grid_blocks.TEXT
    assert image.sum() == 128
    place = layout.shown.place[image].view(2, 8, 8, 2)
    assert torch.equal(place[0], place[1])
    torch.testing.assert_close(place[0, 3, 5], torch.tensor([3.5, 5.5]) * 30 / 8)
    roles = layout.shown.role[image].view(2, 64)
    assert [int(row.unique()) for row in roles] == [grid_blocks.SHOWN_INPUT, grid_blocks.SHOWN_OUTPUT]


def test_places_of_tiles_are_row_major_with_the_thumbnail_last():
    places = records._places(2, 3, 3)
    assert places.shape == (10 * 4, 2)
    torch.testing.assert_close(places[4], torch.tensor([2.5, 12.5]))  # second tile, first token
    torch.testing.assert_close(places[-1], torch.tensor([22.5, 22.5]))


@pytest.mark.parametrize(("grid", "tiles"), [(8, 1), (16, 1), (16, 3), (2, 3)])
def test_the_token_of_a_cell_is_the_nearest(grid, tiles):
    places, (token, _) = records._places(grid, tiles, tiles), records._cells(grid, tiles)
    cells = torch.cartesian_prod(torch.arange(30) + 0.5, torch.arange(30) + 0.5)
    distance = torch.cdist(cells, places[: (grid * tiles) ** 2])
    torch.testing.assert_close(distance.gather(1, token.view(-1, 1))[:, 0], distance.amin(1))


def test_cells_of_one_token_have_slots_of_their_own():
    token, slot = records._cells(8, 1)
    assert len({(int(t), int(s)) for t, s in zip(token.flatten(), slot.flatten(), strict=True)}) == 900


def test_context_joins_a_task_s_records_in_order(layout):
    shown, asked = (len(prompt.ids) for prompt in (layout.shown, layout.asked))
    features = [[torch.full((shown, 3), 1.0), torch.full((shown, 3), 2.0)], [torch.full((shown, 3), 3.0)]]
    context = records.context(layout, features, [torch.full((asked, 3), 4.0)] * 2)
    assert context.features[0, :, 0].unique_consecutive().tolist() == [1, 2, 4]
    assert context.valid.sum(1).tolist() == [2 * shown + asked, shown + asked]
    assert context.pair[0, shown : 2 * shown].unique().tolist() == [1]
    assert context.role[1, shown : shown + asked].unique().tolist() == [grid_blocks.TEXT, grid_blocks.ASKED]
    roles = [context.role[b, context.first[b]][context.first[b] >= 0].tolist() for b in range(2)]
    assert roles == [[3, 1, 2, 1, 2], [3, 1, 2]]


def test_the_shown_frames_are_in_the_order_of_their_tokens(layout):
    task = arc.splits(1)["train"][0]
    cells = records.frames(arc_batches.published([task]))
    assert torch.equal(cells[0, 0], torch.tensor(arc.cells(task.test[0].input)).long())
    assert torch.equal(cells[0, 2], torch.tensor(arc.cells(task.train[0].output)).long())


def test_the_answer_is_in_no_input(layout):
    task = arc.splits(1)["train"][0]
    episode = arc_batches.published([task])[0]
    blank = dataclasses.replace(episode, answer=np.zeros((1, 1), np.int8))
    model = Groot(layout.preparer.config)
    with torch.no_grad():
        first, second = (records.read(model, layout, [e]) for e in (episode, blank))
    assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))


def test_score_counts_inside_the_true_grid():
    answer = np.array([[1, 2], [3, 4]])
    assert probe.score(answer, answer) == probe.Score(1, 1, 1)
    assert probe.score(np.array([[1, 2, 9], [3, 4, 9]]), answer) == probe.Score(0, 1, 0)
    assert probe.score(np.array([[1]]), answer) == probe.Score(0, 0.25, 0)
    assert probe.score(np.array([[1, 2], [3, 0]]), answer) == probe.Score(1, 0.75, 0)


def test_baselines_see_the_query_alone():
    asked = arc.cells(np.array([[5, 6]]))[None]
    episode = arc_batches.Episode((), asked, np.array([[5, 0]], np.int8))
    assert probe.copy(episode).tolist() == [[5, 6]]
    assert probe.constant(episode).tolist() == [[0, 0]]
