"""The guard on classes of questions that ask for the same in other words, and on their near-misses."""

import pytest

from firsttoken.cache.guard import prepare, verdict
from firsttoken.cache.lexical import same_question
from firsttoken.cache.lexical_slips import mended
from firsttoken.cache.words import english, fold


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("How far is the sun from Mars?", "What is the distance between Mars and the sun?"),
        ("How many inches is 3 meters?", "Convert 3 meters to inches"),
        ("How long do frogs live?", "What is the lifespan of frogs?"),
        ("How many days does the training take?", "How long does the training take?"),
        ("When is the delivery of the sofa?", "What is the delivery date of the sofa?"),
        ("What time does the ferry arrive?", "What is the arrival time of the ferry?"),
        ("Who painted The Scream?", "Which artist painted The Scream?"),
        ("Is a deposit required?", "Do I need a deposit?"),
        ("Is it worth visiting Lima in June?", "Should I visit Lima in June?"),
        ("Why do avalanches happen?", "What causes avalanches?"),
        ("How is the word gnocchi pronounced?", "What is the pronunciation of the word gnocchi?"),
        ("What does GDPR stand for?", "What is the full form of GDPR?"),
        ("How do I get paint off my hands?", "How do I remove paint from my hands?"),
        ("Which meals does the airline serve?", "Which meals are served by the airline?"),
        ("Will it snow in Oslo?", "Is it going to snow in Oslo?"),
        ("How do I install Redis on Debian?", "How do I set up Redis on Debian?"),
        ("How do I stop a process from running?", "how do i stop a proccess from running"),
    ],
)
def test_frames_of_one_question(a: str, b: str) -> None:
    """Questions of one frame ask for the same, whichever of its forms they have."""
    assert same_question(a, b).same
    assert same_question(b, a).same


@pytest.mark.parametrize(
    ("reason", "a", "b"),
    [
        ("direction", "How far is it from Rome to Bari?", "How far is it from Bari to Rome?"),
        ("direction", "How many inches is 3 meters?", "How many meters is 3 inches?"),
        ("direction", "What animals do wolves hunt?", "What animals hunt wolves?"),
        ("direction", "How do I test a change?", "How do I change a test?"),
        ("direction", "Where is the bus stop?", "Where does the bus stop?"),
        ("repeated", "How do I cancel the cancellation of a trip?", "How do I cancel a trip?"),
        ("question", "What does ATM stand for?", "What is an ATM?"),
        ("words", "How many hours does it take?", "How many minutes does it take?"),
        ("words", "Which singer wrote the song?", "Which poet wrote the song?"),
        ("dates", "How long does the battery last?", "How long does it take to charge the battery?"),
        ("words", "What is a statue made of?", "What is a statute made of?"),
    ],
)
def test_near_misses_of_frames(reason: str, a: str, b: str) -> None:
    """What a frame does not make equal stays apart, in both directions."""
    found = verdict(prepare(a), prepare(b))
    assert (found.same, found.reason) == (False, reason)
    assert not verdict(prepare(b), prepare(a)).same


def test_akin_words_are_not_akin_through_a_third() -> None:
    """A process is killed or cancelled, both are akin to its end; but nobody kills an order."""
    akin = english().akin
    for word, others in akin.items():
        assert word not in others
        assert all(word in akin[other] for other in others)
    assert same_question("How do I discard a draft?", "How do I delete a draft?").same
    assert fold("discard") != fold("delete")
    assert not same_question("How do I visit Rome by car?", "How do I keep Rome by car?").same


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("pasword", "password"),
        ("recieve", "receive"),
        ("chnage", "change"),
        ("seperate", "separate"),
        ("enviroment", "environment"),
    ],
)
def test_slips_of_the_pen(word: str, meant: str) -> None:
    """Letters exchanged, doubled or missing in an unknown word make it the known one."""
    assert mended(word) == fold(meant)


@pytest.mark.parametrize(
    "word", ["causal", "dessert", "statute", "faculty", "interest", "trail", "xyzzy", "cat"]
)
def test_words_that_are_no_slips(word: str) -> None:
    """Real words that look like another one, short words and strange ones stay as they are."""
    assert mended(word) == fold(word)
