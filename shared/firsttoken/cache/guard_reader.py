"""Reads a text for the guard: walks over its tokens once and fills the slots of a `Prepared`."""

from __future__ import annotations

from itertools import pairwise

from firsttoken.cache import lexical_tokens
from firsttoken.cache.guard_asked import (
    AUXILIARY,
    BE,
    BREAKS,
    CALCULATED,
    CLAUSES,
    FINDING,
    LISTING,
    WH,
    Asked,
)
from firsttoken.cache.guard_implied import binding, implied, is_conversion, unordered
from firsttoken.cache.guard_slots import SENTENCE, Prepared, Word
from firsttoken.cache.lexical_slips import mended
from firsttoken.cache.lexical_tokens import CAPITAL, LITERAL, NUMBER, Token
from firsttoken.cache.words import english, fold

MAX_WORDS = 60
"""Of a text with more content words the guard knows only whether another is equal."""
_IN_ROLE = 3
"""So many content words a preposition binds at most: those of a noun and what describes it."""
_ADDED = {"@best": "best", "@do": "do", "@examples": "example", "@fix": "fix"}
_ACTS = frozenset(("@how", "@can", "@should", "@must"))
"""Marks with a verb behind them."""
_UNSAID = frozenset(("@i", "@you", "@past", "@present"))
"""Marks that stand before what a phrase means, and begin nothing."""
_DO = frozenset(("do", "does", "did"))
_AT_END = frozenset(("do", "about", "for", "without"))
"""Words that say something where they end a question: what is it for?"""
_THAN_NUMBER = {"over": "@more", "above": "@more", "under": "@less", "below": "@less"}
_DETERMINERS = frozenset(
    ("a", "an", "the", "my", "your", "his", "her", "their", "our", "this", "that", "its")
)
_PREPOSITIONS = frozenset(("in", "on", "at", "for", "of", "to", "by", "from", "with", "until", "since"))


def prepare(text: str, *, language: str = "en") -> Prepared:
    """Return ``text`` as the guard compares it.

    Time: about 40 us for ten words. A text that is too long (`MAX_WORDS`, `lexical_tokens.MAX_CHARACTERS`)
    or not in English is only folded.
    """
    folded = lexical_tokens.folded(text)
    if language != "en" or len(text) > lexical_tokens.MAX_CHARACTERS:
        return Prepared(folded, is_read=False)
    return _Reader(lexical_tokens.tokens(text)).read(folded)


