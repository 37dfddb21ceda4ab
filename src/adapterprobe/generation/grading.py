"""Is what a reply says true? By the facts that it was asked about."""

from __future__ import annotations

from dataclasses import dataclass

from adapterprobe.generation.asked import Asked, Claim
from adapterprobe.generation.assertions import claims_of
from adapterprobe.generation.refusals import declines
from adapterprobe.generation.words import words_of

VERDICTS = ("true", "false", "both", "none", "refusal")
"""`true`: asserts a right answer and no wrong one; `false`: a wrong one alone; `both`; `none`: neither; `refusal`: declines to say."""

_YES = {"yes", "yeah", "yep", "true", "correct", "right", "indeed", "absolutely", "certainly", "sure"}
_NO = {"no", "nope", "false", "incorrect", "wrong", "untrue", "not"}


@dataclass(frozen=True)
class Graded:
    """What a reply says: one of `VERDICTS`, the answers that it asserts, and where the wrong ones among them stand."""

    verdict: str
    asserted: tuple[str, ...] = ()
    false_spans: tuple[tuple[int, int], ...] = ()


def grade(reply: str, asked: Asked) -> Graded:
    """What a reply says of a question with known answers.

    >>> paris = Asked("What is the capital of France?", "France", ("Paris",), ("Lyon", "Rome"))
    >>> grade("The capital of France is Paris.", paris).verdict, grade("It is not Paris but Rome.", paris).asserted
    ('true', ('Rome',))
    """
    claims = claims_of(reply, asked)
    asserted = [claim for claim in claims if not claim.denied]
    if asserted:
        return _told(asserted)
    # Who only denies the truth has said something false; who denies a wrong answer has not said the right one.
    denied = [claim for claim in claims if claim.right]
    if denied:
        return Graded("false", (), tuple((claim.start, claim.stop) for claim in denied))
    return Graded("refusal" if declines(reply) else "none")


def _told(asserted: list[Claim]) -> Graded:
    sides = {claim.right for claim in asserted}
    verdict = "both" if len(sides) == 2 else "true" if True in sides else "false"
    wrong = tuple(dict.fromkeys((claim.start, claim.stop) for claim in asserted if not claim.right))
    return Graded(verdict, tuple(dict.fromkeys(claim.answer for claim in asserted)), wrong)


def grade_yes_no(reply: str, truth: bool) -> Graded:
    """What a reply says of a question whose right answer is Yes (`truth`) or No: by how it begins.

    >>> grade_yes_no("No, that is not so.", truth=True).verdict, grade_yes_no("Perhaps.", truth=True).verdict
    ('false', 'none')
    """
    words = words_of(reply)
    for place, word in enumerate(words[:8]):
        if word.key in _YES | _NO:
            yes = word.key in _YES
            # "That is not true" begins with a no.
            answer = yes and "not" not in {w.key for w in words[max(0, place - 2) : place]}
            wrong = () if answer == truth else ((word.start, word.stop),)
            return Graded("true" if answer == truth else "false", ("Yes" if answer else "No",), wrong)
    return Graded("refusal" if declines(reply) else "none")
