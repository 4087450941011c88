"""Run a function of a notebook in several processes of PyTorch's distributed engine.

    results = sharded.run(train, weight, ids, processes=2)

calls `train(weight, ids)` in two new processes that can talk to each other (torch.distributed over
gloo, on the CPU), and returns what each of them returned, rank 0 first. Whatever happens, no
process is left.

A process shares nothing with the notebook: what it works on is sent to it, functions as their
source text, tensors and numbers in a file that holds no code. The processes meet in a file and
talk over the loopback interface, so there is no port to choose, and none that can be taken.
"""

import __future__

import ast
import contextlib
import dis
import importlib
import inspect
import json
import linecache
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import CodeType, FrameType

import numpy as np
import torch


def run(
    program: Callable[..., object],
    *arguments: object,
    processes: int = 2,
    timeout: float = 180.0,
) -> list:
    """What `program(*arguments)` returns in each of `processes` processes, rank 0 first.

    In each of them torch.distributed is initialised, and one thread computes.

    Args:
        program: a function defined in a notebook's cell or in a file. What it uses by a global
            name goes with it: functions and classes from beside it, imports, tensors, numbers.
        arguments: tensors, arrays, numbers, strings, None, and lists and dictionaries of these.
        processes: how many, the world's size.
        timeout: seconds until they are ended, with their start, which takes 3 to 10.

    Returns:
        One value a process, of the same kinds. An array comes as a tensor, a tuple as a list, a
        dictionary's keys as strings. What the processes print is printed once they have ended.

    Raises:
        TypeError: something cannot be sent.
        ValueError: no number of processes or seconds, or a function without source text.
        RuntimeError: this PyTorch has no gloo, or a process failed: its rank, line and error.
        TimeoutError: they did not end in time: the line at which each of them stood.
    """
    _require_engine(gloo=True)
    if type(processes) is not int or processes < 1:
        raise ValueError(f"processes is {processes!r}: pass a whole number, 1 or more")
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout is {timeout!r}: pass a positive number of seconds")
    sent = {**_bundle(program), "arguments": arguments, "timeout": timeout}
    with tempfile.TemporaryDirectory(prefix="sharded-", ignore_cleanup_errors=True) as name:
        folder, ranks = Path(name), []
        _write(folder / "sent.npz", sent)
        try:
            for rank in range(processes):
                ranks.append(_start(folder, rank, processes))
            failure = _wait(ranks, folder, timeout)
        finally:
            for process in ranks:  # all of them first, in case a second interrupt comes
                _kill(process)
            for process in ranks:
                process.stdin.close()
                process.wait()
        for rank in range(processes):
            for line in _lines(folder / f"printed{rank}"):
                print(f"[rank {rank}] {line}")
        if failure:
            raise failure
        return [_read(folder / f"result{rank}.npz") for rank in range(processes)]


@contextlib.contextmanager
def pretended(processes: int, rank: int = 0) -> Iterator[None]:
    """Be one rank of `processes` that are not there, by PyTorch's "fake" backend, in this process.

    Shapes, placements and bytes are those of that rank. Values are not: nothing is ever sent.

    Raises:
        RuntimeError: this PyTorch has no torch.distributed.
        ValueError: a rank outside 0 to processes - 1.
    """
    _require_engine(gloo=False)
    import torch.distributed as dist

    if not 0 <= rank < processes:
        raise ValueError(f"rank is {rank} of {processes} processes: pass 0 to {processes - 1}")
    dist.init_process_group("fake", rank=rank, world_size=processes)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _require_engine(gloo: bool) -> None:
    missing = None
    if not torch.distributed.is_available():
        missing = "torch.distributed"
    elif gloo and not torch.distributed.is_gloo_available():
        missing = "gloo, its engine for CPUs"
    if missing:
        raise RuntimeError(
            f"this PyTorch, {torch.__version__}, was built without {missing}: install one from "
            "pytorch.org, or read on without running this"
        )


# --- The processes, seen from the notebook ----------------------------------------------------


