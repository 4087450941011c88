"""A reader that answers questions about pictures, how it is trained, and what is stored of it.

The pictures and questions are those of helpers.scenes. The eyes of helpers.eyes turn a picture into
six slots of 17 numbers, each perhaps a thing. The reader takes a question word by word (a GRU over
the rows of a table that you bring), looks for what is asked among the slots (attention), and gives
each answer a score. So what is in the table's rows is the one part that you choose.

    seen = load()                                     # trained eyes, and what they saw
    reader = train(table, encode(seen.questions, row_of), seen.slots)
    right(reader, encode(questions, row_of), seen.eyes.look(images))

Attention over slots by a question follows Anderson et al. 2018
(https://arxiv.org/abs/1707.07998), made small; the sums of chances beside it follow Zhang et al.
2018 (https://arxiv.org/abs/1802.05766), who found that weighted means count badly.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers import scenes
from helpers.eyes import FEATURES, SLOTS, Eyes, descend, seeded

DATA = Path(__file__).resolve().parents[1] / "data"
NAME = "scenes_seen.npz"
RECORD = DATA / "measurements" / "experiments" / "answers.json"
WIDTH = 64  # numbers in a question's state
GLIMPSES = COUNTS = 4


# --- Questions as tensors


class Asked(NamedTuple):
    """N questions: `scene` (N,), `ids` (N, T) with 0 behind the last word, `lengths` (N,), and
    `answer` (N,), a place in scenes.ANSWERS. All int64.
    """

    scene: Tensor
    ids: Tensor
    lengths: Tensor
    answer: Tensor


def encode(questions: Sequence[scenes.Question], row_of: Mapping[str, int]) -> Asked:
    """The questions with each word replaced by its row, filled up with 0 to the longest.

    Raises:
        KeyError: `row_of` lacks a word.
    """
    lengths = torch.tensor([len(q.words) for q in questions])
    ids = torch.zeros(len(questions), int(lengths.max()), dtype=torch.long)
    for row, q in zip(ids, questions, strict=True):
        row[: len(q.words)] = torch.tensor([row_of[word] for word in q.words])
    answers = [scenes.ANSWERS.index(q.answer) for q in questions]
    return Asked(torch.tensor([q.scene for q in questions]), ids, lengths, torch.tensor(answers))


# --- The reader


class Encoder(nn.Module):
    """A question as one vector: the state of a GRU after the question's last word."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.table = table
        self.gru = nn.GRU(table.embedding_dim, WIDTH, batch_first=True)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(N, WIDTH) for ids (N, T) and the questions' lengths (N,)."""
        packed = nn.utils.rnn.pack_padded_sequence(
            self.table(ids), lengths, batch_first=True, enforce_sorted=False
        )
        return self.gru(packed)[1][0]


class Attention(nn.Module):
    """What a question's state finds among the slots: glimpses, and counts.

    Eight times it asks how well each slot fits. Four of them become glimpses: weights by softmax,
    and the mean of the slots' values by these weights. The other four become counts: a chance for
    each slot by a sigmoid, and their sum. `way` leaves something out, for comparison: "softmax"
    has eight glimpses and no counts; "hard" takes in each glimpse the best slot alone.
    """

    def __init__(self, way: str = "whole") -> None:
        super().__init__()
        if way not in ("whole", "softmax", "hard"):
            raise ValueError(f"way is {way!r}: it is whole, softmax or hard")
        self.way = way
        self.query = nn.Linear(WIDTH, (GLIMPSES + COUNTS) * 32)
        self.key = nn.Linear(FEATURES, 32)
        self.value = nn.Linear(FEATURES, WIDTH)

    @property
    def out_features(self) -> int:
        """Numbers that forward returns for each question."""
        return (GLIMPSES + COUNTS) * WIDTH if self.way == "softmax" else GLIMPSES * WIDTH + COUNTS

    def scores(self, state: Tensor, slots: Tensor) -> Tensor:
        """(N, GLIMPSES + COUNTS, SLOTS): how well each slot fits, those for glimpses first."""
        query = self.query(state).unflatten(1, (GLIMPSES + COUNTS, 32))
        return query @ self.key(slots).mT / 32**0.5

    def forward(self, state: Tensor, slots: Tensor) -> Tensor:
        """(N, out_features) for states (N, WIDTH) and slots (N, SLOTS, FEATURES)."""
        scores = self.scores(state, slots)
        if self.way == "softmax":
            return (scores.softmax(dim=2) @ self.value(slots)).flatten(1)
        glimpse, count = scores.chunk(2, dim=1)
        weights = glimpse.softmax(dim=2)
        if self.way == "hard":  # forward the best slot alone, backward as if it were the softmax
            best = F.one_hot(weights.argmax(dim=2), SLOTS).float()
            weights = best + weights - weights.detach()
        glimpses = weights @ self.value(slots)
        return torch.cat([glimpses.flatten(1), count.sigmoid().sum(dim=2)], dim=1)


