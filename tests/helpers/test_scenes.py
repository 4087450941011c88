"""helpers.scenes: fair scenes, pictures that show them, balanced questions, true answers."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from helpers import scenes, word2vec
from helpers.scenes import ANSWERS, COLOURS, COUNTS, KINDS, PLACES, SHAPES, SIZES, UNSEEN, Thing

PHRASINGS = ("trained", "known", "new")
CHANCE = {
    "color": 1 / 6,
    "shape": 1 / 4,
    "place": 5 / 24,  # half of them ask for one of 6 colours, half for one of 4 shapes
    "size": 5 / 24,
    "count": 1 / 4,
    "exists": 1 / 2,
    "relation": 1 / 2,
}


@pytest.fixture(scope="module")
def world():
    return scenes.sample(2000, seed=3)


@pytest.fixture(scope="module")
def asked(world):
    """Questions by phrasings."""
    return {phrasings: scenes.ask(world, 7000, 4, phrasings=phrasings) for phrasings in PHRASINGS}


# --- Scenes


def painted(scene):
    """Whose each pixel is, -1 for the ground: built anew, from the shapes' own definitions."""
    owner = np.full((scenes.SIZE, scenes.SIZE), -1)
    for i, (shape, _, size, x, y) in enumerate(scene):
        v, u = (np.mgrid[: scenes.SIZE, : scenes.SIZE] - np.array([y, x])[:, None, None]) / size
        owner[np.maximum(abs(u), abs(v)) <= {"rectangle": 0.9, "triangle": 0}.get(shape, 0)] = i
        owner[(shape == "circle") & (u**2 + v**2 <= 1)] = i
        thin, long = np.minimum(abs(u), abs(v)), np.maximum(abs(u), abs(v))
        owner[(shape == "cross") & (thin <= 0.4) & (long <= 1)] = i
        owner[(shape == "triangle") & (v <= 0.85) & (abs(u) <= 0.55 * (v + 1.05))] = i
    return owner


def test_scenes_have_two_to_five_things_of_every_sort(world):
    assert set(map(len, world)) == {2, 3, 4, 5}
    things = [thing for scene in world for thing in scene]
    for column, values in ((0, SHAPES), (1, COLOURS), (2, scenes.RADII)):
        counts = Counter(thing[column] for thing in things)
        assert set(counts) == set(values)
        assert max(counts.values()) < 2 * min(counts.values())


