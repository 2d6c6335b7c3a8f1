"""Rename the uses of fields and methods, with the class of each attribute from the errors of mypy.

python tools/rename/attributes.py          # after run.py --names, which renames their definitions
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from tables import read_table

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PLACE = re.compile(r"^(?P<path>[^:]+):(?P<line>\d+):(?P<column>\d+)(?::\d+:\d+)?: error: (?P<message>.*)$")
MISSING = re.compile(r'"(?:type\[)?(?P<owner>\w+)(?:\[.*?\])?\]?"(?: of ".*?")? has no attribute "(?P<name>\w+)"')
KEYWORD = re.compile(r'Unexpected keyword argument "(?P<name>\w+)" for "\w+"(?: of "(?P<owner>\w+)")?')


def members() -> dict[str, dict[str, str]]:
    """Return the new names of fields and methods, by old name and class (old and new name of the class)."""
    rows = [row for row in read_table(HERE / "names.tsv") if not row["keyword"]]
    classes = {row["old"]: row["new"] for row in rows}
    new: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        owner, _, name = row["old"].rpartition(".")
        if owner.rpartition(".")[2][:1].isupper() or owner.rpartition(".")[2][:2] == "_F":
            new[name][owner.rpartition(".")[2]] = row["new"]
            new[name][classes.get(owner, "")] = row["new"]
    return new


def main() -> None:
    new = members()
    paths = sys.argv[1:]
    while True:
        command = [
            sys.executable,
            "-m",
            "mypy",
            "--show-column-numbers",
            "--show-error-end",
            "--no-error-summary",
            *paths,
        ]
        output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
        edits: dict[str, set[tuple[int, str, str]]] = defaultdict(set)
        for line in output.splitlines():
            place = PLACE.match(line)
            found = place and (MISSING.search(place["message"]) or KEYWORD.search(place["message"]))
            if place and found and found["name"] in new:
                owners = new[found["name"]]
                name = owners.get(found["owner"]) or (
                    next(iter(owners.values())) if len(set(owners.values())) == 1 else None
                )
                if name:
                    edits[place["path"]].add((int(place["line"]), found["name"], name))
        if not edits:
            print(output, end="")
            return
        for path, places in edits.items():
            lines = (ROOT / path).read_text().split("\n")
            for number, old, name in places:
                for k in range(number - 1, min(number + 6, len(lines))):  # a call may go over several lines
                    text = re.sub(rf"(?<=\.){old}\b|\b{old}(?==[^=])", name, lines[k])
                    if text != lines[k]:
                        lines[k] = text
                        break
            (ROOT / path).write_text("\n".join(lines))
        print(f"{sum(map(len, edits.values()))} places in {len(edits)} files")


if __name__ == "__main__":
    main()
