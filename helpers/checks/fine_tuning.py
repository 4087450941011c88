"""Checks of lesson 08: many models at once, groups of parameters, paired seeds, frozen rows."""

import torch
import torch._dynamo  # the first optimizer imports it: seconds that are not the answer's
import torch.nn.functional as F
from torch import nn, optim

from helpers.checks import Wrong, call, close, describe, exercise, number, recognise


@exercise
def together(answer):
    """A function (W, b, Z, y) -> one loss with the gradients that the models get alone."""
    shapes = {"S": (3, 5, 4, 6), "N = S": (4, 4, 3, 5), "N = C": (2, 6, 3, 6)}
    for S, N, D, C in shapes.values():
        Z, y = torch.randn(S, N, D), torch.randint(C, (S, N))
        parts = [torch.randn(S, D, C), torch.randn(S, C)]
        mine = [part.clone().requires_grad_() for part in parts]
        truth = [part.clone().requires_grad_() for part in parts]
        W, b = truth
        sum(F.cross_entropy(Z[s] @ W[s] + b[s], y[s]) for s in range(S)).backward()
        hints = {
            "must match the size": "b of shape (S, C) does not line up with (S, N, C).",
            "broadcast": "b of shape (S, C) does not line up with (S, N, C).",
            "Expected target size": "cross_entropy wants the classes in dimension 1.",
        }
        loss = call(answer, *mine, Z, y, copy=False, hints=hints)
        if not isinstance(loss, torch.Tensor) or loss.ndim:
            raise Wrong(f"One loss is wanted, a tensor without dimensions, not {describe(loss)}.")
        if loss.grad_fn is None:
            raise Wrong("No gradient flows back from your loss. Was something detached?")
        loss.backward()
        _judge_gradients([part.grad for part in mine], [part.grad for part in truth], S, N)
    return "Each model gets its own gradient, whoever stands beside it."


def _judge_gradients(mine, truth, S, N) -> None:
    if any(gradient is None for gradient in mine):
        raise Wrong("W or b gets no gradient. Both belong in the logits.")
    if all(map(close, mine, truth)):
        return
    factors = {
        1 / S: "Every gradient is S times too small: the mean runs over all models.",
        N: "Every gradient is N times too large: add over the models, average over the bags.",
        1 / N: "Every gradient is N times too small.",
        S: "Every gradient is S times too large.",
    }
    for factor, hint in factors.items():
        if all(close(m, factor * t) for m, t in zip(mine, truth, strict=True)):
            raise Wrong(hint)
    if S == N:
        raise Wrong("Right, but not where N is S: there b lines up with the wrong dimension.")
    raise Wrong("These are not the gradients of the models alone. Where do the classes stand?")


class _Model(nn.Module):
    """Two tables and two layers, one of either frozen on demand; names give nothing away."""

    def __init__(self, freeze):
        super().__init__()
        self.first, self.second = nn.Embedding(9, 4), nn.EmbeddingBag(7, 4)
        self.body = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3))
        if freeze:
            self.first.weight.requires_grad_(False)
            self.body[0].bias.requires_grad_(False)


@exercise
def groups(answer):
    """A function (model, table_rate, head_rate) -> AdamW with the parameters in their groups."""
    for freeze in (False, True):
        model, rates = _Model(freeze), (0.003, 0.1)
        before = [p.detach().clone() for p in model.parameters()]
        wanted = [p.requires_grad for p in model.parameters()]
        by_value = "`p in some_list` compares numbers. Collect the tables' parameters in a set."
        hints = {
            "more than one parameter group": "A parameter stands in two groups. parameters() of a "
            "container gives those of its children too.",
            "must match the size": by_value,
            "is ambiguous": by_value,
        }
        optimizer = call(answer, model, *rates, copy=False, hints=hints)
        if not isinstance(optimizer, optim.AdamW):
            raise Wrong(f"An optim.AdamW is wanted, not {describe(optimizer)}.")
        if wanted != [p.requires_grad for p in model.parameters()]:
            raise Wrong("Your function changed what is frozen. Leave the model as it is.")
        if not all(map(torch.equal, before, model.parameters())):
            raise Wrong("Your function changed the model's numbers.")
        group_of = {p: group for group in optimizer.param_groups for p in group["params"]}
        _judge_groups(model, group_of, rates)
    return "The table slow and without decay, the rest fast, and nothing frozen among them."