def test_things_stay_inside_and_their_centres_apart(world):
    for scene in world:
        for i, (_, _, size, x, y) in enumerate(scene):
            assert size <= min(x, y) and max(x, y) < scenes.SIZE - size
            for other in scene[:i]:
                assert max(abs(x - other.x), abs(y - other.y)) >= scenes.CELL
        cells = {(thing.x // scenes.CELL, thing.y // scenes.CELL) for thing in scene}
        assert len(cells) == len(scene)


def visible(scene, i):
    """Pixels (48, 48) that change by half or more when thing i is black instead of white."""
    white, black = (
        scenes.draw(
            [t._replace(colour=c) if t is scene[i] else t for t in scene], np.random.default_rng(0)
        )
        for c in ("white", "black")
    )
    return (white.astype(int) - black).mean(axis=2) > 100


def test_each_thing_stays_to_be_seen(world):
    overlaps = 0
    for scene in world[:400]:
        for i, thing in enumerate(scene):
            seen = visible(scene, i)
            share = seen.sum() / visible([thing], 0).sum()
            assert seen[thing.y, thing.x] and share > scenes.VISIBLE - 0.03, (scene, i, share)
            overlaps += share < 0.95
    assert overlaps > 100  # they do overlap


def test_a_seed_decides_the_scenes(world):
    assert scenes.sample(2000, seed=3) == world
    assert scenes.sample(50, seed=3) == world[:50]
    assert scenes.sample(50, seed=5) != world[:50]
    assert len(set(world) & set(scenes.sample(2000, seed=5))) < 20
    assert scenes.sample(0, seed=0) == []
    with pytest.raises(ValueError, match="count is -1"):
        scenes.sample(-1, seed=0)


def test_nothing_hangs_on_the_hash_seed():
    code = (
        "from helpers import scenes; s = scenes.sample(200, 1);"
        "print(scenes.pictures(s[:5], 1).sum(), scenes.ask(s, 100, 1), scenes.vocabulary('new'))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


# --- Pictures


def test_pictures_are_the_same_for_the_same_seed(world):
    first = scenes.pictures(world[:20], seed=0)
    assert first.shape == (20, 48, 48, 3) and first.dtype == np.uint8
    assert np.array_equal(first, scenes.pictures(world[:20], seed=0))
    assert not np.array_equal(first, scenes.pictures(world[:20], seed=1))
    assert scenes.pictures([], seed=0).shape == (0, 48, 48, 3)


def test_colours_in_a_picture(world):
    images = scenes.pictures(world[:300], seed=0).astype(float)
    paint = np.array([scenes._PAINT[colour] for colour in COLOURS])
    for scene, image in zip(world, images, strict=False):
        owner = painted(scene)
        for i, (_, colour, *_) in enumerate(scene):
            seen = np.median(image[owner == i], axis=0)
            nearest = np.linalg.norm(paint - seen, axis=1).argmin()
            assert COLOURS[nearest] == colour
        ground = image[owner < 0].mean(axis=0)
        assert np.linalg.norm(paint - ground, axis=1).min() > 60


def test_later_things_lie_on_top():
    below, above = Thing("circle", "red", 13, 20, 20), Thing("circle", "blue", 6, 29, 20)
    generator = np.random.default_rng(0)
    first, second = (scenes.draw(s, generator) for s in ((below, above), (above, below)))
    assert first[20, 28, 2] > first[20, 28, 0] and second[20, 28, 0] > second[20, 28, 2]


def test_the_larger_of_two_things_looks_larger():
    """By its width or by its area, and less in neither, whatever the two shapes are."""
    covered = {
        size: [scenes._stamp(shape, "red", size)[0][..., 0] > 0.5 for shape in SHAPES]
        for size in scenes.RADII
    }
    looks = {
        size: [(mask.any(axis=0).sum(), mask.sum()) for mask in masks]
        for size, masks in covered.items()
    }
    for small, large in zip(scenes.RADII, scenes.RADII[1:], strict=False):
        for width, area in looks[large]:
            assert all(
                width >= w and area >= a and (width, area) != (w, a) for w, a in looks[small]
            )


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (Thing("circle", "red", 6, 3, 20), r"radius 6 at \(3, 20\) is not within"),
        (Thing("circle", "red", 6, 20, 42), "not within the picture"),
        (Thing("star", "red", 6, 20, 20), "'star' is none of circle"),
        (Thing("circle", "pink", 6, 20, 20), "'pink' is none of red"),
        (Thing("circle", "red", 7, 20, 20), "7 is none of 6, 8"),
    ],
)
def test_what_cannot_be_drawn_is_said(thing, message):
    with pytest.raises(ValueError, match=message):
        scenes.draw((thing,), np.random.default_rng(0))


# --- Answers


def brute(scene, question):
    """The answer, found another way: by sorting and by looking at all pairs."""
    words = [UNSEEN.get(word, word) for word in question.words]
    if question.kind == "relation":
        at = words.index("above") if "above" in words else words.index("below")
        higher, lower = (
            next(
                thing
                for thing in scene
                if {thing.shape, thing.colour} & set(part) & {*SHAPES, *COLOURS}
            )
            for part in (words[:at], words[at + 1 :])
        )
        if words[at] == "below":
            higher, lower = lower, higher
        return "yes" if higher.y < lower.y else "no"
    key = next(word for word in words if word in (*COLOURS, *SHAPES, *SIZES, *PLACES))
    if question.kind == "exists":
        pairs = {f"{thing.colour} {thing.shape}" for thing in scene}
        return "yes" if any(set(pair.split()) <= set(words) for pair in pairs) else "no"
    if question.kind == "count":
        return COUNTS[" ".join(thing.colour for thing in scene).split().count(key)]
    if question.kind == "place":
        along = {"left": "x", "right": "x", "top": "y", "bottom": "y"}[key]
        ordered = sorted(scene, key=lambda thing: getattr(thing, along))
        thing = ordered[0 if key in ("left", "top") else -1]
    elif question.kind == "size":
        ordered = sorted(scene, key=lambda thing: thing.size)
        thing = ordered[-1 if key == "large" else 0]
    else:
        (thing,) = (thing for thing in scene if key in thing)
    return thing.colour if "color" in words else thing.shape


@pytest.mark.parametrize("phrasings", PHRASINGS)
def test_the_answers_are_those_of_another_way_to_find_them(world, asked, phrasings):
    assert {question.kind for question in asked[phrasings]} == set(KINDS)
    for question in asked[phrasings]:
        scene = world[question.scene]
        assert question.answer in ANSWERS
        assert brute(scene, question) == question.answer, (scene, question)
        assert scenes.answer(scene, question.words) == question.answer
        assert scenes.answer(scene, " ".join(question.words).capitalize() + "?") == question.answer


SCENE = (
    Thing("circle", "red", 13, 14, 14),
    Thing("circle", "blue", 6, 30, 10),
    Thing("cross", "red", 8, 30, 30),
    Thing("triangle", "gray", 8, 13, 36),
)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("what color is the cross", "red"),
        ("what shape is the largest thing", "circle"),
        ("What color is the large circle?", "red"),
        ("what color is the right circle", "blue"),
        ("what shape is the little item", "circle"),
        ("what color is the bottom object", "gray"),
        ("how many red circles", None),
        ("how many red circle objects are there", "one"),
        ("how many objects are there", "four"),
        ("what is the total of red things", "two"),
        ("is there a red cross", "yes"),
        ("is there a blue cross", "no"),
        ("is there a triangle", "yes"),
        ("is the cross above the triangle", "yes"),
        ("is the triangle above the cross", "no"),
        ("is the cross under the blue object", "yes"),
        ("is the small circle above the cross", "yes"),
    ],
)
def test_readers_may_ask_more_than_training_does(question, answer):
    if answer is None:
        with pytest.raises(ValueError, match="'circles' is unknown"):
            scenes.answer(SCENE, question)
    else:
        assert scenes.answer(SCENE, question) == answer


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("what color is the pentagon", "'pentagon' is unknown here. Ask as in 'what color"),
        ("what color is the circle", "no single answer: 2 objects fit 'circle'"),
        ("what color is the rectangle", "no single answer: no objects fit 'rectangle'"),
        ("what color is the left object", "no object is left by enough"),
        ("what color is the small red object", None),
        ("what shape is the red object", "2 objects fit 'red'"),
        ("is the red object above the cross", "2 objects fit 'red'"),
        ("is the cross above the large red object", None),
        ("is the cross above the rectangle", "no objects fit 'rectangle'"),
        ("is the cross above the cross", "one and the same"),
        ("is the cross above", "above what"),
        ("above the cross", "above what"),
        ("what color", "the color of what"),
        ("what is there", "is not understood"),
        ("the red circle", "is not understood"),
        ("is there a large circle", "sizes and places go with"),
        ("how many large objects", "sizes and places go with"),
        ("", "no word was asked"),
    ],
)
def test_a_question_without_a_single_answer_is_told_why(question, message):
    if message is None:
        assert scenes.answer(SCENE, question) in ANSWERS
    else:
        with pytest.raises(ValueError, match=message):
            scenes.answer(SCENE, question)


