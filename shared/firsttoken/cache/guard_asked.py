"""What kind of question a text is: what is asked for, of whom, when, and how binding it is."""

from __future__ import annotations

from collections.abc import Container

from firsttoken.cache.lexical_tokens import Token
from firsttoken.cache.words import Lexicon, fold

BREAKS = frozenset((",", ";", ".", "!", "?", ":", "(", ")"))
CLAUSES = frozenset(("if", "when", "where", "while", "because", "unless", "although"))
AUXILIARY = frozenset(
    (
        *("is", "are", "was", "were", "am", "do", "does", "did", "can", "could", "should", "would"),
        *("will", "has", "have", "had", "may", "might", "must", "ought"),
    )
)
BE = frozenset(("be", "is", "are", "was", "were", "been", "being", "am"))
LISTING = frozenset(("show", "recommend", "list", "name", "enumer", "find"))
"""Commands that ask for a list."""
FINDING = frozenset(("find", "get", "check", "calcul"))
"""What is done with a measure: all of it asks for its value."""
CALCULATED = frozenset(("convert", "calcul", "transl"))
"""Commands that ask for a result."""
WH = {
    "what": "what",
    "which": "what",
    "who": "who",
    "where": "where",
    "when": "when",
    "why": "why",
    "how": "how",
}
_KINDS = {
    **{
        f"@{kind}": kind
        for kind in (  # noqa: SIM905
            "how why when where clock date year month since until whose name list count amount duration "
            "frequency times soon define explain expand compare versus yesno about"
        ).split()
    },
    "@examples": "list",
    "@give": "what",
    "@best": "what",
}
"""Marks that stand for phrases (``guard_en.toml``), and the kind of question that each asks."""
_MODAL = {
    **dict.fromkeys(("can", "could", "may", "@can"), "can"),
    **dict.fromkeys(("might", "@might"), "might"),
    **dict.fromkeys(("should", "ought", "@should"), "should"),
    **dict.fromkeys(("must", "@must"), "must"),
}
_TENSE = {
    **dict.fromkeys(("was", "were", "did", "had", "@past"), "past"),
    **dict.fromkeys(("has", "have"), "perfect"),
    **dict.fromkeys(("is", "are", "am", "do", "does", "@present"), "present"),
    **dict.fromkeys(("will", "@will"), "future"),
}
_ACTIVE = frozenset(("do", "does", "did", "can", "could", "should", "must", "will", "may", "might"))
_PERSONS = {
    **dict.fromkeys(("i", "me", "my", "mine", "we", "us", "our", "ours", "myself", "ourselves"), "1"),
    **dict.fromkeys(("you", "your", "yours", "yourself"), "2"),
    **dict.fromkeys(("he", "him", "his", "himself"), "he"),
    **dict.fromkeys(("she", "her", "hers", "herself"), "she"),
    **dict.fromkeys(("they", "them", "their", "theirs", "themselves"), "they"),
}
_NARROWER = frozenset(("expand", "where"))
"""Kinds that a "what" before them is part of."""
_TIMES = ("second", "minut", "hour", "daily", "weekly", "monthly", "annual")
"""Stems of the units that "how many ... does it take" asks for as "how long" does."""
_MANNER = frozenset(("pronunciation", "spelling", "treatment"))
"""What is asked for with "how", too: how is it spelled."""
_MOMENTS = frozenset(("arriv", "leav", "begin", "end", "stop", "open", "clos", "meet", "check"))
"""What has a time of day, while other things that are done take some time."""
_ANYONE = frozenset(
    ("i", "we", "you", "one", "someone", "somebody", "anyone", "people", "users", "customers")
)
_PRONOUNS = frozenset(("it", "there", "not", "they", "this", "that", "these", "those"))


