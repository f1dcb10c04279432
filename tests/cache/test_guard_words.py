"""The forms of words, numbers and phrases that the guard compares."""

import pytest

from firsttoken.cache.lexical_numbers import digits
from firsttoken.cache.lexical_tokens import folded, tokens
from firsttoken.cache.words import english, fold


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("passwords", "password"),
        ("cities", "city"),
        ("cancelled", "cancellation"),
        ("evaluating", "evaluation"),
        ("organised", "organizing"),
        ("bought", "purchases"),
        ("colours", "color"),
        ("baking", "bake"),
        ("planned", "planning"),
        ("quickly", "fast"),
        ("children", "kids"),
    ],
)
def test_one_form(word: str, other: str) -> None:
    """Forms, spellings and synonyms of a word have one form."""
    assert fold(word) == fold(other)


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("large", "largest"),
        ("cheaper", "cheapest"),
        ("car", "care"),
        ("product", "production"),
        ("employer", "employee"),
        ("import", "important"),
        ("state", "station"),
        ("boil", "fry"),
        ("update", "upgrade"),
    ],
)
def test_words_apart(word: str, other: str) -> None:
    """Words that mean something else keep forms of their own."""
    assert fold(word) != fold(other)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("twenty-one", "21"),
        ("two hundred and five", "205"),
        ("three thousand four hundred", "3400"),
        ("1,000", "1000"),
        ("5k", "5000"),
        ("a million", "1000000"),
        ("2.5 million", "2500000"),
        ("1/2", "0.5"),
        ("½", "0.5"),
        ("two and a half", "2.5"),
        ("3rd", "#3"),
        ("third", "#3"),
        ("007", "7"),
    ],
)
def test_numbers(text: str, value: str) -> None:
    """A number has one form, in words or digits."""
    assert value in [word for word, _ in tokens(f"is it {text} here")]


def test_versions_keep_their_digits() -> None:
    """3.10 is no 3.1, since it may be a version; 5.0 is 5."""
    assert digits("3.10") == "3.10"
    assert digits("5.0") == "5"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("WHAT is it?!", "what is it"),
        ("  “What”  is  it ", "what is it"),
        ("C++", "c++"),
    ],
)
def test_folded(text: str, expected: str) -> None:
    """Size of letters, spaces and the marks around words do not count."""
    assert folded(text) == expected


def test_lexicon_is_consistent() -> None:
    """No two antonyms are in one group of synonyms, and every word that stands for a group is in no other."""
    lexicon = english()
    assert not [word for word, others in lexicon.antonyms.items() if word in others]
    assert not [word for word, first in lexicon.groups.items() if lexicon.groups.get(first, first) != first]
