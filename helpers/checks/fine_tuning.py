"""Checks of lesson 08: groups of parameters, intervals, frozen rows, moves and neighbours."""

import copy
import math

import torch
import torch._dynamo  # the first optimizer imports it: seconds that are not the answer's
import torch.nn.functional as F
from torch import Tensor, nn, optim

from helpers.checks import (
    Wrong,
    between,
    call,
    close,
    describe,
    exercise,
    filled,
    ids_of,
    number,
    same,
    shapes,
)


class _OwnTable(nn.Embedding):
    """A subclass is a table too."""


class _Model(nn.Module):
    """Tables and other parts, at all depths; sizes are drawn, and names give nothing away."""

    def __init__(self) -> None:
        super().__init__()
        d = between(2, 5)
        self.first, self.second = nn.Embedding(between(3, 9), d), nn.EmbeddingBag(between(3, 9), d)
        self.body = nn.Sequential(nn.Linear(d, 5), nn.LayerNorm(5), nn.Linear(5, 3))
        self.deeper = nn.ModuleList([nn.ModuleDict({"a": _OwnTable(4, d), "b": nn.PReLU()})])
        self.scale = nn.Parameter(torch.ones(d))


def _tied() -> nn.Module:
    """A head that shares its weight with a table: one parameter, in two places."""
    model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 6))
    model[1].weight = model[0].weight
    return model


def _models() -> list[tuple[str, nn.Module]]:
    whole, partly, still = _Model(), _Model(), _Model()
    partly.first.weight.requires_grad_(False)
    partly.body[0].bias.requires_grad_(False)
    for module in (still.first, still.second, still.deeper):
        module.requires_grad_(False)
    return [
        ("", whole),
        ("", partly),
        (" (Here all tables are frozen.)", still),
        (" (Here the model has no table.)", nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))),
        (" (Here the model is a table and nothing else.)", nn.Embedding(5, 3)),
        (" (Here a table and a layer share one parameter: it is a table's.)", _tied()),
    ]


@exercise
def groups(answer):
    """A function (model, table_rate, head_rate) -> Adam with the parameters in their groups."""
    by_value = "`p in some_list` compares numbers. Collect the tables' parameters in a set."
    hints = {
        "more than one parameter group": "A parameter stands in two groups. parameters() of a "
        "container gives those of its children too, and two layers may share one.",
        "must match the size": by_value,
        "is ambiguous": by_value,
        "empty parameter list": "The optimizer got an empty list. Give it groups, which may be "
        "empty, not a bare list of parameters.",
    }
    for where, model in _models():
        rates = (between(1, 9) / 1000, between(1, 9) / 100)
        before = [p.detach().clone() for p in model.parameters()]
        wanted = [p.requires_grad for p in model.parameters()]
        optimizer = call(answer, model, *rates, copy=False, hints=hints)
        if not isinstance(optimizer, optim.Adam) or isinstance(optimizer, optim.AdamW):
            more = " (It shrinks rows that no batch looks up.)"
            more = more if isinstance(optimizer, optim.AdamW) else ""
            raise Wrong(f"An optim.Adam is wanted, not {describe(optimizer)}.{more}")
        if wanted != [p.requires_grad for p in model.parameters()]:
            raise Wrong("Your function changed what is frozen. Leave the model as it is.")
        if not all(map(torch.equal, before, model.parameters())):
            raise Wrong("Your function changed the model's numbers.")
        _judge_groups(model, optimizer, rates, where)
    return "The tables with a rate of their own, and nothing frozen among them."