def _judge_groups(model, group_of, rates) -> None:
    tables = {model.first.weight, model.second.weight}
    for name, parameter in model.named_parameters():
        group = group_of.pop(parameter, None)
        if not parameter.requires_grad:
            if group is not None:
                raise Wrong("A frozen parameter is in a group. Leave out what needs no gradient.")
            continue
        kind = "a table" if parameter in tables else "no table"
        if group is None:
            which = " (nn.EmbeddingBag is a table too)" if name.startswith("second") else ""
            raise Wrong(f"A parameter that is {kind} is in no group{which}.")
        rate, other = rates if parameter in tables else rates[::-1]
        if group["lr"] != rate:
            swapped = " It has the other's rate." if group["lr"] == other else ""
            bag = " An nn.EmbeddingBag is a table." if name.startswith("second") else ""
            raise Wrong(f"A parameter that is {kind} learns at {group['lr']}.{swapped}{bag}")
        decay = 0 if parameter in tables else 0.01
        if group["weight_decay"] != decay:
            more = " AdamW decays by 0.01 unless told otherwise." if parameter in tables else ""
            raise Wrong(f"A parameter that is {kind} decays by {group['weight_decay']}.{more}")
    if group_of:
        raise Wrong("The optimizer holds something that is no parameter of the model.")


@exercise
def paired(answer):
    """A function (a, b, t) -> mean and half width of the 95% interval of a - b."""
    for S, t in [(5, 2.776), (10, 2.262), (3, 4.303)]:
        luck = torch.randn(S)
        a, b = 0.5 + 0.1 * luck + 0.02 * torch.randn(S), 0.4 + 0.1 * luck
        if S == 3:
            a, b = b, a  # a negative mean
        pair = call(answer, a, b, t)
        if isinstance(pair, torch.Tensor) and pair.shape == (2,):
            pair = tuple(pair)
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise Wrong(f"A pair is wanted, the mean and half the width, not {describe(pair)}.")
        middle, half = (float(number(value, "Each of the pair")) for value in pair)
        mean, std = (a - b).mean().item(), (a - b).std().item()
        truth = t * std / S**0.5

        def near(value, other):
            return abs(value - other) < 1e-5 + 1e-4 * abs(other)

        if near(middle, mean - truth) and near(half, mean + truth):
            raise Wrong("Those are the ends of the interval: give its middle and half its width.")
        if near(middle, -mean):
            raise Wrong("The mean of b - a. It is a - b that is asked.")
        if not near(middle, mean):
            raise Wrong("The first of the pair should be the mean of the differences.")
        if near(half, truth):
            continue
        apart = (a.var() / S + b.var() / S).sqrt().item()
        hints = {
            2 * truth: "That is the whole width; half of it is asked.",
            t * std: "Divide by the root of the number of seeds: this is about the mean.",
            t * std / S: "Divide by the root of the number of seeds, not by the number.",
            std / S**0.5: "t is missing.",
            1.96 * std / S**0.5: "1.96 is for many seeds. With few of them it is t.",
            truth * ((S - 1) / S) ** 0.5: "The variance divides by S - 1, as std does by default.",
            t * apart: "This is for seeds that have nothing in common. Subtract first.",
            t * (a.std() + b.std()).item() / S**0.5: "Subtract first: shared luck cancels out.",
            t * abs(a.std() - b.std()).item() / S**0.5: "Subtract the values, then take one std.",
        }
        recognise(half, hints.items(), near)
        raise Wrong("The mean is right. Half the width is t times std over the root of S.")
    return "What two runs share in luck is gone from their difference."


