"""What `detector.json` of a bundle says: everything that scoring needs, and nothing that runs."""

from __future__ import annotations

import json
from pathlib import Path
from string import Formatter
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from adapterprobe.cache import MANIFEST, damaged, write_atomic
from adapterprobe.detectors.features import FeatureSpec
from adapterprobe.errors import CacheError
from adapterprobe.readout import ReadoutConfig
from adapterprobe.small_files import as_path, read_json

SCHEMA = 1
"""Raised when an older version could not read what a newer one writes."""
RECORD, PROBE, ADAPTER, GOLDEN, NOVELTY, CARD = (
    "detector.json",
    "probe",
    "adapter",
    "golden.json",
    "novelty.safetensors",
    "README.md",
)
FORMAT_FILE = "format.jinja"
LARGEST = {
    RECORD: 1 << 24,
    GOLDEN: 1 << 24,
    f"{PROBE}.json": 1 << 20,
    NOVELTY: 1 << 26,
    CARD: 1 << 20,
    FORMAT_FILE: 1 << 20,
}
"""Bytes beyond which a file of a bundle is not read; the probe's and the adapter's tensors are as large as the model makes them."""
REMEDY = "take the bundle anew from whoever made it"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BaseModelRecord(_Part):
    """Which model a detector reads."""

    name: str
    """As `load_model` takes it: a hub id; of a local folder or file its name alone; null: the default."""
    hub_id: str | None = None
    revision: str | None = None
    fingerprint: str
    """Of configuration, weights, number format and tokenizer."""
    vectors: str
    """Of the weights that are vectors, the same in every number format."""
    dtype: str
    blocks: int
    width: int
    vocabulary: int
    chat_template: str | None = None
    """Its hash, where prompts are written with it."""


class Prompting(_Part):
    """How inputs become prompts."""

    format: str
    """A format's name, or `format.jinja` in the bundle."""
    condition: str = "neutral"
    form: str
    pattern: str | None = None
    """Of answers: the wording, with {statement}, or {query} and {answer}."""
    exact: bool = False
    system: str | None = None
    demonstrations: tuple[tuple[str, str], ...] = ()
    """(question, answer) as they stand in front."""
    ask: str | None = None
    """Of statements and replies: the follow-up, whose answer is the model's own."""
    yes: bool = True
    """Whether Yes to it means label 1."""
    positive: str
    negative: str

    @field_validator("pattern")
    @classmethod
    def _places_names_alone(cls, pattern: str | None) -> str | None:
        for _, name, spec, conversion in Formatter().parse(pattern or ""):
            if name is not None and (not name.isidentifier() or spec or conversion):
                raise ValueError("a wording places {statement}, {query} or {answer} alone")
        return pattern


class Seen(_Part):
    """What the probe looks at (see `FeatureSpec`)."""

    layer: int
    several: tuple[int, ...] = ()
    kind: str = "layer"
    deep: bool = False
    tokens: int = 16
    """Last tokens that a probe over tokens sees."""

    @property
    def spec(self) -> FeatureSpec:
        return FeatureSpec((self.layer,), self.several, self.kind, self.deep)


class Calibration(_Part):
    """Rows that nothing was fitted on, by which thresholds, probabilities and conformal answers are fixed."""

    scores: tuple[float, ...]
    labels: tuple[int, ...]
    groups: tuple[str, ...]
    """Hashes: what a row is about is nobody's business here."""


class Threshold(_Part):
    """Where a score becomes an alarm, and how that was fixed."""

    value: float | None
    how: str
    rate: float | None = None
    """False alarms that were asked for."""
    upper: float | None = None
    """What their rate surely stays below, at 95 %."""
    benign: int | None = None
    """Benign conversations or rows that fixed it."""
    alarms: int | None = None
    """Of these, above the threshold."""
    per: Literal["row", "reply", "conversation"] = "row"


class DetectorRecord(_Part):
    """The whole of `detector.json`."""

    schema_: int = Field(alias="schema", default=SCHEMA)
    name: str
    made_with: dict[str, str]
    axis: str
    """What label 1 is: `truth` (the positive answer is true) or `deception` (the reply deceives)."""
    arm: str
    probe: str | None
    objective: str | None = None
    """What the adapter was trained for, where there is one."""
    model: BaseModelRecord
    read: ReadoutConfig
    prompting: Prompting
    seen: Seen | None = None
    calibration: Calibration
    threshold: Threshold
    coverage: float
    novelty_layer: int | None = None
    results: list[dict[str, Any]] = []
    """Results of the run that it was made in, with intervals, for its card."""
    controls_failed: list[str] = []
    trained_on: list[str] = []
    verified: bool = True
    """False: it was loaded without replaying its golden rows before it was saved."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    @property
    def sees_adapter(self) -> bool:
        return not (self.arm == "base" or self.arm.startswith("base+probe"))

    @property
    def sees_base(self) -> bool:
        """Whether the states with the adapter off are part of what it sees."""
        return not self.sees_adapter or self.arm.startswith(("both", "diff"))


def write_record(folder: Path, record: DetectorRecord) -> None:
    """Write `detector.json`."""
    content = record.model_dump(mode="json", by_alias=True)
    write_atomic(folder / RECORD, json.dumps(content, indent=1, ensure_ascii=False))


def read_record(folder: str | Path) -> DetectorRecord:
    """The record of a bundle whose files are all as they were written.

    Raises:
        CacheError: it is no bundle, of a newer schema, or a file is missing, changed, a link, or too large.
    """
    folder = as_path(folder, CacheError)
    if not (folder / RECORD).is_file():
        raise CacheError(
            f"{folder} is no detector ({RECORD} is missing); make one with `adapterprobe pack RUN --arm ARM --out DIR`"
        )
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise CacheError(f"{path} is a link, and a bundle has plain files alone; {REMEDY}")
    strange = [
        p for p in (folder / ADAPTER).rglob("*") if p.is_file() and p.suffix not in (".json", ".safetensors", ".md")
    ]
    if strange:
        raise CacheError(
            f"{strange[0]} is no part of a bundle, whose adapters are JSON and safetensors alone; {REMEDY}"
        )
    for name, limit in LARGEST.items():
        path = folder / name
        if path.is_file() and path.stat().st_size > limit:
            raise CacheError(f"{path} has {path.stat().st_size} bytes, at most {limit} are read; {REMEDY}")
    content = read_json(folder / RECORD, "the detector", error=CacheError, remedy=REMEDY)
    schema = content.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise CacheError(
            f"{folder} has schema {schema}, this version of adapterprobe reads up to {SCHEMA}; upgrade adapterprobe"
        )
    if not (folder / MANIFEST).is_file():
        raise CacheError(f"{folder} has no {MANIFEST}, so nobody can tell whether its files are whole; {REMEDY}")
    names = read_json(folder / MANIFEST, "the bundle's checksums", error=CacheError, remedy=REMEDY)
    if strange := [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise CacheError(f"{folder / MANIFEST} names {strange[0]!r}, which is not in the bundle; {REMEDY}")
    if (problem := damaged(folder)) is not None:
        raise CacheError(f"{problem}; {REMEDY}")
    try:
        return DetectorRecord.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise CacheError(f"{folder / RECORD} is damaged: {where}: {fault['msg']}; {REMEDY}") from error
