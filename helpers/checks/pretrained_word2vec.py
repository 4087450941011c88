"""Checks of lesson 07: a reader, rows for a vocabulary, from_pretrained, analogies."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks import Wrong, call, describe, exercise, number, same


def _file(words: list[str], rows: np.ndarray, end: bytes) -> bytes:
    """The bytes of a binary word2vec file with `end` after each record."""
    records = [w.encode() + b" " + r.tobytes() + end for w, r in zip(words, rows, strict=True)]
    return b"%d %d\n" % rows.shape + b"".join(records)


def _files() -> list[tuple[list[str], np.ndarray, bytes]]:
    """Words, rows and ends of record: plain ones first, then one oddity after the other."""
    fresh, plain = np.random.default_rng(), ["the", "of", "row", "x1"]

    def numbers(V: int, D: int) -> np.ndarray:
        """Finite numbers without a newline or a space among their bytes."""
        return fresh.integers(33, 127, (V, 4 * D), dtype=np.uint8).view("<f4")

    odd = numbers(5, 4)
    # newlines and spaces, also at both ends of a row; a row of them looks like empty words
    odd.view(np.uint8)[:, ::3] = fresh.choice(np.frombuffer(b"\n ", np.uint8), (5, 6))
    odd.view(np.uint8)[1] = fresh.permutation(np.frombuffer(b"\n " * 8, np.uint8))
    odd.view(np.uint8)[2:4, [0, -1]] = 10
    foreign = ["Zürich", "naïve", "東京", "the", "c++"]
    return [
        (plain, numbers(4, 3), b""),
        (plain, numbers(4, 6), b"\n"),
        (foreign, numbers(5, 1), b""),
        (foreign, odd, b""),
        (foreign, odd, b"\n"),
        (["alone"], numbers(1, 7), b"\n"),
    ]


READING = {
    "codec can't decode": "Bytes of numbers were taken for a word. Is each hop 4 · D bytes, and "
    "the D that of the header?",
    "not found": "A space or a newline was looked for where there is none. Is each hop 4 · D "
    "bytes, from the byte after the space? Or did you go on past the last of the V records? A "
    "newline may follow it.",
    "buffer is smaller": "A row was looked for beyond the end. Is each hop 4 · D bytes?",
}


@exercise
def read(answer):
    """A function (data) -> words, rows of a binary word2vec file."""
    for words, rows, end in _files():
        found = call(answer, _file(words, rows, end), hints=READING)
        if not (isinstance(found, tuple | list) and len(found) == 2):
            raise Wrong(f"A pair is wanted, words and rows, not {describe(found)}.")
        if not isinstance(found[0], tuple | list):
            raise Wrong(f"The first of the pair should be a list, not {describe(found[0])}.")
        _judge_words(list(found[0]), words, end)
        _judge_rows(found[1], rows)
    return "Files with newlines and without, words of any script, bytes of any value."


def _judge_words(mine: list, words: list[str], end: bytes) -> None:
    if mine == words:
        return
    what = "with" if end else "without"
    if len(mine) != len(words):
        raise Wrong(f"{len(mine)} words from a file of {len(words)}, {what} newlines. The header "
                    "says how many there are, and numbers may hold any byte.")  # fmt: skip
    if any(isinstance(word, bytes) for word in mine):
        raise Wrong("Your words are bytes. `.decode()` makes a string of them.")
    if not all(isinstance(word, str) for word in mine):
        raise Wrong(f"Words are strings; the first of yours is {describe(mine[0])}.")
    if [word.lstrip("\n") for word in mine] == words:
        raise Wrong("A word of yours begins with a newline. It ends the record before.")
    if [word.strip() for word in mine] == words:
        raise Wrong("A word of yours ends in a space, or begins with one.")
    others = "latin-1", "cp1252"
    if mine in ([w.encode().decode(code, "replace") for w in words] for code in others):
        raise Wrong("é and 東 take more than one byte. Decode a word as a whole, as UTF-8.")
    if mine == [word.encode().decode("ascii", "ignore") for word in words]:
        raise Wrong("Letters are missing. Words are UTF-8, not ASCII.")
    shown = " ".join(map(repr, mine))
    raise Wrong(f"From a file {what} newlines you read {shown[:60]}, and its words are "
                f"{' '.join(words)}.")  # fmt: skip


def _judge_rows(mine: object, rows: np.ndarray) -> None:
    if isinstance(mine, torch.Tensor):
        mine = mine.detach().numpy()
    if not isinstance(mine, np.ndarray):
        raise Wrong(f"The rows should be an array or a tensor, not {describe(mine)}.")
    if mine.shape != rows.shape:
        raise Wrong(f"The rows have shape {mine.shape}; the header says {rows.shape}.")
    if mine.dtype != np.float32 and np.array_equal(mine, rows.astype(mine.dtype)):
        raise Wrong(f"The numbers are right, and {mine.dtype}. float32 is wanted, as in the file.")
    if np.array_equal(mine, rows):
        return
    data = b" " + rows.tobytes()
    with np.errstate(all="ignore"):
        early = np.frombuffer(data[:-1], "<f4")[: rows.shape[1]]
        if np.array_equal(mine, rows.astype(rows.dtype).byteswap(), equal_nan=True):
            raise Wrong("You read each number from its first byte on. These are little-endian.")
        if np.array_equal(mine[0], early, equal_nan=True):
            raise Wrong("You read one byte too early: the numbers start after the space.")
    if (mine == mine[:1]).all() and len(mine) > 1:
        raise Wrong("Your rows are all the same row. Where does the second one start?")
    if np.array_equal(mine[0], rows[0]):
        raise Wrong("The first row is right, and a later one is not. Is each at its own place?")
    raise Wrong("The words are right, the numbers are not: D float32 from after the space on.")


def _second_chance(
    first: str,
) -> tuple[dict[str, int], list[str], np.ndarray, torch.Tensor, list[str]]:
    """A vocabulary, a file's words and rows, and what the vocabulary's rows and the lost are.

    The word `first` begins the file.
    """
    fresh = np.random.default_rng()
    words = ["the", "iphone", "The", "zürich", "US", "NATO", "paris", "nil", "of"]
    words.sort(key=lambda word: word != first)
    rows = fresh.standard_normal((len(words), 4))
    rows[words.index("nil")] = 0  # a row of zeros that the file has
    source = {"The": "The", "the": "the", "iPhone": "iphone", "Zürich": "zürich", "NATO": "NATO"}
    source |= {"us": None, "wug": None, "PARIS": "paris", "nil": "nil", "Wug": None}
    names = list(source)
    vocabulary = dict(zip(names, fresh.permutation(len(names)).tolist(), strict=True))
    truth = torch.zeros(len(names), 4, dtype=torch.float64)
    for name, i in vocabulary.items():
        if source[name] is not None:
            truth[i] = torch.from_numpy(rows[words.index(source[name])])
    return vocabulary, words, rows, truth, [n for n in names if source[n] is None]


@exercise
def rows_for(answer):
    """A function (vocabulary, words, rows) -> the vocabulary's rows, and the words without one."""
    # "of" is not asked for; a word whose row is 0 then shows who takes a 0 for "not found"
    for dtype, first in ((np.float32, "of"), (np.float64, "The"), (np.float32, "iphone")):
        vocabulary, words, rows, truth, lost = _second_chance(first)
        rows, truth = rows.astype(dtype), truth.to(torch.float32)
        given = dict(vocabulary), list(words), rows.copy()
        found = call(answer, *given, hints={"'us'": "A word is in neither form in the file."})
        if given[0] != vocabulary or given[1] != words or not np.array_equal(given[2], rows):
            raise Wrong("Your function changed what it was given. Work on copies.")
        if not (isinstance(found, tuple | list) and len(found) == 2):
            raise Wrong(f"A pair is wanted, rows and the words left, not {describe(found)}.")
        weight, missing = found
        if isinstance(weight, torch.Tensor) and weight.dtype == torch.float64:
            raise Wrong("float64: the rows were, or you made it so. The table should be float32.")
        if not same(weight, truth, "The first of the pair"):
            _judge_order(weight.detach(), truth, vocabulary, words, rows)
        with torch.no_grad():
            weight += 1
        if not np.array_equal(given[2], rows):
            raise Wrong("Writing into your tensor changes `rows`: both lie in the same memory.")
        _judge_missing(missing, vocabulary, words, lost)
    return "By the vocabulary's ids, as written first, in memory of its own."


