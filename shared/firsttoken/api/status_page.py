"""The status report as a page: what is open, slow or down is seen at a glance. No script, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --warn: #9a6700; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --good: #3fb950; --warn: #d29922; --bad: #f85149; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); font-weight: 600; }
"""
_TONES = {"closed": "good", "cooling": "warn", "half_open": "warn", "open": "bad"}


def page(report: dict[str, Any]) -> str:
    """Return the page of a report of `firsttoken.api.health.report_of`."""
    store = report["store"]
    reach = "shared by all instances" if store["shared"] else "of this instance only"
    state = _tone("down", "bad") if store["down"] else _tone("up", "good")
    body = [
        "<h1>firsttoken status</h1>",
        f"<p>Version {escape(report['version'])}. Seen by one instance; it reloads every 5 s.</p>",
        "<h2>Alerts</h2>",
        _alerts(report["alerts"]),
        "<h2>Models</h2>",
        _table(("model", "state", "targets that answer", "below them"), _routes(report["routes"])),
        "<h2>Targets</h2>",
        _table(
            ("target", "breaker", "#under way", "#calls", "#failed", "#TTFT P50 ms", "#TTFT P95 ms"),
            _targets(report["targets"]),
        ),
        "<h2>Store</h2>",
        f"<p>{escape(store['kind'])}, {reach}: {state}, {store['failures']} failed operations.</p>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>firsttoken status</title><style>{_STYLE}</style></head><body>{''.join(body)}</body></html>"
    )


def _alerts(alerts: list[dict[str, Any]]) -> str:
    if not alerts:
        return f"<p>{_tone('none', 'good')}</p>"
    rows = [
        [_tone(row["alert"], "bad"), escape(row["what"]), str(row["value"]), str(row["threshold"])]
        for row in alerts
    ]
    return _table(("alert", "what", "#value", "#threshold"), rows)


def _routes(routes: dict[str, Any]) -> Iterable[list[str]]:
    for name, row in routes.items():
        ready, known = len(row["available"]), len(row["targets"])
        state = ("ready", "good") if ready == known else ("degraded", "warn") if ready else ("down", "bad")
        answering = ", ".join(row["available"]) or "none"
        yield [escape(name), _tone(*state), escape(answering), escape(", ".join(row["rungs"]) or "nothing")]


def _targets(targets: dict[str, Any]) -> Iterable[list[str]]:
    for name, row in targets.items():
        breaker = row["breaker"]
        left = f" for {breaker['seconds_left']:.0f} s" if breaker["seconds_left"] else ""
        error = f" ({breaker['error']})" if breaker["error"] and breaker["state"] != "closed" else ""
        numbers = [row["in_flight"], row["calls"], row["failures"], row["ttft_p50_ms"], row["ttft_p95_ms"]]
        shown = _tone(f"{breaker['state']}{left}{error}", _TONES.get(breaker["state"], "warn"))
        yield [escape(name), shown, *("-" if number is None else f"{number:g}" for number in numbers)]


def _table(heads: Iterable[str], rows: Iterable[list[str]]) -> str:
    """Return a table; a head that begins with # is a column of numbers."""
    numeric = [head.startswith("#") for head in heads]
    classes = [' class="n"' if number else "" for number in numeric]
    head = "".join(
        f"<th{cell}>{escape(title.removeprefix('#'))}</th>"
        for title, cell in zip(heads, classes, strict=True)
    )
    lines = [
        "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, classes, strict=True)) for row in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _tone(text: str, tone: str) -> str:
    return f'<span class="{tone}">{escape(text)}</span>'
