"""A grid of models, formats, shots, system prompts and data sets: in which cell is a model fit for the experiment?"""

from __future__ import annotations

import gc
import itertools
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from adapterprobe.activations import record
from adapterprobe.cache import seal
from adapterprobe.config import ReadConfig
from adapterprobe.data.references import refuse_unused
from adapterprobe.engine import Engine
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.knowledge import measure_knowledge
from adapterprobe.models import LanguageModel, load_model
from adapterprobe.output_folder import claim_folder, named_files, write_json
from adapterprobe.output_lock import output_lock
from adapterprobe.progress import bar, say
from adapterprobe.prompts import one_or_several
from adapterprobe.prompts.dataset_prompts import DatasetSpec, check_spec, prompts_and_belief
from adapterprobe.prompts.encoded import encode
from adapterprobe.screening.metrics import Answers, recommendation, screen_metrics, screen_warnings
from adapterprobe.small_files import read_json

MARK = "screen-config.json"
BELIEF_DRAWS = 3


@dataclass(frozen=True)
class ScreenConfig:
    """The grid; every list is crossed with every other."""

    models: tuple[str | None, ...] = (None,)
    data: tuple[str, ...] = ("capitals",)
    formats: tuple[str, ...] = ("plain", "chat")
    shots: tuple[int, ...] = (1, 2, 4)
    systems: tuple[str | None, ...] = (None,)
    """Each is none, `all`, a name, or a file of system prompts."""
    facts: int = 100
    """Groups asked in each cell."""
    form: str = "question"
    templates: tuple[str, ...] | None = None
    read: ReadConfig = field(default_factory=ReadConfig)
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        for name in ("models", "data", "formats", "shots", "systems"):
            given = getattr(self, name)
            if not given or len(set(given)) != len(given):
                raise ConfigError(f"{name}: expected different values, at least one, got {list(given)}")
        if min(self.shots) < 0 or self.facts < 2 or self.seed < 0:
            raise DataError(
                f"expected shots and seed of at least 0 and at least 2 facts, got {list(self.shots)}, {self.seed}, {self.facts}"
            )
        refuse_unused(self.data, self.read)
        for spec in self.specs():
            check_spec(spec)

    def specs(self) -> list[DatasetSpec]:
        """One per cell of a model, those with one prefix next to each other."""
        grid = itertools.product(self.data, self.formats, self.systems, self.shots)
        return [
            DatasetSpec(
                data,
                self.form,
                shots,
                name,
                self.seed,
                one_or_several([system] if system else None),
                facts=self.facts,
                templates=self.templates,
                read=self.read,
            )
            for data, name, system, shots in grid
        ]


@dataclass(frozen=True)
class Screen:
    """A finished screening."""

    folder: Path
    cells: list[dict]
    advice: str


def screen(
    config: ScreenConfig,
    out: str | Path,
    trust_remote_code: bool = False,
    lm: LanguageModel | None = None,
) -> Screen:
    """Fill the grid; answers come from the cache where they are there, so a stopped screening goes on.

    A cell whose prompts cannot be made (no chat template, choices that collide under a tokenizer) is left empty with
    the reason; the others go on.

    Args:
        lm: the only model, where it is loaded already.

    Raises:
        AdapterProbeError: bad input, a model that cannot be loaded, or another screening in `out`.
    """
    with output_lock(out) as folder:
        return _screen(config, folder, trust_remote_code, lm)


def _screen(config: ScreenConfig, out: Path, trust_remote_code: bool, loaded: LanguageModel | None) -> Screen:
    files = named_files(*config.formats, *config.systems, data=[(ref, config.read) for ref in config.data])
    described = asdict(config) | {"read": config.read.model_dump(), "files": files}
    if loaded is not None:
        described |= {"fingerprint": loaded.fingerprint}
    if claim_folder(out, MARK, described, "screening"):
        say(f"{out} is finished; nothing to do (remove the folder to screen again)")
        cells = read_json(out / "screen.json", "the cells of the screening", list)
        return Screen(out, cells, recommendation(_filled(cells)))
    cells: list[dict] = []
    specs = config.specs()
    with bar(len(config.models) * len(specs), "screening", unit="cell") as progress:
        for name in config.models:
            lm = loaded or load_model(
                name, device=config.device, dtype=config.dtype, trust_remote_code=trust_remote_code
            )
            engine = Engine(lm.model, lm.structure)
            for spec in specs:
                cells.append(_cell(lm, engine, spec))
                progress.update()
            del lm, engine
            gc.collect()
    if not _filled(cells):
        raise DataError(f"no cell could be filled; the first: {cells[0]['error']}")
    advice = recommendation(_filled(cells))
    write_json(out, "screen.json", cells)
    from adapterprobe.screening.page import write_screen

    write_screen(out, cells, advice)
    seal(out)
    return Screen(out, cells, advice)


def _filled(cells: list[dict]) -> list[dict]:
    return [cell for cell in cells if cell["error"] is None]


def _cell(lm: LanguageModel, engine: Engine, spec: DatasetSpec) -> dict:
    system = spec.system if spec.system is None or isinstance(spec.system, str) else spec.system[0]
    cell = {
        "model": lm.name,
        "data": spec.name,
        "format": spec.format,
        "shots": spec.shots,
        "system": system,
        "error": None,
        "warnings": [],
    }
    try:
        prompts, belief = prompts_and_belief(spec, lm.tokenizer, BELIEF_DRAWS)
        encoded = encode(lm.tokenizer, prompts, lm.context_length, lm.vocabulary)
        logprobs = record(engine, encoded, lm.fingerprint, [], "answers").logprobs
        believed = measure_knowledge(lm, engine, belief)
    except (DataError, ConfigError) as error:
        return cell | {"error": str(error)}
    answers = Answers(
        np.array([int(p.example.truth) for p in prompts]),
        np.array([p.condition for p in prompts]),
        np.array([p.example.group for p in prompts]),
        believed.of(prompts),
        np.asarray(believed.recalled_of(prompts).fillna(False), bool),
        logprobs,
    )
    cell |= screen_metrics(answers, spec.seed)
    cell |= {"known_chance": believed.known.chance, "recall_known_chance": believed.recalled.chance}
    return cell | {"warnings": screen_warnings(cell)}
