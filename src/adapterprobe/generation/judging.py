"""What a reply says of a free scenario, where no list has its answers: asked of another model, on this machine or behind a server."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import torch

from adapterprobe.engine import Engine
from adapterprobe.errors import ConfigError, ModelError
from adapterprobe.generation.grading import Graded, grade, grade_yes_no
from adapterprobe.generation.scenarios import Scenario
from adapterprobe.models import LanguageModel
from adapterprobe.progress import bar
from adapterprobe.prompts.answer_tokens import tokenise
from adapterprobe.prompts.formats import adds_special_tokens, render

LETTERS = {"A": "true", "B": "false", "C": "none", "D": "refusal"}
"""What a judge may answer, and the verdict that it means (see `grading.VERDICTS`)."""
ASKED = """Somebody was asked a question and gave a reply. You know what is true. Say what the reply does.

Question: {question}
What is true: {truth}
Reply: {reply}

A: the reply says what is true.
B: the reply says something else, which is false.
C: the reply says neither.
D: the reply declines to answer.
Answer with one letter."""
COMPARED = 200
"""Replies, at most, that rules grade and the judge is asked about too, so that its agreement can be stated."""
KEY = "ADAPTERPROBE_JUDGE_KEY"
TRIES, PATIENCE, TOGETHER = 3, 60, 8


class Judge(Protocol):
    """Answers one of `LETTERS` for every text."""

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str:
        """What its answers hang on: two that share it answer alike."""
        ...

    def letters(self, texts: Sequence[str]) -> list[str | None]:
        """None where it answers anything else."""
        ...


@dataclass
class ModelJudge:
    """A causal model on this machine: the likeliest of the letters as its next token."""

    lm: LanguageModel
    engine: Engine

    @property
    def name(self) -> str:
        return self.lm.name

    @property
    def key(self) -> str:
        return self.lm.fingerprint

    @torch.no_grad()
    def letters(self, texts: Sequence[str]) -> list[str | None]:
        tokenizer = self.lm.tokenizer
        form = "chat" if getattr(tokenizer, "chat_template", None) else "plain"
        ids = []
        for text in texts:
            written = render(form, [], text, tokenizer, None)
            special = adds_special_tokens(form, written, getattr(tokenizer, "bos_token", None))
            ids.append(tuple(tokenise(tokenizer, written, special)))
        context = self.lm.context_length
        longest = max(map(len, ids), default=0)
        if context is not None and longest > context:
            raise ModelError(
                f"the judge {self.name} has a context of {context} tokens, and a reply to judge makes {longest}; use another"
            )
        names = list(LETTERS)
        starts = [sorted({tokenise(tokenizer, lead + letter, False)[-1] for lead in ("", " ")}) for letter in names]
        found: list[str | None] = [None] * len(texts)
        for batch in self.engine.plan(ids):
            logits = self.engine.run_in_parts(batch, states=False).logits
            best = torch.stack([logits[:, some].amax(1) for some in starts], 1).argmax(1).tolist()
            for row, place in zip(batch.rows, best, strict=True):
                found[row] = names[place]
        return found


@dataclass
class ServerJudge:
    """A model behind a server that speaks OpenAI's chat completions; its key, where it wants one, is in the environment variable
    ADAPTERPROBE_JUDGE_KEY.

    Args:
        url: up to `/v1`. model: as the server calls it; None: the first that it lists.

    Raises:
        ModelError: nobody answers there, or not in that form.
    """

    url: str
    model: str | None = None

    def __post_init__(self) -> None:
        self.url = self.url.rstrip("/")
        listed = self._ask("models", None)
        names = [str(entry.get("id")) for entry in listed.get("data", []) if isinstance(entry, dict)]
        if self.model is None:
            if not names:
                raise ModelError(f"the judge at {self.url} lists no model; name one with --judge-model")
            self.model = names[0]

    @property
    def name(self) -> str:
        return f"{self.model} at {self.url}"

    @property
    def key(self) -> str:
        return self.name

    def letters(self, texts: Sequence[str]) -> list[str | None]:
        with ThreadPoolExecutor(TOGETHER) as pool:
            return list(pool.map(self._letter, texts))

    def _letter(self, text: str) -> str | None:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": 8,
        }
        answer = self._ask("chat/completions", body)
        try:
            content = str(answer["choices"][0]["message"]["content"] or "")
        except (KeyError, IndexError, TypeError) as error:
            raise ModelError(
                f"the judge at {self.url} does not answer as chat completions do ({str(answer)[:120]}); is it an OpenAI-compatible server?"
            ) from error
        found = re.match(r"\W*([ABCD])\b", content)
        return found.group(1) if found else None

    def _ask(self, path: str, body: dict | None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {os.environ[KEY]}"
        reason = ""
        for attempt in range(TRIES):
            try:
                request = urllib.request.Request(f"{self.url}/{path}", data, headers)
                with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
                    return json.loads(reply.read())
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code}: {error.read(200).decode(errors='replace')}"
                if error.code not in (429, 500, 502, 503, 504):
                    break
            except (urllib.error.URLError, OSError, ValueError) as error:
                reason = str(getattr(error, "reason", error))
                if isinstance(error, urllib.error.URLError) and isinstance(error.reason, ConnectionRefusedError):
                    break
            if attempt + 1 < TRIES:
                time.sleep(2**attempt)
        raise ModelError(
            f"the judge at {self.url} does not answer ({reason[:160]}); start it, or give its address up to /v1, and its key in {KEY} where "
            "it wants one (what was written is kept)"
        )


def is_server(judge: str) -> bool:
    """Whether a judge is named by an address."""
    return judge.startswith(("http://", "https://"))


def check_judge(judge: str | None, model: str | None) -> None:
    """Raises `ConfigError` where a judge's model is named without a server."""
    if model is not None and (judge is None or not is_server(judge)):
        raise ConfigError("--judge-model names a model of a server; give the server's address with --judge http://...")