def _judge_order(weight, truth, vocabulary, words, rows) -> None:
    file = torch.from_numpy(rows).float()
    ids = list(vocabulary.values())
    at = {word: i for i, word in enumerate(words)}
    if torch.allclose(weight, truth[ids]):
        raise Wrong("Rows stand in the order of the dictionary. Its values are the ids.")
    if torch.allclose(weight[: len(file)], file[: len(weight)]):
        raise Wrong("These are the file's rows in the file's order. Ids are your vocabulary's.")

    def says(word: str, source: str | None) -> bool:
        row = torch.zeros(4) if source is None else file[at[source]]
        return torch.allclose(weight[vocabulary[word]], row)

    if says("The", "the"):
        zero = " Its row is row 0. Is 0 an id, and false?" if at["The"] == 0 else ""
        raise Wrong(f"'The' is in the file as written, and got the row of 'the'.{zero}")
    if says("iPhone", None):
        zero = " Its row is row 0. Is 0 an id, and false?" if at["iphone"] == 0 else ""
        raise Wrong(f"'iPhone' is in the file in lower case, and got zeros.{zero}")
    if says("us", "US"):
        raise Wrong("'us' got the row of 'US'. Lower the vocabulary's word, not the file's.")
    if not (says("wug", None) and says("us", None)):
        raise Wrong("A word that the file has in neither form should get zeros.")
    wrong = next(w for w, i in vocabulary.items() if not torch.allclose(weight[i], truth[i]))
    raise Wrong(f"The row of {wrong!r} is not its own. Is each row at its word's id?")