def _judge_groups(model: nn.Module, optimizer: optim.Adam, rates, where: str) -> None:
    group_of = {p: group for group in optimizer.param_groups for p in group["params"]}
    bags, plain, own = set(), set(), set()
    for module in model.modules():
        if isinstance(module, nn.EmbeddingBag):
            bags.update(module.parameters())
        elif type(module) is nn.Embedding:
            plain.update(module.parameters())
        elif isinstance(module, nn.Embedding):
            own.update(module.parameters())
    tables = bags | plain | own
    for parameter in model.parameters():
        group = group_of.pop(parameter, None)
        if not parameter.requires_grad:
            if group is not None:
                raise Wrong("A frozen parameter is in a group. Leave out what needs no gradient.")
            continue
        kind = "a table" if parameter in tables else "no table"
        more = ""
        if parameter in bags:
            more = " An nn.EmbeddingBag is a table too."
        elif parameter in own:
            more = " A subclass of nn.Embedding, deeper in the model, is a table too."
        if group is None:
            raise Wrong(f"A parameter that is {kind} is in no group.{more}{where}")
        rate, other = rates if parameter in tables else rates[::-1]
        if not math.isclose(float(group["lr"]), rate, rel_tol=1e-6):
            swapped = " It has the other's rate." if group["lr"] == other else ""
            raise Wrong(
                f"A parameter that is {kind} learns at {group['lr']}.{swapped}{more}{where}"
            )
        if group["weight_decay"]:
            raise Wrong(
                f"A parameter that is {kind} decays by {group['weight_decay']}. Leave it 0."
            )
    if group_of:
        raise Wrong("The optimizer holds something that is no parameter of the model.")


SAYINGS = ("tuned is better", "frozen is better", "within half a point", "no telling yet")
READINGS = {
    "A": (
        "tuned is better",
        {
            "no telling yet": "A: the interval goes from 0.3 to 1.5. Is 0 in it?",
            "within half a point": "A: the interval goes from 0.3 to 1.5 points: it may be more "
            "than half a point.",
            "frozen is better": "A: the difference is tuned minus frozen, and above 0.",
        },
    ),
    "B": (
        "no telling yet",
        {
            "tuned is better": "B: the two have much luck in common, and this is not the interval "
            "of their difference. It may be 1.0 give or take 0.2, or give or take 3.",
            "within half a point": "B: that two intervals overlap does not make the two equal. "
            "What is the interval of the difference?",
            "frozen is better": "B: frozen has the lower mean.",
        },
    ),
    "C": (
        "within half a point",
        {
            "no telling yet": "C: the interval goes from -0.3 to 0.1. It does not say which is "
            "better, and it does say that neither is by much.",
            "frozen is better": "C: the interval goes from -0.3 to 0.1, and 0 is in it.",
            "tuned is better": "C: the interval goes from -0.3 to 0.1, and 0 is in it.",
        },
    ),
}


@exercise
def readings(answer):
    """A dictionary of A to C: what three reports of tuned minus frozen allow to say."""
    filled(answer, READINGS)
    for name, (truth, hints) in READINGS.items():
        said = answer[name]
        words = " ".join(said.lower().split()).strip(" .!") if isinstance(said, str) else said
        if words not in SAYINGS:
            choice = "; ".join(SAYINGS)
            raise Wrong(f"{name}: {describe(said)} is none of the four: {choice}.")
        if words != truth:
            raise Wrong(hints[words])
    return "An interval is of one difference, over the luck that was drawn anew, and no other."


VIEW = "Indexing with a single id gives a view: writing into it writes into the table."


def _trained(table: nn.Module, ids: Tensor, targets: Tensor, kind, **options) -> None:
    """Five steps on a table's rows; the optimizer holds what needs a gradient."""
    free = [p for p in table.parameters() if p.requires_grad]
    if not free:
        raise Wrong("Nothing in it can learn: no parameter needs a gradient.")
    optimizer = kind(free, lr=0.1, **options)
    for _ in range(5):
        optimizer.zero_grad()
        loss = ((table(ids) - targets) ** 2).sum()
        if not loss.requires_grad:
            raise Wrong("The free rows did not learn: no gradient gets back to a parameter.")
        try:
            loss.backward()
        except RuntimeError as error:
            if "second time" in str(error):
                raise Wrong(f"A step depends on the step before. {VIEW}") from None
            raise
        optimizer.step()


def _rows_of(module: nn.Module, V: int) -> Tensor:
    with torch.no_grad():
        return module(torch.arange(V)).clone()