VIEW = "Indexing with a single id gives a view: writing into it writes into the table."


def _trained(table, ids, targets, kind, **options):
    """Five steps on a table's rows; the optimizer holds what needs a gradient."""
    free = [p for p in table.parameters() if p.requires_grad]
    if not free:
        raise Wrong("Nothing in it can learn: no parameter needs a gradient.")
    optimizer = kind(free, lr=0.1, **options)
    for _ in range(5):
        optimizer.zero_grad()
        try:
            ((table(ids) - targets) ** 2).sum().backward()
        except RuntimeError as error:
            if "second time" in str(error):
                raise Wrong(f"A step depends on the step before. {VIEW}") from None
            raise
        optimizer.step()


def _rows_of(module, V):
    with torch.no_grad():
        return module(torch.arange(V)).clone()


@exercise
def partly_frozen(answer):
    """A module (rows, free) that looks rows up like nn.Embedding; only the free ones learn."""
    kinds = [(optim.SGD, {"momentum": 0.9}), (optim.AdamW, {"weight_decay": 0.1}), (optim.Adam, {})]
    for kind, options in kinds:
        V, D = 8, 3
        rows, free = torch.randn(V, D), torch.rand(V) < 0.5
        free[:2] = torch.tensor([True, False])
        given, mask = rows.clone(), free.clone()
        module = call(answer, given, mask, copy=False, name="PartlyFrozen")
        if not isinstance(module, nn.Module):
            raise Wrong(f"A class of nn.Module is wanted, not one of {describe(module)}.")
        for ids in (torch.tensor([[0, 1, 5], [7, 0, 0]]), torch.tensor([1]), torch.tensor(3)):
            out = call(module, ids, name="forward")
            if not isinstance(out, torch.Tensor) or out.shape != (*ids.shape, D):
                raise Wrong(f"Ids of shape {tuple(ids.shape)} gave {describe(out)}.")
            if not close(out, rows[ids]):
                raise Wrong("At first every row should be as it was given, in its place.")
        if not torch.equal(_rows_of(module, V), rows):
            raise Wrong(f"A look-up changed the rows. {VIEW}")
        truth = nn.Embedding.from_pretrained(rows.clone(), freeze=False)
        ids = torch.cat([torch.arange(V), torch.randint(V, (9,))]).reshape(1, -1)
        targets = torch.randn(*ids.shape, D)
        _trained(module, ids, targets, kind, **options)
        _trained(truth, ids, targets, kind, **options)
        now = _rows_of(module, V)
        if not torch.equal(given, rows):
            raise Wrong("Training wrote into the caller's rows: yours share their memory. Clone.")
        if not torch.equal(now[~free], rows[~free]):
            moved = (now[~free] - rows[~free]).abs().max().item()
            why = " A gradient of zero does not stop it." if moved < 3 else ""
            raise Wrong(f"Frozen rows moved under {kind.__name__}({_said(options)}).{why}")
        if torch.equal(now[free], rows[free]):
            raise Wrong("The free rows did not learn.")
        if not close(now[free], truth.weight[free]):
            raise Wrong(
                "The free rows learn otherwise than in nn.Embedding. Do repeats add up? Does "
                "weight decay see the row itself, not a difference from it?"
            )
        _judge_travel(answer, module, now, free)
    return "Out of the optimizer's reach, and on board wherever the module goes."


def _said(options) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


def _judge_travel(answer, module, now, free) -> None:
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
    wide = call(module.double(), torch.arange(V), copy=False, name="forward in float64")
    if wide.dtype != torch.float64 or not torch.allclose(wide.float(), now):
        raise Wrong("After .to(torch.float64) it does not give its rows in float64.")