def _judge_missing(missing: object, vocabulary, words, lost) -> None:
    if not isinstance(missing, list | tuple | set):
        raise Wrong(f"The second of the pair should be a list of words, not {describe(missing)}.")
    if sorted(missing, key=str) == sorted(lost):
        return
    if missing and all(isinstance(word, int) for word in missing):
        raise Wrong("The second of the pair should hold the words, not their ids.")
    if "nil" in missing:
        raise Wrong("The file may hold a row of zeros. Its word, 'nil', is not missing.")
    if set(missing) == {word for word in vocabulary if word not in words}:
        raise Wrong("Words that the file has in lower case are not missing.")
    if len(missing) > len(set(missing)):
        raise Wrong("A missing word stands in your list twice.")
    raise Wrong(f"Missing are {len(lost)} words of {len(vocabulary)}; you say {len(missing)}.")


ROWS = "from_pretrained(torch.from_numpy(rows)"
HINTS = {
    f"{ROWS}).weight.requires_grad": "What is the default of `freeze`?",
    f"rows changes when {ROWS}, freeze=False) learns": "from_numpy and from_pretrained both copy "
    "nothing.",
    "rows changes when from_pretrained(torch.tensor(rows), freeze=False) learns": "torch.tensor "
    "copies what it is given.",
    f"rows changes when {ROWS}.float(), freeze=False) learns": "rows are float32. What does "
    "`.float()` do with a tensor that is float32 already?",
    f"{ROWS[:-1]} * np.ones(4))) has weights of float32": "np.ones is float64. What is a product "
    "of float32 and float64?",
    f"{ROWS}, padding_idx=0) has zeros in row 0": "padding_idx zeroes the rows that the layer "
    "draws itself. This one is given.",
}


def _truths() -> list[bool]:
    """What PyTorch does, in the order of HINTS."""

    def changes(convert) -> bool:
        rows = np.ones((6, 4), np.float32)
        table = nn.Embedding.from_pretrained(convert(rows), freeze=False)
        table(torch.tensor([2, 5])).sum().backward()
        torch.optim.SGD(table.parameters(), lr=0.1).step()
        return bool((rows != 1).any())

    rows = np.ones((6, 4), np.float32)
    table = nn.Embedding.from_pretrained(torch.from_numpy(rows), padding_idx=0)
    double = nn.Embedding.from_pretrained(torch.from_numpy(rows * np.ones(4)))
    return [
        table.weight.requires_grad,
        changes(torch.from_numpy),
        changes(torch.tensor),
        changes(lambda rows: torch.from_numpy(rows).float()),
        double.weight.dtype == torch.float32,
        not table.weight[0].any().item(),
    ]


@exercise
def foretold(answer):
    """A dictionary: what happens, or not, for each of six lines about from_pretrained."""
    if not isinstance(answer, dict) or set(answer) != set(HINTS):
        raise Wrong("The dictionary's keys should stay as they are; fill in the values.")
    left = sum(said is ... for said in answer.values())
    if left:
        raise Wrong(f"{left} of the dots {'is' if left == 1 else 'are'} still there.")
    for (key, hint), truth in zip(HINTS.items(), _truths(), strict=True):
        if not isinstance(answer[key], bool):
            raise Wrong(f"Say True or False, not {describe(answer[key])}.")
        if answer[key] != truth:
            raise Wrong(f"{key}: {hint}")
    return "Frozen, shared and of the dtype it was given, unless you say otherwise."


