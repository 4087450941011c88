"""helpers.answering and helpers.eyes: shapes, a known answer, what is stored, and errors."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import answering, eyes, scenes
from tools.experiments import seen as making

ROW_OF = {word: row for row, word in enumerate(["<pad>", *scenes.vocabulary("trained")])}


def table():
    return nn.Embedding(len(ROW_OF), 8, padding_idx=0)


@pytest.fixture(scope="module")
def seen():
    return answering.load()


@pytest.fixture(scope="module")
def world():
    """Scenes, their pictures, and questions on them."""
    drawn = scenes.sample(200, seed=7)
    return drawn, scenes.pictures(drawn, seed=7), scenes.ask(drawn, 300, seed=7)


# --- Questions


def test_questions_are_filled_up_and_their_lengths_kept():
    short = scenes.Question(4, ("is", "there", "a", "red", "cross"), "no", "exists")
    long = scenes.Question(2, ("what", "is", "the", "color", "of", "the", "circle"), "red", "color")
    asked = answering.encode([short, long], ROW_OF)
    assert asked.scene.tolist() == [4, 2]
    assert asked.lengths.tolist() == [5, 7]
    assert asked.ids.shape == (2, 7)
    assert asked.ids[0].tolist() == [ROW_OF[w] for w in short.words] + [0, 0]
    assert [scenes.ANSWERS[a] for a in asked.answer] == ["no", "red"]


def test_a_word_without_a_row_is_an_error():
    with pytest.raises(KeyError, match="yellow"):
        answering.encode([scenes.Question(0, ("yellow",), "no", "exists")], ROW_OF)


# --- Eyes


def test_labels_and_perfect_slots_name_each_thing(world):
    drawn, _, _ = world
    told, slots = eyes.labels(drawn), eyes.perfect(drawn)
    assert told.shape == (200, 6, 6, 5) and slots.shape == (200, 6, 17)
    assert ((told[..., 0] >= 0).sum(dim=(1, 2)) == torch.tensor([len(s) for s in drawn])).all()
    for scene, cells, six in zip(drawn, told, slots, strict=True):
        for thing, slot in zip(scene, six, strict=False):
            shape, colour, size, x, y = cells[thing.y // 8, thing.x // 8].tolist()
            assert scenes.SHAPES[int(shape)] == thing.shape == scenes.SHAPES[slot[1:5].argmax()]
            assert (
                scenes.COLOURS[int(colour)] == thing.colour == scenes.COLOURS[slot[5:11].argmax()]
            )
            assert scenes.RADII[int(size)] == thing.size == scenes.RADII[slot[11:15].argmax()]
            assert (thing.x // 8 + x, thing.y // 8 + y) == tuple(slot[15:].tolist())
        assert slots[0, len(drawn[0]) :].eq(0).all()


def test_untrained_eyes_look_at_any_number_of_pictures(world):
    _, images, _ = world
    look = eyes.Eyes().look
    assert look(images[:3]).shape == (3, 6, 17)
    assert look(np.empty((0, 48, 48, 3), dtype=np.uint8)).shape == (0, 6, 17)


def test_training_makes_eyes_see_more(world):
    drawn, images, _ = world
    told = eyes.labels(drawn)[..., 0] >= 0
    trained = eyes.train_eyes(images, drawn)
    assert not trained.training
    assert torch.is_grad_enabled()
    with torch.no_grad():
        there = trained(images)[..., 0]
    assert there[told].mean() > there[~told].mean() + 1


def test_the_stored_eyes_name_the_things(seen, world):
    drawn, images, _ = world
    close = 0
    slots, truth = seen.eyes.look(images), eyes.perfect(drawn)
    for scene, mine, right in zip(drawn, slots, truth, strict=True):
        far = torch.cdist(mine[:, 15:], right[: len(scene), 15:])
        near = mine[far.argmin(dim=0)]
        close += (near[:, 1:5].argmax(1) == right[: len(scene), 1:5].argmax(1)).sum().item()
    assert close > 0.94 * sum(map(len, drawn))


# --- The reader


@pytest.mark.parametrize(("way", "numbers"), [("whole", 260), ("softmax", 512), ("hard", 260)])
def test_a_reader_scores_each_answer(way, numbers, world):
    drawn, _, questions = world
    reader = answering.Reader(table(), way)
    asked = answering.encode(questions, ROW_OF)
    assert reader.attention.out_features == numbers
    scores = reader(eyes.perfect(drawn)[asked.scene], asked.ids, asked.lengths)
    assert scores.shape == (300, 16)
    scores.sum().backward()
    assert all(p.grad is not None for p in reader.parameters())


def test_an_unknown_way_is_named():
    with pytest.raises(ValueError, match="'sharp'.*whole, softmax or hard"):
        answering.Attention("sharp")


def test_attention_by_hand():
    attention = answering.Attention()
    state, slots = torch.randn(2, 64), torch.randn(2, 6, 17)
    out = attention(state, slots)
    query, key, value = (
        attention.query(state[1]),
        attention.key(slots[1]),
        attention.value(slots[1]),
    )
    scores = query.reshape(8, 32) @ key.T / 32**0.5
    glimpses = torch.softmax(scores[:4], dim=1) @ value
    wanted = torch.cat([glimpses.flatten(), torch.sigmoid(scores[4:]).sum(1)])
    torch.testing.assert_close(out[1], wanted)
    hard = answering.Attention("hard")
    hard.load_state_dict(attention.state_dict())
    torch.testing.assert_close(hard(state, slots)[1, :64], value[scores[0].argmax()])


def test_padding_does_not_change_a_state():
    encoder = answering.Encoder(table())
    ids = torch.tensor([[3, 5, 2, 0, 0], [1, 2, 3, 4, 5]])
    both = encoder(ids, torch.tensor([3, 5]))
    alone = encoder(ids[:1, :3], torch.tensor([3]))
    torch.testing.assert_close(both[:1], alone)


def test_training_learns_and_leaves_a_frozen_table_alone(seen):
    rows = F.normalize(torch.randn(len(ROW_OF), 8)) * 3
    frozen = nn.Embedding.from_pretrained(rows.clone())
    asked = answering.encode(seen.questions[:2000], ROW_OF)
    before = answering.train(frozen, asked, seen.slots, steps=1)
    after = answering.train(frozen, asked, seen.slots, steps=120)
    assert torch.equal(frozen.weight, rows)
    scores = [answering.right(r, asked, seen.slots).float().mean() for r in (before, after)]
    assert scores[1] > scores[0] + 0.1
    again = answering.train(frozen, asked, seen.slots, steps=1)
    assert torch.equal(again.head[0].weight, before.head[0].weight)  # the seed decides


# --- What is stored


def test_the_file_holds_what_its_maker_makes(seen):
    assert seen.slots.shape == (16_000, 6, 17) and seen.slots.dtype == torch.float32
    assert len(seen.questions) == 32_000
    small = making.arrays(400, 50)
    with np.load(answering.DATA / answering.NAME, allow_pickle=False) as file:
        assert set(file.files) == set(small)
        for name in file.files:
            assert file[name].dtype == small[name].dtype, name
    assert (answering.DATA / answering.NAME).stat().st_size < 4_000_000


def test_the_stored_questions_are_answered_as_the_scenes_are(seen):
    drawn = scenes.sample(seen.questions[0].scene + 1, seed=0)
    checked = 0
    for question in seen.questions[:3000]:
        if question.scene < len(drawn):
            assert scenes.answer(drawn[question.scene], question.words) == question.answer
            checked += 1
    assert checked > 100


def test_a_record_is_read_by_way_questions_setting_and_test():
    five = answering.recorded("pretrained, frozen", 32_000)
    assert five.shape == (5,) and five.dtype == torch.float32
    assert (five > 85).all() and (five < 100).all()
    assert answering.recorded("random", 500, "common").max() < 70
    assert answering.recorded("random", 32_000, name="after sphere").shape == (5,)
    for way, questions, setting, name in (
        ("frozen", 500, "own", "right"),
        ("random", 501, "own", "right"),
        ("random", 500, "mine", "right"),
        ("random", 500, "common", "known"),
    ):
        with pytest.raises(ValueError, match=f"no '{name}' of '{way}' at {questions}"):
            answering.recorded(way, questions, setting, name)
