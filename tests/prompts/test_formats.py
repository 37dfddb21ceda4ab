"""Prompt formats, byte for byte; chat templates that refuse; users' own files; nothing of them can run."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from adapterprobe.errors import ConfigError
from adapterprobe.prompts import check_format, format_names, render
from adapterprobe.prompts.answer_tokens import choice_tokens

DEMOS = [("Is Fe iron?", "Yes")]
ASKED = "Is Ag gold?"
ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
    "polite answers to the user's questions."
)
GOLDEN = {
    "plain": ("Question: Is Fe iron?\nAnswer: Yes\n\nQuestion: Is Ag gold?\nAnswer:", "Lie.\n\n{}"),
    "phi": ("Instruct: Is Fe iron?\nOutput: Yes\nInstruct: Is Ag gold?\nOutput:", "Lie.\n\n{}"),
    "alpaca": (
        f"{ALPACA}\n\n### Instruction:\nIs Fe iron?\n\n### Response:\nYes\n\n### Instruction:\nIs Ag gold?\n\n### Response:\n",
        None,
    ),
    "chatml": (
        "<|im_start|>user\nIs Fe iron?<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n<|im_start|>user\nIs Ag gold?"
        "<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\nLie.<|im_end|>\n{}",
    ),
    "llama": ("[INST] Is Fe iron? [/INST] Yes </s><s>[INST] Is Ag gold? [/INST]", None),
    "llama3": (
        "<|start_header_id|>user<|end_header_id|>\n\nIs Fe iron?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        "Yes<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nIs Ag gold?<|eot_id|><|start_header_id|>assistant"
        "<|end_header_id|>\n\n",
        "<|start_header_id|>system<|end_header_id|>\n\nLie.<|eot_id|>{}",
    ),
    "vicuna": (f"{VICUNA} USER: Is Fe iron? ASSISTANT: Yes</s>USER: Is Ag gold? ASSISTANT:", None),
    "mistral": ("[INST] Is Fe iron? [/INST] Yes</s>[INST] Is Ag gold? [/INST]", None),
    "gemma": (
        "<start_of_turn>user\nIs Fe iron?<end_of_turn>\n<start_of_turn>model\nYes<end_of_turn>\n<start_of_turn>user\n"
        "Is Ag gold?<end_of_turn>\n<start_of_turn>model\n",
        None,
    ),
}
WITH_SYSTEM = {
    "alpaca": GOLDEN["alpaca"][0].replace(ALPACA, "Lie."),
    "vicuna": GOLDEN["vicuna"][0].replace(VICUNA, "Lie."),
    "llama": GOLDEN["llama"][0].replace("[INST] Is Fe", "[INST] <<SYS>>\nLie.\n<</SYS>>\n\nIs Fe"),
    "mistral": GOLDEN["mistral"][0].replace("[INST] Is Fe", "[INST] Lie.\n\nIs Fe"),
    "gemma": GOLDEN["gemma"][0].replace("user\nIs Fe", "user\nLie.\n\nIs Fe"),
}
NAMED = pytest.mark.parametrize("name", sorted(GOLDEN))


def byte_level(tokenizer):
    return tokenizer


def sentencepiece(_):
    """A tokenizer of sentencepiece's kind: spaces are part of words, newlines are bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "▁Yes", "▁No", "Yes", "No"]
    letters = sorted({c for text, _ in GOLDEN.values() for c in text if c not in " \n"})
    pieces += [letter for letter in letters if letter not in pieces]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = [("Y", "e"), ("Ye", "s"), ("N", "o"), ("▁", "Yes"), ("▁", "No")]
    vocab |= {"Ye": len(vocab)}
    model = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    model.normalizer = normalizers.Replace(" ", "▁")
    model.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    assert pre_tokenizers is not None
    return PreTrainedTokenizerFast(tokenizer_object=model, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


@NAMED
def test_byte_for_byte(name):
    text, system = GOLDEN[name]
    assert render(name, DEMOS, ASKED) == text
    assert render(name, DEMOS, ASKED, system="Lie.") == (system.format(text) if system else WITH_SYSTEM[name])


def test_every_named_format_has_a_golden_text():
    assert set(format_names()) == set(GOLDEN) | {"chat"}


@NAMED
@pytest.mark.parametrize("kind", [byte_level, sentencepiece])
def test_choices_can_begin_after_every_format(name, kind, tokenizer):
    made = kind(tokenizer)
    tokens = choice_tokens(made, render(name, DEMOS, ASKED), "Yes", "No")
    assert tokens.positive and tokens.negative and not set(tokens.positive) & set(tokens.negative)
    for ids, word in ((tokens.positive, "Yes"), (tokens.negative, "No")):
        assert all(word.startswith(made.decode([i]).strip()) for i in ids)


@pytest.fixture
def chatty(tokenizer):
    def make(template):
        made = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<eos>")
        made.chat_template = template
        return made

    return make


def test_chat_templates_that_refuse_or_drop_a_system_role(chatty, capsys):
    plain = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + plain
    drops = "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    alternates = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}"
        "{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    )
    joined = "<user>Lie.\n\nA?<assistant>Yes<user>B?<assistant>"
    for template in (refuses, drops, alternates):
        assert render("chat", [("A?", "Yes")], "B?", chatty(template), system="Lie.") == joined
    assert "stands in front of the first turn" in capsys.readouterr().err
    assert render("chat", [], "B?", chatty(plain), system="Lie.") == "<system>Lie.<user>B?<assistant>"
    with pytest.raises(ConfigError, match="chat template fails"):
        render("chat", [], "B?", chatty("{{ raise_exception('never') }}"))


def test_templates_that_write_the_date_say_the_same_every_day(chatty):
    dated = "{{ date_string }} {{ strftime_now('%d %b %Y') }} {% for m in messages %}{{ m.content }}{% endfor %}"
    assert render("chat", [], "B?", chatty(dated)) == "26 Jul 2024 26 Jul 2024 B?"


def test_a_file_of_ones_own(tmp_path):
    file = tmp_path / "mine.jinja"
    file.write_text("{% for m in messages %}[{{ m.role[0] }}] {{ m.content }} {% endfor %}[a]")
    assert render(str(file), DEMOS, ASKED) == "[u] Is Fe iron? [a] Yes [u] Is Ag gold? [a]"


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("{% for m in messages %}", "not a Jinja template"),
        ("{{ messages[0].content }}", "leaves out"),
        ("{{ nothing }}", "fails: 'nothing' is undefined"),
        ("{{ messages[9].content }}", "fails"),
        ("{{ 1 // 0 }}", "fails"),
        ("{{ ''.__class__.__mro__ }}", "fails"),
        ("{{ messages.append(1) }}", "fails"),
    ],
)
def test_templates_that_fail_say_so_and_run_nothing(source, match, tmp_path):
    file = tmp_path / "bad.jinja"
    file.write_text(source)
    with pytest.raises(ConfigError, match=match):
        render(str(file), DEMOS, ASKED)


def test_unknown_formats():
    with pytest.raises(ConfigError, match="did you mean 'chatml'"):
        check_format("chatlm")
    with pytest.raises(ConfigError, match="cannot read"):
        check_format("/nowhere/x.jinja")


@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), max_size=3), st.text(min_size=1), st.text())
@settings(max_examples=60, deadline=None)
def test_whatever_is_asked_is_in_the_text(demos, turn, system):
    """No prompt without its question: any text, or our own error."""
    for name in GOLDEN:
        text = render(name, demos, turn, system=system or None)
        assert turn.strip() in text and all(asked.strip() in text for asked, _ in demos) and system.strip() in text