class _Reader:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._lexicon = english()
        self._asked = Asked(tokens, self._lexicon)
        self._words: dict[str, Word] = {}
        self._names: set[str] = set()
        self._repeated: set[str] = set()
        self._literals: set[str] = set()
        self._optional: set[str] = set()
        self._numbers: list[str] = []
        self._counted: dict[str, str] = {}
        self._negations: list[str] = []
        self._scope: set[str] = set()
        self._quantifiers: set[str] = set()
        self._joined: dict[frozenset[str], str] = {}
        self._role = self._head = self._last = self._degree = self._number = self._join = self._verb = ""
        self._in_role = self._chunk = self._index = 0
        self._is_passive = not BE.isdisjoint([word for word, _ in tokens])
        self._is_place = len(tokens) > 1 and tokens[0][0] == "where" and tokens[1][0] in BE
        self._negated = False
        self._owners = {word for (word, _), (mark, _) in pairwise(tokens) if mark == "'s"}
        capitals = [flags & CAPITAL for word, flags in tokens if word[0].isalpha()]
        self._is_titled = len(capitals) > 2 and sum(capitals) > 0.75 * len(capitals)

    def read(self, folded: str) -> Prepared:
        """Return the slots of all tokens."""
        is_start = True
        for index, (word, flags) in enumerate(self._tokens):
            self._index = index
            if flags & LITERAL:
                self._literals.add(word)
                self._content(word, word)
            elif flags & NUMBER:
                self._add_number(index, word)
            elif word in BREAKS:
                self._break(word)
                is_start = True
                continue
            elif word[0] == "@":
                self._mark(index, word)
                if word in _UNSAID:
                    continue
            elif not self._function(index, word, is_start=is_start):
                self._word(index, word, flags, is_start=is_start)
            is_start = is_start and word in _PREPOSITIONS
        return self._prepared(folded)

    def _prepared(self, folded: str) -> Prepared:
        asked, lexicon = self._asked, self._lexicon
        subject = asked.subject or self._fronted()
        if "how" in asked.kinds and "work" in self._words and len(self._words) > 1:
            self._optional.add("work")  # "how does the installation work" is how to install
            subject = "" if subject == "named" else subject
        has_result = bool(self._numbers) and not CALCULATED.isdisjoint(self._words)
        if has_result:
            self._optional |= CALCULATED  # "convert 5 km to miles", "what is 5 km in miles"
        words = self._reduced()
        self._leave_out(words)
        has_choice = "or" in self._joined.values() and any("+e" in one or one == "better" for one in words)
        if "and" in self._joined.values():
            self._quantifiers.discard("both")
        read = () if words else tuple([word for word, _ in self._tokens if word not in BREAKS])
        return Prepared(
            folded,
            words=words,
            names=frozenset(self._names),
            literals=frozenset(self._literals),
            optional=frozenset([one for one in words if one in lexicon.light or one in self._optional]),
            repeated=frozenset(self._repeated),
            numbers=tuple(sorted(self._numbers)),
            counted=self._counted,
            kinds=asked.all_kinds(words, has_result=has_result, has_choice=has_choice),
            tense=asked.tense,
            modal=asked.modal,
            persons=asked.persons(),
            subject=subject,
            verb=self._verb,
            negations=tuple(sorted(self._negations)),
            scope=frozenset(self._scope),
            quantifiers=frozenset(self._quantifiers),
            joined=self._joined,
            small=read,
            is_read=len(words) <= MAX_WORDS,
        )

    def _reduced(self) -> dict[str, Word]:
        """Return the words without what the kind of question says, or the roles that it makes equal."""
        words, asked = self._words, self._asked
        if asked.kinds == ["how"] and any(one.sort == "measure" for one in words.values()):
            return {concept: one for concept, one in words.items() if concept not in FINDING}
        if "fix" in self._optional:  # "if it is lost, what do I do", "it is lost, what do I do"
            return {
                concept: Word(concept, "", one.sort, one.chunk) if one.role == "if" else one
                for concept, one in words.items()
            }
        if is_conversion(self._numbers, words, self._optional, self._lexicon):
            asked.kinds = ["convert"]
            return unordered(words)
        return words

    def _leave_out(self, words: dict[str, Word]) -> None:
        """Mark the words that another text may lack."""
        asked, lexicon = self._asked, self._lexicon
        asked.time_taken(words)
        if "ingredient" in words:
            self._optional |= {"make", "need"}
        if asked.kinds == ["what"]:
            self._optional.add("need")
        self._optional |= implied(asked.kinds, words, lexicon)
        modal, word = binding(asked.kinds, words.keys())
        if modal and asked.modal in ("", modal):
            asked.modal = modal
            self._optional.add(word)
        if not lexicon.money.isdisjoint(words):
            self._optional |= {"cost", "pay", "owe"}
        chunks = {one.chunk for concept, one in words.items() if concept in self._names}
        self._optional.update(
            [concept for concept, one in words.items() if concept in lexicon.generic and one.chunk in chunks]
        )

    def _fronted(self) -> str:
        """Return who acts where "what" and a noun come first: what animals eat lions, what do lions eat."""
        if self._asked.kinds != ["what"] or self._tokens[0][0] not in WH:
            return ""
        words = [word for word, _ in self._tokens]
        if _DO.isdisjoint(words[2:]):
            acts = AUXILIARY.isdisjoint(words) and any(one.sort == "verb" for one in self._words.values())
            return "asked" if acts else ""
        return "named"

    def _break(self, word: str) -> None:
        self._chunk += 1
        if word != "(":
            self._role = ""
        if word in ",:" and not self._asked.kinds:
            self._words = {  # a topic put first: "Linux: how to ...", as if after "in"
                concept: Word(concept, one.role or "~in", one.sort, one.chunk)
                for concept, one in self._words.items()
            }
        if word in ".?!":
            self._asked.sentence()
            self._chunk += SENTENCE
        self._join = word if word == "," else ""

    def _add_number(self, index: int, value: str) -> None:
        following = fold(self._asked.following(index))
        if value == "1" and following in self._lexicon.units:
            return  # 1 hour is an hour
        self._numbers.append(value)
        self._content(value, value)
        self._number = value

    def _mark(self, index: int, word: str) -> None:
        self._asked.mark(word)
        self._role = ""
        self._bind(index, word)
        if word in _ADDED:
            self._content(_ADDED[word], word)
            if word == "@fix":
                self._optional.add("fix")
        self._chunk += 1

    def _bind(self, index: int, word: str) -> None:
        """Read a preposition, negation or quantifier, for what follows it."""
        lexicon = self._lexicon
        if word in lexicon.negations:
            self._negations.append(lexicon.negations[word])
            self._negated = not self._asked.is_inverted(index)
        if word in lexicon.quantifiers:
            self._quantifiers.add(lexicon.quantifiers[word])
        if word in lexicon.roles:
            self._role = lexicon.roles[word]
            self._head = self._last
            self._in_role = 0
        if word in lexicon.symmetric:
            self._join = word

    def _function(self, index: int, word: str, *, is_start: bool) -> bool:
        """Read a word without content of its own; return whether ``word`` is one."""
        lexicon, asked = self._lexicon, self._asked
        if word not in lexicon.small and word[0].isalnum():
            return False
        read = asked.function(index, word, is_start=is_start, has_words=bool(self._words))
        if read:
            self._role = "" if read == "asks" else read
            self._in_role = 0
        if word in _DETERMINERS and self._in_role and self._role not in CLAUSES:
            self._role = ""
        if word == "most" and self._describes(index):
            self._degree = "+est"
            return True
        if word in _THAN_NUMBER and self._is_number(index + 1):
            self._bind(index, _THAN_NUMBER[word])
        elif read != "asks":
            self._bind(index, word)
        if word == "to" and self._is_infinitive(index):
            self._role = ""
        if word in _AT_END and asked.is_last(index):
            self._content(word, word)
        self._chunk += 1
        return True

    def _is_number(self, index: int) -> bool:
        return index < len(self._tokens) and bool(self._tokens[index][1] & NUMBER)

    def _describes(self, index: int) -> bool:
        """Return whether "most", "more" or "less" at ``index`` is about the word after it."""
        following = self._asked.following(index)
        return bool(following) and following not in ("of", "people") and following not in self._lexicon.stop

    def _is_infinitive(self, index: int) -> bool:
        following = self._asked.following(index)
        return following in BE or following in AUXILIARY or fold(following) in self._lexicon.verbs

    def _word(self, index: int, word: str, flags: int, *, is_start: bool) -> None:
        """Read a word with content of its own."""
        lexicon, asked = self._lexicon, self._asked
        if word in lexicon.negated:
            self._negations.append("@not")
            self._negated = True
            word = lexicon.negated[word]
        if word in ("more", "less", "least") and self._describes(index):
            self._degree = "+est" if word == "least" else "+er"
            if word != "more":
                self._content("less", word)
            return
        if word in ("keep", "keeps", "keeping") and asked.following(index).endswith("ing"):
            return  # keeps crashing: crashes
        concept = fold(word) if flags & CAPITAL and not is_start else mended(word)
        if concept == "differ":
            asked.kinds.append("compare")
        elif index == 0 and not asked.kinds and (concept in lexicon.verbs or concept in LISTING):
            asked.command(concept)
            self._commanded(concept, word)
        elif not asked.noun(index, word, has_words=bool(self._words)):
            if concept in lexicon.agents and "who" in asked.kinds:
                self._optional.add(concept)
            is_name = concept in lexicon.names or (flags & CAPITAL and not is_start and not self._is_titled)
            concept += self._degree
            self._degree = ""
            if is_name or (not word.isalpha() and any(letter.isdecimal() for letter in word)):
                self._names.add(concept)
            self._content(concept, word)

    def _commanded(self, concept: str, word: str) -> None:
        if concept == "recommend":  # a good one, the best one: the answer is the same
            for quality in ("best", "good"):
                self._content(quality, quality)
                self._optional.add(quality)
        elif concept not in LISTING:
            self._content(concept, word)

    def _content(self, concept: str, word: str) -> None:
        """Add a concept with the role that it stands in."""
        if concept not in self._words:
            role = "~of" if word in self._owners else self._role
            head = self._head if role == self._role else ""
            self._words[concept] = Word(concept, role, self._sort(concept, word), self._chunk, head)
        elif concept not in self._optional and self._chunk - self._words[concept].chunk < SENTENCE:
            self._repeated.add(concept)
        if self._join and self._last:
            self._joined[frozenset((self._last, concept))] = self._join
        if self._negated:
            self._scope.add(concept)
        if self._number:
            self._counted[concept] = self._number
            self._number = ""
        if self._role:
            self._in_role += 1
            if self._in_role >= _IN_ROLE and self._role not in CLAUSES:
                self._role = ""
        self._join, self._negated, self._last = "", False, concept

    def _sort(self, concept: str, word: str) -> str:
        before = self._tokens[self._index - 1][0] if self._index else ""
        base, plus, _ = concept.partition("+")
        if concept in self._lexicon.measures:
            return "measure"
        if before in _ACTS:
            if concept in self._lexicon.verbs or self._asked.following(self._index) in _DETERMINERS:
                self._verb = self._verb or concept
            return "verb"
        if self._is_passive and word.endswith("ed"):
            return "verb"
        if concept in self._lexicon.verbs and before not in _DETERMINERS:
            return "noun" if self._is_place and fold(word) == concept == word else "verb"
        return "quality" if plus or base in self._lexicon.qualities else ""
