"""The page of stored conversations that a detector has read, token by token."""

from __future__ import annotations

from collections.abc import Sequence

from adapterprobe.detectors.detector import Detector, scores_of
from adapterprobe.detectors.inputs import rows_of
from adapterprobe.detectors.token_scores import token_scores
from adapterprobe.report.page import render_page


def watched_page(detector: Detector, conversations: Sequence[Sequence[dict]]) -> str:
    """HTML, whole in itself, without scripts.

    Raises:
        DataError: the detector has no score for single tokens, or a conversation has no reply.
    """
    rows = rows_of([list(talk) for talk in conversations], detector.record.read)
    prompts = [detector.prompter.prompt(number, row) for number, row in enumerate(rows)]
    (table,) = scores_of([detector], prompts)
    threshold = detector.threshold
    talks = [
        {
            "context": list(talk)[:-1],
            "tokens": tokens.to_dict("records"),
            "score": float(score),
            "alarm": threshold.value is not None and score > threshold.value,
        }
        for talk, tokens, score in zip(conversations, token_scores(detector, prompts), table["score"], strict=True)
    ]
    return render_page(
        "watched.html.j2",
        name=detector.record.name,
        arm=detector.record.arm,
        axis=detector.record.axis,
        model=detector.lm.name,
        threshold=threshold.value,
        upper=threshold.upper,
        conversations=talks,
        alarms=sum(talk["alarm"] for talk in talks),
    )
