"""Direction: whether the same words stand in the same roles in two questions.

Does A beat B is not does B beat A, and from A to B is not from B to A; but what moved as a whole ("in Python,
how do I ...") or changed its form only ("France's capital", "the capital of France") means the same.
"""

from __future__ import annotations

from firsttoken.cache.guard_asked import CLAUSES
from firsttoken.cache.guard_slots import SENTENCE, Prepared, Word

_COMPARED = frozenset(("", "~between", "~with", "from", "to", "than", "~of"))
_STRICT = frozenset(("before", "after", "since", "until", "over", "under", "inside", "outside"))
"""Of time and place: other prepositions do not stand for these."""


def is_turned(a: Prepared, b: Prepared) -> bool:
    """Return whether words that both have stand in another role or order. Time grows with their square."""
    common = [word for concept, word in a.words.items() if concept in b.words and concept != "fix"]
    others = [b.words[word.concept] for word in common]
    if any(_conflict(one, other) for one, other in zip(common, others, strict=True)):
        return True
    if _exchanged(a, b) or _is_redone(a, b):
        return True
    places = {concept: place for place, concept in enumerate(b.words)}
    order = [places[word.concept] for word in common]
    is_compared = "compare" in a.kinds and "compare" in b.kinds
    for second in range(1, len(common)):
        for first in range(second):
            pair = (common[first], common[second])
            twin = (others[first], others[second])
            if _is_crossed(*pair, *twin):
                return True
            if order[first] < order[second]:
                if _is_agent(*pair, *twin) and not (_is_fronted(a) or _is_fronted(b)):
                    return True
            elif is_compared and all(word.role in _COMPARED for word in (*pair, *twin)):
                continue
            elif _is_swapped(a, b, pair, twin):
                return True
    return False


def _is_swapped(a: Prepared, b: Prepared, pair: tuple[Word, Word], twin: tuple[Word, Word]) -> bool:
    """Return whether two words that stand the other way round say something else so."""
    return _is_apart(*pair) == _is_apart(*twin) and (
        not _may_move(a, b, pair, twin) or _is_around_verb(a, b, pair, twin)
    )


def _is_redone(a: Prepared, b: Prepared) -> bool:
    """Return whether what is done is another word of both: to order a list, to list an order."""
    if a.verb == b.verb or a.verb not in b.words or b.verb not in a.words:
        return False
    return frozenset((a.verb, b.verb)) not in a.joined


def _is_weak(role: str) -> bool:
    return not role or role[0] == "~"


def _conflict(one: Word, other: Word) -> bool:
    """Return whether a word stands in two roles that exclude one another, or names a place and is done."""
    if {one.sort, other.sort} == {"noun", "verb"}:
        return True
    if one.role == other.role:
        return False
    if _is_weak(one.role) or _is_weak(other.role):
        return "" not in (one.role, other.role) and bool({one.role, other.role} & _STRICT)
    return True


def _is_agent(first: Word, second: Word, first_twin: Word, second_twin: Word) -> bool:
    """Return whether the second acts in one text (``by``) and is acted upon in the other."""
    roles = {second.role, second_twin.role}
    return roles == {"by", ""} and not first.role and not first_twin.role and first.sort != "verb"


def _is_fronted(text: Prepared) -> bool:
    """Return whether what is acted upon stands first: what does the company offer."""
    return text.subject == "named" and text.kinds[:1] in (("what",), ("count",), ("amount",))


def _is_apart(one: Word, other: Word) -> bool:
    """Return whether two words stand in two sentences."""
    return abs(one.chunk - other.chunk) >= SENTENCE


def _is_crossed(one: Word, two: Word, one_twin: Word, two_twin: Word) -> bool:
    """Return whether two words exchanged their prepositions (of sleep on mood, of mood on sleep)."""
    if one.role == two.role or (one.role, two.role) != (two_twin.role, one_twin.role):
        return False
    return bool(one.role and two.role) or "~of" in (one.role, two.role)


def _is_around_verb(a: Prepared, b: Prepared, pair: tuple[Word, Word], twin: tuple[Word, Word]) -> bool:
    """Return whether two bare words changed sides of a verb: a cold causes a fever, a fever a cold."""
    if any(word.role or word.sort == "verb" for word in (*pair, *twin)):
        return False
    return not _between(a, *pair).isdisjoint(_between(b, twin[1], twin[0]))


def _between(text: Prepared, one: Word, other: Word) -> set[str]:
    """Return the verbs that stand between two words."""
    order = list(text.words)
    inner = order[order.index(one.concept) + 1 : order.index(other.concept)]
    return {concept for concept in inner if text.words[concept].sort == "verb"}


def _exchanged(a: Prepared, b: Prepared) -> bool:
    """Return whether a preposition that changes the meaning stands before another common word."""
    for role in {word.role for word in a.words.values()} - CLAUSES:
        if _is_weak(role):
            continue
        ours = {concept for concept, word in a.words.items() if word.role == role}
        theirs = {concept for concept, word in b.words.items() if word.role == role}
        if (
            theirs
            and any(one in b.words for one in ours - theirs)
            and any(one in a.words for one in theirs - ours)
        ):
            return True
    return False


def _is_passive(agent: Word, other: Word, agent_twin: Word, other_twin: Word) -> bool:
    """Return whether the agent comes first in one text, and with ``by`` in the other."""
    return {agent.role, agent_twin.role} == {"", "by"} and other.role == other_twin.role == ""


def _may_move(a: Prepared, b: Prepared, pair: tuple[Word, Word], twin: tuple[Word, Word]) -> bool:
    """Return whether two words may stand the other way round in the other text."""
    (one, two), (one_twin, two_twin) = pair, twin
    names = frozenset((one.concept, two.concept))
    sorts_differ = one.sort != two.sort or one_twin.sort != two_twin.sort
    if sorts_differ or (names in a.joined and names in b.joined):
        return True
    if "distanc" in a.words and (names in a.joined or names in b.joined):
        return True  # "how far is A from B", "the distance between B and A"
    if one.sort == "verb" and {a.subject, b.subject} == {"anyone", ""}:
        return True  # "can I cancel an order", "can an order be cancelled"
    if one.chunk == two.chunk and one_twin.chunk == two_twin.chunk:
        return False  # a guest house is no house guest
    if one.role and one.role == two.role and one_twin.role == two_twin.role:
        return one.head == one_twin.head and two.head == two_twin.head
    return (
        _is_phrase(one, one_twin)
        or _is_phrase(two, two_twin)
        or _is_passive(one, two, one_twin, two_twin)
        or _is_passive(two, one, two_twin, one_twin)
        or _is_compound(one, two, one_twin, two_twin)
        or _is_compound(two_twin, one_twin, two, one)
    )


def _is_phrase(word: Word, twin: Word) -> bool:
    """Return whether a word has a preposition in both texts: with it, it may stand anywhere."""
    if not word.role or not twin.role:
        return False
    return word.role == twin.role or (_is_weak(word.role) and _is_weak(twin.role))


def _is_compound(head: Word, owner: Word, head_twin: Word, owner_twin: Word) -> bool:
    """Return whether ``head of owner`` in one text is ``owner head`` in the other."""
    return (
        (owner.role[:1] == "~" or owner.role in ("to", "about"))
        and _is_weak(owner_twin.role)
        and owner_twin.chunk == head_twin.chunk
        and (head.role == head_twin.role or (_is_weak(head.role) and _is_weak(head_twin.role)))
    )
