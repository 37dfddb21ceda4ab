"""What the golden rows of a detector catch: its model changed in ways that happen, and what loading the detector on it says.

python examples/golden_rows.py detectors/mine

Writes a Markdown table. Wants bitsandbytes (`pip install 'adapterprobe[quantize]'`) for the rows with 8 and 4 bits.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers.processors import Sequence, TemplateProcessing

import adapterprobe as ap
from adapterprobe.cache import seal
from adapterprobe.detectors.bundle_record import read_record
from adapterprobe.errors import AdapterProbeError
from adapterprobe.models import LanguageModel, load_model

Case = tuple[str, Path, Callable[[], LanguageModel]]


def changed_copy(folder: Path, out: Path, file: str, change: Callable[[dict], None]) -> Path:
    """A copy of a bundle with one of its files changed, and sealed again: what a faulty converter would write."""
    shutil.copytree(folder, out)
    content = json.loads((out / file).read_text())
    change(content)
    (out / file).write_text(json.dumps(content))
    seal(out)
    return out


def next_layer(golden: dict) -> None:
    """The rows' states were counted from one, and not from zero."""
    golden["layer"] += 1


def other_pooling(record: dict) -> None:
    record["read"]["pool"] = "last" if record["read"]["pool"] != "last" else "mean"


def with_weights(lm: LanguageModel, change: Callable[[torch.Tensor], torch.Tensor]) -> LanguageModel:
    """The model with its matrices changed; its norms stay."""
    with torch.no_grad():
        for weight in lm.model.parameters():
            if weight.ndim > 1:
                weight.copy_(change(weight))
    return lm


def with_tokenizer(lm: LanguageModel, change: Callable) -> LanguageModel:
    tokenizer = deepcopy(lm.tokenizer)
    change(tokenizer)
    return replace(lm, tokenizer=tokenizer)


def begin_with_bos(tokenizer) -> None:
    bos = tokenizer.bos_token or tokenizer.eos_token
    adds = TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.convert_tokens_to_ids(bos))]
    )
    backend = tokenizer.backend_tokenizer
    backend.post_processor = adds if backend.post_processor is None else Sequence([backend.post_processor, adds])


def other_template(tokenizer) -> None:
    tokenizer.chat_template = tokenizer.chat_template.replace("\n", " ", 1) + "{# changed #}"


def cases(folder: Path, work: Path) -> Iterator[Case]:
    """(what was changed, bundle, model): each model is made when it is asked for."""
    record = read_record(folder)
    name, own = record.model.hub_id, record.model.dtype

    def model(**options) -> LanguageModel:
        return load_model(name, **({"dtype": own} | options))

    def noisy() -> LanguageModel:
        draw = torch.Generator().manual_seed(0)
        return with_weights(model(), lambda w: w * (1 + 0.02 * torch.randn(w.shape, generator=draw).to(w.dtype)))

    yield "nothing", folder, model
    for dtype in ("bf16", "fp16", "fp32"):
        if dtype != own:
            yield f"number format: {dtype} for {own}", folder, lambda dtype=dtype: model(dtype=dtype)
    for bits in ("8bit", "4bit"):
        yield f"weights in {bits[0]} bits", folder, lambda bits=bits: model(quantize=bits)
    yield "attention: eager", folder, lambda: model(attention="eager")
    yield "another checkpoint: every weight moved by 2 %", folder, noisy
    yield "a layer off by one", changed_copy(folder, work / "layer", "golden.json", next_layer), model
    if record.read.what == "reply":
        yield "another pooling", changed_copy(folder, work / "pool", "detector.json", other_pooling), model
    yield "a token for the beginning (BOS) that was not there", folder, lambda: with_tokenizer(model(), begin_with_bos)
    if record.model.chat_template:
        yield "another chat template", folder, lambda: with_tokenizer(model(), other_template)


def outcome(folder: Path, lm: LanguageModel) -> tuple[str, str]:
    """(`equal`, `told` or `refused`; what is said)."""
    try:
        report = ap.Detector.load(folder, lm).golden
    except AdapterProbeError as error:
        return "refused", str(error)
    assert report is not None
    if report.level == "equal":
        return "equal", ""
    return "told", report.sentence.partition(": ")[2]


def main() -> None:
    folder = Path(sys.argv[1])
    print("| changed | loading it | what is said |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as work:
        for what, bundle, model in cases(folder, Path(work)):
            level, said = outcome(bundle, model())
            print(f"| {what} | {level} | {said} |", flush=True)


if __name__ == "__main__":
    main()
