"""Lesson 07: wrong answers that readers give, and a part of the hint that each should get."""

import numpy as np
import torch

from helpers.checks.pretrained_word2vec import HINTS


def filler(exact=True, lower=True, upper=False, by_id=True, zeros=True, dtype=torch.float32):
    """A right `rows_for`, but for what is said otherwise."""

    def rows_for(vocabulary, words, rows):
        place = {word: i for i, word in enumerate(words)}
        folded = {word.lower(): i for i, word in enumerate(words)} if upper else place
        make = torch.zeros if zeros else torch.ones
        weight, missing = make(len(vocabulary), rows.shape[1], dtype=dtype), []
        for n, (word, i) in enumerate(vocabulary.items()):
            at = place.get(word) if exact else None
            if at is None and lower:
                at = folded.get(word.lower())
            if at is None:
                missing.append(word)
            else:
                weight[i if by_id else n] = torch.from_numpy(rows[at])
        return weight, missing

    return rows_for


def zero_is_false(exact=False, lower=False):
    """Takes row 0 for "not found", where the word is looked up as written, or in lower case."""

    def rows_for(vocabulary, words, rows):
        place = {word: i for i, word in enumerate(words)}
        weight, missing = torch.zeros(len(vocabulary), rows.shape[1]), []
        for word, i in vocabulary.items():
            at, low = place.get(word), place.get(word.lower())
            if at or (at == 0 and not exact):
                weight[i] = torch.from_numpy(rows[at])
            elif low or (low == 0 and not lower):
                weight[i] = torch.from_numpy(rows[low])
            else:
                missing.append(word)
        return weight, missing

    return rows_for


def in_file_order(vocabulary, words, rows):
    weight = torch.zeros(len(vocabulary), rows.shape[1])
    weight[: len(rows)] = torch.from_numpy(rows)
    return weight, [word for word in vocabulary if word not in words]


def missing_by_zeros(vocabulary, words, rows):
    weight, _ = filler()(vocabulary, words, rows)
    return weight, [word for word, i in vocabulary.items() if not weight[i].any()]


def missing_as_written(vocabulary, words, rows):
    return filler()(vocabulary, words, rows)[0], [w for w in vocabulary if w not in words]


def missing_ids(vocabulary, words, rows):
    weight, missing = filler()(vocabulary, words, rows)
    return weight, [vocabulary[word] for word in missing]


def no_second_check(vocabulary, words, rows):
    place = {word: i for i, word in enumerate(words)}
    ids = [place[w] if w in place else place[w.lower()] for w in vocabulary]
    return torch.from_numpy(rows)[ids].float(), []


def spoils_rows(vocabulary, words, rows):
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) + 1
    return filler()(vocabulary, words, rows)


def foretold(*wrong):
    """The right dictionary, but with other answers in the places `wrong`."""
    truths = [False, True, False, False, True, False]
    return {k: t != (i in wrong) for i, (k, t) in enumerate(zip(HINTS, truths, strict=True))}


def changes_and_puts_back(vocabulary, words, rows):
    vocabulary["spare"] = 0
    del vocabulary["spare"]
    return filler()(vocabulary, words, rows)


def view_of_rows(vocabulary, words, rows):
    """Shares memory where one row is all that is asked for."""
    weight, missing = filler()(vocabulary, words, rows)
    if len(vocabulary) == 1:
        weight = torch.from_numpy(rows)
    return weight, missing


def for_float32_files(vocabulary, words, rows):
    weight, missing = filler()(vocabulary, words, rows)
    return weight.to(torch.from_numpy(rows).dtype), missing


def by_arrays(vocabulary, words, rows):
    """Right: one assignment, a tuple for the pair, a set of words."""
    place = {word: i for i, word in enumerate(words)}
    known = {w: place.get(w, place.get(w.lower())) for w in vocabulary}
    found = {w: i for w, i in known.items() if i is not None}
    weight = np.zeros((len(vocabulary), rows.shape[1]), np.float32)
    weight[[vocabulary[w] for w in found]] = rows[list(found.values())]
    return torch.from_numpy(weight), set(vocabulary) - set(found)


def by_index(vocabulary, words, rows):
    """Right: looks through the list, and returns a list for the pair."""
    weight, missing = torch.zeros(len(vocabulary), rows.shape[1]), []
    for word in sorted(vocabulary):
        form = word if word in words else word.lower()
        if form in words:
            weight[vocabulary[word]] = torch.tensor(rows[words.index(form)])
        else:
            missing.append(np.str_(word))
    return [weight, tuple(missing)]


