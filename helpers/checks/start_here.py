"""Check of lesson 00: a toy, to learn the checks on."""

from torch import nn

from helpers.checks import Wrong, exercise, number


@exercise
def numbers_in_the_table(answer):
    """The number of entries of nn.Embedding(10, 3)."""
    value = number(answer)
    weight = nn.Embedding(10, 3).weight
    if value == sum(weight.shape):
        raise Wrong("You added the two sizes. How many numbers stand in ten rows of three?")
    if value in weight.shape:
        raise Wrong("That is one of the two sizes. How many numbers stand in the whole table?")
    if value != weight.numel():
        raise Wrong(f"{answer} it is not. Think of ten rows with three numbers in each.")
    return "Ten rows of three numbers, and PyTorch counts the same."