def _cases() -> list[tuple[Tensor, Tensor]]:
    """(rows, free) of sizes drawn anew: some free, one row, one column, all free, none free."""
    found = []
    for V, D, share in [(between(6, 12), between(2, 5), 0.5), (between(4, 7), 1, 0.5),
                        (4, 4, 0.5), (1, between(2, 4), 2), (5, 3, 2), (5, 3, -1)]:  # fmt: skip
        free = torch.rand(V) < share
        if 0 < share < 1:
            free[torch.randperm(V)[:2]] = torch.tensor([True, False])
        found.append((torch.randn(V, D), free))
    return found


@exercise
def partly_frozen(answer):
    """A module (rows, free) that looks rows up like nn.Embedding; only the free ones learn."""
    ways = [(optim.SGD, {"momentum": 0.9}), (optim.AdamW, {"weight_decay": 0.1}), (optim.Adam, {})]
    for rows, free in _cases():
        for kind, options in ways:
            module, now = _judge_frozen(answer, rows, free, kind, options)
        _judge_travel(answer, module, now, free)  # of what learned as it should
    return "Out of the optimizer's reach, and on board wherever the module goes."


def _judge_frozen(answer, rows: Tensor, free: Tensor, kind, options) -> tuple[nn.Module, Tensor]:
    """A trained module of this answer's, and its rows; `Wrong` where it learned otherwise."""
    V, D = rows.shape
    given, mask = rows.clone(), free.clone()
    none = {
        "must match the size": "The mask should be that of these ids, self.free[ids], with an axis "
        "at its end: unsqueeze(-1)."
    }
    if not free.any():
        none[""] = "Here no row is free. Your module should still look up."
    module = call(answer, given, mask, copy=False, name="PartlyFrozen", hints=none)
    if not isinstance(module, nn.Module):
        raise Wrong(f"A class of nn.Module is wanted, not one of {describe(module)}.")
    for shape in shapes():
        for dtype in (torch.int64, torch.int32):
            ids = ids_of(V, shape, dtype)
            out = call(module, ids, name="forward", hints=none)
            if not isinstance(out, Tensor) or out.shape != (*ids.shape, D):
                raise Wrong(f"Ids of shape {tuple(ids.shape)} gave {describe(out)}.")
            if out.dtype != rows.dtype or not close(out, rows[ids.long()]):
                raise Wrong("At first every row should be as it was given, in its place.")
    if not torch.equal(_rows_of(module, V), rows):
        raise Wrong(f"A look-up changed the rows. {VIEW}")
    ids = torch.cat([torch.arange(V), torch.randint(V, (9,))]).reshape(1, -1)
    targets = torch.randn(*ids.shape, D)
    if free.any():
        truth = nn.Embedding.from_pretrained(rows.clone(), freeze=False)
        _trained(module, ids, targets, kind, **options)
        _trained(truth, ids, targets, kind, **options)
        learned = truth.weight.detach()
    else:
        learned = rows
        if module(ids).requires_grad:
            _trained(module, ids, targets, kind, **options)
    now = _rows_of(module, V)
    if not torch.equal(given, rows) or not torch.equal(mask, free):
        raise Wrong("Training wrote into the caller's rows: yours share their memory. Clone.")
    if not torch.equal(module.train(False)(torch.arange(V)), now):
        raise Wrong("After .eval() it gives other rows: those that learned are not all there.")
    module.train()
    if not torch.equal(now[~free], rows[~free]):
        if free.any() and torch.equal(now[free], rows[free]):
            raise Wrong(
                "The frozen rows learn, and the free ones stay: the other way round. torch.where "
                "takes its second argument where the mask is True."
            )
        raise Wrong(
            f"Frozen rows moved under {kind.__name__}({_said(options)}). What the optimizer holds, "
            "it moves: a gradient of zero does not stop it."
        )
    if free.any() and torch.equal(now[free], rows[free]):
        raise Wrong("The free rows did not learn.")
    if not close(now[free], learned[free]):
        raise Wrong(
            "The free rows learn otherwise than in nn.Embedding. Do repeats add up? Does "
            "weight decay see the row itself, not a difference from it?"
        )
    return module, now


def _said(options) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


