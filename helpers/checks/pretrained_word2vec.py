"""Checks of lesson 07 and its side lessons: rows for words, from_pretrained, files, analogies."""

import unicodedata

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks import Wrong, between, call, close, describe, exercise, number, same


def _file(words: list[str], rows: np.ndarray, end: bytes) -> bytes:
    """The bytes of a binary word2vec file with `end` after each record."""
    records = [w.encode() + b" " + r.tobytes() + end for w, r in zip(words, rows, strict=True)]
    return b"%d %d\n" % rows.shape + b"".join(records)


def _files() -> list[tuple[list[str], np.ndarray, bytes]]:
    """Words, rows and ends of record: plain ones first, then one oddity after the other."""
    fresh = np.random.default_rng(between(0, 2**31))

    def numbers(V: int, D: int) -> np.ndarray:
        """Finite numbers without a newline or a space among their bytes."""
        return fresh.integers(33, 127, (V, 4 * D), dtype=np.uint8).view("<f4")

    many = [f"word{i}" for i in range(between(40, 300))]
    plain, foreign = ["the", "of", "row", "x1"], ["Zürich", "\u00a0m²", "東京", "the", "c++"]
    D = between(3, 8)
    odd = numbers(5, D)
    # newlines and spaces, also at both ends of a row; a row of them looks like empty words
    size = odd.view(np.uint8)[:, ::3].shape
    odd.view(np.uint8)[:, ::3] = fresh.choice(np.frombuffer(b"\n ", np.uint8), size)
    odd.view(np.uint8)[1] = fresh.permutation(np.frombuffer(b"\n " * (2 * D), np.uint8))
    odd.view(np.uint8)[2:4, [0, -1]] = 10
    return [
        (plain, numbers(4, between(2, 9)), b""),
        (plain, numbers(4, between(2, 9)), b"\n"),
        (foreign, numbers(5, 1), b""),
        (foreign, odd, b""),
        (foreign, odd, b"\n"),
        (["alone"], numbers(1, between(2, 9)), b"\n"),
        (["a"], numbers(1, 1), b""),
        (many, numbers(len(many), between(20, 60)), b""),
    ]


