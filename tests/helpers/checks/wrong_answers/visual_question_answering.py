"""Lesson 10: wrong answers that readers give, and a part of the hint that each should get."""

from collections import Counter, defaultdict

import torch
from torch import nn


def pair(one, other):
    return {"one": one, "other": other}


def by(group, count="train", judge="test", otherwise=True, scale=1):
    """An answer to exercise 2: the majority of each `group` of `count`, judged on `judge`."""

    def blind(train, test):
        lists, groups = {"train": train, "test": test}, defaultdict(Counter)
        overall = Counter(q.answer for q in lists[count])
        for q in lists[count]:
            groups[group(q)][q.answer] += 1
        right = 0
        for q in lists[judge]:
            if group(q) in groups or otherwise:
                most = groups.get(group(q), overall).most_common(1)[0][0]
                right += most == q.answer
        return scale * right / len(lists[judge])

    return blind


def words(q):
    return q.words


def without_the_new(train, test):
    known = {q.words for q in train}
    return by(words)(train, [q for q in test if q.words in known])


def lost_at_new_words(train, test):
    most = {w: Counter(q.answer for q in train if q.words == w) for w in {q.words for q in train}}
    return sum(most[q.words].most_common(1)[0][0] == q.answer for q in test) / len(test)


def number_of_hits(train, test):
    return by(words)(train, test) * len(test)


def errors(train, test):
    return 1 - by(words)(train, test)


def packed(gru, rows, lengths, **options):
    pack = nn.utils.rnn.pack_padded_sequence
    return gru(pack(rows, lengths, batch_first=True, **options))


def at_padding(gru, rows, lengths):
    return gru(rows)[0][:, -1]


def end(gru, rows, lengths):
    return gru(rows)[1][0]


def one_too_late(gru, rows, lengths):
    return gru(rows)[0][torch.arange(len(rows)), lengths]


def one_too_late_clamped(gru, rows, lengths):
    return gru(rows)[0][torch.arange(len(rows)), lengths.clamp(max=rows.shape[1] - 1)]


def one_too_early(gru, rows, lengths):
    return gru(rows)[0][torch.arange(len(rows)), lengths - 2]


def with_the_layer(gru, rows, lengths):
    return packed(gru, rows, lengths, enforce_sorted=False)[1]


def not_sorted(gru, rows, lengths):
    return packed(gru, rows, lengths)[1][0]


def sorted_and_left_so(gru, rows, lengths):
    order = lengths.argsort(descending=True)
    return packed(gru, rows[order], lengths[order])[1][0]


def lengths_from_zeros(gru, rows, lengths):
    return packed(gru, rows, (rows != 0).any(dim=2).sum(dim=1), enforce_sorted=False)[1][0]


def still_packed(gru, rows, lengths):
    return packed(gru, rows, lengths, enforce_sorted=False)[0]


def mean_of_states(gru, rows, lengths):
    states = gru(rows)[0]
    real = torch.arange(rows.shape[1]) < lengths[:, None]
    return (states * real[..., None]).sum(1) / lengths[:, None]


def cut_to_the_shortest(gru, rows, lengths):
    return gru(rows[:, : lengths.min()])[1][0]


def without_gradient(gru, rows, lengths):
    with torch.no_grad():
        return gru(rows)[0][torch.arange(len(rows)), lengths - 1]


def every_pair(gru, rows, lengths):
    return gru(rows)[0][:, lengths - 1]


def the_other_way(table, new, old):
    with torch.no_grad():
        table.weight[old] = table.weight[new]


def with_gradient(table, new, old):
    table.weight[new] = table.weight[old]


def another_parameter(table, new, old):
    rows = table.weight.detach().clone()
    rows[new] = rows[old]
    table.weight = nn.Parameter(rows, requires_grad=table.weight.requires_grad)


def a_tensor(table, new, old):
    table.weight = table.weight.index_copy(0, new, table.weight[old])


def another_table(table, new, old):
    rows = table.weight.detach()
    return nn.Embedding.from_pretrained(rows.index_copy(0, new, rows[old]))


def into_a_copy(table, new, old):
    with torch.no_grad():
        table.weight[new].copy_(table.weight[old])


def frozen_afterwards(table, new, old):
    table.weight.requires_grad_(False)
    table.weight[new] = table.weight[old]


def learning_afterwards(table, new, old):
    with torch.no_grad():
        table.weight[new] = table.weight[old]
    table.weight.requires_grad_(True)


def exchanged(table, new, old):
    with torch.no_grad():
        rows = table.weight[new].clone()
        table.weight[new] = table.weight[old]
        table.weight[old] = rows


def the_first_alone(table, new, old):
    with torch.no_grad():
        table.weight[new[:1]] = table.weight[old[:1]]


def mean_row(table, new, old):
    with torch.no_grad():
        table.weight[new] = table.weight[old].mean(0)


def others_too(table, new, old):
    with torch.no_grad():
        table.weight[new] = table.weight[old]
        rest = torch.ones(len(table.weight), dtype=torch.bool)
        rest[torch.cat([new, old])] = False
        table.weight[rest] += 1


def added(table, new, old):
    with torch.no_grad():
        table.weight[new] += table.weight[old]


