"""Side lessons of lesson 07: wrong answers, and right ones of unusual make."""

import struct
import unicodedata

import numpy as np
import torch
import torch.nn.functional as F


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


def by_slices(data):
    """Right: cuts the rest of the file off piece by piece, and returns a tensor."""
    header, _, rest = data.partition(b"\n")
    V, D = map(int, header.split())
    words, rows = [], []
    for _ in range(V):
        word, _, rest = rest.removeprefix(b"\n").partition(b" ")
        words.append(word.decode("utf-8"))
        rows.append(torch.tensor(np.frombuffer(rest[: 4 * D], "<f4").copy()))
        rest = rest[4 * D :]
    return words, torch.stack(rows)


def by_struct(data):
    """Right: numbers by struct, a list for the pair and a tuple of words."""
    at = data.index(b"\n") + 1
    V, D = (int(part) for part in data[:at].split())
    words, rows = (), np.zeros((V, D), np.float32)
    for i in range(V):
        at += data[at] == 10
        space = data.find(b" ", at)
        words += (str(data[at:space], "utf-8"),)
        rows[i] = struct.unpack_from(f"<{D}f", data, space + 1)
        at = space + 1 + 4 * D
    return [words, rows]


def speller(
    sizes=(3, 4, 5), marks=True, once=True, total=False, by="known", copy=True, blank="default"
):
    """A right `row_for`, but for what is said otherwise."""

    def row_for(word, piece_rows, default):
        marked = f"<{word}>" if marks else word
        pieces = [marked[i : i + n] for n in sizes for i in range(len(marked) - n + 1)]
        pieces = list(dict.fromkeys(pieces)) if once else pieces
        known = [piece_rows[piece] for piece in pieces if piece in piece_rows]
        if not known:
            if blank == "zeros":
                return torch.zeros_like(default)
            return default.clone() if copy else default
        if len(known) == 1 and not copy:
            return known[0]
        if total:
            return torch.stack(known).sum(dim=0)
        count = len(known) if by == "known" else len(pieces)
        return (torch.stack(known).double().sum(dim=0) / count).to(default.dtype)

    return row_for


def default_in_the_mean(word, piece_rows, default):
    marked = f"<{word}>"
    pieces = {marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1)}
    known = [piece_rows[piece] for piece in pieces if piece in piece_rows]
    return torch.stack([*known, default]).double().mean(dim=0).to(default.dtype)


def default_where_one_is_missing(word, piece_rows, default):
    marked = f"<{word}>"
    pieces = {marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1)}
    if not pieces <= set(piece_rows):
        return default.clone()
    return torch.stack([piece_rows[piece] for piece in pieces]).mean(dim=0)


def first_piece(word, piece_rows, default):
    marked = f"<{word}>"
    for n in (5, 4, 3):
        for i in range(len(marked) - n + 1):
            if marked[i : i + n] in piece_rows:
                return piece_rows[marked[i : i + n]].clone()
    return default.clone()


def adds_to_default(word, piece_rows, default):
    value = speller()(word, piece_rows, default)
    default.add_(1).sub_(1)
    return value


def remembers_in_the_dictionary(word, piece_rows, default):
    value = speller()(word, piece_rows, default)
    piece_rows[word] = value
    del piece_rows[word]
    return value


def running_mean(word, piece_rows, default):
    """Right: adds up as it goes, a piece at a time."""
    seen, total = [], torch.zeros(default.shape, dtype=torch.float64)
    marked = "<" + word + ">"
    for start in range(len(marked)):
        for end in range(start + 3, min(start + 5, len(marked)) + 1):
            piece = marked[start:end]
            if piece not in seen and piece in piece_rows:
                seen.append(piece)
                total += piece_rows[piece]
    return (total / len(seen) if seen else default + 0).to(default.dtype)


def by_a_set(word, piece_rows, default):
    """Right: sets, and indexing for the copy."""
    m = f"<{word}>"
    cut = {m[i:j] for i in range(len(m)) for j in range(i + 3, i + 6) if j <= len(m)}
    known = cut & piece_rows.keys()
    rows = [piece_rows[piece].tolist() for piece in known] or [default.tolist()]
    return torch.tensor(rows, dtype=torch.float64).mean(dim=0).to(default.dtype)


def in_numpy(rows, a, b, c):
    """Right: over all rows in float64, by sorting; returns NumPy's integer."""
    table = rows.double().numpy()
    table = table / np.linalg.norm(table, axis=1, keepdims=True)
    order = np.argsort(-(table @ (table[b] - table[a] + table[c])))
    return next(i for i in order if i not in {a, b, c})


def by_cosine_similarity(rows, a, b, c):
    """Right: returns a tensor of one element."""
    unit = rows.float() / rows.float().norm(dim=1, keepdim=True)
    scores = F.cosine_similarity(unit[b] - unit[a] + unit[c], unit, dim=1)
    return scores.index_fill(0, torch.tensor([a, b, c]), -2).argmax()


def right_in_float32(rows, a, b, c):
    return solver()(rows, a, b, c) if rows.dtype == torch.float32 else a