def with_third_form(form):
    """Asks for one more form of the word than are wanted."""

    def rows_for(vocabulary, words, rows):
        weight, missing = filler()(vocabulary, words, rows)
        for word in list(missing):
            if form(word) in words:
                weight[vocabulary[word]] = torch.from_numpy(rows[words.index(form(word))])
                missing.remove(word)
        return weight, missing

    return rows_for


def by_casefold(vocabulary, words, rows):
    forms = {word: word if word in words else word.casefold() for word in vocabulary}
    weight = torch.zeros(len(vocabulary), rows.shape[1])
    for word, form in forms.items():
        if form in words:
            weight[vocabulary[word]] = torch.from_numpy(rows[words.index(form)])
    return weight, [word for word, form in forms.items() if form not in words]


def tiny_for_zeros(vocabulary, words, rows):
    weight, missing = filler()(vocabulary, words, rows)
    for word in missing:
        weight[vocabulary[word]] = 1e-6
    return weight, missing


def width_of_the_first(vocabulary, words, rows):
    len(rows[0])
    return filler()(vocabulary, words, rows)


def locks_rows(vocabulary, words, rows):
    rows.flags.writeable = False
    return filler()(vocabulary, words, rows)


@torch.inference_mode()
def in_inference_mode(vocabulary, words, rows):
    """Right: a tensor of inference mode."""
    return filler()(vocabulary, words, rows)


RIGHT = {
    "pretrained_word2vec.rows_for": [by_arrays, by_index, in_inference_mode],
    "pretrained_word2vec.foretold": [
        {key: np.bool_(value) for key, value in foretold().items()},
        {key: torch.tensor(value) for key, value in reversed(foretold().items())},
    ],
}

WRONG = {
    "pretrained_word2vec.rows_for": [
        (filler(exact=False), "as written"),
        (filler(lower=False), "in lower case"),
        (zero_is_false(exact=True), "as written.*Is 0 an id"),
        (zero_is_false(lower=True), "in lower case.*Is 0 an id"),
        (zero_is_false(exact=True, lower=True), "Is 0 an id"),
        (filler(upper=True), "Lower the vocabulary's"),
        (filler(by_id=False), "order of the dictionary"),
        (filler(zeros=False), "neither form should get zeros"),
        (filler(dtype=torch.float64), "float64"),
        (in_file_order, "file's order"),
        (missing_by_zeros, "row of zeros"),
        (missing_as_written, "lower case are not missing"),
        (missing_ids, "not their ids"),
        (no_second_check, "neither form"),
        (spoils_rows, "changed what it was given"),
        (lambda *given: filler()(*given)[0], "pair"),
        (lambda *given: (filler()(*given)[0], 3), "list of words"),
        (lambda *given: (filler()(*given)[0], []), "Missing are 4"),
        (lambda *given: (filler()(*given)[0].numpy(), []), "should be a tensor"),
        (changes_and_puts_back, "changed what it was given"),
        (with_third_form(str.capitalize), "Two forms count"),
        (with_third_form(str.title), "Two forms count"),
        (by_casefold, "makes 'mass'"),
        (tiny_for_zeros, "not small numbers"),
        (width_of_the_first, "no first row"),
        (locks_rows, "changed what it was given"),
        (
            lambda v, words, rows: (torch.from_numpy(rows).float(), []),
            "as many rows as the file|file's order",
        ),
        (view_of_rows, "same memory|lower case, and got zeros"),
        (for_float32_files, "float64"),
        (lambda *given: (filler()(*given)[0][:, :1], filler()(*given)[1]), "shape"),
    ],
    "pretrained_word2vec.foretold": [
        (foretold(0), "torch.tensor copies"),
        (foretold(1), "float32 already"),
        (foretold(2), "other memory"),
        (foretold(3), "has already"),
        (foretold(4), "A new Embedding learns"),
        (foretold(5), "np.ones is float64"),
        (foretold() | {next(iter(HINTS)): ...}, "still there"),
        (foretold() | {next(iter(HINTS)): "frozen"}, "True or False"),
        (foretold() | {next(iter(HINTS)): 0}, "True or False"),
        ({"frozen": True}, "keys"),
    ],
}