ABOVE = "is the circle above the red object"
WRONG = {
    "visual_question_answering.same_words": [
        (pair(ABOVE, "is the red object below the circle"), "words differ"),
        (pair(ABOVE, "is the blue object above the circle"), "words differ"),
        (pair(ABOVE, "is the circle above the red red object"), "words differ"),
        (pair(ABOVE, ABOVE), "one question twice"),
        (pair(ABOVE, "Is the circle above the red object?"), "one question twice"),
        (pair("is a red circle there", "is there a red circle"), "same answer"),
        (pair("the circle is what color", "what color is the circle"), "same answer"),
        (
            pair("is the yellow object above the circle", "is the circle above the yellow object"),
            "'yellow' is unknown",
        ),
        (pair("circle red", "red circle"), "is no question here"),
        (
            pair(
                "is the red object above the green object above the blue object",
                "is the blue object above the red object above the green object",
            ),
            "No scene",
        ),
        (pair(ABOVE, 3), "A question is wanted"),
        ({"one": ABOVE}, "Still to be filled in"),
        (ABOVE, "Fill in the dictionary"),
    ],
    "visual_question_answering.blind": [
        (by(words, count="test"), "counted in train"),
        (by(words, judge="train"), "the score on train"),
        (by(words, count="test", judge="train"), "exchanged"),
        (by(lambda q: 0), "one answer for all"),
        (by(lambda q: q.kind), "by kind"),
        (by(lambda q: len(q.words)), "not their number"),
        (by(lambda q: q.words[0]), "not by the first"),
        (by(words, otherwise=False), "New words count as wrong"),
        (without_the_new, "left out the words"),
        (lost_at_new_words, "new in test"),
        (by(words, scale=100), "percent"),
        (number_of_hits, "number of questions"),
        (errors, "share of errors"),
        (lambda train, test: 0.25, "counting by words in train gives"),
        (lambda train, test: train.clear() or 0.2, "changed one of the lists"),
        (lambda train, test: [0.2], "should be a number"),
    ],
    "visual_question_answering.last_state": [
        (at_padding, "end of the padding"),
        (end, "end of the padding"),
        (one_too_late, "number n - 1"),
        (one_too_late_clamped, "One word too late"),
        (one_too_early, "One word too early"),
        (with_the_layer, "layer first"),
        (not_sorted, "enforce_sorted=False"),
        (sorted_and_left_so, "Put them back"),
        (lengths_from_zeros, "end of the padding"),
        (still_packed, "packed sequence"),
        (mean_of_states, "mean of the states"),
        (lambda gru, rows, lengths: gru(rows)[0].mean(1), "over the padding too"),
        (lambda gru, rows, lengths: gru(rows)[0][:, 0], "first word"),
        (cut_to_the_shortest, "a length of its own"),
        (without_gradient, "detached"),
        (every_pair, "shape"),
        (lambda gru, rows, lengths: gru(rows)[0], "shape"),
        (lambda gru, rows, lengths: gru(rows), "should be a tensor"),
        (lambda gru, rows, lengths: gru(rows.transpose(0, 1))[1][0], "shape"),
    ],
    "visual_question_answering.how_many": [
        (lambda s: s.softmax(-1).sum(-1), "softmax is 1"),
        (lambda s: s.sigmoid().mean(-1), "mean chance"),
        (lambda s: (s > 0).sum(-1), "yes or no"),
        (lambda s: (s > 0).float().sum(-1), "yes or no"),
        (lambda s: s.sigmoid().round().sum(-1), "yes or no"),
        (lambda s: s.sum(-1), "sum of the logits"),
        (lambda s: s.sum(-1).sigmoid(), "chance of the sum"),
        (lambda s: s.exp().sum(-1), "odds"),
        (lambda s: s.sigmoid().amax(-1), "likeliest"),
        (lambda s: s.relu().sum(-1), "negative score"),
        (lambda s: (-s).sigmoid().sum(-1), "do not count"),
        (lambda s: 1 - (1 - s.sigmoid()).prod(-1), "at least one"),
        (lambda s: s.sigmoid(), "one number a slot"),
        (lambda s: s.sigmoid().sum(1), "is wanted"),
        (lambda s: s.sigmoid().sum(), "is wanted"),
        (lambda s: s.sigmoid().sum(-1, keepdim=True), "is wanted"),
        (lambda s: s.detach().sigmoid().sum(-1), "detached"),
        (lambda s: s.tanh().sum(-1), "sum of the chances"),
    ],
    "visual_question_answering.same_row": [
        (the_other_way, "They lend theirs"),
        (with_gradient, "torch.no_grad()"),
        (another_parameter, "another parameter"),
        (a_tensor, "is a Parameter"),
        (into_a_copy, "has changed. Indexing"),
        (lambda table, new, old: table(old), "has changed. Indexing"),
        (another_table, "new table is another table"),
        (frozen_afterwards, "is frozen now"),
        (learning_afterwards, "learns now"),
        (exchanged, "They lend theirs"),
        (the_first_alone, "place by place"),
        (mean_row, "place by place"),
        (added, "place by place"),
        (others_too, "other words changed"),
        (3, "A function is wanted"),
    ],
}
