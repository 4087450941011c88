"""Measuring on the machine at hand: time, ratios of time, and peak memory."""

import os
import statistics
import time as clock
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.profiler import ProfilerActivity, profile


def time(function: Callable[[], object], repeats: int = 9, budget: float = 0.3) -> float:
    """Median seconds of one call of `function` on one thread, after one call to warm up.

    Stops after `repeats` calls, or when `budget` seconds are spent and three calls are timed.
    """
    with _one_thread():
        function()
        seconds: list[float] = []
        while len(seconds) < repeats and (len(seconds) < 3 or sum(seconds) < budget):
            seconds.append(_seconds(function))
    return statistics.median(seconds)


def ratio(slow: Callable[[], object], fast: Callable[[], object], repeats: int = 9) -> float:
    """How many times as long `slow` takes as `fast`, on one thread, after one call of each.

    The two are called in turn, `repeats` times, and the shortest time of each is compared: it is
    the one that other work on the machine disturbed least.
    """
    with _one_thread():
        slow(), fast()
        seconds = [(_seconds(slow), _seconds(fast)) for _ in range(repeats)]
    return min(s for s, _ in seconds) / min(f for _, f in seconds)


def _seconds(function: Callable[[], object]) -> float:
    """Seconds of one call; an accelerator is waited for before and after."""
    _synchronize()
    start = clock.perf_counter()
    function()
    _synchronize()
    return clock.perf_counter() - start


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of PyTorch. Several wait for each other at every step, and where other programs
    want the same cores that wait can be a thousand times the step.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def peak_bytes(function: Callable[[], object]) -> int:
    """Most bytes of tensors on the CPU alive at once while `function` runs, beyond those before.

    Read off the allocations and frees that PyTorch's profiler records, in their order.
    """
    alive = peak = 0
    for event in _events(function):
        if event.name() == "[memory]":
            alive += event.nbytes()
            peak = max(peak, alive)
    return peak


def operators(function: Callable[[], object]) -> list[str]:
    """Names of the PyTorch operators that run during `function`, in order, without "aten::".

    An operator that calls others comes before them: linear, then t, then mm.
    """
    names = [event.name() for event in _events(function)]
    return [name.removeprefix("aten::") for name in names if name.startswith("aten::")]


def _events(function: Callable[[], object]) -> list:
    with (
        _quiet_stderr(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler,
    ):
        kept = function()  # alive until the profile ends, so that a result counts
    del kept
    return sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns())


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Drop what C++ code writes to the error stream: the profiler notes its start and stop."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _synchronize() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
