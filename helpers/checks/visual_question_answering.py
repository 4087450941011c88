"""Checks of lesson 10: order of words, a blind reader, the last real state, counts, new words."""

import random
from collections import Counter

import torch
from torch import nn

from helpers import scenes
from helpers.checks import Wrong, call, close, describe, exercise, filled, number, recognise, same


@exercise
def same_words(answer):
    """A dictionary of two questions with the same words and, in some scene, other answers."""
    filled(answer, ("one", "other"))
    asked = {}
    for name in ("one", "other"):
        words = answer[name]
        if isinstance(words, tuple | list) and all(isinstance(w, str) for w in words):
            words = " ".join(words)
        if not isinstance(words, str):
            raise Wrong(f"A question is wanted, words in quotes, not {describe(words)}.")
        asked[name] = words.lower().replace("?", " ").replace(",", " ").split()
    counts = {name: Counter(words) for name, words in asked.items()}
    for name, rest in (
        ("one", counts["one"] - counts["other"]),
        ("other", counts["other"] - counts["one"]),
    ):
        if rest:
            word = next(iter(rest))
            raise Wrong(f"The words differ: {word!r} stands more often in {name!r}.")
    if asked["one"] == asked["other"]:
        raise Wrong("That is one question twice. Put its words in another order.")
    both = 0
    for scene in scenes.sample(1000, seed=random.Random().randrange(1 << 30)):
        found = []
        for name, words in asked.items():
            try:
                found.append(scenes.answer(scene, words))
            except ValueError as error:
                if "no single answer" not in str(error):
                    raise Wrong(f"{name!r} is no question here: {error}.") from None
        if len(found) == 2:
            both += 1
            if found[0] != found[1]:
                return "A mean of rows is the same for both, and the answers are not."
    if not both:
        raise Wrong(
            "No scene of 1,000 has an answer to both: they name too many different things. Name "
            "the same two in both."
        )
    raise Wrong(f"In {both} scenes both have the same answer. Where does order carry meaning?")


def _questions():
    """Train, test: six sequences of words, one new in test, and answers without ties in train."""
    luck = random.Random()  # the reader's own random state stays as it is
    answers = luck.sample(["red", "green", "blue", "two", "three"], 5)
    often, wordings = answers[0], [tuple(w) for w in ("abc", "acb", "bcd", "abcd", "abd", "dcb")]
    kinds = ["color", "count"]

    def some(words, kind, votes):
        return [scenes.Question(0, words, a, kind) for a, n in votes for _ in range(n)]

    train = some(("many",), "count", [(often, 40)])  # the most frequent of all
    test = some(("many",), "count", [(often, 1), (answers[4], 3)])
    for i, words in enumerate(wordings):
        first, second, third = (answers[1 + (i + step) % 4] for step in range(3))
        train += some(words, kinds[i % 2], [(first, 7), (second, 4), (third, 2)])
        test += some(words, kinds[i % 2], [(first, 5), (second, 8 + i), (third, 1 + i % 2)])
    test += some(("what", "new"), "color", [(often, 5), (answers[1], 9), (answers[2], 5)])
    luck.shuffle(train)
    luck.shuffle(test)
    return train, test


def _share(train, test, of=lambda q: q.words, otherwise=True):
    """What the most frequent answer of each group of `train` scores on `test`."""
    overall, groups = Counter(q.answer for q in train), {}
    for q in train:
        groups.setdefault(of(q), Counter())[q.answer] += 1
    most = overall if otherwise else Counter({"": 1})
    guesses = [groups.get(of(q), most).most_common(1)[0][0] for q in test]
    return sum(guess == q.answer for guess, q in zip(guesses, test, strict=True)) / len(test)