def _answers(rows: torch.Tensor, a: int, b: int, c: int) -> dict[str, int]:
    """The right id, and by the hint that each deserves the ids that mistakes lead to."""
    unit, low = F.normalize(rows), -torch.inf

    def best(query, table, *out, fill=low):
        scores = table @ query
        scores[list(out)] = fill
        return scores.argmax().item()

    query, raw = unit[b] - unit[a] + unit[c], rows[b] - rows[a] + rows[c]
    distance = -torch.cdist(raw[None], rows)[0]
    distance[[a, b, c]] = low
    right = best(query, unit, a, b, c)
    return {
        "": right,
        "One of the inputs is your answer. They do not compete.": best(query, unit),
        "c does not compete in yours. Neither do a and b.": best(query, unit, c),
        "The rows are used at their own lengths. Take all of them at length 1.": best(
            raw, rows, a, b, c
        ),
        "a, b and c are taken at length 1, and a long row still wins. Scale all rows.": best(
            query, rows, a, b, c
        ),
        "All rows compete at length 1, and a, b and c have their own lengths.": best(
            raw, unit, a, b, c
        ),
        "The arrow points the wrong way: it leads from a to b.": best(
            unit[a] - unit[b] + unit[c], unit, a, b, c
        ),
        "The arrow starts at c: add c, do not subtract it.": best(
            unit[b] - unit[a] - unit[c], unit, a, b, c
        ),
        "That is the nearest word to c. Where is the arrow?": best(unit[c], unit, a, b, c),
        "The inputs' cosines were set to 0, and all others are below. Take -inf.": best(
            query, unit, a, b, c, fill=0.0
        ),
        "That is the nearest by distance, at the rows' own lengths. The cosine is asked.": (
            distance.argmax().item()
        ),
        "Ids shift when rows are taken out. Mask the inputs instead of deleting them.": (
            right - sum(i < right for i in (a, b, c))
        ),
    }


def _table(below_zero: bool) -> tuple[torch.Tensor, int, int, int]:
    """Rows and inputs where a mistake shows, in the answer, and no two rows are nearly as near.

    With `below_zero` all rows but the inputs have a negative cosine: one mistake shows only there.
    """
    while True:
        rows = F.normalize(torch.randn(30, 4)) * torch.empty(30, 1).uniform_(0.2, 5)
        a, b, c = torch.randperm(30)[:3].tolist()
        unit = F.normalize(rows)
        scores = unit @ (unit[b] - unit[a] + unit[c])
        if below_zero:
            scores[[a, b, c]] = -1
            rows = rows * -scores.sign()[:, None]
            scores = -scores.abs()
        right, *wrong = _answers(rows, a, b, c).values()
        scores[[a, b, c]] = -torch.inf
        first, second = scores.topk(2).values
        shown = wrong[8:9] if below_zero else wrong[:8] + wrong[9:]
        if right not in shown and first - second > 0.01:
            return rows, a, b, c


def _opposed() -> tuple[torch.Tensor, int, int, int]:
    """Four rows: the only candidate is far on the other side, below -1 from a query not scaled."""
    e, across = F.normalize(torch.randn(2, 4))
    across = F.normalize(across - across @ e * e, dim=0)
    rows = torch.stack([-e, e, e, -0.9 * e + 0.19**0.5 * across])
    return (rows + 0.02 * torch.randn(4, 4)) * torch.empty(4, 1).uniform_(0.2, 5), 0, 1, 2


def _tables() -> list[tuple[torch.Tensor, int, int, int]]:
    """Six of them, on which no two mistakes give the same answers."""
    while True:
        tables = [_table(below_zero) for below_zero in (False, False, False, False, True)]
        tables.append(_opposed())
        if len(set(zip(*(_answers(*t).values() for t in tables), strict=True))) == 12:
            return tables


@exercise
def analogy(answer):
    """A function (rows, a, b, c) -> the id d with a : b = c : d by the usual rule."""
    said, known = [], []
    for rows, a, b, c in _tables():
        value = number(call(answer, rows, a, b, c), "The id")
        if value != int(value) or not 0 <= value < len(rows):
            raise Wrong(f"An id from 0 to {len(rows) - 1} is wanted, not {describe(value)}.")
        said.append(int(value))
        known.append(_answers(rows, a, b, c))
    if said == [answers[""] for answers in known]:
        return "All at length 1, the arrow from a to b put on c, and the inputs left out."
    for hint in list(known[0])[1:]:
        if said == [answers[hint] for answers in known]:
            raise Wrong(hint)
    if said[:4] == [answers[""] for answers in known[:4]]:
        raise Wrong(
            "Wrong where all other words point away. With what do you mask the inputs? -1 is low "
            "enough for cosines, and not for products with a query that is longer than 1."
        )
    raise Wrong("Not the nearest by cosine to b - a + c, all at length 1, inputs left out.")