READING = {
    "codec can't decode": "Bytes of numbers were taken for a word. Is each hop 4 · D bytes from "
    "the byte after the space, and the D that of the header?",
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
    if [word.strip(" ") for word in mine] == words:
        raise Wrong("A word of yours ends in a space, or begins with one.")
    if mine == [word.strip() for word in words]:
        raise Wrong("`.strip()` takes more than spaces and newlines: the word '\\xa0m²' "
                    "begins with U+00A0. A word is every byte up to b' '.")  # fmt: skip
    if mine == [unicodedata.normalize("NFKC", word) for word in words]:
        raise Wrong("Letters were replaced by others that look alike. Decode, and change nothing.")
    pairs = list(zip(mine[1:], words[1:], strict=True))
    if pairs and all(m.endswith(w) and len(m) == len(w) + 1 for m, w in pairs):
        raise Wrong("From the second on your words begin one byte too early. The 4 · D bytes are "
                    "counted from the byte after the space, not from the space.")  # fmt: skip
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


class _Watched(dict):
    """A dictionary that remembers whether somebody wrote into it, even to put it back."""

    written = False

    def _noted(self, method: str, *args: object) -> object:
        self.written = True
        return getattr(dict, method)(self, *args)

    def __setitem__(self, key: object, value: object) -> None:
        self._noted("__setitem__", key, value)

    def __delitem__(self, key: object) -> None:
        self._noted("__delitem__", key)

    def pop(self, *args: object) -> object:
        return self._noted("pop", *args)

    def update(self, *args: object) -> None:
        self._noted("update", *args)

    def setdefault(self, *args: object) -> object:
        return self._noted("setdefault", *args)


_Watched.__name__ = "dict"  # so that hints call it what a reader does


def _second_chance(
    first: str, D: int
) -> tuple[_Watched, list[str], np.ndarray, torch.Tensor, list[str]]:
    """A vocabulary, a file's words and rows, and what the vocabulary's rows and the lost are.

    The word `first` begins the file, and fillers of a random number follow the others.
    """
    fresh = np.random.default_rng(between(0, 2**31))
    words = ["the", "iphone", "The", "zürich", "US", "NATO", "paris", "nil", "of"]
    words += ["Oslo", "maß"]
    words += [f"filler{i}" for i in range(between(0, 9))]
    fresh.shuffle(words)
    words.sort(key=lambda word: word != first)
    rows = fresh.standard_normal((len(words), D))
    rows[words.index("nil")] = 0  # a row of zeros that the file has
    source = {"The": "The", "the": "the", "iPhone": "iphone", "Zürich": "zürich", "NATO": "NATO"}
    source |= {"us": None, "wug": None, "PARIS": "paris", "nil": "nil", "Wug": None}
    source |= {"oslo": None, "Maß": "maß"}
    names = list(source)
    fresh.shuffle(names)
    vocabulary = _Watched(zip(names, fresh.permutation(len(names)).tolist(), strict=True))
    truth = torch.zeros(len(names), D, dtype=torch.float64)
    for name, i in vocabulary.items():
        if source[name] is not None:
            truth[i] = torch.from_numpy(rows[words.index(source[name])])
    return vocabulary, words, rows, truth, [n for n in names if source[n] is None]


def _ends() -> list[tuple[_Watched, list[str], np.ndarray, torch.Tensor, list[str]]]:
    """The ends of the range: one word and one number, no word found, not even one in the file."""
    row = np.random.default_rng(between(0, 2**31)).standard_normal((1, 1))
    nothing = torch.zeros(2, 1, dtype=torch.float64)
    return [
        (_Watched({"The": 0}), ["the"], row, torch.from_numpy(row), []),
        (_Watched({"b": 1, "a": 0}), ["c"], row, nothing, ["a", "b"]),
        (_Watched({"b": 1, "a": 0}), [], np.zeros((0, 3)), nothing.expand(2, 3), ["a", "b"]),
    ]


LOST = "us", "wug", "Wug", "oslo"


@exercise
def rows_for(answer):
    """A function (vocabulary, words, rows) -> the vocabulary's rows, and the words without one."""
    # "of" is not asked for; a word whose row is 0 then shows who takes a 0 for "not found"
    cases = [(np.float32, _second_chance("of", between(2, 9)))]
    cases += [(np.float64, _second_chance("The", between(2, 9)))]
    cases += [(np.float32, _second_chance("iphone", between(2, 9)))]
    cases += [(np.float16, _second_chance("of", 1))]
    cases += [(np.float32, case) for case in _ends()]
    hints = {f"'{word}'": "A word is in neither form in the file." for word in LOST}
    hints["out of bounds for axis 0 with size 0"] = (
        "The file may have none of the words. `rows` then has shape (0, D), and no first row: D "
        "stands in its shape."
    )
    hints["must match the existing size"] = (
        "So many rows do not fit. Do you put the file's rows in the file's order? Each goes to its "
        "word's id."
    )
    for dtype, (vocabulary, words, rows, truth, lost) in cases:
        rows = rows.astype(dtype)
        truth = torch.from_numpy(truth.numpy().astype(dtype)).float()
        given = _Watched(vocabulary), list(words), rows.copy()
        found = call(answer, *given, hints=hints)
        changed = given[0] != vocabulary or given[1] != words
        changed = changed or given[0].written or not given[2].flags.writeable
        if changed or not np.array_equal(given[2], rows):
            raise Wrong("Your function changed what it was given. Work on copies.")
        if not (isinstance(found, tuple | list) and len(found) == 2):
            raise Wrong(f"A pair is wanted, rows and the words left, not {describe(found)}.")
        weight, missing = found
        if isinstance(weight, torch.Tensor) and weight.dtype in (torch.float64, torch.float16):
            raise Wrong(f"{str(weight.dtype)[6:]}: rows were, or you made it so. The table should "
                        "be float32, whatever the file's dtype.")  # fmt: skip
        if len(rows) != len(truth) and np.shape(weight) == rows.shape:
            raise Wrong("These are as many rows as the file has. One for each word of the "
                        "vocabulary is wanted, at its id.")  # fmt: skip
        if not same(weight, truth, "The first of the pair"):
            _judge_order(weight.detach(), truth, vocabulary, words, rows)
        if weight[[vocabulary[word] for word in lost]].any():
            raise Wrong("A word without a row should get zeros, not small numbers.")
        with torch.inference_mode():  # which may write into an answer from inference mode, too
            weight += 1
        if not np.array_equal(given[2], rows):
            raise Wrong("Writing into your tensor changes `rows`: both lie in the same memory.")
        _judge_missing(missing, vocabulary, words, lost)
    return "By the vocabulary's ids, as written first, in memory of its own."


def _judge_order(weight, truth, vocabulary, words, rows) -> None:
    file = torch.from_numpy(rows).float()
    ids = list(vocabulary.values())
    at = {word: i for i, word in enumerate(words)}
    if close(weight, truth[ids]) and not close(truth, truth[ids]):
        raise Wrong("Rows stand in the order of the dictionary. Its values are the ids.")
    n = min(len(file), len(truth))
    if n > 2 and close(weight[:n], file[:n]):
        raise Wrong("These are the file's rows in the file's order. Ids are your vocabulary's.")

    def says(word: str, source: str | None) -> bool:
        row = torch.zeros(file.shape[1]) if source is None else file[at[source]]
        return word in vocabulary and close(weight[vocabulary[word]], row)

    if not {"us", "wug", "The"} <= set(vocabulary):  # the ends of the range
        if len(vocabulary) == 1 and says("The", None):
            raise Wrong("'The' is in the file in lower case, and got zeros. Its row is row 0.")
        raise Wrong(f"The vocabulary has the words {', '.join(vocabulary)}, the file has "
                    f"{', '.join(words)}, and your rows are {weight.tolist()}.")  # fmt: skip
    if says("The", "the"):
        zero = " Its row is row 0. Is 0 an id, and false?" if at["The"] == 0 else ""
        raise Wrong(f"'The' is in the file as written, and got the row of 'the'.{zero}")
    if says("iPhone", None):
        zero = " Its row is row 0. Is 0 an id, and false?" if at["iphone"] == 0 else ""
        raise Wrong(f"'iPhone' is in the file in lower case, and got zeros.{zero}")
    if says("us", "US"):
        raise Wrong("'us' got the row of 'US'. Lower the vocabulary's word, not the file's.")
    if says("oslo", "Oslo"):
        raise Wrong("'oslo' got the row of 'Oslo'. Two forms count: as written and in lower case.")
    if says("Maß", None):
        raise Wrong("'Maß' is in the file as 'maß', and got zeros. `.lower()` is meant: "
                    "`.casefold()` makes 'mass' of it.")  # fmt: skip
    if not (says("wug", None) and says("us", None)):
        raise Wrong("A word that the file has in neither form should get zeros.")
    wrong = next(w for w, i in vocabulary.items() if not close(weight[i], truth[i]))
    raise Wrong(f"The row of {wrong!r} is not its own. Is each row at its word's id?")


def _judge_missing(missing: object, vocabulary, words, lost) -> None:
    if not isinstance(missing, list | tuple | set):
        raise Wrong(f"The second of the pair should be a list of words, not {describe(missing)}.")
    missing = [str(word) if isinstance(word, str) else word for word in missing]  # NumPy's are
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


STEP = "a step changes rows"
FILLED = "Embedding(6, 4), then weight.data.copy_(same): a step changes"
HINTS = {
    f"from_pretrained(torch.tensor(rows), freeze=False): {STEP}": "torch.tensor copies what it is "
    "given.",
    f"from_pretrained(same.float(), freeze=False): {STEP}": "rows are float32. What does "
    "`.float()` do with a tensor that is float32 already?",
    f"from_pretrained(same.double(), freeze=False): {STEP}": "To become float64 the numbers need "
    "other memory.",
    f"{FILLED} rows": "copy_ moves numbers into memory that the table has already.",
    f"{FILLED} table": "A new Embedding learns, and other numbers in its weight change nothing "
    "about that.",
    "from_pretrained(torch.from_numpy(rows * np.ones(4))) has float32": "np.ones is float64. What "
    "is a product of float32 and float64?",
}


def _truths() -> list[bool]:
    """What PyTorch does, in the order of HINTS."""

    def changed(make) -> tuple[bool, bool]:
        """Whether a step changes rows, and whether it changes the table."""
        rows = np.ones((6, 4), np.float32)
        table = make(rows)
        before = table.weight.detach().clone()
        table(torch.tensor([2, 5])).sum().backward()
        torch.optim.SGD(table.parameters(), lr=0.1).step()
        return bool((rows != 1).any()), not torch.equal(before, table.weight.detach())

    def given(convert):
        return lambda rows: nn.Embedding.from_pretrained(convert(rows), freeze=False)

    def filled(rows):
        table = nn.Embedding(6, 4)
        table.weight.data.copy_(torch.from_numpy(rows))
        return table

    rows = np.ones((6, 4), np.float32)
    double = nn.Embedding.from_pretrained(torch.from_numpy(rows * np.ones(4)))
    return [
        changed(given(torch.tensor))[0],
        changed(given(lambda rows: torch.from_numpy(rows).float()))[0],
        changed(given(lambda rows: torch.from_numpy(rows).double()))[0],
        *changed(filled),
        double.weight.dtype == torch.float32,
    ]


def _truth_value(value: object) -> bool:
    """`value` as True or False; `Wrong` for what is neither. Tensors and NumPy's count."""
    if isinstance(value, torch.Tensor | np.ndarray) and len(value.reshape(-1)) == 1:
        value = value.reshape(-1)[0].item()
    if not isinstance(value, bool | np.bool_):
        raise Wrong(f"Say True or False, not {describe(value)}.")
    return bool(value)


@exercise
def foretold(answer):
    """A dictionary: what happens, or not, for each of six lines about from_pretrained."""
    if not isinstance(answer, dict) or set(answer) != set(HINTS):
        raise Wrong("The dictionary's keys should stay as they are; fill in the values.")
    left = sum(said is ... for said in answer.values())
    if left:
        raise Wrong(f"{left} of the dots {'is' if left == 1 else 'are'} still there.")
    for (key, hint), truth in zip(HINTS.items(), _truths(), strict=True):
        if _truth_value(answer[key]) != truth:
            raise Wrong(f"{key}: {hint}")
    return "Memory of its own after a copy or a conversion, and learning unless frozen."


# --- A row from pieces ------------------------------------------------------------------------


def _pieces(word: str, sizes=(3, 4, 5), marks: str = "<>") -> list[str]:
    """The pieces of a word, each as often as it occurs."""
    marked = f"{marks[:1]}{word}{marks[1:]}"
    return [marked[i : i + n] for n in sizes for i in range(len(marked) - n + 1)]


def _spelling_cases() -> list[tuple[str, dict[str, torch.Tensor], torch.Tensor]]:
    """Words, dictionaries of pieces and defaults: repeats, one known piece, none, odd sizes."""
    cases = []
    names = ["banana", "naïveté", "nanana", "NumPy", "row", "of", "x"]
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        D = between(2, 9)
        for word in names if dtype == torch.float32 else names[:2]:
            own = list(dict.fromkeys(_pieces(word)))
            other = list(dict.fromkeys(_pieces("zebra")))
            some = [own[i] for i in torch.randperm(len(own))[: between(1, len(own))].tolist()]
            if word in ("banana", "nanana"):
                some = list({*some, "ana", "nan", own[0]})
            no_pieces = _pieces(word, (1, 2, 6, 7, 8)) + _pieces(word, marks="")
            no_pieces += [f"<{word}>", *_pieces(word.lower())]
            other += [piece for piece in no_pieces if piece not in own]
            rows = {piece: torch.randn(D, dtype=dtype) for piece in [*some, *other]}
            cases.append((word, rows, torch.randn(D, dtype=dtype)))
    one = torch.randn(1)
    cases.append(("a", {"<a>": torch.randn(1)}, one))
    cases.append(("banana", {"<ba": torch.randn(4)}, torch.randn(4)))
    cases.append(("wug", {piece: torch.randn(3) for piece in _pieces("zebra")}, torch.randn(3)))
    cases.append(("wug", {}, torch.randn(between(1, 5))))
    return cases


def _spelled(word: str, rows: dict, default: torch.Tensor, pieces: list[str]) -> torch.Tensor:
    known = [rows[piece] for piece in pieces if piece in rows]
    return torch.stack(known).double().mean(dim=0).to(default.dtype) if known else default.clone()


@exercise
def row_for(answer):
    """A function (word, piece_rows, default) -> the mean of the known pieces' rows."""
    for word, rows, default in _spelling_cases():
        given = _Watched({piece: row.clone() for piece, row in rows.items()})
        given_default = default.clone()
        hints = {"expected a non-empty": "No piece of the word is in the dictionary: then the row "
                 "is `default`."}  # fmt: skip
        value = call(answer, word, given, given_default, copy=False, hints=hints)
        kept = given.keys() == rows.keys() and all(torch.equal(given[p], rows[p]) for p in rows)
        if not kept or given.written or not torch.equal(given_default, default):
            raise Wrong("Your function wrote into what it was given.")
        if any(part._version for part in (given_default, *given.values())):
            raise Wrong("Your function wrote into what it was given.")
        truth = _spelled(word, rows, default, list(dict.fromkeys(_pieces(word))))
        # bfloat16: a sum that is rounded at each step is right too
        rough = dict.fromkeys(["rtol", "atol"], 3e-2 if truth.dtype == torch.bfloat16 else 0)
        if not (same(value, truth, "The row") or torch.allclose(value.detach(), truth, **rough)):
            _judge_spelling(value, truth, word, rows, default)
        value.detach().add_(1)
        if not torch.equal(given_default, default):
            raise Wrong("Writing into your row changes `default`: return a copy of it.")
        if not all(torch.equal(given[p], rows[p]) for p in rows):
            raise Wrong("Writing into your row changes a row in the dictionary: return a copy.")
    return "The known pieces, each once, divided by their number; the default where there is none."


def _judge_spelling(value, truth, word, rows, default) -> None:
    pieces = list(dict.fromkeys(_pieces(word)))
    known = [piece for piece in pieces if piece in rows]
    named = f"For {word!r}, of whose {len(pieces)} pieces {len(known)} are known: "
    if not known:
        raise Wrong(f"{named}the row should be `default`.")
    scaled = truth.double() * len(known)
    mistakes = [
        (default.double(), "it has known pieces, and got `default`."),
        (scaled, "that is the sum of the known rows. Divide by how many they are."),
        (scaled / len(pieces), "you divided by all pieces; divide by those that have a row."),
        (_spelled(word, rows, default, _pieces(word)).double(),
         "a piece that occurs twice in the word counts twice. Count each once."),
        (_spelled(word, rows, default, _pieces(word, marks="")).double(),
         "the word's ends have no marks. Cut `<word>`, with its brackets."),
        (_spelled(word, rows, default, _pieces(word, (3, 4))).double(),
         "pieces of five characters are missing. Does range(3, 5) reach 5?"),
        (_spelled(word, rows, default, _pieces(word, (3,))).double(),
         "only pieces of three characters are in it; four and five count too."),
        (_spelled(word, rows, default, _pieces(word, (3, 4, 5, 6))).double(),
         "pieces of six characters are in it. Does the range go one too far?"),
        (_spelled(word, rows, default, _pieces(word, range(3, 9))).double(),
         "pieces of six and more characters are in it. Three, four and five count."),
        (_spelled(word, rows, default, [*pieces, *{f"<{word}>"}.difference(pieces)]).double(),
         "the whole word counts as a piece (fastText does so). Only three to five characters do."),
        (_spelled(word, rows, default, list(dict.fromkeys(_pieces(word.lower())))).double(),
         "pieces of the word in lower case. Cut it as it is written."),
        ((scaled + (len(pieces) - len(known)) * default.double()) / len(pieces),
         "`default` stands in for each piece without a row. Leave those out; `default` is for a "
         "word without any known piece."),
        (torch.zeros_like(truth).double(), "the row is all zeros."),
    ]  # fmt: skip
    error = 5e-2 if truth.dtype == torch.bfloat16 else 1e-4
    for wrong, hint in mistakes:
        if torch.allclose(value.detach().double(), wrong, error, error):
            raise Wrong(named + hint)
    missed = (scaled + default.double()) / (len(known) + 1)
    if torch.allclose(value.detach().double(), missed, error, error):
        raise Wrong(f"{named}`default` is in your mean. It is for words without a known piece.")
    if len(known) > 1 and any(torch.equal(value.detach(), rows[piece]) for piece in known):
        raise Wrong(f"{named}that is the row of one piece. The mean of all known ones is wanted.")
    raise Wrong(f"{named}not the mean of their rows. Three, four and five characters, all starts?")


# --- Analogies --------------------------------------------------------------------------------


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
        "c competes in yours. None of the three inputs does.": best(query, unit, a, b),
        "a competes in yours. None of the three inputs does.": best(query, unit, b, c),
    }