@exercise
def blind(answer):
    """A function (train, test) -> the share of test that a reader of the words alone gets."""
    for _ in range(3):
        train, test = _questions()
        before = list(train), list(test)
        hints = {"('what', 'new')": "A sequence of words may be new in test."}
        value = call(answer, train, test, copy=False, hints=hints)
        if (train, test) != before:
            raise Wrong("Your function changed one of the lists.")
        value = float(number(value, "The share"))
        truth = _share(train, test)
        known = [q for q in test if q.words != ("what", "new")]
        told = {
            truth * len(test): "That is the number of questions. The share is asked, 0 to 1.",
            100 * truth: "That is in percent. The share is asked, 0 to 1.",
            1 - truth: "That is the share of errors.",
            _share(test, test): "Did the majority come from test? It must be counted in train.",
            _share(train, train): "That is the score on train. Judge the test questions.",
            _share(test, train): "The roles are exchanged: count in train, judge on test.",
            _share(train, test, of=lambda q: 0): "That is one answer for all. Count by words.",
            _share(train, test, of=lambda q: q.kind): "That counts by kind. Count by words.",
            _share(train, test, of=lambda q: len(q.words)): "Count by the words, not their number.",
            _share(train, test, of=lambda q: q.words[0]): "Count by all words, not by the first.",
            _share(train, test, otherwise=False): "New words count as wrong in yours. Guess, too.",
            _share(train, known): "You left out the words that train does not have. Guess there.",
        }
        if abs(value - truth) < 1e-6:
            continue
        recognise(value, told.items(), lambda mine, other: abs(mine - other) < 1e-6)
        raise Wrong(f"Your share is {value:.4f}; counting by words in train gives {truth:.4f}.")
    return "Whatever a model scores, this much of it needs no eyes."


@exercise
def last_state(answer):
    """A function (gru, rows, lengths) -> (B, H), the state after each last real word."""
    for B, L, D, H in ((5, 7, 4, 3), (4, 4, 3, 6), (1, 5, 4, 4), (6, 6, 5, 6)):
        gru = nn.GRU(D, H, batch_first=True)
        lengths = torch.randint(2, L, (B,))
        if B > 1:
            lengths[:2] = torch.tensor([2, L])  # not sorted, one as long as the batch
        rows = torch.randn(B, L, D)
        if B != L:  # else padding holds anything, so that nobody reads the lengths off zero rows
            rows[torch.arange(L) >= lengths[:, None]] = 0
        states, end = gru(rows)
        packed = nn.utils.rnn.pack_padded_sequence(
            rows, lengths, batch_first=True, enforce_sorted=False
        )
        truth = gru(packed)[1][0]
        hints = {
            "enforce_sorted": "The lengths come in any order: enforce_sorted=False.",
            "out of bounds": f"The last of n words is number n - 1: there is none at {L}.",
            "expected 3": "Leave rows as (B, L, D): the GRU is batch_first.",
            "mat1 and mat2": "Is a dimension out of place? rows is (B, L, D).",
        }
        value = call(answer, gru, rows, lengths, hints=hints)
        if isinstance(value, nn.utils.rnn.PackedSequence):
            raise Wrong("A packed sequence is not a state: take the second thing the GRU returns.")
        if isinstance(value, torch.Tensor) and value.shape == (1, B, H) != truth.shape:
            raise Wrong(f"(1, {B}, {H}) has the layer first. Take the only layer: (B, H).")
        if same(value, truth, "The state"):
            if value.grad_fn is None:
                raise Wrong("No gradient flows back from your states. Was something detached?")
            continue
        at, real = torch.arange(B), torch.arange(L) < lengths[:, None]
        early, late = states[at, lengths - 2], states[at, lengths.clamp(max=L - 1)]
        mean = (states * real[..., None]).sum(1) / lengths[:, None]
        mistakes = [
            (end[0], "These are the states at the end of the padding."),
            (states[:, 0], "These are the states after the first word."),
            (early, "One word too early: the last of n words is number n - 1."),
            (late, "One word too late, where there is padding: the last is number n - 1."),
            (mean, "That is the mean of the states. The last real one is asked."),
            (
                truth[lengths.argsort(descending=True)],
                "These are in the order of the lengths. Put them back.",
            ),
            (
                states.mean(1),
                "That is a mean over the padding too. The last real state is asked.",
            ),
            (
                states[:, lengths.min() - 1],
                "Every question has a length of its own: yours takes one for all.",
            ),
        ]
        recognise(value, mistakes)
        raise Wrong("These are not the states after each question's last real word, in order.")
    return "Padding is for the batch, not for the reader."


