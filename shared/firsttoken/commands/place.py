"""``firsttoken place``: propose regions for functions, and the order of their targets."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from firsttoken.commands.tables import table
from firsttoken.errors import ConfigError

if TYPE_CHECKING:
    from firsttoken.placement.endpoints import Served
    from firsttoken.placement.plan import Placed, Plan


def register(commands: Any) -> None:
    """Add ``place`` to the commands."""
    parser = commands.add_parser("place", help="propose regions for functions and targets, with the reasons")
    parser.add_argument(
        "--users", required=True, metavar="WHERE", help="eu,us,ap,sa,me,af or regions; shares as in eu=3,us=1"
    )
    parser.add_argument(
        "--residency", default="", metavar="GROUPS", help="where prompts must stay, for example eu or eu,uk"
    )
    parser.add_argument(
        "--model", default="fast", help="a tier (fast, balanced, quality), a family, or an id (default fast)"
    )
    parser.add_argument("--cloud", default="", help="aws, azure or gcp; else the one with the shortest times")
    parser.add_argument(
        "--failover", action="store_true", help="one region serves and one stands by; else both serve"
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="as JSON, for programs")
    output.add_argument(
        "--toml",
        nargs="?",
        const="",
        metavar="REGION",
        help="the part of firsttoken.toml for the function in that region (the first one)",
    )
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Print the plan. Raises ConfigError for unknown names, PlacementError where nothing can be proposed."""
    from firsttoken.placement.plan import Wish, place

    groups = tuple(name.strip().upper() for name in parsed.residency.split(",") if name.strip())
    plan = place(
        Wish(
            users=_users(parsed.users),
            model=parsed.model,
            residency=groups,
            cloud=parsed.cloud,
            failover=parsed.failover,
        )
    )
    sys.stdout.write(_output(plan, parsed))
    return 0


def _users(text: str) -> dict[str, float]:
    """Return places and shares. Raises ConfigError where a share is not a number."""
    users: dict[str, float] = {}
    for part in text.split(","):
        name, equals, share = (piece.strip() for piece in part.lower().partition("="))
        try:
            users[name] = float(share) if equals else 1.0
        except ValueError as error:
            raise ConfigError(f"--users {part}: expected a number after =, as in eu=3") from error
    return users


def _output(plan: Plan, parsed: argparse.Namespace) -> str:
    if parsed.json:
        import msgspec

        return msgspec.json.format(msgspec.json.encode(plan), indent=2).decode() + "\n"
    if parsed.toml is not None:
        from firsttoken.placement.written import toml_of

        return toml_of(plan, parsed.toml)
    return _text(plan)


def _text(plan: Plan) -> str:
    rows = [cells for placed in plan.placed for cells in _rows(placed)]
    head = ("region", "role", "users to function", "target", "endpoint", "processed in", "to it", "price")
    lines = [
        f"{plan.cloud}: {plan.model} ({plan.tier}), ~{plan.expected_ms:.0f} ms from users to model and back",
        "",
        *table(head, rows),
        "",
        *plan.why,
        "price: US dollars for a million tokens, three of prompt to one of answer; - is not published",
        *(f"instead: {cloud}: {text.removeprefix(f'{cloud}: ')}" for cloud, text in plan.others.items()),
        f"catalogue of {plan.checked}; check what matters with the provider before you rely on it",
    ]
    return "\n".join(lines) + "\n"


def _rows(placed: Placed) -> list[tuple[str, ...]]:
    users = ", ".join(f"{name} ~{ms:.0f} ms" for name, ms in placed.users.items())
    first = (f"{placed.region} ({placed.group})", placed.role, users)
    return [
        (*(first if not i else ("", "", "")), *_target(i + 1, target))
        for i, target in enumerate(placed.targets)
    ]


def _target(order: int, target: Served) -> tuple[str, ...]:
    processed = "anywhere" if target.processed == ("*",) else ", ".join(target.processed)
    about = "~" if target.rtt.estimated else ""
    price = "-" if target.price is None else f"{target.price:.4g}"
    return f"{order}. {target.model}", target.endpoint, processed, f"{about}{target.rtt.ms:.0f} ms", price