def counts_from_the_space(data):
    at = data.index(b"\n") + 1
    V, D = map(int, data[:at].split())
    words, rows = [], []
    for _ in range(V):
        space = data.index(b" ", at)
        words.append(data[at:space].decode())
        rows.append(np.frombuffer(data, "<f4", D, space + 1))
        at = space + 4 * D
    return words, np.stack(rows)


def with_the_whole_word(word, piece_rows, default):
    """As fastText: the marked word is a piece too."""
    pieces = {f"<{word}>"}
    for n in (3, 4, 5):
        pieces |= {f"<{word}>"[i : i + n] for i in range(len(word) + 3 - n)}
    known = [piece_rows[piece] for piece in pieces if piece in piece_rows]
    return torch.stack(known).double().mean(0).to(default.dtype) if known else default.clone()


def default_for_unknown_pieces(word, piece_rows, default):
    marked = f"<{word}>"
    pieces = {marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1)}
    rows = [piece_rows.get(piece, default) for piece in pieces]
    return torch.stack(rows).double().mean(dim=0).to(default.dtype)


def rounded_mean(word, piece_rows, default):
    """Right: a running mean in the rows' own dtype."""
    marked, mean, seen = f"<{word}>", torch.zeros_like(default), set()
    for n in (3, 4, 5):
        for i in range(len(marked) - n + 1):
            piece = marked[i : i + n]
            if piece in piece_rows and piece not in seen:
                seen.add(piece)
                mean = mean + (piece_rows[piece] - mean) / len(seen)
    return mean if seen else default.clone()


def by_sum(word, piece_rows, default):
    """Right: Python's own sum."""
    marked = f"<{word}>"
    pieces = {marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1)}
    known = [piece_rows[piece] for piece in pieces if piece in piece_rows]
    return sum(known) / len(known) if known else default.clone()


def first_of_three(rows, a, b, c):
    unit = F.normalize(rows)
    order = (unit @ (unit[b] - unit[a] + unit[c])).topk(4).indices.tolist()[:3]
    return [i for i in order if i not in (a, b, c)][0]


def added_to_lengths(rows):
    return rows / (rows.norm(dim=1, keepdim=True) + 1e-2)


def by_cdist(rows, a, b, c):
    """Right: at length 1 the distance to the query's direction orders as the cosine."""
    unit = F.normalize(rows)
    apart = torch.cdist(F.normalize(unit[b] - unit[a] + unit[c], dim=0)[None], unit)[0]
    apart[[a, b, c]] = torch.inf
    return apart.argmin()


RIGHT = {
    "pretrained_word2vec.read": [by_slices, by_struct],
    "pretrained_word2vec.row_for": [running_mean, by_a_set, speller(), rounded_mean, by_sum],
    "pretrained_word2vec.analogy": [in_numpy, by_cosine_similarity, by_cdist],
}

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
        (always_strips, "newline|later one|numbers are not|takes more than"),
        (reader(decode=lambda word: word.decode().strip()), "takes more than"),
        (reader(decode=lambda word: unicodedata.normalize("NFKC", word.decode())), "look alike"),
        (counts_from_the_space, "not from the space"),
        (lambda data: data.split(), "pair|words from a file"),
    ],
    "pretrained_word2vec.row_for": [
        (speller(total=True), "sum of the known rows"),
        (speller(by="all"), "divided by all pieces"),
        (speller(once=False), "Count each once|sum"),
        (speller(marks=False), "no marks|shape|known pieces, and got|not the mean|one piece"),
        (speller(sizes=(3, 4)), "five characters|should be|and got|not the mean"),
        (speller(sizes=(3, 4, 5, 6)), "raised|six characters|not the mean"),
        (speller(sizes=(3,)), "of three|and got|five|one piece|not the mean"),
        (speller(copy=False), "return a copy"),
        (speller(blank="zeros"), "should be `default`"),
        (default_in_the_mean, "is in your mean|stands in for each"),
        (with_the_whole_word, "whole word"),
        (speller(sizes=(3, 4, 5, 8)), "six|not the mean|whole word"),
        (lambda word, *rest: speller()(word.lower(), *rest), "as it is written"),
        (default_for_unknown_pieces, "stands in for each"),
        (default_where_one_is_missing, "got `default`"),
        (first_piece, "one piece"),
        (adds_to_default, "wrote into"),
        (remembers_in_the_dictionary, "wrote into"),
        (lambda *given: speller()(*given).double(), "dtype"),
        (lambda *given: speller()(*given).tolist(), "should be a tensor"),
        (lambda *given: speller()(*given).unsqueeze(0), "shape"),
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
        (solver(fill=-1.0), "mask|competes"),
        (solver(out="ab"), "c competes"),
        (solver(out="bc"), "a competes"),
        (first_of_three, "look at one more"),
        (solver(added_to_lengths, added_to_lengths), "add to the lengths|added to the lengths"),
        (by_distance, "by distance"),
        (deletes_the_inputs, "Mask the inputs"),
        (normalises_in_place, "wrote into"),
        (right_in_float32, "Right in float32"),
        (lambda rows, a, b, c: rows[solver()(rows, a, b, c)], "number"),
        (lambda rows, a, b, c: solver()(rows, a, b, c) + 0.5, "An id from 0"),
    ],
}