class Reader(nn.Module):
    """A question and the slots of its picture to a score for each of scenes.ANSWERS."""

    def __init__(self, table: nn.Embedding, way: str = "whole") -> None:
        super().__init__()
        self.encoder, self.attention = Encoder(table), Attention(way)
        hidden = nn.Linear(WIDTH + self.attention.out_features, 128)
        self.head = nn.Sequential(hidden, nn.ReLU(), nn.Linear(128, len(scenes.ANSWERS)))

    def forward(self, slots: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
        """(N, 16) for slots (N, SLOTS, FEATURES), ids (N, T) and lengths (N,)."""
        state = self.encoder(ids, lengths)
        return self.head(torch.cat([state, self.attention(state, slots)], dim=1))


def train(
    table: nn.Embedding,
    asked: Asked,
    slots: Tensor,
    rate: float = 0.01,
    steps: int = 1000,
    seed: int = 0,
    way: str = "whole",
) -> Reader:
    """A reader after `steps` batches of 256 questions; a frozen table stays as it is.

    Args:
        table: V rows of any dimension; it becomes a part of the reader.
        asked: the questions; `slots` (scenes, SLOTS, FEATURES) is what is seen of their pictures.
        seed: decides on the first weights and the batches.
    """
    torch.manual_seed(seed)
    reader = Reader(table, way)
    batches = torch.randint(len(asked.answer), (steps, 256), generator=seeded(seed))

    def loss_of(some: Tensor) -> Tensor:
        scene, ids, lengths, answer = (part[some] for part in asked)
        return F.cross_entropy(reader(slots[scene], ids, lengths), answer)

    descend(loss_of, [p for p in reader.parameters() if p.requires_grad], batches, rate)
    return reader


@torch.no_grad()
def answers(reader: Reader, asked: Asked, slots: Tensor) -> Tensor:
    """int64 (N,): the answer with the largest score, a place in scenes.ANSWERS."""
    return reader(slots[asked.scene], asked.ids, asked.lengths).argmax(dim=1)


def right(reader: Reader, asked: Asked, slots: Tensor) -> Tensor:
    """Bool (N,): which questions the reader answers rightly."""
    return answers(reader, asked, slots) == asked.answer


# --- Eyes that are trained already, and what they saw


class Seen(NamedTuple):
    """`eyes`, trained; `slots` float32 (16000, SLOTS, FEATURES), what they say of the pictures to
    learn from; `questions`, 32,000 on these pictures.
    """

    eyes: Eyes
    slots: Tensor
    questions: list[scenes.Question]


def load(path: Path = DATA / NAME) -> Seen:
    """What data/scenes_seen.npz holds; `python -m tools.experiments.seen` makes the file anew."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    eyes = Eyes()
    weights = {k.removeprefix("eyes "): v for k, v in arrays.items() if k.startswith("eyes ")}
    eyes.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
    known = ("", *scenes.vocabulary("trained"))
    columns = [arrays[name].tolist() for name in ("scene", "words", "answer", "kind")]
    questions = [
        scenes.Question(n, tuple(known[w] for w in words if w), scenes.ANSWERS[a], scenes.KINDS[k])
        for n, words, a, k in zip(*columns, strict=True)
    ]
    return Seen(eyes.eval(), torch.from_numpy(arrays["slots"]).float(), questions)


def recorded(
    way: str, questions: int, setting: str = "own", name: str = "right", path: Path = RECORD
) -> Tensor:
    """Float32 (seeds,): in %, how much of a test the recorded readers got right, for each seed.

    Args:
        way: how the words' rows started: "random", "random, frozen", "pretrained, frozen" or
            "pretrained, tuned".
        questions: to learn from: 500, 2000, 8000 or 32000.
        setting: "common", rows of length 10 and rate .01 for all ways, or "own", each way's best.
        name: the test; "right" is the common one. `tools/experiments/answers.py` tells the others,
            which are there for "own" alone.

    Raises:
        ValueError: nothing of the kind is recorded.
    """
    part = {"common": "common", "own": "grid"}.get(setting)
    rows = json.loads(path.read_text("utf-8"))["rows"]
    found = [
        100 * row[name]
        for row in rows
        if row["part"] == part and (row["way"], row["questions"]) == (way, questions)
        and name in row
    ]  # fmt: skip
    if not found:
        raise ValueError(f"no {name!r} of {way!r} at {questions} questions, {setting!r} setting")
    return torch.tensor(found)
