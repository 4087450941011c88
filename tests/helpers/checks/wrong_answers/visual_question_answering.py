"""Lesson 10: wrong answers that readers give, and a part of the hint that each should get."""

import torch
import torch.nn.functional as F
from torch import nn


def pair(one, other):
    return {"one": one, "other": other}


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


def cosines(rows, new, known):
    unit = F.normalize(rows, dim=1)
    return unit[new] @ unit[known].T


def nearest(rows, new, known, scores=cosines):
    """An answer to exercise heard_as, by any scores (n, m)."""
    best, places = scores(rows, new, known).topk(2, dim=1)
    return known[places[:, 0]], best[:, 0] - best[:, 1]


def by(scores):
    return lambda rows, new, known: nearest(rows, new, known, scores)


def products(rows, new, known):
    return rows[new] @ rows[known].T


def half_scaled(rows, new, known):
    return F.normalize(rows, dim=1)[new] @ rows[known].T


def distances(rows, new, known):
    return -torch.cdist(rows[new], rows[known])


def places(rows, new, known):
    best, at = cosines(rows, new, known).topk(2, dim=1)
    return at[:, 0], best[:, 0] - best[:, 1]


def anywhere(rows, new, known):
    return nearest(rows, new, torch.arange(len(rows), dtype=known.dtype))


def with_lead(lead):
    def heard(rows, new, known):
        scores = cosines(rows, new, known)
        return nearest(rows, new, known)[0], lead(scores, scores.topk(2, dim=1).values)

    return heard


def other_way_round(rows, new, known):
    ids, lead = nearest(rows, new, known)
    return lead, ids


def top_three(rows, new, known):
    best, at = cosines(rows, new, known).topk(3, dim=1)
    return known[at[:, 0]], best[:, 0] - best[:, 1]


def heard_by_sorting(rows, new, known):
    scores = F.cosine_similarity(rows[new][:, None], rows[known][None], dim=2)
    values, order = scores.sort(dim=1, descending=True)
    return [known[order[:, 0]], values[:, 0] - values[:, 1]]


def grown(table, like, **options):
    rows = torch.cat([table.weight.detach(), table.weight.detach()[like]])
    settings = {"freeze": not table.weight.requires_grad, "padding_idx": table.padding_idx}
    return nn.Embedding.from_pretrained(rows, **{**settings, **options})


def frozen(table, like):
    rows = torch.cat([table.weight.detach(), table.weight.detach()[like]])
    return nn.Embedding.from_pretrained(rows, padding_idx=table.padding_idx)


def learning(table, like):
    return grown(table, like, freeze=False)


def without_padding(table, like):
    return grown(table, like, padding_idx=None)


def on_top(table, like):
    rows = table.weight.detach()
    return nn.Embedding.from_pretrained(
        torch.cat([rows[like], rows]), not table.weight.requires_grad, table.padding_idx
    )


def in_float32(table, like):
    rows = table.weight.detach().float()
    return nn.Embedding.from_pretrained(
        torch.cat([rows, rows[like]]), not table.weight.requires_grad, table.padding_idx
    )


def drawn_rows(table, like):
    new = nn.Embedding(table.num_embeddings + len(like), table.embedding_dim)
    new = new.to(table.weight.dtype)
    with torch.no_grad():
        new.weight[: table.num_embeddings] = table.weight
    return new


def mean_rows(table, like):
    rows = table.weight.detach()
    some = rows[like].mean(0).expand(len(like), -1)
    return nn.Embedding.from_pretrained(
        torch.cat([rows, some]), not table.weight.requires_grad, table.padding_idx
    )


def reversed_rows(table, like):
    return grown(table, like.flip(0))


def computed(table, like):
    new = grown(table, like)
    del new._parameters["weight"]
    new.weight = torch.cat([table.weight, table.weight[like]])
    return new


def the_old_one(table, like):
    table.weight = grown(table, like).weight
    return table


def the_old_one_changed(table, like):
    new = grown(table, like)
    with torch.no_grad():
        table.weight[0] = 0
    return new


def the_old_one_frozen(table, like):
    new = grown(table, like)
    table.weight.requires_grad_(not table.weight.requires_grad)
    return new


def padding_zeroed(table, like):
    new = grown(table, like)
    if table.padding_idx is not None:
        with torch.no_grad():
            new.weight[table.padding_idx] = 0
    return new


def overwritten(table, like):
    new = grown(table, like)
    like.zero_()
    return new


def rows_alone(table, like):
    return torch.cat([table.weight, table.weight[like]])


def across(table, like):
    return nn.Embedding.from_pretrained(torch.cat([table.weight, table.weight[like]], dim=1))


def grown_by_hand(table, like):
    V, D = table.weight.shape
    new = nn.Embedding(V + len(like), D, table.padding_idx, dtype=table.weight.dtype)
    with torch.no_grad():
        new.weight[:V] = table.weight
        for i, model in enumerate(like.tolist()):
            new.weight[V + i] = table.weight[model]
    return new.requires_grad_(table.weight.requires_grad)


