# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Parsing of free-text answers to closed questions: which choice an answer names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from monai_medpruner.reasoning import without_reasoning

__all__ = ["parse_choice"]

_DEFAULT_LETTERS = "ABCD"
_UNDECIDED = re.compile(
    r"\b(?:can ?not|can't|could not|couldn't|unable to|impossible to|not possible to|difficult to|do not|don't)\s+"
    r"(?:be\s+)?(?:reliably\s+|definitively\s+)?"
    r"(?:determined?|tell|told|said?|say|answer(?:ed)?|assess(?:ed)?|identif(?:y|ied)|know)"
)
_NEGATED = re.compile(
    r"\b(?:not|n't|no|neither|nor|without|never|excludes?|excluding|rules? out|ruled out|rather than|instead of|than)"
    r"(?:\s+(?:in|of|for|from|on|by|with|seen|the|a|an|is|option|choice|letter))*\W*$"
)
_ADVERBS = r"(?:(?:most|very|likely|probably|clearly|definitely|certainly|therefore|thus|indeed|still|simply)\s+)*"
_NAMED = r"(?:(?:option|choice|letter)\s+)?"
#: excludes letters that belong to a word, an abbreviation (A.P.), a hyphenated term (B-cell) or a contraction
_NO_LONGER_WORD = r"(?![\w'’]|\.\w\.|-\w)"
_NOT_DENIED = r"(?!\s+(?i:is|was)\s+(?i:not|wrong|incorrect|excluded))"
_REASONS = r"\s+(?:because|since|as|is|due|based|for|with|given)\b"


def parse_choice(answer: str, choices: Mapping[str, str] | None = None) -> str | None:
    """Return the choice that a free-text answer names: this package's headline rule.

    The steps below run in this order, and the first one that finds a choice decides. If it finds two, the answer names
    none:

    1. the answer is exactly the text of a choice;
    2. "answer is B", "Answer: (b)", "the answer is the left lung" (only after "final answer" if that phrase occurs;
       ``\\boxed{}`` and ``<answer>`` count as such a phrase);
    3. the answer begins with a letter used as a label: "B", "B. Liver", "(c) Liver", "Option b", "B because ...";
       a list that repeats several choices names none;
    4. the answer begins with the text of a choice: "Yes, there is ...";
    5. a letter is named later in the text: "I choose B", "option B", "the liver (B)", "B is correct";
    6. the text of exactly one choice occurs as whole words, not negated and not inside the text of another choice;
       skipped if the answer says that it cannot tell.

    "A lesion is seen" does not name choice A, "Both lungs" not B, "C4" not C. If label and text disagree ("B. Spleen"
    when B is the liver), the label counts.

    Args:
        answer: the model's text; may be empty.
        choices: letter -> text of the available choices; None or empty for A to D with unknown texts.

    Returns:
        The letter, upper case; None if the answer names no choice or several.
    """
    cleaned = _Answer.read(answer, choices or dict.fromkeys(_DEFAULT_LETTERS, ""))
    if not cleaned.text:
        return None
    steps = (
        cleaned.whole_text,
        cleaned.declared,
        cleaned.leading_label,
        cleaned.leading_text,
        cleaned.letters_named,
        cleaned.texts_named,
    )
    for step in steps:
        if found := step():
            return found.pop() if len(found) == 1 else None
    return None


def _plain(text: str) -> str:
    """Normalize to lower case and single spaces, without surrounding punctuation."""
    return " ".join(text.lower().split()).strip(" .,;:!?'\"()[]{}")


def _clean(text: str) -> str:
    """Remove reasoning, markup and typographic variants."""
    text = unicodedata.normalize("NFKC", text or "").replace("’", "'")
    text = without_reasoning(text)
    text = re.sub(r"\\boxed\s*\{\s*(?:\\\w+\s*\{)?([^{}]*)\}+", r" final answer: \1. ", text)
    text = re.sub(r"(?is)<answer>(.*?)</answer>", r" final answer: \1. ", text)
    text = re.sub(r"[*`#$\"“”]|(?<!\w)_+|_+(?!\w)", "", text)
    text = re.sub(r"[^\S\n]+", " ", text).strip()
    # if a final answer is announced, only the text after it counts
    return text[text.lower().rfind("final answer") :] if "final answer" in text.lower() else text