def _judge_travel(answer, module: nn.Module, now: Tensor, free: Tensor) -> None:
    V, D = now.shape
    rows = torch.randn(V, D)
    given = rows.clone()
    other = answer(given, free.clone())
    state = {name: value.clone() for name, value in module.state_dict().items()}
    try:
        other.load_state_dict(state)
    except RuntimeError as error:
        line = str(error).splitlines()[-1].strip()
        raise Wrong(f"Your module's state_dict does not load into another: {line}") from None
    if not torch.equal(given, rows):
        raise Wrong("load_state_dict wrote into the caller's rows: yours share their memory.")
    if not torch.equal(_rows_of(other, V), now):
        raise Wrong("The frozen rows are not in the state_dict. Register them as a buffer.")
    other = answer(given, ~free)  # the mask has to be loaded too
    try:
        other.load_state_dict(state)
        loaded = torch.equal(_rows_of(other, V), now)
    except (RuntimeError, IndexError):
        loaded = True  # it holds the free rows alone, whose number is another: it says so
    if not loaded:
        raise Wrong("Which rows are free is not in the state_dict. Register `free` as a buffer.")
    for dtype in (torch.float64, torch.bfloat16):
        moved = copy.deepcopy(module).to(dtype)
        wide = call(moved, torch.arange(V), copy=False, name=f"forward in {dtype}")
        if wide.dtype != dtype or not close(wide, now.to(dtype)):
            raise Wrong(f"After .to({dtype}) it does not give its rows in {dtype}.")
    away = copy.deepcopy(module).to("meta")
    held = [value for part in away.modules() for value in vars(part).values()]
    left = any(isinstance(value, Tensor) and not value.is_meta for value in held)
    try:
        out = away(torch.arange(V, device="meta"))
    except NotImplementedError:  # such as a mask as an index: its count is unknown there
        out = torch.empty(0, device="meta")
    except (RuntimeError, ValueError, TypeError) as error:
        if "meta" not in str(error):
            raise
        left = True
    if left or not out.is_meta:
        raise Wrong("After .to(another device) a part is left behind. Register it as a buffer.")


def _judge_all(wrong: str, alive: list[str] | None) -> None:
    """`Wrong` if any case was: with the first hint that explains all of them, or with `wrong`."""
    if wrong:
        raise Wrong(alive[0] if alive else wrong)


def _follow(before: Tensor, after: Tensor, hidden: Tensor, seen: Tensor, k: int, **odd) -> Tensor:
    """The right answer, or, with `odd`, one of the usual wrong ones."""
    ground = after if odd.get("late") else before
    unit = ground if odd.get("dot") else F.normalize(ground, dim=1)
    among = odd.get("among", seen)
    near = (unit[hidden] @ unit[among].T).topk(k).indices
    near = near if odd.get("places") else among[near]
    moves = (after - before)[near]
    out = after.clone()
    if odd.get("there"):
        out[hidden] = after[near].mean(dim=1)
    else:
        out[hidden] += moves.sum(dim=1) if odd.get("sum") else moves.mean(dim=1)
    return out


