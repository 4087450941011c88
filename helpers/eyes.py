"""Eyes: a small network that turns a picture of helpers.scenes into slots, each perhaps a thing.

It cuts the picture into 6 x 6 cells of 8 x 8 pixels and is asked about each: is the centre of a
thing here, of which shape, colour and size, and where in the cell? The six cells most like a thing
are the slots that go on to the reader of helpers.answering.

    eyes = train_eyes(scenes.pictures(some, seed=0), some)
    eyes.look(scenes.pictures(others, seed=1))         # (N, 6, 17)

Slots found by a network of their own follow Anderson et al. 2018
(https://arxiv.org/abs/1707.07998), made small.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from helpers import scenes

CELLS = scenes.SIZE // scenes.CELL  # along each side of a picture
SLOTS = 6
# What is said of a cell: is a thing here; which shape, colour, size; where in the cell (x, y).
PARTS = (1, len(scenes.SHAPES), len(scenes.COLOURS), len(scenes.RADII), 2)
FEATURES = sum(PARTS)  # 17


class Eyes(nn.Module):
    """Four convolutions and a fifth that says `FEATURES` numbers of each cell of a picture."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 24, 4, 2), (24, 48, 4, 2), (48, 96, 4, 2), (96, 96, 3, 1))
        layers: list[nn.Module] = []
        for inputs, outputs, size, stride in sizes:
            conv = nn.Conv2d(inputs, outputs, size, stride, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Conv2d(96, FEATURES, 1))
        self.to(memory_format=torch.channels_last)

    def forward(self, images: np.ndarray) -> Tensor:
        """(N, CELLS, CELLS, FEATURES) for uint8 pictures (N, 48, 48, 3): scores, and a place."""
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 128 - 1.4
        return self.net(pixels).permute(0, 2, 3, 1)

    @torch.no_grad()
    def look(self, images: np.ndarray) -> Tensor:
        """Slots (N, SLOTS, FEATURES): the cells of each picture that are most like a thing.

        How likely a thing is there (1 number), each shape (4), each colour (6), each size (4), all
        from 0 to 1, and x and y of its centre, in cells from the top left corner, 0 to 6.
        """
        self.eval()
        out = torch.cat([self(part) for part in np.array_split(images, len(images) // 500 + 1)])
        there, *kinds, place = out.flatten(1, 2).split(PARTS, dim=2)
        corner = torch.cartesian_prod(torch.arange(CELLS), torch.arange(CELLS)).flip(1)  # x, y
        told = [there.sigmoid(), *(k.softmax(2) for k in kinds), place + corner]
        best = there.squeeze(2).topk(SLOTS).indices
        return torch.cat(told, dim=2).gather(1, best[..., None].expand(-1, -1, FEATURES))


def labels(some: Sequence[scenes.Scene]) -> Tensor:
    """(N, CELLS, CELLS, 5): shape, colour, size, x, y for each cell; -1 where no centre lies."""
    told = torch.full((len(some), CELLS, CELLS, 5), -1.0)
    for n, scene in enumerate(some):
        for thing in scene:
            kind = [scenes.SHAPES.index(thing.shape), scenes.COLOURS.index(thing.colour)]
            kind += [scenes.RADII.index(thing.size)]
            place = [thing.x % scenes.CELL / scenes.CELL, thing.y % scenes.CELL / scenes.CELL]
            told[n, thing.y // scenes.CELL, thing.x // scenes.CELL] = torch.tensor(kind + place)
    return told


def perfect(some: Sequence[scenes.Scene]) -> Tensor:
    """Slots (N, SLOTS, FEATURES) as eyes without error would give them; zeros where nothing is."""
    slots = torch.zeros(len(some), SLOTS, FEATURES)
    starts = np.cumsum(PARTS)
    for n, scene in enumerate(some):
        for slot, thing in zip(slots[n], scene, strict=False):
            slot[0] = 1
            slot[starts[0] + scenes.SHAPES.index(thing.shape)] = 1
            slot[starts[1] + scenes.COLOURS.index(thing.colour)] = 1
            slot[starts[2] + scenes.RADII.index(thing.size)] = 1
            slot[starts[3] :] = torch.tensor([thing.x, thing.y]) / scenes.CELL
    return slots


def train_eyes(images: np.ndarray, some: Sequence[scenes.Scene], seed: int = 0) -> Eyes:
    """Eyes trained on pictures and the scenes that they show, twice over, 32 at a time."""
    torch.manual_seed(seed)
    eyes, truth = Eyes(), labels(some)

    def loss_of(batch: Tensor) -> Tensor:
        out, told = eyes(images[batch]), truth[batch]
        there = told[..., 0] >= 0
        loss = 15 * F.binary_cross_entropy_with_logits(out[..., 0], there.float())
        _, *kinds, place = out[there].split(PARTS, dim=1)
        for scores, label in zip(kinds, told[there][:, :3].long().T, strict=True):
            loss = loss + F.cross_entropy(scores, label)
        return loss + F.mse_loss(place, told[there][:, 3:])

    orders = [torch.randperm(len(truth), generator=seeded(n)) for n in (seed, seed + 1)]
    descend(loss_of, eyes.parameters(), torch.cat(orders).split(32), rate=0.01)
    return eyes.eval()


def descend(
    loss_of: Callable[[Tensor], Tensor],
    parameters: Iterable[nn.Parameter],
    batches: Sequence[Tensor],
    rate: float,
) -> None:
    """One step of Adam for each batch, at a rate that rises to `rate` and falls to nothing."""
    optimizer = optim.Adam(parameters, rate)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=len(batches))
    for batch in batches:
        optimizer.zero_grad()
        loss_of(batch).backward()
        optimizer.step()
        schedule.step()


def seeded(seed: int) -> torch.Generator:
    """A generator of its own, so that nothing else is drawn from it."""
    return torch.Generator().manual_seed(seed)
