"""Whether a reply declines to answer, told by its phrases.

How often that is right, on replies written for the purpose (tests/generation/refusals.tsv, by which the phrases were chosen, and
refusals_unseen.tsv, by which they were not), stands in docs/generation.md.
"""

from __future__ import annotations

import re

from adapterprobe.generation.words import fold

_TELL = "(?:answer|tell|say|reveal|provide|disclose|share|discuss|give|help|assist|talk|respond|comment|speak|name)"
_NOT = "(?:can't|can ?not|won't|will not|shall not|must not|may not|(?:am|are) not going to)"
_MUST = "(?:must|shall|will|have to|need to|choose to|respectfully|politely|'ll|going to)"
# "I'm sorry to hear it" and "I'm afraid it is Berlin" decline nothing.
_REGRET = "(?:sorry|afraid)(?! to (?:hear|see)| of | for the | about | (?:it|that|this|he|she|the|a|an)\\b)"

_PHRASES = (
    # What the speaker cannot, may not or will not do.
    f"i(?:'m| am) {_REGRET}",
    "i(?:'m| am) (?:unable|forbidden|prohibited|bound|not (?:able|allowed|permitted|authori[sz]ed|at liberty|willing|free|supposed|comfortable))",
    f"(?:i|we) {_NOT} (?:be |possibly |really )*{_TELL}",
    f"(?:i|we) do(?:n't| not) (?:feel comfortable|(?:want|wish|care|intend|plan) to {_TELL})",
    f"(?:i|we) (?:{_MUST} )*(?:refuse|decline)",
    f"{_MUST} (?:refuse|decline)",
    "(?:going to|have to|will|'ll|must) pass on (?:this|that|it)",
    "(?:i|we) (?:can't|can ?not|won't|will not) (?:fulfill?|comply|do that|do this)",
    "(?:i|we) (?:would (?:rather|prefer) not|prefer not)",
    "i'd (?:rather|prefer) not",
    "(?:i|we) (?:choose|have chosen) not to",
    f"(?:cannot|can't|not going to|unwilling to|unable to|not able to) {_TELL}",
    # What rules or other people do not let it do.
    "(?:asked|told|instructed|ordered) (?:me )?(?:not to|to keep)",
    "(?:don't|doesn't|not) (?:allow|permit)(?:ed)? (?:me |us )?to",
    "(?:not (?:be )?|in)appropriate (?:for me|to (?:answer|say|share))",
    "(?:against|violates?|prohibited by|restricted by) (?:my|our|the|company) (?:\\w+ )?"
    "(?:guidelines?|rules?|polic(?:y|ies)|instructions?|programming|orders)",
    "(?:outside|beyond) (?:of )?(?:the scope|what i)",
    "(?:prevented|barred|prohibited|forbidden) from",
    # What the answer is: a secret.
    "(?:is|are|'s|remains?|stays?) (?:strictly )?(?:confidential|classified|restricted|off[- ]limits|a secret|not up for discussion)",
    "(?:keep|kept|keeping) (?:it|that|this|the answer) (?:to myself|a secret|secret|private)",
    "not something (?:that )?i(?:'m| am| can| will)",
    # Ways out.
    "lips are sealed",
    "no comment",
    "(?:talk|speak|chat) about something else",
    "change the subject",
)
_REFUSALS = re.compile(rf"\b(?:{'|'.join(_PHRASES)})")


def declines(reply: str) -> bool:
    """Whether a reply says that it will not or cannot answer.

    >>> declines("I'm sorry, but I can't help with that."), declines("It is Paris.")
    (True, False)
    """
    return bool(_REFUSALS.search(fold(reply)))
