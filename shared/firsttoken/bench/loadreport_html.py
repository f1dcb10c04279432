"""The result of a load test as one HTML file: tables and inline plots, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from firsttoken.bench import loadreport_text as words
from firsttoken.bench.load import Sample
from firsttoken.bench.loadreport import LoadReport, e2e, ttft
from firsttoken.bench.loadreport_svg import Line, Plot, svg

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --grid: #8883; --text: #57606a;
--good: #1a7f37; --bad: #cf222e;
--c0: #0969da; --c1: #bc4c00; --c2: #1a7f37; --c3: #8250df; }
@media (prefers-color-scheme: dark) { :root { --text: #9198a1; --good: #3fb950; --bad: #f85149;
--c0: #58a6ff; --c1: #f0883e; --c2: #3fb950; --c3: #bc8cff; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin-bottom: 0; } h2 { font-size: 1.05rem; margin-top: 2rem; }
.about { color: var(--text); margin-top: .2rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
svg { width: 100%; height: auto; display: block; } svg text { font-size: 12px; fill: var(--text); }
.grid { stroke: var(--grid); } polyline { fill: none; stroke-width: 1.8; } rect.band { fill: #d2992233; }
.legend { margin: .2rem 0 0; font-size: 13px; }
.legend span { margin-right: 1.2rem; }
.legend span::before { content: ""; display: inline-block; width: .9em; height: .6em; margin-right: .4em;
background: var(--key); }
.legend .band { --key: #d2992255; } .bar { background: var(--bad); height: .7rem; min-width: 2px; }
.c0 { --key: var(--c0); } .c1 { --key: var(--c1); } .c2 { --key: var(--c2); } .c3 { --key: var(--c3); }
polyline, circle { stroke: var(--key); } circle { fill: var(--key); }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
"""
# The document itself forbids whatever it does not need.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_POINTS = 400


def page(report: LoadReport, samples: Sequence[Sample]) -> str:
    """Return the page; its size is a few hundred kilobytes at most, however long the run was."""
    name = words.title(report)
    about = f"{report.date}, {report.machine}, <code>{escape(report.command)}</code>"
    body = [
        f"<h1>Load test: {escape(name)}</h1>",
        f'<p class="about">{about}</p>',
        *(f'<p class="bad">{escape(warning)}</p>' for warning in report.warnings),
        _table(("", ""), ([escape(what), escape(said)] for what, said in words.rows(report)), heading=False),
        *_checks(report),
        "<h2>Percentiles</h2>",
        _percentiles(report),
        "<h2>Latency, cumulative</h2>",
        _cumulative(report, samples),
        "<h2>TTFT over time</h2>",
        _over_time(report, "TTFT (ms)", (("P50", "ttft_p50"), ("P99", "ttft_p99"))),
        "<h2>Requests</h2>",
        _requests(report),
        "<h2>Tokens a second</h2>",
        _over_time(report, "tokens/s", (("tokens/s", "tokens_per_s"),)),
        "<h2>Errors by kind</h2>",
        _errors(report),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Load test: {escape(report.scenario)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _checks(report: LoadReport) -> Iterable[str]:
    if not report.checks:
        return
    yield "<h2>Expectations</h2>"
    yield _table(
        ("expectation", "#expected", "#measured", ""),
        (
            [
                escape(check.name.replace("_", " ")),
                words.shown(check.expected),
                words.shown(check.measured),
                '<span class="good">met</span>' if check.passed else '<span class="bad">missed</span>',
            ]
            for check in report.checks
        ),
    )


def _percentiles(report: LoadReport) -> str:
    head = (words.HEAD[0], *(f"#{title}" for title in words.HEAD[1:]))
    note = (
        '<p class="about">Milliseconds from when a request was due, answers only. Sent late is the'
        " generator's own delay and part of the others. - : too few answers for this percentile.</p>"
    )
    found = words.distributions(report)
    return _table(head, ([escape(name), *words.cells(one)] for name, one in found)) + note


def _cumulative(report: LoadReport, samples: Sequence[Sample]) -> str:
    answered = [sample for sample in samples if sample.complete]
    kinds = (
        ("TTFT", [ttft(sample) for sample in answered if sample.stream]),
        ("E2E", [e2e(sample) for sample in answered]),
    )
    lines = [Line(name, _cdf(times), colour) for colour, (name, times) in enumerate(kinds) if times]
    if not lines:
        return "<p>No answers.</p>"
    plot = Plot(x="ms (logarithmic)", y="% of answers", lines=lines, log_x=True, top=100)
    return svg(plot, f"Cumulative distribution of latency, {report.scenario}")


def _cdf(times: Sequence[float]) -> list[tuple[float, float | None]]:
    ordered = sorted(times)
    count = len(ordered)
    # Evenly through the middle, and each of the slowest, which are what is looked for.
    steps = {round(number * (count - 1) / _POINTS) for number in range(_POINTS + 1)}
    steps |= set(range(max(count - 50, 0), count))
    return [(max(ordered[n] * 1000, 0.01), (n + 1) / count * 100) for n in sorted(steps)]


def _over_time(report: LoadReport, y: str, lines: Sequence[tuple[str, str]]) -> str:
    drawn = [
        Line(name, [(w.at, getattr(w, field)) for w in report.windows], colour)
        for colour, (name, field) in enumerate(lines)
    ]
    return _plot(report, y, drawn)


def _requests(report: LoadReport) -> str:
    due = [w for w in report.windows if w.at < report.duration]
    names = ("due", "answered", "good")
    drawn = [
        Line(name, [(w.at, value / report.window_s) for w in due for value in [_of(w, name)]], colour)
        for name, colour in zip(names, (3, 0, 2), strict=True)
    ]
    note = '<p class="about">By when requests were due. Good: '
    return _plot(report, "requests/s", drawn) + f"{note}{escape(words.slo(report.slo))}.</p>"


def _of(window: object, name: str) -> int:
    return int(getattr(window, "requests" if name == "due" else name))


def _plot(report: LoadReport, y: str, lines: Sequence[Line]) -> str:
    bands = [report.disturbed] if report.disturbed else []
    return svg(Plot(x="seconds", y=y, lines=lines, bands=bands), f"{y} over time, {report.scenario}")


def _errors(report: LoadReport) -> str:
    if not report.errors:
        return '<p class="good">none</p>'
    most = max(report.errors.values())
    return _table(
        ("kind", "#requests", "#share", ""),
        (
            [
                escape(name),
                str(count),
                f"{count / report.requests:.2%}",
                f'<div class="bar" style="width: {count / most * 100:.1f}%"></div>',
            ]
            for name, count in report.errors.items()
        ),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, heading: bool = True) -> str:
    """Return a table of cells that are HTML already; columns whose name begins with # are numbers."""
    kinds = [' class="n"' if title.startswith("#") else "" for title in head]
    titles = "".join(
        f"<th{kind}>{title.removeprefix('#')}</th>" for kind, title in zip(kinds, head, strict=True)
    )
    lines = (
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    above = f"<thead><tr>{titles}</tr></thead>" if heading else ""
    return f'<div class="scroll"><table>{above}<tbody>{"".join(lines)}</tbody></table></div>'
