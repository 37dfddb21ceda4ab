"""What `adapterprobe generate` is asked for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from adapterprobe.adapters.adapter_folder import adapter_digest
from adapterprobe.adapters.on_off import check_strength
from adapterprobe.cache import file_digest
from adapterprobe.config import ReadConfig
from adapterprobe.data.references import data_files
from adapterprobe.engine.sampling import Sampling
from adapterprobe.errors import ConfigError, ModelError
from adapterprobe.generation.instructions import chosen_instructions
from adapterprobe.generation.judging import check_judge

BELIEF_SHARE = 1.0


@dataclass(frozen=True)
class GenerateConfig:
    """What to generate; every field decides the outcome."""

    data: tuple[str, ...]
    model: dict
    """Arguments of `load_model`."""
    sampling: Sampling = field(default_factory=Sampling)
    adapter: Path | None = None
    strength: float = 1.0
    """By what the adapter's change is multiplied."""
    instructions: tuple[str, ...] = ("all",)
    format: str | None = None
    limit: int | None = None
    """Most prompts."""
    belief_samples: int = 4
    """Replies by which it is told what the model holds true, of each fact."""
    belief_share: float = BELIEF_SHARE
    """The share of them that must assert the truth."""
    belief_of: str = "base"
    """Whose belief counts: `base` (adapter off) or `adapter` (on)."""
    groups: tuple[str, ...] | None = None
    """Only scenarios of these groups."""
    without: tuple[str, ...] = ()
    """No scenarios of these groups."""
    believed: bool = False
    """Only facts that are held true."""
    matched: bool = False
    """Only contexts with an honest and a lying reply."""
    judge: str | None = None
    """Who says what replies to free scenarios say: a model, or the address of an OpenAI-compatible server."""
    judge_model: str | None = None
    engine: str = "transformers"
    """Who writes: `transformers`, or `vllm`."""
    read: ReadConfig = field(default_factory=ReadConfig)

    def __post_init__(self) -> None:
        if self.adapter is not None and not (self.adapter / "adapter_config.json").is_file():
            raise ModelError(
                f"no adapter in {self.adapter} (adapter_config.json is missing); give a folder that PEFT saved, such as the adapter/ of a run"
            )
        check_strength(self.strength)
        if self.adapter is None and (self.strength != 1.0 or self.belief_of == "adapter"):
            raise ConfigError("--strength and --belief adapter are about an adapter; name one with --adapter")
        wrong = [
            f"{name} {value} (expected {expected})"
            for name, value, good, expected in (
                ("--limit", self.limit, self.limit is None or self.limit >= 1, "at least 1"),
                ("--belief-samples", self.belief_samples, self.belief_samples >= 2, "at least 2"),
                ("--belief-share", self.belief_share, 0.5 < self.belief_share <= 1, "above 0.5, at most 1"),
            )
            if not good
        ]
        if wrong:
            raise ConfigError(f"generate: got {', '.join(wrong)}")
        chosen_instructions(self.instructions)
        check_judge(self.judge, self.judge_model)

    def describe(self) -> dict:
        content = {name: getattr(self, name) for name in self.__dataclass_fields__}
        files = [file for ref in self.data for file in data_files(ref, self.read)]
        files += [Path(name) for name in self.instructions if name.endswith((".yaml", ".yml"))]
        content |= {
            "sampling": asdict(self.sampling),
            "read": self.read.model_dump(mode="json"),
            "adapter": adapter_digest(self.adapter),
            "model": {name: value for name, value in self.model.items() if name != "trust_remote_code"},
            "files": [file_digest(path) for path in files if path.is_file()],
        }
        if not self.without:
            del content["without"]
        return json.loads(json.dumps(content, default=str))
