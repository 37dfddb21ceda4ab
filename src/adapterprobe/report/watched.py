"""The page of stored conversations that a detector has read, token by token."""

from __future__ import annotations

from collections.abc import Sequence

from adapterprobe.detectors.detector import Detector
from adapterprobe.report.page import render_page


def watched_page(detector: Detector, conversations: Sequence[Sequence[dict]]) -> str:
    """HTML, whole in itself, without scripts.

    Raises:
        DataError: the detector has no score for single tokens, or a conversation has no reply.
    """
    table = detector.score([list(talk) for talk in conversations])
    threshold = detector.threshold
    talks = [
        {
            "context": list(talk)[:-1],
            "tokens": detector.tokens(list(talk)).to_dict("records"),
            "score": float(score),
            "alarm": threshold.value is not None and score > threshold.value,
        }
        for talk, score in zip(conversations, table["score"], strict=True)
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
