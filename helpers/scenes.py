"""Scenes of a few things, their pictures, questions about them, and the answers.

A scene is a tuple of things, a picture is drawn from it, and an answer is computed from it, so
that a question about a picture has a known answer and no one needs to label anything. It follows
CLEVR (Johnson et al. 2017, https://arxiv.org/abs/1612.06890), made small.

    scenes = sample(1000, seed=0)
    images = pictures(scenes, seed=0)          # uint8 (1000, 48, 48, 3)
    asked = ask(scenes, 5000, seed=0)          # Question(scene=17, words=("what", ...), ...)
    answer(scenes[0], "what color is the left object?")

The words are American, since the vectors of data/docs_word2vec.bin have a row for color, and none
for colour. One word stands for one meaning in training; `UNSEEN` has other words for some of them.
Whatever the seed decides is drawn as whole numbers, so every machine gets the same scenes and
pictures from it.

Below: `sample` and `_place` make scenes, `draw` and `_stamp` pictures, `ask` questions; `answer`
goes from words to a meaning (`_parse`) and from a meaning and a scene to the answer (`_truth`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SIZE = 48  # pixels: a picture is SIZE x SIZE
CELL = 8  # pixels: the centres of two things are at least so far apart, across or down
GAP = 3  # pixels by which one thing must lead to be the left one, or above another
VISIBLE = 0.7  # of each thing's area stays visible, at the least, and its centre
RADII = (6, 8, 10, 13)  # pixels
FEWEST, MOST = 2, 5  # things in a scene

SHAPES = ("circle", "rectangle", "triangle", "cross")
COLOURS = ("red", "green", "blue", "black", "white", "gray")
SIZES = ("large", "small")  # "the large object" is the largest of all
PLACES = ("left", "right", "top", "bottom")  # "the left object" is the one furthest left
COUNTS = ("zero", "one", "two", "three")
ANSWERS = (*COLOURS, *SHAPES, *COUNTS, "yes", "no")
KINDS = ("color", "shape", "place", "size", "count", "exists", "relation")

# Words that training never has, and the word that it has for the same thing.
UNSEEN = {
    **dict.fromkeys(("sphere", "ellipse", "disc", "disk", "ball", "round"), "circle"),
    **dict.fromkeys(("box", "rect", "square"), "rectangle"),
    **dict.fromkeys(("triangular", "polygon", "wedge"), "triangle"),
    "plus": "cross",
    "grey": "gray",
    **dict.fromkeys(("big", "huge", "largest"), "large"),
    **dict.fromkeys(("little", "tiny", "smallest"), "small"),
    "leftmost": "left",
    "rightmost": "right",
    **dict.fromkeys(("upper", "topmost"), "top"),
    "lower": "bottom",
    "over": "above",
    "under": "below",
    **dict.fromkeys(("thing", "item", "element"), "object"),
    **dict.fromkeys(("things", "items", "elements"), "objects"),
    "colors": "color",
    "shapes": "shape",
    **dict.fromkeys(("number", "total"), "count"),
}

# How a question may be put: the phrasings of training; others of the same words in another order
# ("known"); others with words that training never has ("new"). {one} and {two} name a thing.
_ATTRIBUTE = {
    "trained": (
        "what {asked} is the {one}",
        "what is the {asked} of the {one}",
        "which {asked} does the {one} have",
        "give the {asked} of the {one}",
    ),
    "known": ("the {one} is what {asked}", "of the {one} give the {asked}"),
    "new": ("tell the {asked} that the {one} shows", "find the {one} and name its {asked}"),
}
_COUNT = {
    "trained": (
        "how many {one} objects are there",
        "how many objects are {one}",
        "count the {one} objects",
        "what is the count of {one} objects",
    ),
    "known": ("the {one} objects are how many", "give the count of objects that are {one}"),
    "new": ("what is the number of {one} objects", "find all {one} objects and tell how many"),
}
_EXISTS = {
    "trained": (
        "is there a {one} {two}",
        "is there a {two} that is {one}",
        "does the picture have a {one} {two}",
    ),
    "known": ("is a {one} {two} there", "does the picture have a {two} that is {one}"),
    "new": ("is any {one} {two} present", "can you find a {one} {two}"),
}
_RELATION = {
    "trained": (
        "is the {one} {asked} the {two}",
        "is it the {one} that is {asked} the {two}",
        "does the picture have the {one} {asked} the {two}",
    ),
    "known": ("is the {one} that is there {asked} the {two}", "the {one} is it {asked} the {two}"),
    "new": ("does the {one} lie {asked} the {two}", "can you find the {one} {asked} the {two}"),
}
_PHRASINGS = {
    **dict.fromkeys(("color", "shape", "place", "size"), _ATTRIBUTE),
    "count": _COUNT,
    "exists": _EXISTS,
    "relation": _RELATION,
}
_RELATIONS = ("above", "below")
_NUMBERS = (*COUNTS, "four", "five")
_EXAMPLES = "'what color is the circle', 'how many objects are red', 'is there a blue cross'"


class Thing(NamedTuple):
    """One thing: `size` is its radius and (`x`, `y`) its centre, in pixels from the top left."""

    shape: str
    colour: str
    size: int
    x: int
    y: int


Scene = tuple[Thing, ...]


class Question(NamedTuple):
    """A question on scene number `scene`, word by word, its answer, and its kind of `KINDS`."""

    scene: int
    words: tuple[str, ...]
    answer: str
    kind: str


# --- Scenes and their pictures


def sample(count: int, seed: int) -> list[Scene]:
    """`count` scenes of 2 to 5 things, which may overlap, painted in their order.

    Shape, colour and size of each thing are drawn uniformly, then a place where the centre
    and `VISIBLE` of the area of every earlier thing stay visible, and its own centre is `CELL`
    pixels or more from theirs, across or down. A scene in which no place is found
    for a thing is drawn anew, so where there are many things, more of them are small.

    Raises:
        ValueError: count is negative.
    """
    if count < 0:
        raise ValueError(f"count is {count}: ask for 0 scenes or more")
    generator = np.random.default_rng([seed, 0])
    scenes = []
    while len(scenes) < count:
        scene = _place(generator.integers(FEWEST, MOST + 1), generator)
        scenes += [scene] if scene else []
    return scenes


def _place(count: int, generator: np.random.Generator) -> Scene | None:
    things, owner = [], np.full((SIZE, SIZE), -1)  # whose each pixel is
    for number in range(count):
        shape = SHAPES[generator.integers(len(SHAPES))]
        colour = COLOURS[generator.integers(len(COLOURS))]
        size = RADII[generator.integers(len(RADII))]
        mask = _stamp(shape, colour, size)[0][..., 0] > 0.5
        for x, y in generator.integers(size, SIZE - size, (20, 2)).tolist():
            if any(max(abs(x - t.x), abs(y - t.y)) < CELL for t in things):
                continue
            tried = owner.copy()
            tried[_window(x, y, size)][mask] = number
            if all(
                tried[t.y, t.x] == i and (tried == i).sum() >= VISIBLE * _area(t)
                for i, t in enumerate(things)
            ):
                owner = tried
                things.append(Thing(shape, colour, size, x, y))
                break
        else:
            return None
    return tuple(things)


def pictures(scenes: Sequence[Scene], seed: int) -> np.ndarray:
    """The scenes drawn, uint8 (N, SIZE, SIZE, 3). The seed decides on backgrounds and noise."""
    generator = np.random.default_rng([seed, 1])
    drawn = [draw(scene, generator) for scene in scenes]
    return np.stack(drawn) if drawn else np.empty((0, SIZE, SIZE, 3), dtype=np.uint8)


def draw(scene: Scene, generator: np.random.Generator) -> np.ndarray:
    """One picture, uint8 (SIZE, SIZE, 3): rows from the top, then red, green and blue.

    On a sandy ground, whose tone and slope differ from picture to picture, each thing is painted
    over those before it, smooth at its edge; then every pixel gets noise of its own.

    Raises:
        ValueError: a thing reaches beyond the picture, or its shape, colour or size is none of
            `SHAPES`, `COLOURS` and `RADII`.
    """
    along = (np.arange(SIZE) - SIZE // 2) / SIZE
    tone, down, across = generator.integers(-9, 10, 3), *generator.integers(-24, 25, 2)
    slope = down * along[:, None] + across * along
    picture = np.array([214.0, 200, 168]) + tone + slope[..., None]
    for shape, colour, size, x, y in scene:
        if not (size <= x < SIZE - size and size <= y < SIZE - size):
            raise ValueError(f"a {shape} of radius {size} at ({x}, {y}) is not within the picture")
        cover, paint = _stamp(shape, colour, size)
        window = picture[_window(x, y, size)]
        window += cover * (paint - window)
    noise = generator.integers(-9, 10, (2, SIZE, SIZE, 3)).sum(axis=0)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


_PAINT = {
    "red": (206, 60, 48),
    "green": (60, 146, 84),
    "blue": (50, 98, 190),
    "black": (36, 36, 42),
    "white": (248, 247, 243),
    "gray": (134, 136, 142),
}
_RIM = np.array([84, 80, 74])


@functools.cache
def _stamp(shape: str, colour: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel a thing covers (n, n, 1), and with which colour (n, n, 3); n is
    2 size + 1. Its rim has another tone, so that two things of one colour can be told apart.
    """
    for value, known in ((shape, SHAPES), (colour, COLOURS), (size, RADII)):
        if value not in known:
            raise ValueError(f"{value!r} is none of {', '.join(map(str, known))}")
    fine, n = 8, 2 * size + 1  # points a pixel, along each side
    at = (np.arange(n * fine) + 0.5) / fine - n / 2
    u, v = at / (size + 0.5), at[:, None] / (size + 0.5)
    inside = {  # the larger of two is wider or covers more, and is less in neither
        "circle": u**2 + v**2 <= 0.94**2,
        "rectangle": np.maximum(abs(u), abs(v)) <= 0.82,
        "triangle": (v <= 0.8) & (1.08 * abs(u) <= (v + 1) * 0.59),
        "cross": (np.minimum(abs(u), abs(v)) <= 0.36) & (np.maximum(abs(u), abs(v)) <= 0.98),
    }[shape]
    body = inside.copy()
    for axis in (0, 1):
        for step in (-6, 6):  # three quarters of a pixel
            body &= np.roll(inside, step, axis)
    cover, body = (
        m.reshape(n, fine, n, fine).mean(axis=(1, 3))[..., None] for m in (inside, body)
    )
    light = np.array(_PAINT[colour]) - 10.0 * (at[fine // 2 :: fine] / n)[:, None, None]
    share = body / np.maximum(cover, 1 / fine**2)  # of what is covered
    return cover, light + (_RIM - light) * (1 - share) / 2


def _area(thing: Thing) -> int:
    """Pixels that the thing covers by more than half."""
    return int((_stamp(thing.shape, thing.colour, thing.size)[0] > 0.5).sum())


def _window(x: int, y: int, size: int) -> tuple[slice, slice]:
    return slice(y - size, y + size + 1), slice(x - size, x + size + 1)


# --- Questions and their answers


class _Meaning(NamedTuple):
    """What is asked ("color", "shape", "count", "exists", "above", "below"), of which thing or
    things, and for a relation of which other thing: by the words that choose them.
    """

    asked: str
    one: tuple[str, ...]
    two: tuple[str, ...] = ()


def answer(scene: Scene, words: str | Sequence[str]) -> str:
    """The answer to a question about a scene, a word of `ANSWERS` (or "four" or "five").

    It understands every phrasing of `ask`, unseen words, and what goes beyond both, such as "what
    color is the large circle": words for colours, shapes, sizes and places choose the things, in
    this order, and a word for what is asked says what to tell of them.

    Args:
        words: a sentence, or its words.

    Raises:
        ValueError: a word is unknown, no question is recognised, or it has no single answer: it
            asks for the color of the circle, say, and there are two. The message says which.
    """
    meaning = _parse(words)
    found = _truth(scene, meaning)
    if found is not None:
        return found
    for names in filter(None, meaning[1:]):
        chosen = _choose(scene, names)
        if len(chosen) != 1:
            plain = _choose(scene, [n for n in names if n not in SIZES + PLACES])
            named = " ".join(names)
            if len(plain) > 1 and len(chosen) == 0:
                raise ValueError(f"no single answer: no object is {named} by enough to say so")
            raise ValueError(f"no single answer: {len(chosen) or 'no'} objects fit {named!r}")
    raise ValueError("no single answer: the two are one and the same, or too near in height")


def ask(
    scenes: Sequence[Scene],
    count: int,
    seed: int,
    kinds: Sequence[str] = KINDS,
    phrasings: str = "trained",
) -> list[Question]:
    """`count` questions on the scenes, balanced: who reads the words alone must guess.

    For each question its kind, its words and its answer are drawn first, each uniformly from what
    there is to draw, and then a scene, uniformly from those where that is the answer. "exists"
    asks for a colour and a shape that are both in the scene, on one thing or on two.

    Args:
        phrasings: "trained", "known" (the same words, other sentences) or "new" (other words too).

    Raises:
        ValueError: count is negative, a kind or the phrasings are unknown, or the scenes are too
            few for balance.
    """
    if count < 0:
        raise ValueError(f"count is {count}: ask for 0 questions or more")
    for kind in kinds or ["nothing"]:
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no kind of question: there are {', '.join(KINDS)}")
    generator = np.random.default_rng([seed, 2])

    def pick(options: Sequence):
        return options[generator.integers(len(options))]

    def numbers():
        while True:
            yield from generator.integers(len(scenes), size=256).tolist()

    questions, tries = [], numbers() if len(scenes) else iter(())
    for _ in range(count):
        kind = pick(kinds)
        asked, one, two = _draw_words(kind, pick)
        meaning = _Meaning(asked, one, two)
        options = {"color": COLOURS, "shape": SHAPES, "count": COUNTS}.get(asked, ("yes", "no"))
        wanted = pick(options)
        both = _Meaning("exists", one[:1]), _Meaning("exists", one[1:])
        for index in itertools.islice(tries, 40 * len(scenes)):
            if _truth(scenes[index], meaning) == wanted and (
                kind != "exists" or all(_truth(scenes[index], m) == "yes" for m in both)
            ):
                break
        else:
            raise ValueError(
                f"none of {len(scenes)} scenes seems to have the answer {wanted!r} to a question "
                f"on {' '.join(one + two)}: pass more scenes"
            )
        slots = {"asked": asked, "one": _noun(kind, one), "two": _noun(kind, two)}
        if kind == "exists":
            slots["one"], slots["two"] = one
        sentence = pick(_sentences(kind, phrasings)).format(**slots)
        questions.append(Question(index, tuple(sentence.split()), wanted, kind))
    return questions


def swap(
    questions: Sequence[Question], old: str, new: str
) -> tuple[list[Question], list[Question]]:
    """The questions that have the word `old`, and the same ones with `new` in its place."""
    before = [q for q in questions if old in q.words]
    after = [q._replace(words=tuple(new if w == old else w for w in q.words)) for q in before]
    return before, after


@functools.cache
def vocabulary(phrasings: str = "trained") -> tuple[str, ...]:
    """Every word that questions in these phrasings may have, sorted.

    Raises:
        ValueError: the phrasings are unknown.
    """
    asked = (*SIZES, *PLACES, *COLOURS, *SHAPES, *_RELATIONS, "color", "shape", "object")
    sentences = [s for kind in KINDS for s in _sentences(kind, phrasings)]
    return tuple(sorted({w for s in sentences for w in s.split() if "{" not in w} | {*asked}))


def _sentences(kind: str, phrasings: str) -> tuple[str, ...]:
    if phrasings not in _PHRASINGS[kind]:
        raise ValueError(f"phrasings is {phrasings!r}: it is one of {', '.join(_ATTRIBUTE)}")
    return _PHRASINGS[kind][phrasings]


def _draw_words(kind: str, pick) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """What is asked, and the words that choose one thing or more, and another."""
    if kind == "color":
        return "color", (pick(SHAPES),), ()
    if kind == "shape":
        return "shape", (pick(COLOURS),), ()
    if kind in ("place", "size"):
        return pick(("color", "shape")), (pick(PLACES if kind == "place" else SIZES),), ()
    if kind == "count":
        return "count", (pick(COLOURS),), ()
    if kind == "exists":
        return "exists", (pick(COLOURS), pick(SHAPES)), ()
    one = pick(COLOURS + SHAPES)
    return pick(_RELATIONS), (one,), (pick([w for w in COLOURS + SHAPES if w != one]),)


def _noun(kind: str, names: tuple[str, ...]) -> str:
    named = " ".join(names)
    return named if kind == "count" or set(names) <= {*SHAPES} else f"{named} object"


def _parse(words: str | Sequence[str]) -> _Meaning:
    """What a question means, by its words for things and for what is asked; the rest is grammar."""
    if isinstance(words, str):
        words = words.lower().replace("?", " ").replace(",", " ").split()
    known = {w for phrasings in _ATTRIBUTE for w in vocabulary(phrasings)} | {*UNSEEN}
    if not words:
        raise ValueError(f"no word was asked. Ask as in {_EXAMPLES}")
    for word in words:
        if word not in known:
            raise ValueError(f"the word {word!r} is unknown here. Ask as in {_EXAMPLES}")
    meant = [UNSEEN.get(word, word) for word in words]
    names = [w for w in meant if w in COLOURS + SHAPES + SIZES + PLACES]
    for relation in filter(meant.__contains__, _RELATIONS):
        at = meant.index(relation)
        one, two = (tuple(w for w in part if w in names) for part in (meant[:at], meant[at:]))
        if not (one and two):
            raise ValueError(f"{relation} what? Ask as in 'is the circle {relation} the cross'")
        return _Meaning(relation, one, two)
    asks = {"color": "color", "shape": "shape", "count": "count", "many": "count"}
    asked = next((asks[w] for w in meant if w in asks), "exists")
    if asked == "exists" and (words[0] not in ("is", "does", "can") or not names):
        raise ValueError(f"{' '.join(words)!r} is not understood. Ask as in {_EXAMPLES}")
    if asked in ("exists", "count") and {*names} & {*SIZES, *PLACES}:
        raise ValueError("sizes and places go with a color or a shape, as in 'what color is ...'")
    if asked in ("color", "shape") and not names:
        raise ValueError(f"the {asked} of what? Ask as in 'what {asked} is the left object'")
    return _Meaning(asked, tuple(names))


def _truth(scene: Scene, meaning: _Meaning) -> str | None:
    """The answer, or None where the question has no single one."""
    asked, one, two = meaning
    chosen = _choose(scene, one)
    if asked == "count":
        return _NUMBERS[len(chosen)]
    if asked == "exists":
        return "yes" if chosen else "no"
    if len(chosen) != 1:
        return None
    if asked in ("color", "shape"):
        return chosen[0].colour if asked == "color" else chosen[0].shape
    others = _choose(scene, two)
    if len(others) != 1 or abs(lower := others[0].y - chosen[0].y) < GAP:
        return None
    return "yes" if (lower > 0) == (asked == "above") else "no"


_ORDER = {
    "large": lambda thing: -thing.size,
    "small": lambda thing: thing.size,
    "left": lambda thing: thing.x,
    "right": lambda thing: -thing.x,
    "top": lambda thing: thing.y,
    "bottom": lambda thing: -thing.y,
}


def _choose(scene: Scene, names: Sequence[str]) -> list[Thing]:
    """The things that all the names fit; sizes and places choose among those left, or none."""
    things = list(scene)
    for name in names:
        if name in COLOURS:
            things = [thing for thing in things if thing.colour == name]
        elif name in SHAPES:
            things = [thing for thing in things if thing.shape == name]
    for name in names:
        if name in _ORDER and len(things) > 1:
            (first, thing), (second, _) = sorted((_ORDER[name](t), t) for t in things)[:2]
            things = [thing] if second - first >= (1 if name in SIZES else GAP) else []
    return things