@exercise
def follow(answer):
    """A function (before, after, hidden, seen, k) -> the table whose hidden rows follow."""
    wrong, alive = "", None
    for turn in range(8):
        V, D = between(24, 40), between(3, 6)
        order = torch.randperm(V)
        h, s = between(4, 8), between(6, 9)
        hidden, seen = order[:h], order[h : h + s]
        k = (1, between(2, 4), s, between(2, 4))[turn % 4]
        before = torch.randn(V, D) * torch.rand(V, 1).add(0.2).mul(3)
        after = before.clone()
        after[seen] += torch.randn(s, D)
        if turn >= 2:
            after[order[h + s :]] += torch.randn(V - h - s, D)  # neither hidden nor seen
        if turn == 4:
            before, after = before.double(), after.double()
        if turn == 5:
            hidden = hidden[:0]
        out = call(answer, before, after, hidden, seen, k)
        truth = _follow(before, after, hidden, seen, k)
        if same(out, truth, "The table"):
            continue
        wrong = wrong or (
            "Not these rows. For each hidden word: its k nearest seen words by cosine in `before`, "
            "the mean of their moves, added to its row."
        )
        everything = torch.arange(V)
        others = everything[~torch.isin(everything, hidden)]
        odd = [
            ({"there": True}, "You put each hidden word where its neighbours are. Add their mean "
             "*move* to its own row."),
            ({"sum": True}, "The sum of k moves goes k times too far. Take their mean."),
            ({"dot": True}, "Nearest by the dot product favours long rows. Bring rows to length 1 "
             "first."),
            ({"late": True}, "These are the nearest words in the table after training, which have "
             "left. Take them from `before`."),
            ({"among": everything}, "A hidden word's neighbours should be seen words; a word is "
             "its own nearest."),
            ({"places": True}, "topk gives places in `seen`. The ids there are seen[places]."),
            ({"among": others}, "Neighbours should be among `seen`, not among all that is not "
             "hidden."),
        ]  # fmt: skip
        wrongs = [(after, "The hidden rows stand where they were. Add the move to them.")]
        wrongs += [(_follow(before, after, hidden, seen, k, **way), hint) for way, hint in odd]
        if len(hidden) and torch.equal(out[hidden], truth[hidden]):
            wrong, alive = "The hidden rows are right. All others should be as in `after`.", []
        else:
            fits = [hint for value, hint in wrongs if close(out, value)]
            alive = fits if alive is None else [hint for hint in alive if hint in fits]
    _judge_all(wrong, alive)
    return "A word that nobody labelled now goes where its neighbours go."


def _carried(rate: float, k: int, T: int, **odd) -> float:
    """How far Adam goes in T steps when only step k has a gradient; `odd` makes it wrong."""
    m = v = far = 0.0
    g = odd.get("g", 1.0)
    for t in range(1, T + 1):
        now = g if t == k else 0.0
        m = 0.9 * m + 0.1 * now
        v = v * (1 if odd.get("stays") else 0.999) + 0.001 * now * now
        if t < k or (odd.get("once") and t > k):
            continue
        since = t - k + 1 if odd.get("late") else t
        since = k if odd.get("still") else since
        up = m if odd.get("no_m") else m / (1 - 0.9**since)
        down = v if odd.get("no_v") else v / (1 - 0.999**since)
        far += rate * up / (down if odd.get("no_root") else down**0.5)
    return far


@exercise
def carried(answer):
    """A function (rate, k, T) -> how far Adam carries a number with one gradient, at step k."""
    cases = [(1, 1), (1, between(5, 40)), (between(30, 60), between(100, 200))]
    last = between(50, 300)
    cases += [(last, last), (between(200, 250), between(300, 400))]
    wrong, alive = "", None
    for k, T in cases:
        rate = between(1, 9) / 1000
        found = float(number(call(answer, rate, k, T)))
        truth = _carried(rate, k, T)

        def near(value, other, scale=rate):
            return math.isclose(value, other, rel_tol=2e-3, abs_tol=1e-4 * scale)

        if near(found, truth):
            continue
        hints = [
            (-truth, "A distance is wanted: without a sign."),
            (truth / rate, "This is in steps of the rate. Multiply by the rate."),
            (_carried(rate, k, T - 1), "The last step, T, is missing: steps are 1 to T."),
            (_carried(rate, k, T, once=True), "That is step k alone. What does m hold at the "
             "steps after it?"),
            (_carried(rate, k, T, no_m=True, no_v=True), "Without 1 - 0.9**t and 1 - 0.999**t: "
             "early means are too small."),
            (_carried(rate, k, T, no_m=True), "m / (1 - 0.9**t) is missing."),
            (_carried(rate, k, T, no_v=True), "v / (1 - 0.999**t) is missing."),
            (_carried(rate, k, T, late=True), "t counts the optimizer's steps from the first, not "
             "from step k on."),
            (_carried(rate, k, T, still=True), "t in 1 - 0.9**t and 1 - 0.999**t is the step that "
             "is taken, also after step k; not k."),
            (_carried(rate, k, T, stays=True), "v fades too: after step k it becomes 0.999 v at "
             "each step."),
            (_carried(rate, k, T, no_root=True), "The step divides by the root of v."),
            (rate * T, "T full steps are for a number with a gradient at every step."),
            (rate, "One full step is for the first gradient of all, and m carries on after it."),
            (0.0, "It does move: at step k, and after it."),
        ]  # fmt: skip
        fits = [hint for value, hint in hints if near(found, value)]
        alive = fits if alive is None else [hint for hint in alive if hint in fits]
        wrong = wrong or (
            f"For k = {k}, T = {T} it is {truth / rate:.2f} times the rate, not "
            f"{found / rate:.2f} times."
        )
    _judge_all(wrong, alive)
    return "Under Adam one gradient goes on for many steps."


