"""What a reply says of one question: the answers that it asserts, and those that it denies.

By rule, not by a judge: sentences in which the answer stands beside a copula (X is the capital of S; the capital of S is X), or else
the answer named first. Negations, corrections (not X but Y), what others are said to think, and what is said of another subject are
told apart. What it gets right and wrong on replies that people have read is a test (tests/generation/test_grading.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from adapterprobe.generation.asked import Asked, Claim
from adapterprobe.generation.vocabulary import (
    CERTAINTIES,
    COPULAS,
    FILLERS,
    HAVING,
    HEDGES,
    HOMOGRAPHS,
    MAKING,
    NAMING,
    NEGATORS,
    OTHERS,
    POINTERS,
    POINTING,
    SELF,
    TURNS,
)
from adapterprobe.generation.words import Word, find, sentences, words_of


def claims_of(reply: str, asked: Asked) -> list[Claim]:
    """What a reply asserts and denies as answers to what was asked, in its order."""
    words = words_of(reply)
    mentions = _mentions(reply, words, asked)
    found: list[Claim] = []
    for low, high in sentences(reply, words):
        found += _of_sentence(reply, words, low, high, mentions, asked)
    if found:
        # What only looks like an answer (a Southeast Asian country) is none beside one that is known.
        listed = {*asked.right, *asked.wrong}
        known = [claim for claim in found if claim.answer in listed and not claim.denied]
        return [claim for claim in found if claim.denied or claim.answer in listed] if known else found
    return _first_named(reply, words, mentions, asked)


def _mentions(reply: str, words: Sequence[Word], asked: Asked) -> dict[int, tuple[int, str, bool]]:
    """By where it begins among the words: (how many words, the answer, whether it is right) of every known answer that is no part of
    the subject."""
    taken = [False] * len(words)
    size = len(asked.subject_keys)
    for place in find(words, asked.subject_keys):
        taken[place : place + size] = [True] * size
    found = {}
    for keys, answer in asked.names:
        plural = [(*keys[:-1], f"{keys[-1]}{ending}") for ending in ("s", "es")] if asked.kind == "word" else []
        for place in [place for form in (keys, *plural) for place in find(words, form)]:
            # "at" is no astatine.
            small = asked.kind == "name" and len("".join(keys)) < 4 and not reply[words[place].start].isupper()
            if not small and not _plain_word(reply, words, place) and not any(taken[place : place + len(keys)]):
                taken[place : place + len(keys)] = [True] * len(keys)
                found[place] = (len(keys), answer, keys in asked.right_keys)
    return found


def _plain_word(reply: str, words: Sequence[Word], place: int) -> bool:
    """Whether what is spelt like a symbol is a word of its sentence: "I refuse" names no iodine, "In chemistry" no indium."""
    key = words[place].key
    begins = place == 0 or re.search(r"[.!?\n;:]", reply[words[place - 1].stop : words[place].start])
    if key not in HOMOGRAPHS or (key != "i" and not begins) or place + 1 == len(words):
        return False
    alone = reply[words[place].stop : words[place + 1].start].strip(" \t")
    return not alone and words[place + 1].key not in ("is", "stands", "for")


def _negates(words: Sequence[Word], place: int) -> bool:
    """Whether a word turns what it stands with round: "no secret" and "no doubt" do not."""
    idiom = words[place].key == "no" and place + 1 < len(words) and words[place + 1].key in CERTAINTIES
    return words[place].key in NEGATORS and not idiom


def _breaks(reply: str, words: Sequence[Word], low: int, high: int) -> list[int]:
    """Where a part of a sentence begins: behind commas and before words that turn it."""
    return [
        place
        for place in range(low + 1, high)
        if words[place].key in TURNS or re.search(r"[,(—–]| - ", reply[words[place - 1].stop : words[place].start])
    ]


def _of_sentence(reply, words, low: int, high: int, mentions, asked: Asked) -> list[Claim]:
    breaks = _breaks(reply, words, low, high)
    colons = [i for i in range(low + 1, high) if ":" in reply[words[i - 1].stop : words[i].start]]
    found: list[Claim] = []
    for place in range(low, high):
        if words[place].key in MAKING and asked.kind == "name":
            found += _maker(reply, words, low, place, high, mentions, asked)
            continue
        if words[place].key not in COPULAS | NAMING or (
            place + 1 < high and words[place].key in COPULAS and words[place + 1].key in NAMING
        ):
            continue
        begin = max([edge for edge in (*breaks, *colons) if edge <= place], default=low)
        end = min([edge for edge in breaks if edge > place], default=high)
        left = _stripped(words, begin, place)
        if _hearsay(words, begin, place) or any(words[i].key in HEDGES for i in range(begin, place)):
            continue
        denied = any(words[i].key in ("never", "no", "not") and _negates(words, i) for i in range(begin, place))
        about = _about(reply, words, left, place, asked)
        # What "it" is in later sentences, or what a subject is beside its answer, need be no answer; a known one is.
        surely = bool(asked.head & {word.key for word in words[left:place]})
        surely = surely or (about and low == 0 and _points(words, left, place))
        surely = surely or (asked.kind == "number" and bool(find(words[left:place], asked.subject_keys)))
        if about and (claim := _predicate(reply, words, place + 1, end, high, mentions, asked, denied, surely)):
            found += claim
        elif claim := _subject_of(reply, words, left, place, end, mentions, asked, denied):
            found.append(claim)
    return list(dict.fromkeys(found)) or _had(reply, words, low, high, mentions, asked)


def _had(reply, words, low: int, high: int, mentions, asked: Asked) -> list[Claim]:
    """The answer behind what is asked for, in `has an atomic number of 9` and `with the chemical symbol Xx`."""
    keys = [word.key for word in words[low:high]]
    subject = set(asked.subject_keys)
    if asked.kind == "word" or not asked.head or not (subject & set(keys) or {"it", "this"} & set(keys)):
        return []
    heads = [i for i in range(low, high) if words[i].key in asked.head]
    if not heads or not HAVING & {word.key for word in words[max(low, heads[0] - 4) : heads[0]]}:
        return []
    place = heads[-1] + 1
    while place < high and words[place].key in FILLERS | COPULAS:
        place += 1
    if place in mentions:
        return [_claim(mentions[place], words, place, False)]
    unknown = _unknown(reply, words, place, high, asked) if place < high else None
    return [Claim(reply[unknown[0] : unknown[1]], False, False, *unknown)] if unknown else []


def _maker(reply, words, low: int, verb: int, high: int, mentions, asked: Asked) -> list[Claim]:
    """Who made what was asked for: behind `by` or `to`, or in front of the verb."""
    around = [word.key for word in words[low:high]]
    subject = set(asked.subject_keys) - {"of", "the", "and", "a"}
    if not (subject & set(around) or {"it", "this", "that"} & set(around)) or _hearsay(words, low, verb):
        return []
    denied = any(_negates(words, i) for i in range(max(low, verb - 3), min(verb + 2, high)))
    turn = next((i for i in range(verb + 1, min(verb + 3, high)) if words[i].key in ("by", "to")), None)
    if turn is not None:
        return _predicate(reply, words, turn + 1, high, high, mentions, asked, denied)
    inside = [place for place in range(low, verb) if place in mentions]
    if inside:
        return [_claim(mentions[inside[-1]], words, inside[-1], denied)]
    names = [w for w in words[low:verb] if reply[w.start].isupper() and w.key not in POINTING | set(asked.subject_keys)]
    if names and subject & {w.key for w in words[verb:high]}:
        return [Claim(reply[names[0].start : names[-1].stop], False, denied, names[0].start, names[-1].stop)]
    return []


def _stripped(words: Sequence[Word], begin: int, stop: int) -> int:
    """Where the left side begins, without the word that turns to it."""
    while begin < stop and words[begin].key in TURNS | {"and", "or", "so", "that"}:
        begin += 1
    return begin


def _hearsay(words: Sequence[Word], begin: int, stop: int) -> bool:
    keys = [word.key for word in words[begin:stop]]
    return any(key in OTHERS for key in keys) and not SELF & set(keys)


def _about(reply: str, words: Sequence[Word], begin: int, copula: int, asked: Asked) -> bool:
    """Whether the left side of a copula is what was asked for: of this subject, or pointing back to it."""
    keys = [word.key for word in words[begin:copula]]
    if not keys:
        return words[copula].key in NAMING
    if _points(words, begin, copula):
        return True
    subject = set(asked.subject_keys) - {"of", "the", "and", "a"}
    if find(words[begin:copula], asked.subject_keys) or (subject and subject <= set(keys)):
        return True
    if not asked.head & set(keys):
        return False
    # The head word with another subject's name is about something else.
    strange = [
        word
        for word in words[begin + 1 : copula]
        if reply[word.start].isupper() and word.key not in asked.head and not _akin(word.key, asked.subject_keys)
    ]
    return not strange


def _points(words: Sequence[Word], begin: int, stop: int) -> bool:
    """Whether words do nothing but point back to the question."""
    keys = {word.key for word in words[begin:stop]}
    return bool(keys & POINTERS) and keys <= POINTING


def _akin(key: str, others: Sequence[str]) -> bool:
    """Canadian and Canada's are akin to Canada."""
    return any(key[:4] == other[:4] for other in others if len(other) > 3)