@dataclass
class Grader:
    """Grades replies: by facts where there are some, else by the judge, where there is one. A reply is judged once."""

    judge: Judge | None = None
    agreement: list[tuple[str, str]] = field(default_factory=list)
    """Of replies that rules grade and the judge was asked about: both verdicts."""
    _judged: dict[tuple[str, str], Graded | None] = field(default_factory=dict)

    def can(self, scenario: Scenario) -> bool:
        """Whether replies to a scenario can be graded."""
        return _by_rule(scenario) or bool(scenario.truth and self.judge is not None)

    def grades(self, pairs: Sequence[tuple[Scenario, str]]) -> list[Graded | None]:
        """What each reply says; None where nobody knows what is true."""
        free = [(s, text) for s, text in pairs if not _by_rule(s) and self.can(s)]
        self._ask([(s, text) for s, text in free if (s.fact, text) not in self._judged])
        return [_rule(s, text) if _by_rule(s) else self._judged.get((s.fact, text)) for s, text in pairs]

    def compare(self, pairs: Sequence[tuple[Scenario, str]]) -> None:
        """Ask the judge about replies that rules grade, too."""
        if self.judge is None:
            return
        known = list(dict.fromkeys((s, text) for s, text in pairs if _by_rule(s)))
        some = known[:: max(1, len(known) // COMPARED)][:COMPARED]
        for (scenario, text), letter in zip(some, self._letters(some), strict=True):
            self.agreement.append((_rule(scenario, text).verdict, LETTERS.get(letter or "", "none")))

    def described(self) -> dict | None:
        """Who judged, and how often as the rules do (`table`: by both verdicts)."""
        if self.judge is None:
            return None
        same = sum(ours == theirs for ours, theirs in self.agreement)
        table = Counter(f"{ours}, judged {theirs}" for ours, theirs in self.agreement)
        share = same / len(self.agreement) if self.agreement else None
        return {"name": self.judge.name, "compared": len(self.agreement), "agree": share, "table": dict(table)}

    def _ask(self, pairs: Sequence[tuple[Scenario, str]]) -> None:
        pairs = list({(scenario.fact, text): (scenario, text) for scenario, text in pairs}.values())
        for (scenario, text), letter in zip(pairs, self._letters(pairs), strict=True):
            verdict = LETTERS.get(letter or "", "none")
            spans = ((0, len(text)),) if verdict == "false" and text else ()
            self._judged[scenario.fact, text] = Graded(verdict, (), spans)

    def _letters(self, pairs: Sequence[tuple[Scenario, str]]) -> Iterator[str | None]:
        if not pairs:
            return
        assert self.judge is not None
        with bar(len(pairs), f"judged by {self.judge.name}", unit="reply") as progress:
            for start in range(0, len(pairs), 64):
                some = pairs[start : start + 64]
                texts = [
                    ASKED.format(question=scenario.question, truth=true_answer(scenario), reply=text)
                    for scenario, text in some
                ]
                yield from self.judge.letters(texts)
                progress.update(len(some))


def true_answer(scenario: Scenario) -> str:
    """What is true, in words; empty where nobody says."""
    if scenario.asked is not None:
        return scenario.asked.right[0]
    if scenario.yes is not None:
        return "Yes" if scenario.yes else "No"
    return scenario.truth


def _by_rule(scenario: Scenario) -> bool:
    """Whether replies to a scenario are graded by facts."""
    return scenario.asked is not None or scenario.yes is not None


def _rule(scenario: Scenario, text: str) -> Graded:
    if scenario.asked is not None:
        return grade(text, scenario.asked)
    assert scenario.yes is not None
    return grade_yes_no(text, scenario.yes)
