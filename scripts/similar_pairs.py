"""Make the templated pairs of tests/data/similar_pairs.jsonl anew; those written by hand stay as they are.

python scripts/similar_pairs.py
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

PAIRS = Path(__file__).parents[1] / "tests" / "data" / "similar_pairs.jsonl"
COUNT = 100
"""Of paraphrases, and as many of near-misses."""

HOW = (
    "How do I {}?",
    "How can I {}?",
    "What is the best way to {}?",
    "Could you tell me how to {}?",
    "I'd like to know how to {}.",
    "Is there a way to {}?",
    "I want to {}. How?",
    "What are the steps to {}?",
    "Please explain how I can {}.",
    "Hi, how would one {}?",
    "Show me how to {}, thanks.",
)
DEFINE = (
    "What is {}?",
    "What's {}?",
    "What does {} mean?",
    "Define {}.",
    "Can you explain {} to me?",
    "I would like to know what {} is.",
    "What is meant by {}?",
    "Please tell me what {} means.",
)
ACTIONS = (
    ("export my contacts", "import my contacts"),
    ("remove the background from a photo", "blur the background of a photo"),
    ("split a PDF", "merge a PDF"),
    ("return a pair of shoes", "return a coat"),
    ("apply for a student visa", "apply for a work visa"),
    ("whiten my teeth", "brush my teeth"),
    ("freeze my credit card", "replace my credit card"),
    ("grow basil indoors", "grow basil outdoors"),
    ("claim travel expenses", "claim medical expenses"),
    ("set up two printers", "set up three printers"),
    ("write unit tests in Rust", "write unit tests in Go"),
    ("roll back a deployment", "trigger a deployment"),
    ("wash a wool sweater", "wash a silk scarf"),
    ("dispute a parking ticket", "pay a parking ticket"),
    ("appeal a court decision", "publish a court decision"),
    ("share my screen in Zoom", "share my screen in Teams"),
    ("renew a library card", "lose a library card"),
    ("transfer 200 dollars abroad", "transfer 2000 dollars abroad"),
    ("calm a nervous cat", "calm a nervous horse"),
    ("turn on closed captions", "turn off closed captions"),
)
TERMS = (
    ("a stock option", "a stock split"),
    ("osmosis", "diffusion"),
    ("a subpoena", "a warrant"),
    ("hypertension", "hypotension"),
    ("a hash table", "a binary tree"),
    ("GDP", "GNP"),
    ("polymorphism", "inheritance"),
    ("a soft fork", "a hard fork"),
    ("severance pay", "sick pay"),
    ("jet lag", "sleep apnea"),
)
FACTS = (
    (
        "How much does {} cost?",
        "What is the price of {}?",
        ("a train ticket", "a bus ticket", "an oil change"),
    ),
    ("How big is {}?", "What is the size of {}?", ("a blue whale", "a carry-on bag", "a football pitch")),
    ("When does {} start?", "What time does {} start?", ("the concert", "the webinar", "early voting")),
    ("Can I cancel {}?", "Am I allowed to cancel {}?", ("a hotel booking", "a preorder", "my lease")),
    (
        "What are the advantages of {}?",
        "What are the benefits of {}?",
        ("yoga", "a heat pump", "fibre internet"),
    ),
    ("Why is {} so expensive?", "What makes {} so expensive?", ("saffron", "insulin", "printer ink")),
)


def main() -> None:
    """Write the file."""
    lines = PAIRS.read_text("utf-8").splitlines()
    kept = [line for line in lines if not json.loads(line)["id"].startswith("t")]
    draw = random.Random(20)  # noqa: S311 - always the same pairs
    same = draw.sample(sorted(set(_same(draw))), COUNT)
    different = draw.sample(sorted(set(_different(draw))), COUNT)
    rows = [(*pair, True) for pair in same] + [(*pair, False) for pair in different]
    draw.shuffle(rows)
    made = [
        json.dumps({"id": f"t{number:03}", "a": a, "b": b, "same": is_same, "kind": kind}, ensure_ascii=False)
        for number, (a, b, kind, is_same) in enumerate(rows)
    ]
    PAIRS.write_text("\n".join([*kept, *made]) + "\n", "utf-8")


def _same(draw: random.Random) -> Iterator[tuple[str, str, str]]:
    for _ in range(12):
        for pair in ACTIONS:
            action = draw.choice(pair)
            yield (*[frame.format(action) for frame in draw.sample(HOW, 2)], "frame")
        for pair in TERMS:
            term = draw.choice(pair)
            yield (*[frame.format(term) for frame in draw.sample(DEFINE, 2)], "frame")
    for one, other, things in FACTS:
        for thing in things:
            yield one.format(thing), other.format(thing), "frame"


def _different(draw: random.Random) -> Iterator[tuple[str, str, str]]:
    for _ in range(6):
        for frames, pairs in ((HOW, ACTIONS), (DEFINE, TERMS)):
            for pair in pairs:
                one, other = draw.sample(frames, 2)
                yield one.format(pair[0]), other.format(pair[1]), "minimal"
        for action, _ in ACTIONS:
            yield draw.choice(HOW).format(action), f"Why should I {action}?", "question type"
            yield draw.choice(HOW).format(action), draw.choice(HOW).format(f"not {action}"), "negation"
    for frames in FACTS:
        for frame in frames[:2]:
            one, other = draw.sample(frames[2], 2)
            yield frame.format(one), draw.choice(frames[:2]).format(other), "minimal"


if __name__ == "__main__":
    main()