def test_what_is_too_near_to_call_has_no_answer():
    one, other = Thing("circle", "red", 6, 10, 20), Thing("cross", "blue", 6, 30, 22)
    with pytest.raises(ValueError, match="too near"):
        scenes.answer((one, other), "is the circle above the cross")
    with pytest.raises(ValueError, match="no object is top by enough"):
        scenes.answer((one, other), "what color is the top object")
    with pytest.raises(ValueError, match="no object is large by enough"):
        scenes.answer((one, other), "what color is the large object")
    lower = other._replace(y=20 + scenes.GAP)
    assert scenes.answer((one, lower), "is the circle above the cross") == "yes"


# --- Questions


def test_each_answer_of_a_kind_is_as_frequent(asked):
    for kind in KINDS:
        questions = [q for q in asked["trained"] if q.kind == kind]
        assert abs(len(questions) - 1000) < 5 * (7000 * 1 / 7 * 6 / 7) ** 0.5
        by_words = {"color": COLOURS, "shape": SHAPES, "count": COUNTS}
        for asks, answers in by_words.items():
            mine = [q.answer for q in questions if q.answer in answers]
            if mine and kind != "count" or asks == "count":
                counts, share = Counter(mine), 1 / len(answers)
                bound = 5 * (len(mine) * share * (1 - share)) ** 0.5
                assert all(abs(counts[a] - share * len(mine)) < bound for a in answers if mine)
        if kind in ("exists", "relation"):
            assert abs(Counter(q.answer for q in questions)["yes"] / len(questions) - 0.5) < 0.08