def _table(below_zero: bool, margin: float = 0.01) -> tuple[torch.Tensor, int, int, int]:
    """Rows and inputs where a mistake shows, in the answer, and no two rows are nearly as near.

    With `below_zero` all rows but the inputs have a negative cosine: one mistake shows only there.
    `margin` is by how much the right row is ahead.
    """
    while True:
        V, D = between(26, 36), between(4, 5)
        rows = F.normalize(torch.randn(V, D)) * torch.empty(V, 1).uniform_(0.2, 5)
        a, b, c = torch.randperm(V)[:3].tolist()
        unit = F.normalize(rows)
        scores = unit @ (unit[b] - unit[a] + unit[c])
        if below_zero:
            scores[[a, b, c]] = -1
            rows = rows * -scores.sign()[:, None]
            scores = -scores.abs()
        right, *wrong = _answers(rows, a, b, c).values()
        scores[[a, b, c]] = -torch.inf
        first, second = scores.topk(2).values
        shown = wrong[8:9] if below_zero else wrong[:8] + wrong[9:11]
        if right not in shown and first - second > margin:
            return rows, a, b, c


def _opposed() -> tuple[torch.Tensor, int, int, int]:
    """Four rows: the only candidate is far on the other side, below -1 from a query not scaled.

    Of the inputs even a is nearer than it.
    """
    e, across = F.normalize(torch.randn(2, 4))
    across = F.normalize(across - across @ e * e, dim=0)
    rows = torch.stack([e, e, -0.9 * e + 0.19**0.5 * across, -e])
    return (rows + 0.02 * torch.randn(4, 4)) * torch.empty(4, 1).uniform_(0.2, 5), 2, 1, 0