class Asked:
    """Reads the kind of question from the tokens of a text, one at a time."""

    def __init__(self, tokens: list[Token], lexicon: Lexicon) -> None:
        self._tokens = tokens
        self._lexicon = lexicon
        self._earlier = 0
        self._speaker = ""
        self._is_impersonal = False
        self._persons: set[str] = set()
        self.kinds: list[str] = []
        self.tense = self.modal = self.subject = ""

    def following(self, index: int) -> str:
        """Return the word after the one at ``index``, or nothing."""
        return self._tokens[index + 1][0] if index + 1 < len(self._tokens) else ""

    def is_last(self, index: int) -> bool:
        """Return whether a sentence or clause ends after the word at ``index``."""
        following = self.following(index)
        return not following or following in BREAKS

    def is_inverted(self, index: int) -> bool:
        """Return whether a subject follows the "not" at ``index`` (why isn't my code ...), not a verb."""
        before = [word for word, _ in self._tokens[max(index - 2, 0) : index]]
        if not before or before[-1] not in AUXILIARY:
            return bool(before) and before[-1] in ("why", "@why")
        return index == 1 or before[0] in WH or before[0][0] == "@"

    def sentence(self) -> None:
        """Begin another sentence."""
        self._earlier = len(self.kinds)

    def mark(self, word: str) -> None:
        """Read a mark that stands for a phrase."""
        kind = _KINDS.get(word)
        if kind and not (kind == "yesno" and len(self.kinds) > self._earlier):
            if kind in _NARROWER and self.kinds[-1:] == ["what"]:
                self.kinds.pop()
            self.kinds.append(kind)
        if word == "@how" or (word in ("@can", "@should", "@must") and self._is_impersonal):
            self.subject = self.subject or "anyone"
        if word in ("@i", "@you"):
            self._speaker = self._speaker or word
        else:
            self._is_impersonal = word == "@yesno"
        self._verb(word)

    def function(self, index: int, word: str, *, is_start: bool, has_words: bool) -> str:
        """Read a word without content; return ``asks``, or the word that joins a clause, or nothing."""
        read = self._question(index, word, is_start=is_start, has_words=has_words)
        self._verb(word)
        if word in _PERSONS:
            self._persons.add(_PERSONS[word])
        return read

    def command(self, concept: str) -> None:
        """Read a verb that begins a text: a text is to be made, or something is to be done."""
        if concept in LISTING:
            self.kinds.append("list")
            return
        is_made = concept in self._lexicon.generative
        self.kinds.append("what" if concept == "transl" else "do" if is_made else "how")
        self.subject = "anyone"

    def noun(self, index: int, word: str, *, has_words: bool) -> bool:
        """Read a word that names what is asked for (the meaning, the process); return whether it is one."""
        kinds = self.kinds
        before = self._tokens[index - 1][0] if index else ""
        if kinds == ["what"] and word in _MANNER and self.following(index) in ("of", "for"):
            self.kinds = ["how"]
            return False
        if kinds[-1:] == ["what"] and before in ("what", "which") and fold(word) in self._lexicon.agents:
            self._agent(index + 1)
            return False
        if kinds == ["what"] and word in ("date", "time") and before not in self._lexicon.stop:
            return self._when(index, fold(before), word)
        if word in ("process", "procedure", "syntax") and kinds == ["what"] and has_words:
            self.kinds = ["how"]
        elif (word in ("meaning", "definition") and kinds in ([], ["what"])) or (
            word in ("mean", "means")
            and kinds[-1:] == ["what"]
            and (self.is_last(index) or self.following(index) in ("in", "on", "when"))
        ):
            self.kinds = [*kinds[:-1], "define"]
        else:
            return False
        return True

    def time_taken(self, words: Container[str]) -> None:
        """Read "how many hours does it take" as "how long does it take"."""
        takes = "bring" in words or "last" in words
        if takes and "count" in self.kinds and any(unit in words for unit in _TIMES):
            self.kinds[self.kinds.index("count")] = "duration"

    def all_kinds(self, words: Container[str], *, has_result: bool, has_choice: bool) -> tuple[str, ...]:
        """Return the kinds of question in their order, each once, those left out that another one says."""
        kinds = list(dict.fromkeys(self.kinds))
        if "versus" in kinds:
            kinds.remove("versus")
            kinds = kinds or ["compare"]
        if "compare" in kinds:
            kinds = [kind for kind in kinds if kind not in ("how", "what", "define", "explain")]
        if "amount" in kinds and ("cost" in words or "weigh" in words):
            kinds[kinds.index("amount")] = "what"
        if has_result and kinds == ["how"]:
            kinds = ["what"]
        if kinds == ["how"] and "work" in words and self.subject != "anyone":
            kinds = ["works"]
        if kinds == ["yesno"] and has_choice:
            kinds = ["what"]  # "is butter or margarine healthier" is "which is"
        return tuple(kinds)

    def persons(self) -> frozenset[str]:
        """Return whose things it is about; those of a general "you" are the speaker's, too."""
        if self._speaker == "@you" and self._persons == {"2"}:
            return frozenset("1")
        return frozenset(self._persons)

    def _verb(self, word: str) -> None:
        self.tense = "future" if word == "@will" else self.tense or _TENSE.get(word, "")
        self.modal = self.modal or _MODAL.get(word, "")

    def _question(self, index: int, word: str, *, is_start: bool, has_words: bool) -> str:
        kind = WH.get(word)
        if kind:
            is_asked = is_start or (not self.kinds and word in ("what", "how", "why", "who"))
            if is_asked and not (word == "when" and self._begins_clause(index)):
                self.kinds.append(kind)
                if kind in ("how", "why"):
                    self._acting(index + 1)
                elif kind != "when":
                    self._acted(index + 1)
                return "asks"
            return word if word in ("when", "where") else ""
        if is_start and word in AUXILIARY and self.following(index) not in ("not", ""):
            if not self.kinds:
                self.kinds.append("yesno")
            self._acting(index)
        elif word in _ACTIVE and not self.subject and self.kinds and not has_words:
            self._acting(index)
        return ""

    def _begins_clause(self, index: int) -> bool:
        """Return whether "when" begins a clause with its own subject: "when I start it, why ...?"."""
        following = self.following(index)
        return (
            bool(following)
            and following[0] != "@"
            and following not in AUXILIARY
            and any(word in WH or word in _KINDS for word, _ in self._tokens[index + 1 :])
        )

    def _agent(self, index: int) -> None:
        """Read "which artist painted" as "who painted"."""
        word = self._tokens[index][0] if index < len(self._tokens) else ""
        is_verb = fold(word) in self._lexicon.verbs and word not in self._lexicon.stop
        if is_verb and (word.endswith(("s", "ed")) or word in self._lexicon.irregular):
            self.kinds[-1] = "who"
            self._acted(index)

    def _when(self, index: int, event: str, word: str) -> bool:
        """Read "what is the delivery date", "the departure time" and "the boiling time" of something."""
        if not (self.is_last(index) or self.following(index) in ("of", "for", "on", "at", "in")):
            return False
        if word == "date":
            self.kinds = ["when"]
        elif event in _MOMENTS:
            self.kinds = ["clock"]
        elif event in self._lexicon.verbs:
            self.kinds = ["duration"]
        else:
            return False
        return True

    def _acting(self, index: int) -> None:
        """Read who acts: what follows an auxiliary, unless the verb is passive."""
        tokens = self._tokens
        if self.subject or index + 1 >= len(tokens) or tokens[index][0] not in _ACTIVE:
            return
        following = tokens[index + 1][0]
        if following in _ANYONE:
            self.subject = "anyone"
        elif following in ("he", "she"):
            self.subject = following
        elif following not in _PRONOUNS and not any(word in BE for word, _ in tokens[index + 2 :]):
            self.subject = "named"

    def _acted(self, index: int) -> None:
        """Read whether it is asked who acts, and when: the verb follows "who" at once."""
        word = self._tokens[index][0] if index < len(self._tokens) else ""
        concept = fold(word)
        if word in self._lexicon.stop or concept == "happen" or concept not in self._lexicon.verbs:
            return
        is_past = word.endswith("ed") or word in self._lexicon.irregular
        if is_past or word.endswith("s") or self._tokens[index - 1][0] == "who":
            self.subject = "asked"
            self.tense = "now" if word.endswith("s") else "then" if is_past else self.tense
            if self.kinds == ["what"] and self.tense == "now":
                self.kinds, self.subject = ["how"], "anyone"  # "what removes rust"