@dataclass(frozen=True)
class _Answer:
    """A cleaned answer with its choices; each step returns the set of letters that it finds."""

    text: str
    choices: dict[str, str]

    @classmethod
    def read(cls, answer: str, choices: Mapping[str, str]) -> _Answer:
        return cls(_clean(answer), {letter.upper(): _plain(text) for letter, text in choices.items()})

    @cached_property
    def letters(self) -> str:
        """Regular expression for one of the letters, in either case."""
        return "[" + "".join(letter + letter.lower() for letter in self.choices) + "]"

    @cached_property
    def capitals(self) -> str:
        return f"[{''.join(self.choices)}]"

    def whole_text(self) -> set[str]:
        return {letter for letter, choice in self.choices.items() if choice and choice == _plain(self.text)}

    def declared(self) -> set[str]:
        """Letters that follow "answer is" or "answer:"; if there are none, choice texts that do."""
        link = (
            r"(?i:\bans(?:wer)?\b\.?[^.:=\n]{0,60}?(?:\b(?:is|be)\b|[:=])\s*)" + f"(?i:{_ADVERBS}(?:is\\s+)?{_NAMED})"
        )
        found = set[str]()
        for match in re.finditer(rf"{link}\W*?({self.letters}){_NO_LONGER_WORD}", self.text):
            if not self._is_article(match):
                found |= self._with_alternatives(match)
        for match in re.finditer(rf"(?i:\banswer)\s+\(?({self.capitals}){_NO_LONGER_WORD}", self.text):
            if not self._is_article(match):
                found |= self._with_alternatives(match)
        if found:
            return found
        rests = [re.split(r"[.\n](?:\s|$)", self.text[match.end() :])[0] for match in re.finditer(link, self.text)]
        return set().union(*(self._texts_in(rest) for rest in rests))

    def leading_label(self) -> set[str]:
        """A letter at the start, used as a label."""
        delimiter = r"\s*(?:[)\]}.:,;!?'\"]|$|\n|\s[-–—]+\s)"
        label = rf"[\W_]*({self.letters})(?!\.\w\.)(?={delimiter})"
        named = rf"\W*(?i:option|choice|letter)\s+\W?({self.letters}){_NO_LONGER_WORD}{_NOT_DENIED}"
        reasoned = rf"\W*({self.capitals})(?={_REASONS})"
        match = re.match(f"(?:{label}|{named}|{reasoned})", self.text) or self._letter_before_its_text()
        if match is None:
            return set()
        repeated = self._repeated_choices()
        return repeated if len(repeated) > 1 else self._with_alternatives(match)

    def leading_text(self) -> set[str]:
        start = re.split(r"[.,;:!?\n]|\s[-–—]\s", self.text.lower())[0]
        return {letter for letter, choice in self.choices.items() if choice and choice == _plain(start)}

    def letters_named(self) -> set[str]:
        """Letters next to words that mark them as the chosen option."""
        words = (
            r"choose|chose|select|pick|go(?:ing)? with|opt for|think|believe|guess|say|it is|it's|be|is|therefore|thus|"
            r"hence|so|probably|likely|perhaps|maybe|definitely|clearly|correct"
        )
        praise = r"(?:is|seems|looks)\s+(?:to be\s+)?(?:the\s+)?(?:correct|right|best|true|most)"
        patterns = (
            rf"(?i:\b(?:option|choice|letter))\s*(?i:is\s+|:\s*)?\(?({self.letters}){_NO_LONGER_WORD}"
            rf"{_NOT_DENIED}",
            rf"[(\[]({self.letters})[)\]]",
            rf"(?i:\b(?:{words}))\W+({self.capitals})(?=\W*$|[.,;!?](?:\s|$)|{_REASONS})",
            rf"\b({self.capitals})\s+(?i:{praise})",
        )
        matches = (match for pattern in patterns for match in re.finditer(pattern, self.text))
        return {m[1].upper() for m in matches if not _NEGATED.search(self.text[: m.start(1)].lower())}

    def texts_named(self) -> set[str]:
        found = self._texts_in(self.text)
        if _UNDECIDED.search(self.text.lower()):
            found = {letter for letter in found if _UNDECIDED.search(self.choices[letter])}
        return found

    def _texts_in(self, text: str) -> set[str]:
        """Choices whose text occurs, not inside the text of a longer choice and not negated."""
        text = " ".join(text.lower().split())
        spans = [
            (match.start(), match.end(), letter)
            for letter, choice in self.choices.items()
            if choice
            for match in re.finditer(rf"(?<![\w.]){re.escape(choice)}(?!\w|\.\d)", text)
        ]
        whole = [
            (start, letter)
            for start, end, letter in spans
            if not any(a <= start and end <= b and b - a > end - start for a, b, _ in spans)
        ]
        return {letter for start, letter in whole if not _NEGATED.search(text[:start])}

    def _is_article(self, match: re.Match[str]) -> bool:
        """Whether "a" or "A" is an article for the next word; after "option" it is not."""
        if match[1] not in "aA" or re.search(r"(?i)(?:option|choice|letter)\W*$", match.string[: match.start(1)]):
            return False
        rest = match.string[match.end(1) :]
        if match[1] == "A" and re.match(rf"{_REASONS}|\s+(?:and|or|but|not)\b", rest):
            return False
        own_text = self.choices.get("A", "")
        return bool(re.match(r"\s+\w", rest)) and not (own_text and _plain(rest).startswith(own_text))

    def _with_alternatives(self, match: re.Match[str]) -> set[str]:
        """The letter of a match (its one group that matched) and the letters listed with it, as in "B or C"."""
        group = match.lastindex or 0
        found, end = {match[group].upper()}, match.end(group)
        link = rf"\W*(?:\s(?i:or|and)\s+(?i:{_NAMED})|[,/&]\s*)\W?"
        listed = re.compile(rf"{link}({self.letters})(?=\W*(?:$|\s(?i:or|and)\s|[,/&.]))")
        while further := listed.match(match.string, end):
            found.add(further[1].upper())
            end = further.end(1)
        return found

    def _letter_before_its_text(self) -> re.Match[str] | None:
        """Match an answer such as "B Liver" if choice B is the liver."""
        match = re.match(rf"\W*({self.letters})\s+(?=\w)", self.text)
        if match is None:
            return None
        own_text = self.choices[match[1].upper()]
        return match if own_text and _plain(self.text[match.end() :]).startswith(own_text) else None

    def _repeated_choices(self) -> set[str]:
        """Choices that the answer repeats from the question, letter and text."""
        return {
            letter
            for letter, choice in self.choices.items()
            if choice and re.search(rf"(?i)\b{letter}\W+{re.escape(choice)}(?!\w)", " ".join(self.text.split()))
        }
