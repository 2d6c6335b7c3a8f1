"""Read damaged and hostile files through the public functions: every failure must be an ``InputError``.

    python tests/helpers/attack/fuzz.py --pictures 5000 --npz 2000 --idx 1000 --archives 1000 --pickles 1000

generates these numbers of files, which depend on ``--seed``, and reads each in a worker with limited memory. It prints
a table of escapes, and exits with 1 if there are any: another exception than ``InputError``, the end of the process,
more than ten seconds, a file left behind or written elsewhere, or a started program. To test another checkout, put it
on ``PYTHONPATH``.
"""

import argparse
import collections
import contextlib
import json
import os
import queue
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import fuzz_files
import numpy as np

SECONDS = 10  # maximum processor time
PATIENCE = 60  # seconds of wall time without a result that count as a hang
GIBIBYTES = 2  # address space that a worker may allocate
# Names of files that take seconds to generate.
LARGE = re.compile("[bB]omb|GB|megapixels|40,000|million|copies|bzip2|lzma")
KINDS = ("pictures", "npz", "idx", "archives", "pickles")


def make(kind, index, seed, quick, folder):
    """Write a file of a kind into a folder; return its path and description."""
    rng = np.random.default_rng([seed, KINDS.index(kind), index])
    hostile = {name: write for name, write in fuzz_files.HOSTILE[kind].items() if not (quick and LARGE.search(name))}
    if index < len(hostile):
        name, write = list(hostile.items())[index]
        content = write()
    else:
        name, raw = fuzz_files.valid(kind)[rng.integers(len(fuzz_files.valid(kind)))]
        content = fuzz_files.mutate(raw, rng)
        name = f"damaged {name}"
    path = folder / fuzz_files.filename(kind, name)
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    return path, name


def read(kind, path):
    """Read a file through the public function of its kind."""
    from jaxconv import InputError, data
    from jaxconv.data.safe_pickle import load_arrays

    if kind == "pictures":
        folder = path.parent / "set"
        for label in "ab" if path.is_file() else "":
            for part in ("train", "validation", "test"):
                (folder / part / label).mkdir(parents=True)
                os.link(path, folder / part / label / "1.png")
        try:
            data.read_image(path, (8, 8, 3))
        except InputError:
            pass  # the folder is read as well
        data.load(f"folder:{folder}")
    elif kind == "npz":
        data.load(f"npz:{path}")
    elif kind == "idx":
        fuzz_files.complete_idx(path)
        data.load(f"idx:{path.parent}")
    elif kind == "archives":
        data.load(f"folder:{path}")
    else:
        load_arrays(path.read_bytes(), "batch")


def attempt(kind, index, seed, quick, root):
    """Generate and read a file; return its description, the escape or None, and True if it was read."""
    from jaxconv import InputError

    folder, cache = root / "files", root / "cache"
    for directory in (folder, cache):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
    (root / "gs.ran").unlink(missing_ok=True)
    path, name = make(kind, index, seed, quick, folder)
    escaped, was_read, start = None, False, time.process_time()
    try:
        read(kind, path)
        was_read = True
    except InputError as error:
        if "\n" in str(error).replace(str(path), ""):
            escaped = "InputError of several lines"
    except Exception as error:
        escaped = f"{type(error).__name__}: {error}".partition("\n")[0][:90]
    seconds = time.process_time() - start
    partial = [left.name for left in cache.rglob("*.partial-*")]
    outside = [left for left in root.iterdir() if left.name not in ("files", "cache", "gs", "gs.ran")]
    if (root / "gs.ran").exists():
        escaped = "Ghostscript was started"
    elif escaped is None and seconds > SECONDS:
        escaped = f"took more than {SECONDS} s"
    elif escaped is None and (partial or outside):
        escaped = f"left behind: {(partial + outside)[0]}"
    elif escaped is None and (size := bytes_in(cache)) > max(100 * path.stat().st_size, 2**26):
        escaped = f"left {size / 1e6:.0f} MB in the cache"
    return name, escaped, was_read


def bytes_in(folder):
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def work(kind, start, stop, seed, quick):
    """Attempt the files one after another, and print a line of JSON for each."""
    root = Path(os.environ["FUZZ_ROOT"])
    import PIL.Image

    import jaxconv.data

    PIL.Image.init()
    assert jaxconv.data.load
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + GIBIBYTES * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print(json.dumps("ready"), flush=True)
    for index in range(start, stop):
        print(json.dumps([index, *attempt(kind, index, seed, quick, root)]), flush=True)


@contextlib.contextmanager
def worker(root, *arguments):
    """Start a worker process; yield it and the queue of its output lines, ending with None."""
    gs = root / "gs" / "gs"
    gs.parent.mkdir(exist_ok=True)
    gs.write_text(f"#!/bin/sh\ntouch {root / 'gs.ran'}\nexit 1\n")
    gs.chmod(0o755)
    environment = os.environ | {
        "FUZZ_ROOT": str(root),
        "XDG_CACHE_HOME": str(root / "cache"),
        "PATH": f"{gs.parent}{os.pathsep}{os.environ['PATH']}",
        "MALLOC_ARENA_MAX": "2",  # otherwise each thread reserves an arena of address space
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, __file__, "--work", *map(str, arguments)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    lines = queue.Queue()

    def listen():
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield process, lines
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def run(kind, count, seed, quick):
    """Attempt all files of a kind, restarting ended workers; yield ``[index, name, escaped, done]`` for each."""
    index = 0
    while index < count:
        with (
            tempfile.TemporaryDirectory(prefix="fuzz-") as root,
            worker(Path(root), kind, index, count, seed, quick) as (process, lines),
        ):
            lines.get(timeout=10 * PATIENCE)  # wait until it is ready
            while index < count:
                try:
                    line = lines.get(timeout=PATIENCE)
                except queue.Empty:
                    yield [index, name_of(kind, index, seed, quick), "hangs", False]
                    break
                if line is None:
                    yield [index, name_of(kind, index, seed, quick), f"the process ended with {process.wait()}", False]
                    break
                yield json.loads(line)
                index += 1
            index += 1


def name_of(kind, index, seed, quick):
    with tempfile.TemporaryDirectory() as folder:
        return make(kind, index, seed, quick, Path(folder))[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="without the large hostile files")
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        kind, *numbers = options.work
        work(kind, *map(int, numbers))
        return 0
    escapes = 0
    for kind in KINDS:
        if not getattr(options, kind):
            continue
        start, rows = time.monotonic(), list(run(kind, getattr(options, kind), options.seed, int(options.quick)))
        escaped_rows = [row for row in rows if row[2]]
        escapes += len(escaped_rows)
        seconds = time.monotonic() - start
        was_read = sum(row[3] for row in rows)
        print(
            f"{kind:9} {len(rows):6} files, {was_read:6} read, {len(escaped_rows):4} escapes, {seconds:6.0f} s",
            flush=True,
        )
        by_kind_and_name = collections.defaultdict(list)
        for index, name, escaped, _ in escaped_rows:
            by_kind_and_name[escaped.partition(":")[0], name].append((index, escaped))
        for (_, name), cases in sorted(by_kind_and_name.items()):
            print(f"    {len(cases):4} × {name}: {cases[0][1]} (number {cases[0][0]})")
    print(f"{escapes} escapes")
    return 1 if escapes else 0


if __name__ == "__main__":
    sys.exit(main())
