"""Finish a new project: check that it is whole, take out what was not chosen, fill in names and regions.

The files of functions/ and of the infrastructure are those of firsttoken itself, not copies with placeholders. What a
template changes in them stands in its cookiecutter.json: `_parts` has for each word of `__without` the files to
`remove`, the lines to `cut` and the texts to `fill` in; `__fill` has those that every project gets. What is not
found stops the generation, so that a change of those files is noticed.
"""

import json
import re
import shutil
import sys
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")


def cut(file, blocks):
    """Take lines out of a file.

    One text: every line that has it. Two: from the line with the first, which must be there once, up to the next
    line with the second; "" stands for the end of the file.
    """
    text = file.read_text("utf-8")
    for first, *until in blocks:
        if first not in text or (until and text.count(first) > 1):
            sys.exit(
                f"{file}: expected {first!r} in it{', once' if until else ''}, found {text.count(first)}"
            )
        if not until:
            text = "".join(line for line in text.splitlines(keepends=True) if first not in line)
            continue
        at = text.index(first)
        end = text.find(until[0], at + len(first)) if until[0] else len(text)
        if end < 0:
            sys.exit(f"{file}: expected {until[0]!r} after {first!r}")
        begin, end = (text.rfind("\n", 0, place) + 1 for place in (at, end))
        text = text[:begin] + (text[end:] if until[0] else "")
    file.write_text(text, "utf-8")


def fill(file, texts):
    """Replace texts in a file, all at once: what is filled in is not replaced again."""
    text = file.read_text("utf-8")
    for old in texts:
        if old not in text:
            sys.exit(f"{file}: expected {old!r} in it")
    found = re.compile("|".join(re.escape(old) for old in sorted(texts, key=len, reverse=True)))
    file.write_text(found.sub(lambda match: texts[match[0]], text), "utf-8")


def main():
    """Work on the project in the working directory."""
    if not Path("shared/firsttoken").is_dir():
        sys.exit(
            "shared/firsttoken is no folder: this copy of the template has lost its symbolic links, as .zip archives"
            " and checkouts without core.symlinks do; take the template from git"
        )
    for cache in list(Path().rglob("__pycache__")):
        shutil.rmtree(cache)
    for part in ANSWERS["__without"].split():
        changes = ANSWERS["_parts"][part]
        for path in [path for pattern in changes.get("remove", []) for path in Path().glob(pattern)]:
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
        for name, blocks in changes.get("cut", {}).items():
            cut(Path(name), blocks)
        for name, texts in changes.get("fill", {}).items():
            fill(Path(name), texts)
    for name, texts in ANSWERS["__fill"].items():
        fill(Path(name), texts)
    # The events ask for the model that this project offers.
    for event in Path("events").rglob("*.json"):
        event.write_text(event.read_text("utf-8").replace("simulated", "chat"), "utf-8")


if __name__ == "__main__":
    main()
