"""Measure the memory of the demo server over many requests: ``python tests/helpers/attack/page.py RUN [REQUESTS]``.

It starts ``jaxconv demo RUN``, sends drawings over gradio's API as the page does, and prints the resident memory of the
server every 100 requests: first with one session, then with a session per request, as with ``curl`` in a loop.
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
    """Start the server; return its process and its URL with the token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jaxconv.cli", "demo", str(run), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
    return server, server.stdout.readline().removeprefix("the page is at ").strip()


def canvas(side=320):
    """Return a random drawing as a data URL, as the page sends it."""
    pixels = np.zeros((side, side, 4), np.uint8)
    top, left = (random.randrange(side // 2) for _ in range(2))
    pixels[top : top + side // 2, left : left + side // 10, 3] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def draw(browser, address, index, session, image, function=0):
    """Send a drawing and return the completed event of gradio."""
    body = {"data": [f"{index} {image}", "saliency"], "fn_index": function, "session_hash": session}
    response = browser.post(f"{address}/gradio_api/queue/join", json=body, timeout=60)
    response.raise_for_status()
    stream = browser.get(f"{address}/gradio_api/queue/data?session_hash={session}", stream=True, timeout=60)
    with stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix(b"data: ")) if line else {}
            if message.get("msg") == "process_completed":
                return message
    raise RuntimeError("the stream ended without a completed event")


def resident(pid):
    """Return the resident memory of a process in MB."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def main(run, num_requests=500):
    server, address = started(run)
    try:
        browser = requests.Session()
        browser.trust_env = False
        page = browser.get(address, timeout=60)
        page.raise_for_status()
        address = "/".join(address.split("/")[:3])
        for tabs in ("one tab", "a tab each"):
            for index in range(num_requests + 1):
                if index % 100 == 0:
                    print(f"{tabs}: {index:4d} requests, {resident(server.pid):7.1f} MB", flush=True)
                session = "one" if tabs == "one tab" else f"tab{index}"
                event = draw(browser, address, index, session, canvas())
                assert event["success"], event
    finally:
        server.terminate()
        time.sleep(1)
        server.kill()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