def _tables() -> list[tuple[torch.Tensor, int, int, int]]:
    """Six of them, on which no two mistakes give the same answers."""
    while True:
        tables = [_table(below_zero) for below_zero in (False, False, False, False, True)]
        tables.append(_opposed())
        if len(set(zip(*(_answers(*t).values() for t in tables), strict=True))) == 14:
            return tables


def _padded(rows: torch.Tensor, a: int, b: int, c: int) -> int:
    """The answer of somebody who adds 0.01 to the lengths before dividing by them."""
    padded = rows / (rows.norm(dim=1, keepdim=True) + 1e-2)
    scores = padded @ (padded[b] - padded[a] + padded[c])
    scores[[a, b, c]] = -torch.inf
    return scores.argmax().item()


def _short() -> tuple[torch.Tensor, int, int, int]:
    """Short rows, on which whoever adds 0.01 to the lengths is wrong."""
    while True:
        rows, a, b, c = _table(False)
        rows = 5e-3 * rows
        if _padded(rows, a, b, c) != _answers(rows, a, b, c)[""]:
            return rows, a, b, c


FEW = {"list index out of range": "You looked at so few of the nearest that all were inputs. Mask "
       "the inputs, or look at one more."}  # fmt: skip


@exercise
def analogy(answer):
    """A function (rows, a, b, c) -> the id d with a : b = c : d by the usual rule."""
    said, known, padded = [], [], []
    for rows, a, b, c in _tables():
        padded.append(_padded(rows, a, b, c))
        value = number(call(answer, rows, a, b, c, hints=FEW), "The id")
        if value != int(value) or not 0 <= value < len(rows):
            raise Wrong(f"An id from 0 to {len(rows) - 1} is wanted, not {describe(value)}.")
        said.append(int(value))
        known.append(_answers(rows, a, b, c))
    if said == [answers[""] for answers in known]:
        rows, a, b, c = _short()
        if number(call(answer, rows, a, b, c), "The id") != _answers(rows, a, b, c)[""]:
            raise Wrong("Right, but where rows are short. Do you add to the lengths?")
        for dtype in (torch.float64, torch.bfloat16):
            rows, a, b, c = _table(False, margin=0.08)
            found = number(call(answer, rows.to(dtype), a, b, c), "The id")
            if found != _answers(rows, a, b, c)[""]:
                raise Wrong(f"Right in float32, and another word where the rows are {dtype}.")
        return "All at length 1, the arrow from a to b put on c, and the inputs left out."
    for hint in list(known[0])[1:]:
        if said == [answers[hint] for answers in known]:
            raise Wrong(hint)
    if said == padded:
        raise Wrong("A number is added to the lengths, and short rows come out too short.")
    if said[:4] == [answers[""] for answers in known[:4]]:
        raise Wrong(
            "Wrong where all other words point away. With what do you mask the inputs? -1 is low "
            "enough for cosines, and not for products with a query that is longer than 1."
        )
    raise Wrong("Not the nearest by cosine to b - a + c, all at length 1, inputs left out.")