def test_who_reads_the_words_alone_is_at_chance(world):
    """The most frequent answer to the very same words in training, on 7,000 new questions."""
    train, test = scenes.ask(world, 30_000, 8), scenes.ask(scenes.sample(2000, 9), 7000, 9)
    votes = {}
    for question in train:
        votes.setdefault(question.words, Counter())[question.answer] += 1
    for kind in KINDS:
        mine = [q for q in test if q.kind == kind and q.words in votes]
        right = [votes[q.words].most_common(1)[0][0] == q.answer for q in mine]
        sigma = (CHANCE[kind] * (1 - CHANCE[kind]) / len(right)) ** 0.5
        assert abs(np.mean(right) - CHANCE[kind]) < 4.5 * sigma, (kind, np.mean(right))


def test_exists_asks_for_what_is_there_on_one_thing_or_on_two(world, asked):
    for question in asked["trained"]:
        if question.kind == "exists":
            scene = world[question.scene]
            assert {thing.colour for thing in scene} & set(question.words)
            assert {thing.shape for thing in scene} & set(question.words)


def test_the_order_of_words_matters_in_relations_alone(world, asked):
    answers = {}
    for phrasings in PHRASINGS:
        for q in asked[phrasings]:
            answers.setdefault((q.kind, q.scene, tuple(sorted(q.words))), set()).add(q.answer)
    mixed = {kind for (kind, _, _), found in answers.items() if len(found) > 1}
    assert mixed <= {"relation"}
    one, other = "is the cross above the triangle", "is the triangle above the cross"
    assert scenes.answer(SCENE, one) != scenes.answer(SCENE, other)


def test_training_has_no_word_or_sentence_that_is_held_out(asked):
    words = {p: {word for q in asked[p] for word in q.words} for p in PHRASINGS}
    trained = set(scenes.vocabulary())
    assert words["trained"] == trained and list(scenes.vocabulary()) == sorted(trained)
    assert words["known"] <= trained and not words["new"] <= trained
    assert words["new"] <= set(scenes.vocabulary("new"))
    assert not trained & set(UNSEEN) and set(UNSEEN.values()) <= trained
    sentences = {p: {q.words for q in asked[p]} for p in PHRASINGS}
    assert not sentences["trained"] & (sentences["known"] | sentences["new"])
    assert not sentences["known"] & sentences["new"]


def test_every_word_has_a_row():
    words, _ = word2vec.load(Path(__file__).parents[2] / "data" / "docs_word2vec.bin")
    used = {word for phrasings in PHRASINGS for word in scenes.vocabulary(phrasings)}
    assert used | set(UNSEEN) <= set(words)


def test_swap_changes_one_word_and_nothing_else(asked):
    before, after = scenes.swap(asked["trained"], "circle", "sphere")
    assert len(before) == len(after) > 300
    for old, new in zip(before, after, strict=True):
        assert "circle" in old.words and "circle" not in new.words
        assert new.words == tuple("sphere" if w == "circle" else w for w in old.words)
        assert new._replace(words=old.words) == old
    assert scenes.swap(asked["trained"], "sphere", "circle") == ([], [])


def test_an_unseen_word_means_what_its_trained_one_does(world, asked):
    for unseen, trained in UNSEEN.items():
        _, after = scenes.swap(asked["trained"], trained, unseen)
        assert after, trained
        for question in after[:20]:
            assert scenes.answer(world[question.scene], question.words) == question.answer


def test_asking_is_reproducible_and_takes_kinds(world):
    assert scenes.ask(world, 100, 1) == scenes.ask(world, 100, 1)
    assert scenes.ask(world, 100, 1) != scenes.ask(world, 100, 2)
    only = scenes.ask(world, 200, 1, kinds=("count", "place"))
    assert {question.kind for question in only} == {"count", "place"}
    assert scenes.ask(world, 0, 1) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ("color", "taste")}, "'taste' is no kind of question"),
        ({"kinds": ()}, "no kind"),
        ({"phrasings": "old"}, "phrasings is 'old': it is one of trained, known, new"),
        ({"count": -1}, "count is -1"),
    ],
)
def test_what_cannot_be_asked_is_said(world, options, message):
    with pytest.raises(ValueError, match=message):
        scenes.ask(world, **{"count": 3, "seed": 0, **options})


def test_unknown_phrasings_have_no_vocabulary():
    with pytest.raises(ValueError, match="phrasings is 'old'"):
        scenes.vocabulary("old")


def test_too_few_scenes_are_said():
    with pytest.raises(ValueError, match="pass more scenes"):
        scenes.ask([SCENE], 50, 0)
    with pytest.raises(ValueError, match="pass more scenes"):
        scenes.ask([], 1, 0)
