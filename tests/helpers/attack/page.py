"""Memory of the live page over many requests: ``python tests/helpers/attack/page.py RUN [REQUESTS]``.

It starts ``jaxconv demo RUN``, draws over gradio's API as the page does, and prints the server's resident memory every
100 requests: once all from one tab, then each from a tab of its own, the way that ``curl`` in a loop would.
"""

import base64
import io
import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import requests
from PIL import Image


def started(run, **environment):
    """The server, and its address with the token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jaxconv.cli", "demo", str(run), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
    return server, server.stdout.readline().removeprefix("the page is at ").strip()


def canvas(side=320):
    """A drawing, as the page sends it."""
    pixels = np.zeros((side, side, 4), np.uint8)
    top, left = (random.randrange(side // 2) for _ in range(2))
    pixels[top : top + side // 2, left : left + side // 10, 3] = 255
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()


def draw(browser, address, number, session, picture, function=0):
    """One stroke and its answer, what gradio calls a completed event."""
    body = {"data": [f"{number} {picture}", "saliency"], "fn_index": function, "session_hash": session}
    joined = browser.post(f"{address}/gradio_api/queue/join", json=body, timeout=60)
    joined.raise_for_status()
    stream = browser.get(f"{address}/gradio_api/queue/data?session_hash={session}", stream=True, timeout=60)
    with stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix(b"data: ")) if line else {}
            if message.get("msg") == "process_completed":
                return message
    raise RuntimeError("no answer")


def resident(pid):
    """Resident memory of a process in MB."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def main(run, requests_=500):
    server, address = started(run)
    try:
        browser = requests.Session()
        browser.trust_env = False
        page = browser.get(address, timeout=60)
        page.raise_for_status()
        address = "/".join(address.split("/")[:3])
        for tabs in ("one tab", "a tab each"):
            for number in range(requests_ + 1):
                if number % 100 == 0:
                    print(f"{tabs}: {number:4d} requests, {resident(server.pid):7.1f} MB", flush=True)
                session = "one" if tabs == "one tab" else f"tab{number}"
                told = draw(browser, address, number, session, canvas())
                assert told["success"], told
    finally:
        server.terminate()
        time.sleep(1)
        server.kill()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