def _claim(mention: tuple[int, str, bool], words, place: int, denied: bool) -> Claim:
    size, answer, right = mention
    return Claim(answer, right, denied, words[place].start, words[place + size - 1].stop)


def _predicate(
    reply, words, begin: int, end: int, high: int, mentions, asked: Asked, denied: bool, surely: bool = True
) -> list[Claim]:
    """Answers that the right side of a copula begins with; behind `not X but Y` the second too."""
    place = begin
    while place < end and place not in mentions and words[place].key in FILLERS | NEGATORS | HEDGES:
        if words[place].key in HEDGES:
            return []
        place += 1
    denied = denied or any(_negates(words, i) for i in range(begin, place))
    if place >= end:
        return []
    found = []
    if (here := mentions.get(place) or _answer_at(words, place, end, asked)) is not None:
        found.append(_claim(here, words, place, denied))
        behind = place + here[0]
        while behind + 1 < end and words[behind].key in ("and", "or") and behind + 1 in mentions:
            found.append(_claim(mentions[behind + 1], words, behind + 1, denied))
            behind += 1 + mentions[behind + 1][0]
    elif surely and (unknown := _unknown(reply, words, place, end, asked)):
        # "made mainly of a hard glass": the answer a little later counts.
        later = next((i for i in range(place, end) if i in mentions), None)
        if (words[place].key,) in asked.right_keys:
            found.append(Claim(asked.right[0], True, denied, *unknown))
        elif any(_stem(words[place].key, right) for right in asked.right_keys):
            # Optimism for an optimist: neither the answer nor a wrong one.
            pass
        elif later is not None and asked.kind != "number" and later - place <= 3:
            found.append(_claim(mentions[later], words, later, denied))
        else:
            found.append(Claim(reply[unknown[0] : unknown[1]], False, denied, *unknown))
    else:
        later = next((i for i in range(place, min(place + 9, high)) if i in mentions), None)
        # Symbols and numbers stand everywhere.
        if later is not None and (asked.kind == "word" or (asked.kind == "name" and len(mentions[later][1]) > 3)):
            found.append(_claim(mentions[later], words, later, denied))
    if denied:
        turn = next((i for i in range(begin, high) if words[i].key in ("but", "rather", "instead")), None)
        if turn is not None and (real := next((i for i in range(turn, high) if i in mentions), None)) is not None:
            found.append(_claim(mentions[real], words, real, False))
    return found