def _near(table: Tensor, words: Tensor, k: int, **odd) -> Tensor:
    rows = table[words]
    rows = rows if odd.get("dot") else F.normalize(rows, dim=1)
    scores = rows @ rows.T
    if not odd.get("itself"):
        scores.fill_diagonal_(0 if odd.get("zero") else -math.inf)
    return scores.topk(k).indices


def _share(one: Tensor, other: Tensor, words: Tensor, k: int, **odd) -> float:
    if odd.get("everywhere"):
        everything = torch.arange(len(one))
        a, b = (_near(t, everything, k)[words] for t in (one, other))
    else:
        a, b = (_near(t, words, k, **odd) for t in (one, other))
    if odd.get("order"):
        return (a == b).float().mean().item()
    both = (a[:, :, None] == b[:, None, :]).any(dim=2).float()
    if odd.get("jaccard"):
        n = both.sum(dim=1)
        return (n / (2 * k - n)).mean().item()
    return both.mean().item() * (k if odd.get("counts") else 1)


def in_common(one: Tensor, other: Tensor, words: Tensor, k: int) -> float:
    """Which share of the k nearest neighbours two tables have in common: the exercise's answer."""
    return _share(one, other, words, k)


@exercise
def shared(answer):
    """A function (one, other, words, k) -> the share of nearest neighbours in common."""
    wrong, alive = "", None
    for turn in range(6):
        V = between(25, 40)
        words = torch.randperm(V)[: between(12, 20)]
        k = (1, 3, between(4, 6), len(words) - 1)[turn % 4]
        one = torch.randn(V, between(4, 8)) * torch.rand(V, 1).add(0.1).mul(4)
        other = one + 0.7 * torch.randn_like(one)
        if turn == 2:
            other = torch.randn(V, between(9, 11))  # another task's table may be wider
        if turn == 3:
            other = torch.randn_like(one)  # the neighbours are all others, in another order
        if turn == 4:
            one, other = one.double(), other.double()
        found = float(number(call(answer, one, other, words, k), "The share"))
        truth = _share(one, other, words, k)

        def near(value, wanted):
            return abs(value - wanted) < 1e-4

        if near(found, truth):
            continue
        hints = [
            (
                "zero",
                "A cosine of 0 with itself is not the lowest: some are negative. Set it below -1.",
            ),
            ("itself", "A word is its own nearest: do not count it among its neighbours."),
            ("dot", "By the dot product, long rows are near to all. Take the cosine."),
            ("order", "This compares first with first. Neighbours count in any order."),
            ("everywhere", "Neighbours should be among `words`, not among all rows."),
            ("jaccard", "You divided by the neighbours in either table. Divide by k."),
            ("counts", "This is a number of neighbours. Divide by k for a share."),
        ]
        wrongs = [(_share(one, other, words, k, **{name: True}), hint) for name, hint in hints]
        wrongs.append((100 * truth, "This is in percent. A share is from 0 to 1."))
        wrongs.append((1 - truth, "This is the share that they do *not* have in common."))
        fits = [hint for value, hint in wrongs if near(found, value)]
        alive = fits if alive is None else [hint for hint in alive if hint in fits]
        wrong = wrong or (
            f"It is {truth:.3f} here, not {found:.3f}: for each word, how many of its k nearest in "
            "one table are among its k nearest in the other, over k; then the mean."
        )
    _judge_all(wrong, alive)
    return "Two tables of the same words, compared whatever their axes mean."