def grown_by_look_up(table, like):
    ids = torch.cat([torch.arange(len(table.weight)), like.long()])
    rows = nn.Parameter(table.weight.data[ids], requires_grad=table.weight.requires_grad)
    return nn.Embedding(
        *rows.shape, padding_idx=table.padding_idx, _weight=rows.data
    ).requires_grad_(table.weight.requires_grad)


def by_gather(gru, rows, lengths):
    states = gru(rows)[0]
    last = (lengths.long() - 1)[:, None, None].expand(-1, 1, states.shape[2])
    return states.gather(1, last).squeeze(1)


def one_at_a_time(gru, rows, lengths):
    ends = [gru(row[None, : int(n)])[1][0, 0] for row, n in zip(rows, lengths, strict=True)]
    return torch.stack(ends)


def detached_in_part(gru, rows, lengths):
    states = gru(rows.detach() / 2 + rows / 2)[0]
    return states[torch.arange(len(rows)), lengths - 1]


def packed_right(gru, rows, lengths):
    return packed(gru, rows, lengths.tolist(), enforce_sorted=False)[1].squeeze(0)


def copied_gru(gru, rows, lengths):
    own = nn.GRU(gru.input_size, gru.hidden_size, batch_first=True, dtype=rows.dtype)
    own.load_state_dict(gru.state_dict())
    return own(rows)[0][torch.arange(len(rows)), lengths - 1]


def frozen_gru(gru, rows, lengths):
    states = gru(rows)[0]
    gru.requires_grad_(False)
    return states[torch.arange(len(rows)), lengths - 1]


def time_first(gru, rows, lengths):
    gru.batch_first = False
    return gru(rows.transpose(0, 1))[0][lengths - 1, torch.arange(len(rows))]


def at_most_six(gru, rows, lengths):
    return gru(rows)[0][torch.arange(len(rows)), lengths.clamp(max=6) - 1]


def columns_of_length_1(rows, new, known):
    unit = F.normalize(rows, dim=0)
    return unit[new] @ unit[known].T


def with_a_large_eps(rows, new, known):
    unit = F.normalize(rows, dim=1, eps=0.1)
    return unit[new] @ unit[known].T


def the_old_one_without_padding(table, like):
    new = grown(table, like)
    table.padding_idx = 2 if table.padding_idx is None else None
    return new


def the_old_one_with_a_gradient(table, like):
    new = grown(table, like)
    table.weight.grad = torch.zeros_like(table.weight)
    return new


def the_old_one_in_eval(table, like):
    new = grown(table, like)
    table.eval()
    return new


def by_reciprocals(scores):
    return 1 - (1 + scores.exp()).reciprocal().prod(-1)


def by_ones_and_exp(scores):
    return 1 - (1 - 1 / (1 + torch.exp(-scores))).prod(-1)


def by_log_of_zero(scores):
    return 1 - (1 - scores.sigmoid()).log().sum(-1).exp()


def nan_at_large(scores):
    odds = scores.exp()
    return 1 - (1 - odds / (1 + odds)).prod(-1)


def by_logarithms(scores):
    return -torch.expm1(F.logsigmoid(-scores).sum(dim=-1))