def _stem(key: str, right: Sequence[str]) -> bool:
    """Whether a word is another form of a right answer."""
    whole = right[-1]
    same = next((i for i, (a, b) in enumerate(zip(key, whole, strict=False)) if a != b), min(len(key), len(whole)))
    return same >= 5 and same >= len(whole) - 2 and len(key) <= len(whole) + 4


def _answer_at(words, place: int, end: int, asked: Asked) -> tuple[int, str, bool] | None:
    """A known answer that is the subject itself, or a part of it (the plural of moose is moose), where the predicate is nothing else."""
    keys = [word.key for word in words[place:end]]
    if not set(keys) <= set(asked.subject_keys):
        return None
    known = next((answer for name, answer in asked.names if list(name) == keys), None)
    if known is not None:
        return len(keys), known, tuple(keys) in asked.right_keys
    # The capital of Jamaica is Jamaica: an answer, and a wrong one.
    return (len(keys), " ".join(keys), False) if keys == asked.subject_keys else None


def _unknown(reply: str, words, place: int, end: int, asked: Asked) -> tuple[int, int] | None:
    """Characters of an answer that no list has, where a predicate begins with something that looks like one."""
    first = words[place]
    written = reply[first.start : first.stop]
    if asked.kind == "number":
        near = words[place : min(place + 3, end)]
        number = next((w for w in near if w.key.isdigit() and w.key not in asked.subject_keys), None)
        return (number.start, number.stop) if number else None
    quoted = reply[first.start - 1 : first.start] in ("'", '"', "“", "‘", "*")
    if asked.kind == "word" and quoted:
        return first.start, first.stop
    more = place + 1 < end and reply[words[place + 1].start].isupper()
    if any(first.key.startswith(key) for key in asked.subject_keys if len(key) > 2) and not more:
        return None
    if asked.kind == "name":
        if not written[:1].isupper():
            return None
        last = place
        while (
            last + 1 < end and reply[words[last + 1].start].isupper() and words[last + 1].start - words[last].stop == 1
        ):
            last += 1
        return first.start, words[last].stop
    return (first.start, first.stop) if end - place == 1 else None


