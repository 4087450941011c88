"""Can lessons run on this computer? `python -m tools.ready` tries it: a line each, one verdict.

The exit status is 0 if they can, or 1.
"""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import webbrowser

from helpers import environment

# What a lesson needs of torch, and how long a slow computer may take over it.
TRIAL = """import torch
table = torch.nn.Embedding(3, 2)
table(torch.tensor([2, 0, 2])).sum().backward()
counts = table.weight.grad[:, 0].tolist()
assert counts == [1, 0, 2], f"torch computes {counts} where [1, 0, 2] is right" """
TRIAL_SECONDS = 120


def wrong_kernel() -> list[str]:
    """What is wrong where torch does not compute in a notebook's kernel."""
    from jupyter_client.manager import start_new_kernel

    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    manager, client = start_new_kernel(kernel_name="python3", **silent)
    try:
        reply = client.execute(TRIAL, reply=True, timeout=TRIAL_SECONDS)["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    if reply["status"] == "ok":
        return []
    return ["torch does not run in a notebook's kernel: {ename}: {evalue}".format(**reply)]


def answers(address: str, server: subprocess.Popen) -> bool:
    """Whether JupyterLab's page comes from `address` before `server` ends or the time is up."""
    # A proxy is for other computers' pages.
    fetch = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    end = time.monotonic() + TRIAL_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            with fetch(address, timeout=10) as page:
                return b"JupyterLab" in page.read()
        except OSError:
            time.sleep(0.2)
    return False


def wrong_jupyterlab() -> list[str]:
    """What is wrong where JupyterLab does not start and answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--ServerApp.port={port}"]
    command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"]
    command += ["--allow-root"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        with subprocess.Popen(command, stdout=log, stderr=log) as server:
            try:
                if answers(f"http://127.0.0.1:{port}/lab?token={token}", server):
                    return []
            finally:
                server.terminate()
        log.seek(0)
        words = log.read().strip().splitlines() or ["nothing"]
    return [
        "JupyterLab does not answer. If its last words name a folder of yours, set HOME to one "
        f"that you can write to. Its last words: {words[-1]}"
    ]


def main() -> int:
    """Try what a lesson needs, print a line for each and the verdict; 0 if it can run, or 1."""
    wrong = []
    for what, look in (
        ("the Python, the packages and the helpers are the course's", environment.check),
        ("a notebook's kernel starts, and torch computes in it", wrong_kernel),
        ("JupyterLab starts and answers", wrong_jupyterlab),
    ):
        try:
            found = look()
        except Exception as error:
            found = [f"Could not find out whether {what} ({type(error).__name__}: {error})."]
        for line in found or [what]:
            print("NO " if found else "ok ", line, flush=True)
        wrong += found
    try:
        webbrowser.get()
        print("ok  a browser")
    except webbrowser.Error:  # no fault: a server has no browser
        print("    no browser here: open the address that JupyterLab prints where there is one")
    if wrong:
        print(f"Not ready. What says NO above ({len(wrong)}) is to be mended; then run this again.")
        return 1
    print("Ready. Every lesson can run on this computer.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