def one_after_another(scores):
    chance = torch.zeros_like(scores[..., 0])
    for slot in scores.unbind(-1):
        chance = chance + (1 - chance) * slot.sigmoid()
    return chance


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
            "no sentence",
        ),
        (pair("what shape is the left color", "what color is the left shape"), "no sentence"),
        (pair("how many shape are red", "shape how many are red"), "no sentence"),
        (pair("is circle above cross", "is cross above circle"), "no sentence"),
        (
            pair("is the circle below the red circle", "is the red circle below the circle"),
            "one and the same thing",
        ),
        (pair(ABOVE, 3), "A question is wanted"),
        ({"one": ABOVE}, "Still to be filled in"),
        (ABOVE, "Fill in the dictionary"),
    ],
    "visual_question_answering.heard_as": [
        (by(products), "a long row wins|leads are not"),
        (by(half_scaled), "a long row wins|leads are not"),
        (by(columns_of_length_1), "dim=1"),
        (by(with_a_large_eps), "your eps"),
        (by(distances), "by distance|leads are not"),
        (places, "places in `known`"),
        (anywhere, "nearest to itself"),
        (by(lambda *given: -cosines(*given)), "smallest cosine"),
        (with_lead(lambda scores, best: best[:, 0]), "largest cosine itself"),
        (with_lead(lambda scores, best: best[:, 1]), "second cosine"),
        (with_lead(lambda scores, best: best[:, 1] - best[:, 0]), "never below zero"),
        (with_lead(lambda scores, best: best[:, 0] - scores.amin(1)), "over the last"),
        (with_lead(lambda scores, best: best[:, 0] - scores.mean(1)), "over the mean"),
        (with_lead(lambda scores, best: best[:, 0] / best[:, 1]), "ratio"),
        (other_way_round, "wrong way round"),
        (top_three, "no more than two"),
        (lambda rows, new, known: nearest(rows, new, known)[0], "A pair is wanted"),
        (lambda rows, new, known: [t.tolist() for t in nearest(rows, new, known)], "a tensor"),
        (lambda rows, new, known: nearest(rows.float(), new, known), "leads have dtype"),
        (lambda rows, new, known: nearest(rows.div_(2), new, known), "wrote into"),
    ],
    "visual_question_answering.with_new_words": [
        (frozen, "freezes unasked"),
        (the_old_one_without_padding, "another setting now"),
        (the_old_one_with_a_gradient, "or a gradient"),
        (the_old_one_in_eval, "another setting now"),
        (lambda table, like: grown(table, like, max_norm=9.0), "max_norm=9.0"),
        (lambda table, like: grown(table, like, sparse=True), "sparse=True"),
        (lambda table, like: grown(table, like, scale_grad_by_freq=True), "scale_grad_by_freq"),
        (learning, "learns, and the old one is frozen"),
        (without_padding, "padding_idx is None"),
        (on_top, "above the old ones"),
        (in_float32, "dtype torch.float32"),
        (drawn_rows, "not those of `like`"),
        (mean_rows, "no mean"),
        (reversed_rows, "in reverse"),
        (computed, "cannot assign|no parameter of its own"),
        (the_old_one, "old table has changed"),
        (the_old_one_changed, "old table has changed"),
        (the_old_one_frozen, "requires_grad has changed"),
        (padding_zeroed, "has become zeros"),
        (overwritten, "into `like`"),
        (rows_alone, "nn.Embedding is wanted"),
        (across, "below rows|is of shape"),
        (lambda table, like: table, "old table itself"),
        (lambda table, like: nn.Embedding.from_pretrained(table.weight.detach()), "shape"),
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
        (copied_gru, "no copy of it"),
        (frozen_gru, "froze"),
        (time_first, "batch_first=False"),
        (at_most_six, "after each question|a length of its own"),
        (without_gradient, "No gradient gets back"),
        (detached_in_part, "gradient that gets back"),
        (every_pair, "shape"),
        (lambda gru, rows, lengths: gru(rows)[0], "shape"),
        (lambda gru, rows, lengths: gru(rows), "should be a tensor"),
        (lambda gru, rows, lengths: gru(rows.transpose(0, 1))[1][0], "shape"),
    ],
    "visual_question_answering.at_least_one": [
        (lambda s: s.sigmoid().sum(-1), "above 1"),
        (lambda s: s.sigmoid().sum(-1).clamp(max=1), "do not add up|always 1"),
        (lambda s: s.sigmoid().amax(-1), "likeliest"),
        (lambda s: s.sigmoid().mean(-1), "mean chance"),
        (lambda s: s.sigmoid().prod(-1), "all of them fit"),
        (lambda s: 1 - s.sigmoid().prod(-1), "not all of them"),
        (lambda s: (1 - s.sigmoid()).prod(-1), "none fits"),
        (lambda s: s.sum(-1).sigmoid(), "sum of the scores"),
        (lambda s: s.amax(-1), "largest score"),
        (lambda s: s.logsumexp(-1).sigmoid(), "another rule"),
        (lambda s: 1 - (1 - s).prod(-1), "is a logit"),
        (lambda s: s.softmax(-1).sum(-1), "always 1"),
        (lambda s: (s > 0).any(-1), "yes or no"),
        (lambda s: (s > 0).any(-1).float(), "Small chances"),
        (lambda s: s.sigmoid(), "one number a slot"),
        (lambda s: 1 - (1 - s.sigmoid()).prod(1), "is wanted|over the slots"),
        (lambda s: 1 - (1 - s.sigmoid()).prod(-1, keepdim=True), "is wanted"),
        (lambda s: 1 - (-s.detach()).sigmoid().prod(-1), "gradient"),
        (lambda s: 1 - (-s).float().sigmoid().prod(-1), "dtype"),
        (nan_at_large, "nan"),
        (by_reciprocals, "gradient is nan"),
        (by_ones_and_exp, "gradient is nan"),
        (by_log_of_zero, "gradient is nan"),
    ],
}
RIGHT = {
    "visual_question_answering.heard_as": [heard_by_sorting, nearest],
    "visual_question_answering.with_new_words": [grown_by_hand, grown_by_look_up, grown],
    "visual_question_answering.last_state": [by_gather, one_at_a_time, packed_right],
    "visual_question_answering.at_least_one": [by_logarithms, one_after_another],
    "visual_question_answering.same_words": [
        pair("Is the red object below the cross?", "is the cross below the red object"),
        pair("is the red circle above the cross", "is the cross above the red circle"),
        pair(
            "does the picture have the circle below the blue object",
            "does the picture have the blue object below the circle",
        ),
        {"one": ABOVE.split(), "other": ("is", "the", "red", "object", "above", "the", "circle")},
    ],
}