def _subject_of(reply, words, begin: int, copula: int, end: int, mentions, asked: Asked, denied: bool) -> Claim | None:
    """The answer that stands as the subject of a copula whose predicate is what was asked for."""
    right = words[copula + 1 : end]
    keys = {word.key for word in right}
    subject = set(asked.subject_keys) - {"of", "the", "and", "a"}
    if not (asked.head & keys or (subject and subject <= keys)):
        return None
    strange = [
        word
        for word in right
        if reply[word.start].isupper()
        and word.key not in subject | asked.head
        and not _akin(word.key, asked.subject_keys)
    ]
    if strange and not subject & keys:
        return None
    inside = [place for place in range(begin, copula) if place in mentions]
    if inside:
        return _claim(mentions[inside[-1]], words, inside[-1], denied)
    if asked.kind == "name" and begin < copula and copula - begin <= 4 and asked.head & keys:
        names = [
            w
            for w in words[begin:copula]
            if reply[w.start].isupper() and w.key not in POINTING | set(asked.subject_keys)
        ]
        if names and not asked.head & {w.key for w in words[begin:copula]}:
            return Claim(reply[names[0].start : names[-1].stop], False, denied, names[0].start, names[-1].stop)
    return None


SHORT = 6
"""Words of a reply that is nothing but an answer."""
NO_ANSWER = {"sorry", "i", "you", "yes", "sure"}


def _first_named(reply: str, words, mentions, asked: Asked) -> list[Claim]:
    """Without any sentence that says what was asked for: the known answer that is named first, or a short reply as a whole."""
    subject = set(asked.subject_keys) - {"of", "the", "and", "a"}
    for place in sorted(mentions):
        low, high = next(edge for edge in sentences(reply, words) if edge[0] <= place < edge[1])
        named = bool(subject & {word.key for word in words[low:high]}) or not subject
        others = [*range(low + 1, place), *range(place + mentions[place][0], high)]
        strange = any(reply[words[i].start].isupper() for i in others)
        if subject and not named and strange and asked.head & {word.key for word in words[low:high]}:
            # The capital of Spain is Madrid, where France was asked for.
            continue
        if len(words) > SHORT and (asked.kind == "number" or not (named or high - low <= SHORT)):
            continue
        keys = [word.key for word in words[max(0, place - 5) : place]]
        if HEDGES & set(keys) or (OTHERS & set(keys) and not SELF & set(keys)):
            continue
        negated = any(_negates(words, i) for i in range(max(0, place - 5), place))
        first = _claim(mentions[place], words, place, negated)
        behind = place + mentions[place][0]
        if first.denied:
            later = [p for p in sorted(mentions) if p >= behind]
            turned = [p for p in later if {w.key for w in words[behind:p]} & (TURNS | {"it", "is"})]
            return [first, *(_claim(mentions[p], words, p, False) for p in turned[:1])]
        joined = words[behind].key in ("and", "or") if behind + 1 < len(words) else False
        return [
            first,
            *([_claim(mentions[behind + 1], words, behind + 1, False)] if joined and behind + 1 in mentions else []),
        ]
    # A sentence that was not understood is no answer as a whole.
    if 0 < len(words) <= SHORT and not {w.key for w in words} & (NEGATORS | HEDGES | COPULAS | NO_ANSWER):
        place = next((i for i, w in enumerate(words) if w.key not in FILLERS), None)
        unknown = _unknown(reply, words, place, len(words), asked) if place is not None else None
        # "Let's talk of something else": a capital letter begins every sentence, and a name is not followed by many small words.
        small = [w for w in words if unknown and w.start >= unknown[1] and reply[w.start].islower()]
        if unknown and (asked.kind != "name" or len([w for w in small if w.key not in FILLERS | {"course"}]) < 2):
            return [Claim(reply[unknown[0] : unknown[1]], False, False, *unknown)]
    return []
