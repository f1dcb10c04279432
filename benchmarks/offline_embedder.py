"""What the offline embedders cost and find: ``python -m benchmarks.offline_embedder [STATIC_TABLE]``.

Retrieval: which function of this project does a docstring belong to, its code without the docstring being the
document. Lexical nearness is what that asks for; it says nothing about meaning.
"""

from __future__ import annotations

import ast
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from firsttoken.embedding import unpack
from firsttoken.providers import lexical
from firsttoken.providers.static_table import StaticTable

Embed = Callable[[str], bytes]
ROOT = Path(__file__).parents[1] / "shared"
LEAST_LINES = 7


def pairs() -> list[tuple[str, str]]:
    """Return docstrings and the code that they describe."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                said = ast.get_docstring(node)
                if said and (node.end_lineno or 0) - node.lineno >= LEAST_LINES:
                    node.body = node.body[1:]
                    found.append((said, ast.unparse(node)[:1500]))
    return found


def recall(embed: Embed, tasks: list[tuple[str, str]]) -> tuple[float, float]:
    """Return the share of docstrings whose code is nearest, and among the five nearest."""
    documents = [unpack(embed(code)) for _, code in tasks]
    ranks = []
    for position, (said, _) in enumerate(tasks):
        query = unpack(embed(said))
        scores = [sum(map(float.__mul__, query, document)) for document in documents]
        ranks.append(sum(score > scores[position] for score in scores))
    return sum(rank < 1 for rank in ranks) / len(ranks), sum(rank < 5 for rank in ranks) / len(ranks)


def cost(embed: Embed, words: int, forget: Callable[[], None]) -> tuple[float, float]:
    """Return the median CPU time of a text of so many words, new ones and known ones, in microseconds."""
    text = (ROOT.parent / "docs" / "adr" / "0002-http-client.md").read_text().split()
    new, known = [], []
    for start in range(0, len(text) - words, 7):
        piece = " ".join(text[start : start + words])
        forget()
        for times in (new, known):
            before = time.process_time()
            embed(piece)
            times.append(time.process_time() - before)
    return statistics.median(new) * 1e6, statistics.median(known) * 1e6


def main(folders: list[str]) -> None:
    """Print a row of the decision record's table for each embedder."""
    tasks = pairs()
    embedders: dict[str, Embed] = {
        f"lexical, {size}": lambda text, size=size: lexical.embed(text, size) for size in (256, 384, 1024)
    }
    for folder in folders:
        table = StaticTable(folder, "the command line")
        embedders[f"static, {folder}"] = lambda text, table=table: table.embed(text, table.dimensions)
    print(f"{len(tasks)} docstrings")
    for name, embed in embedders.items():
        first, five = recall(embed, tasks)
        forget = lexical._places.cache_clear  # noqa: SLF001 - what a word costs the first time
        short, long = cost(embed, 10, forget), cost(embed, 130, forget)
        costs = " | ".join(f"{new:.0f} / {known:.0f}" for new, known in (short, long))
        print(f"| {name} | {first:.2f} | {five:.2f} | {costs} |")


if __name__ == "__main__":
    main(sys.argv[1:])
