"""``firsttoken cache eval``."""

import argparse
import json
from pathlib import Path

import pytest

from firsttoken.commands import cache_eval
from firsttoken.errors import ConfigError

LINES = [
    {"a": "How do I fix a car?", "b": "How can I repair my car?", "same": True, "kind": "synonym"},
    {"a": "Who is the boss?", "b": "Explain relativity", "same": True},
    {"a": "Is 5 a prime?", "b": "Is 6 a prime?", "same": False, "kind": "number"},
    {"a": "How do I buy a car?", "b": "How can I purchase a car?", "same": False, "kind": "wrong label"},
]


def _run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    cache_eval.register(parser.add_subparsers())
    parsed = parser.parse_args(["eval", *arguments])
    return parsed.run(parsed)


def _file(folder: Path, *lines: object) -> str:
    path = folder / "pairs.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return str(path)


def test_json(tmp_path, capsys) -> None:
    """``--json`` counts pairs, hits and false hits, of each kind and at each threshold."""
    assert _run(_file(tmp_path, *LINES), "--json") == 0
    result = json.loads(capsys.readouterr().out)
    counts = {name: result[name] for name in ("pairs", "paraphrases", "near_misses", "hits", "false_hits")}
    assert counts == {"pairs": 4, "paraphrases": 2, "near_misses": 2, "hits": 1, "false_hits": 1}
    assert (result["recall"], result["false_hit_rate"], result["precision"]) == (0.5, 0.5, 0.5)
    assert result["kinds"]["synonym"] == {"pairs": 1, "hits": 1, "false_hits": 0}
    assert result["reasons"] == {"question": 1, "numbers": 1}
    assert [point["threshold"] for point in result["curve"]][::20] == [0.0, 1.0]


def test_text(tmp_path, capsys) -> None:
    """Without it the figures are a table and a plot for people."""
    assert _run(_file(tmp_path, *LINES)) == 0
    said = capsys.readouterr().out
    assert "hits        1 of 2 paraphrases (recall 50.0%)" in said
    assert "false hits  1 of 2 near-misses (50.0%)" in said
    assert "wrong label" in said
    assert "####" in said


def test_only_one_sort_of_pairs(tmp_path, capsys) -> None:
    """A file without near-misses, or without hits, has no share that cannot be told."""
    assert _run(_file(tmp_path, LINES[1]), "--json") == 0
    assert json.loads(capsys.readouterr().out)["precision"] is None


def test_language(tmp_path, capsys) -> None:
    """In another language the English rules are not used."""
    assert _run(_file(tmp_path, *LINES), "--json", "--language", "other") == 0
    assert json.loads(capsys.readouterr().out)["hits"] == 0


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "line 2"),
        ('{"a": "x", "b": "y"}', "`same`"),
        ('{"a": "x", "b": "y", "same": "yes"}', "expected"),
        ('{"a": 1, "b": "y", "same": true}', "line 2"),
    ],
)
def test_bad_line(tmp_path, line: str, named: str) -> None:
    """A line that is no pair is named with its file, number and what was expected."""
    path = _file(tmp_path, LINES[0], line)
    with pytest.raises(ConfigError) as raised:
        _run(path)
    assert named in str(raised.value)
    assert "pairs.jsonl, line 2" in str(raised.value)
    assert '"same": true or false' in str(raised.value)


@pytest.mark.parametrize("content", [None, "", "\n\n"])
def test_no_pairs(tmp_path, content: str | None) -> None:
    """A file that is not there, or has no pair in it, is an error that names it."""
    path = tmp_path / "pairs.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"pairs\.jsonl"):
        _run(str(path))


@pytest.mark.parametrize("threshold", ["2", "-1", "nan", "high"])
def test_bad_threshold(tmp_path, threshold: str, capsys) -> None:
    """A threshold is a number from 0 to 1."""
    with pytest.raises(SystemExit):
        _run(_file(tmp_path, LINES[0]), f"--threshold={threshold}")
    assert "from 0 to 1" in capsys.readouterr().err


def test_progress_on_a_terminal(tmp_path, capsys, monkeypatch) -> None:
    """A large file shows how far it is on a terminal, and leaves nothing of that behind."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    _run(_file(tmp_path, *[LINES[0]] * 1001))
    said = capsys.readouterr().err
    assert "200 of 1001 pairs" in said
    assert said.endswith("\r\033[K")