@exercise
def how_many(answer):
    """A function (scores) -> (B, Q): the expected number of slots that count."""
    for B, Q, S in ((2, 3, 5), (4, 1, 6), (3, 3, 3), (1, 4, 7)):
        scores = 3 * torch.randn(B, Q, S)
        truth = scores.sigmoid().sum(-1)
        given = scores.clone().requires_grad_()
        value = call(answer, given, hints={"Dimension out of range": "Slots are the last one."})
        if isinstance(value, torch.Tensor) and value.shape == (B, Q, S) and S != Q:
            raise Wrong("That is one number a slot. Add them up, one number a question: (B, Q).")
        if not isinstance(value, torch.Tensor) or value.shape != (B, Q):
            raise Wrong(f"Scores of shape {(B, Q, S)} gave {describe(value)}; {(B, Q)} is wanted.")
        likely = (scores > 0).sum(-1)
        if torch.equal(value.detach().to(likely.dtype), likely) and close(
            value.detach().float(), likely.float()
        ):
            raise Wrong("A count of yes or no: a chance of .6 counts .6. Nor has it a gradient.")
        chances = scores.sigmoid()
        mistakes = [
            (torch.ones(B, Q), "The sum of a softmax is 1, however many slots fit."),
            (truth / S, "That is the mean chance. More slots should count more: add them."),
            (scores.sum(-1), "That is the sum of the logits. Turn each into a chance first."),
            (chances.amax(-1), "That is the chance of the likeliest. All of them count."),
            (scores.sum(-1).sigmoid(), "Yours takes the chance of the sum. Add up the chances."),
            (scores.exp().sum(-1), "exp gives the odds, not the chance: there is no limit to it."),
            (S - truth, "That is how many do not count."),
            (scores.relu().sum(-1), "A negative score counts too, by a chance under one half."),
            (1 - (1 - chances).prod(-1), "That is the chance that at least one counts."),
        ]
        if not same(value, truth, "The number"):
            recognise(value, mistakes)
            if Q == S and close(value, chances.sum(1)):
                raise Wrong("Add over the slots, the last dimension, not over the questions.")
            raise Wrong("This is not the sum of the chances. What is the chance of a logit?")
        if value.grad_fn is None:
            raise Wrong("No gradient flows back from your number. Was something detached?")
    return "Chances add up, and a sum has room for more than one."


@exercise
def same_row(answer):
    """A function (table, new, old) that gives the words `new` the rows of the words `old`."""
    if not callable(answer):
        raise Wrong(f"A function is wanted here, not {describe(answer)}.")
    for frozen, pad in ((False, None), (True, 0), (False, 0)):
        V, D = 9, 4
        table = nn.Embedding(V, D, padding_idx=pad)
        table.weight.requires_grad_(not frozen)
        new, old = torch.randperm(V - 1)[:6].add(1).split(3)
        old = old[torch.tensor([0, 1, 0])]  # one word may lend its row twice
        kept, before = table.weight, table.weight.detach().clone()
        truth = before.clone()
        truth[new] = before[old]
        hints = {
            "a leaf Variable": "Writing is no part of the model: do it under torch.no_grad().",
            "cannot assign": "table.weight is a Parameter. Write into it, under torch.no_grad().",
        }
        call(lambda *a: (answer(*a), 0), table, new, old, copy=False, hints=hints)
        now = table.weight
        if now is not kept:
            raise Wrong("The table has another parameter now; an optimizer would hold the old one.")
        if not now.is_leaf:
            raise Wrong("The weight has become the result of a computation. Use torch.no_grad().")
        if now.requires_grad == frozen:
            now_, past = ("learns", "did") if frozen else ("is frozen", "was")
            raise Wrong(f"The table {now_} now, and {past} not before. Leave requires_grad alone.")
        if now.shape != (V, D):
            raise Wrong(f"The table is now of shape {tuple(now.shape)}; it had {(V, D)}.")
        if torch.equal(now, truth):
            continue
        if torch.equal(now, before):
            raise Wrong(
                "No row of this table has changed. Indexing with a tensor of ids gives a copy, and "
                "a new table is another table."
            )
        if not torch.equal(now[old], before[old]):
            raise Wrong("The rows of `old` changed. They lend theirs to the words in `new`.")
        if not torch.equal(now[new], truth[new]):
            raise Wrong("The words in `new` do not have the rows of `old`, place by place.")
        raise Wrong("Rows of other words changed.")
    return "One row, two words: they are one word to the model from now on."
