"""Lesson 07: wrong answers that readers give, and a part of the hint that each should get."""

import numpy as np
import torch
import torch.nn.functional as F

from helpers.checks.pretrained_word2vec import HINTS


def reader(dtype="<f4", newline=True, skip=1, decode=bytes.decode, hop=None):
    """A reader that is right, but for what is said otherwise."""

    def read(data):
        at = data.index(b"\n") + 1
        V, D = map(int, data[:at].split())
        words, rows = [], []
        for _ in range(V):
            if newline and data[at : at + 1] == b"\n":
                at += 1
            space = data.index(b" ", at)
            words.append(decode(data[at:space]))
            rows.append(np.frombuffer(data, dtype, D, space + skip))
            at = space + 1 + (hop or 4 * D)
        return words, np.stack(rows)

    return read


def by_lines(data):
    lines = data.split(b"\n")
    D = int(lines[0].split()[1])
    records = [line.partition(b" ") for line in lines[1:] if line]
    words = [word.decode(errors="replace") for word, _, _ in records]
    return words, np.stack([np.frombuffer(row[: 4 * D], "<f4") for _, _, row in records])


def by_spaces(data):
    header, _, rest = data.partition(b"\n")
    V, D = map(int, header.split())
    parts = rest.split(b" ")
    words = [parts[0].decode()] + [part[4 * D :].decode() for part in parts[1:V]]
    return words, np.stack([np.frombuffer(part[: 4 * D], "<f4") for part in parts[1 : V + 1]])


def to_the_end(data):
    """Reads on while there are bytes, though a newline may follow the last record."""
    at = data.index(b"\n") + 1
    D = int(data[:at].split()[1])
    words, rows = [], []
    while at < len(data):
        if data[at : at + 1] == b"\n":
            at += 1
        space = data.index(b" ", at)
        words.append(data[at:space].decode())
        rows.append(np.frombuffer(data, "<f4", D, space + 1))
        at = space + 1 + 4 * D
    return words, np.stack(rows)


def always_strips(data):
    """Takes every newline and space before a word for the end of a record, a row's own too."""
    at = data.index(b"\n") + 1
    V, D = map(int, data[:at].split())
    words, rows = [], np.empty((V, D), np.float32)
    for i in range(V):
        space = data.index(b" ", at)
        words.append(data[at:space].decode().strip())
        end = space + 1 + 4 * D
        rows[i] = np.frombuffer(data[space + 1 : end].rstrip(b"\n").ljust(4 * D, b"\0"), "<f4")
        at = end
    return words, rows


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
    truths = [False, True, False, True, False, False]
    return {k: t != (i in wrong) for i, (k, t) in enumerate(zip(HINTS, truths, strict=True))}


def solver(query=F.normalize, table=F.normalize, signs=(-1, 1, 1), out="abc", fill=-torch.inf):
    """A right `analogy`, but for what is said otherwise."""

    def analogy(rows, a, b, c):
        own = query(rows)
        scores = table(rows) @ sum(s * own[i] for s, i in zip(signs, (a, b, c), strict=True))
        scores[[{"a": a, "b": b, "c": c}[name] for name in out]] = fill
        return scores.argmax().item()

    return analogy


def as_it_is(rows):
    return rows


def by_distance(rows, a, b, c):
    distances = (rows - (rows[b] - rows[a] + rows[c])).norm(dim=1)
    distances[[a, b, c]] = torch.inf
    return distances.argmin()


def deletes_the_inputs(rows, a, b, c):
    unit = F.normalize(rows)
    rest = unit[[i not in (a, b, c) for i in range(len(rows))]]
    return (rest @ (unit[b] - unit[a] + unit[c])).argmax().item()


def normalises_in_place(rows, a, b, c):
    rows /= rows.norm(dim=1, keepdim=True)
    return solver()(rows, a, b, c)


WRONG = {
    "pretrained_word2vec.read": [
        (reader(dtype=">f4"), "little-endian"),
        (reader(newline=False), "begins with a newline"),
        (reader(skip=0), "one byte too early"),
        (reader(decode=lambda word: word.decode("latin-1")), "UTF-8"),
        (reader(decode=lambda word: word.decode("ascii", "ignore")), "not ASCII"),
        (reader(decode=bytes), "bytes"),
        (reader(hop=400), "4 · D"),
        (lambda data: (reader()(data)[0], reader()(data)[1].astype(float)), "float64"),
        (lambda data: (reader()(data)[0], list(reader()(data)[1])), "array or a tensor"),
        (lambda data: (reader()(data)[0], reader()(data)[1].flatten()), "shape"),
        (lambda data: reader()(data)[1], "pair"),
        (lambda data: dict(zip(*reader()(data), strict=True)), "pair"),
        (by_lines, "The header says how many"),
        (to_the_end, "past the last"),
        (by_spaces, "newline|numbers were taken"),
        (always_strips, "newline|later one|numbers are not"),
        (lambda data: data.split(), "pair|words from a file"),
    ],
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
        (lambda *given: (filler()(*given)[0], []), "Missing are 3"),
        (lambda *given: (filler()(*given)[0].numpy(), []), "should be a tensor"),
    ],
    "pretrained_word2vec.foretold": [
        (foretold(0), "default of `freeze`"),
        (foretold(1), "copy nothing"),
        (foretold(2), "torch.tensor copies"),
        (foretold(3), "float32 already"),
        (foretold(4), "np.ones is float64"),
        (foretold(5), "This one is given"),
        (foretold() | {next(iter(HINTS)): ...}, "still there"),
        (foretold() | {next(iter(HINTS)): "frozen"}, "True or False"),
        ({"frozen": True}, "keys"),
    ],
    "pretrained_word2vec.analogy": [
        (solver(out=""), "do not compete"),
        (solver(out="c"), "Neither do a and b"),
        (solver(as_it_is, as_it_is), "at length 1"),
        (solver(table=as_it_is), "long row still wins"),
        (solver(query=as_it_is), "own lengths"),
        (solver(signs=(1, -1, 1)), "wrong way"),
        (solver(signs=(-1, 1, -1)), "add c"),
        (solver(signs=(0, 0, 1)), "Where is the arrow"),
        (solver(fill=0.0), "-inf"),
        (solver(fill=-1.0), "mask"),
        (by_distance, "by distance"),
        (deletes_the_inputs, "Mask the inputs"),
        (normalises_in_place, "wrote into"),
        (lambda rows, a, b, c: rows[solver()(rows, a, b, c)], "number"),
        (lambda rows, a, b, c: solver()(rows, a, b, c) + 0.5, "An id from 0"),
    ],
}