def _start(folder: Path, rank: int, processes: int) -> subprocess.Popen:
    """Start one rank. Its standard input is a pipe whose end tells it that we are gone."""
    environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(processes)}
    environment["OMP_NUM_THREADS"] = "1"
    if sys.platform in ("linux", "darwin"):
        # Left alone, gloo asks for the address of this host's name, which may not resolve.
        environment["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    with (folder / f"errors{rank}").open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", __file__, str(folder)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # where gloo sends its greetings
            stderr=errors,
            env=environment,
            # A group of its own, to be ended with all that the rank starts. And a Ctrl-C in a
            # terminal reaches us alone, on Windows by the second line.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )


def _wait(ranks: list[subprocess.Popen], folder: Path, timeout: float) -> Exception | None:
    """Wait until all have ended well (None), or one has failed, or the time is up."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        codes = [process.poll() for process in ranks]
        if any(codes):
            time.sleep(0.3)  # the rank that left it alone may be seen to end only now
            return RuntimeError(_first_failure([process.poll() for process in ranks], folder))
        if None not in codes:
            return None
        time.sleep(0.02)
    for process in ranks:
        with contextlib.suppress(OSError):  # it may have ended just now
            process.stdin.write(b"where?")  # a rank notes where it stands, and ends
    with contextlib.suppress(subprocess.TimeoutExpired):
        for process in ranks:
            process.wait(timeout=1)
    places = [_lines(folder / f"stood{rank}") or ["busy"] for rank in range(len(ranks))]
    where = "; ".join(f"rank {rank}: {lines[0]}" for rank, lines in enumerate(places))
    return TimeoutError(f"not done after {timeout:g} seconds, so all were ended. {where}")


def _first_failure(codes: list[int | None], folder: Path) -> str:
    """What failed first. Later ones report only that the first left them alone."""
    told = {}
    for rank, code in enumerate(codes):
        report = folder / f"failed{rank}"
        if code and not report.is_file():  # not by an error, so by no other rank's end
            last = (_lines(folder / f"errors{rank}") or ["it said nothing"])[-1]
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            return f"rank {rank} ended with {how}: {last}"
        if code:
            told[report.stat().st_mtime_ns, rank] = _lines(report)[0]
    (_, rank), text = min(told.items())
    return f"rank {rank} failed {text}"


def _kill(process: subprocess.Popen) -> None:
    """End a rank and all that it started. (On Windows: if it has not ended itself.)"""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        return
    import psutil  # comes with Jupyter

    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
    process.kill()


# --- What is sent -----------------------------------------------------------------------------

_PLAIN = (torch.Tensor, np.ndarray, np.generic, str, int, float, list, tuple, dict, type(None))


def _bundle(program: Callable[..., object]) -> dict[str, dict]:
    """The program and what it uses by global names: source texts, imports, plain values."""
    if not inspect.isfunction(program) or program.__name__ == "<lambda>":
        what = getattr(program, "__name__", type(program).__name__)
        raise TypeError(f"program is {what}: pass a function that is defined by def")
    space, texts, imports, values = program.__globals__, {}, {}, {}

    def add(name: str, value: object) -> None:
        if inspect.ismodule(value):
            imports[name] = [value.__name__, None]
        elif isinstance(value, _PLAIN):
            values[name] = value
        elif not (inspect.isclass(value) or inspect.isfunction(value)):
            raise TypeError(
                f"{program.__name__} uses {name}, and a value of type {type(value).__name__} "
                "cannot be sent: make it in the process, from tensors that you pass"
            )
        elif value.__module__ != program.__module__:
            imports[name] = [value.__module__, value.__name__]
        elif name not in texts:
            text = _text(value)
            texts[name] = None  # no second time, should it use itself
            for used in _global_names(_compiled(text, name)) & space.keys():
                add(used, space[used])
            del texts[name]
            texts[name] = text  # behind what it uses

    add(program.__name__, program)
    return {"texts": texts, "imports": imports, "values": values}


def _text(value: type | Callable[..., object]) -> str:
    """The source text of a function or class, also of one in a notebook's cell."""
    functions = [value] if inspect.isfunction(value) else vars(value).values()
    for code in (f.__code__ for f in functions if inspect.isfunction(f)):
        lines = linecache.getlines(code.co_filename)
        for node in ast.walk(ast.parse("".join(lines))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == value.__name__:
                start = min(part.lineno for part in (node, *node.decorator_list))
                if start <= code.co_firstlineno <= node.end_lineno:
                    return textwrap.dedent("".join(lines[start - 1 : node.end_lineno]))
    raise ValueError(f"the source text of {value.__name__} is not to be found: define it in a cell")


def _compiled(text: str, name: str) -> CodeType:
    # Annotations stay text, so that what they name need not be sent.
    return compile(text, f"<{name}>", "exec", __future__.annotations.compiler_flag, True)


def _global_names(code: CodeType) -> set[str]:
    loads = (i for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    within = (_global_names(part) for part in code.co_consts if isinstance(part, CodeType))
    return {load.argval for load in loads}.union(*within)


def _write(path: Path, value: object) -> None:
    """Store a value as JSON and arrays, in one file."""
    arrays = []

    def stored(item: object) -> object:
        if isinstance(item, np.generic):
            return item.item()
        if hasattr(item, "full_tensor"):
            raise TypeError("a DTensor lies on all ranks: send its to_local() or full_tensor()")
        if isinstance(item, torch.Tensor):
            item = item.wait() if hasattr(item, "wait") else item  # one still on its way
            item = item.detach().cpu().numpy()
        if not isinstance(item, np.ndarray) or item.dtype.hasobject:
            raise TypeError(
                f"a value of type {type(item).__name__} cannot be sent: send tensors, arrays, "
                "numbers, strings, or lists and dictionaries of these"
            )
        arrays.append(item)
        return {"__array__": len(arrays) - 1}

    text = json.dumps(value, default=stored)
    np.savez(path, np.frombuffer(text.encode(), np.uint8), *arrays)


def _read(path: Path) -> object:
    with np.load(path, allow_pickle=False) as file:
        text, *arrays = (file[f"arr_{k}"] for k in range(len(file.files)))

    def restored(item: dict) -> object:
        return torch.from_numpy(arrays[item["__array__"]]) if "__array__" in item else item

    return json.loads(text.tobytes(), object_hook=restored)


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return [line for line in text.splitlines() if line.strip()]


# --- In each process --------------------------------------------------------------------------


def _work(folder: Path) -> None:
    """Be one rank: meet the others, run the program, store what it returns."""
    import torch.distributed as dist

    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    sent = _read(folder / "sent.npz")
    texts = sent["texts"]
    ending = threading.Lock()  # held by the thread that ends this rank, and not given back
    watched = (folder / f"stood{rank}", texts, threading.get_ident(), ending)
    threading.Thread(target=_end_with_parent, args=watched, daemon=True).start()
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo",
            store=dist.FileStore(str(folder / "store"), processes),
            rank=rank,
            world_size=processes,
            timeout=timedelta(seconds=sent["timeout"] + 60),  # ours is to come first
        )
        dist.barrier()  # all have met, so nobody's end can break up the meeting
        space = {**sent["values"], "__name__": "__program__"}
        for name, (module, attribute) in sent["imports"].items():
            found = importlib.import_module(module)
            space[name] = getattr(found, attribute) if attribute else found
        for name, text in texts.items():
            exec(_compiled(text, name), space)
        program = space[list(texts)[-1]]
        with (
            (folder / f"printed{rank}").open("w", encoding="utf-8") as printed,
            contextlib.redirect_stdout(printed),
        ):
            result = program(*sent["arguments"])
        _write(folder / f"result{rank}.npz", result)
        # Whoever still reads what this rank sent last gets it, unless it waits for more than that.
        end = time.monotonic() + 3
        results = [folder / f"result{other}.npz" for other in range(processes)]
        while time.monotonic() < end and not all(map(Path.is_file, results)):
            time.sleep(0.02)
    except BaseException as error:
        ending.acquire()
        place = _place(traceback.walk_tb(error.__traceback__), texts)
        text = f"{place}: {type(error).__name__}: {str(error).strip() or 'no message'}"
        with contextlib.suppress(OSError):
            (folder / f"failed{rank}").write_text(text, encoding="utf-8")
        os._exit(1)  # at once: nobody is to wait for this rank
    os._exit(0)  # without the teardown of gloo's threads, which can abort


def _end_with_parent(
    stood: Path, texts: dict[str, str], main_thread: int, ending: threading.Lock
) -> None:
    """End this rank when its standard input says that time is up, or ends with who started us."""
    asked = os.read(0, 1)
    ending.acquire()
    if asked:
        frames = list(traceback.walk_stack(sys._current_frames()[main_thread]))
        stood.write_text(_place(reversed(frames), texts), encoding="utf-8")
    else:
        with contextlib.suppress(OSError):  # another rank may have been quicker
            shutil.rmtree(stood.parent.rename(stood.parent.with_suffix(".gone")))
        if os.name == "posix":
            os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _place(frames: Iterator[tuple[FrameType, int]], texts: dict[str, str]) -> str:
    """The innermost place in what was sent, such as "at line 4 of train, `table(ids)`"."""
    place = "outside the program"
    for frame, line in frames:
        name = frame.f_code.co_filename[1:-1]
        if name in texts:
            place = f"at line {line} of {name}, `{texts[name].splitlines()[line - 1].strip()}`"
    return place


if __name__ == "__main__":
    _work(Path(sys.argv[1]))
