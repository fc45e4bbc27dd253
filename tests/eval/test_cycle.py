"""SAGE's cycle on the host: who is trusted follows from what came true, per episode, and changes what is done."""

import dataclasses

import numpy as np
import pytest

from bridge import metaworld_tasks, simulator
from eval import control, runs
from student_jax.sage import trust
from train import cycle

pytestmark = pytest.mark.usefixtures("quickly")


@pytest.fixture(scope="module")
def run(make_orchestrated):
    return runs.load([make_orchestrated()], "last")[0]


@pytest.fixture(scope="module")
def actor(run):
    return control.orchestrated(run, rows=2)


def query(decision=0, rows=2, black=False):
    rng = np.random.default_rng(decision)
    texts = tuple(metaworld_tasks.instruction("drawer-open", 0) for _ in range(rows))
    frames = rng.integers(0, 256, (rows, 2, 32, 32, 3), np.uint8) * (not black)
    state = rng.normal(size=(rows, 4)).astype("f4")
    return simulator.Query(frames, state, texts, np.arange(rows), np.full(rows, decision))


def judging(actor, *, limit):
    """The same actor with a host that accepts everything (a large limit) or nothing (a tiny one) that is seen."""
    like = lambda part: dataclasses.replace(part, limit=limit)  # noqa: E731
    seen = tuple(map(like, actor.witness.cameras)), tuple(map(like, actor.witness.usual))
    actor.witness = dataclasses.replace(actor.witness, cameras=seen[0], usual=seen[1], prior=np.full(3, 0.95))
    actor.memories.clear()
    return actor


def played(actor, decisions):
    """The decisions of an episode of row 0."""
    found = []
    actor.note = lambda asked, given, said: found.append(said)
    chunks = [actor(query(number)) for number in range(decisions)]
    return found, chunks


def test_trust_in_vision_falls_within_five_decisions_where_nothing_seen_was_to_be_expected(run):
    said, _ = played(judging(control.orchestrated(run, rows=2), limit=1e-9), 7)
    assert said[0].trust[0, 0] == pytest.approx(0.95)
    assert said[5].trust[0, 0] < 0.5
    assert not said[6].views[0].any(), "a view that is not believed is reported as lost"


def test_without_an_eye_that_is_believed_the_hand_rests(run):
    _, chunks = played(judging(control.orchestrated(run, rows=2), limit=1e-9), 7)
    assert np.abs(chunks[0][0, :, :3]).max() > 0
    assert not chunks[6][0, :, :3].any()
    moved = cycle.still(np.ones((2, 3, 4)), where=np.array([True, False]))
    assert moved[0].tolist() == [[0, 0, 0, 1]] * 3
    assert (moved[1] == 1).all()


def test_actions_that_were_held_back_say_nothing_of_the_control(run):
    judge = control.orchestrated(run, rows=1).witness
    memory = cycle.Memory(dataclasses.replace(judge, body=dataclasses.replace(judge.body, limit=1e-9)))
    embedding = np.zeros((len(judge.cameras), judge.cameras[0].weights.shape[1]))
    done = np.ones((simulator.EXECUTE, (len(judge.body.weights) - 5) // simulator.EXECUTE))
    blamed = []
    for number, executed in enumerate((done, None, done)):
        memory.learn(embedding, np.full(4, float(number)), executed)
        blamed.append(memory.modules.bad[2])
    assert blamed == pytest.approx([0.0, 1.0, trust.DECAY])


def test_it_stays_high_where_everything_was(run):
    said, _ = played(judging(control.orchestrated(run, rows=2), limit=1e9), 7)
    assert said[6].trust[0, 0] > 0.9
    assert said[6].views.all()


def test_a_new_episode_starts_from_the_prior(run):
    actor = judging(control.orchestrated(run, rows=2), limit=1e-9)
    played(actor, 6)
    said, _ = played(actor, 1)
    np.testing.assert_allclose(said[0].trust[0], actor.witness.prior, rtol=1e-6)


def test_unmoved_trust_is_the_prior_whatever_happens(run):
    actor = judging(control.orchestrated(run, rows=2, will=cycle.Will(trusts=False)), limit=1e-9)
    said, _ = played(actor, 6)
    np.testing.assert_allclose(said[5].trust, np.broadcast_to(actor.witness.prior, (2, 3)), rtol=1e-6)
    assert said[5].views.all()


def test_a_module_that_is_trusted_less_is_let_through_less(actor):
    given = actor.given(actor.see(query()), [cycle.Memory(actor.witness)] * 2)
    doubted = given | {"trust": given["trust"] * np.array([[0.1, 1, 1]], "f4")}
    before, after = (actor.answer(each).accounts["vision"].gate for each in (given, doubted))
    assert (after < before - 1e-3).all()


def test_a_budget_of_nothing_is_not_overdrawn(actor):
    given = actor.given(actor.see(query()), [cycle.Memory(actor.witness)] * 2)
    broke = actor.answer(given | {"atp": np.zeros(2, "f4")})
    rich = actor.answer(given, dataclasses.replace(actor.will, depth=1 << 10))
    assert sum(int(one.steps.sum()) for one in broke.accounts.values()) == 0
    most = {name: module.description.max_steps for name, module in actor.student.modules.items()}
    assert all(account.steps.max() <= most[name] for name, account in rich.accounts.items())
    assert sum(int(one.steps.sum()) for one in rich.accounts.values()) > 0


def test_a_row_does_not_depend_on_its_neighbours(actor):
    actor.memories.clear()
    asked = query(rows=2)
    whole = actor(asked)
    actor.memories.clear()
    one = simulator.Query(asked.frames[1:], asked.state[1:], asked.instruction[1:], asked.seed[1:], asked.decision[1:])
    np.testing.assert_allclose(actor(one)[0], whole[1], atol=1e-6)


def test_the_digest_follows_will_and_judge(run, actor):
    base = control.digest(control.orchestrated(run, rows=2))
    assert base == control.digest(control.orchestrated(run, rows=4))
    assert base != control.digest(control.orchestrated(run, rows=2, will=cycle.Will(trusts=False)))
    assert base != control.digest(judging(control.orchestrated(run, rows=2), limit=1.0))


def test_posture_names_who_is_starved():
    posture = trust.Posture.of({"vision": 0.1, "language": 0.9})
    assert posture.starved == ("vision",)
    assert posture.asymmetry == pytest.approx(0.8)


def test_the_price_is_a_dial_that_needs_no_training(run, actor):
    free, dear = (control.orchestrated(runs.priced(run, price), rows=2) for price in (0.0, 1e6))
    assert len({control.digest(one) for one in (actor, free, dear)}) == 3
    asked = query(3)
    said = [one.answer(one.given(one.see(asked), [cycle.Memory(one.witness)] * 2)) for one in (free, dear)]
    spent = [sum(float(account.spent.sum()) for account in one.accounts.values()) for one in said]
    assert spent[1] == 0.0 < spent[0]
    assert runs.priced(run, None) is run
    with pytest.raises(runs.RunError, match="--price"):
        runs.priced(run, -1.0)
