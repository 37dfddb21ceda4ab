"""Prompts as tokens, under tokenizers that part blanks, end texts, or know more than the model."""

import copy

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from adapterprobe.engine import Engine
from adapterprobe.engine.answers import choice_logprobs
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.models.blocks import find_structure
from adapterprobe.prompts.answer_tokens import tokenise
from adapterprobe.prompts.encoded import encode
from adapterprobe.prompts.formats import chat_variables, ends_in_thought, render
from adapterprobe.types import Example, Prompt

TEXTS = ["Question: Is it true that the stone is blue?\nAnswer: Yes", "Question: Is the sea green?\nAnswer: No"] * 20


def prompt(text, positive="Yes", negative="No", form="plain") -> Prompt:
    example = Example("e", "d", "g", "question", positive, negative, True, {})
    return Prompt("p", example, "test", "truth", "t", form, None, "s", (), 0, text, text, positive, negative)


@pytest.fixture(scope="module")
def parted():
    """As sentencepiece does it where the blank is a token of its own."""
    t = Tokenizer(models.BPE(unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first", split=False), pre_tokenizers.Split("▁", "isolated")]
    )
    t.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    t.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=["<eos>", "<unk>"], show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=t, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>")


def test_a_blank_of_its_own_belongs_to_the_prompt(parted):
    """The answer is read behind the blank, as the model was taught to go on: not in the blank's own place."""
    text = "Question: Is the sea blue?\nAnswer:"
    blank, yes, no = (parted.convert_tokens_to_ids(word) for word in ("▁", "Yes", "No"))
    assert parted(f"{text} Yes").input_ids[-2:] == [blank, yes]
    found = encode(parted, [prompt(text)], None)
    assert found.ids[0] == tuple([*parted(text).input_ids, blank]) and found.prompts[0].text == f"{text} "
    assert (found.choices[0].positive, found.choices[0].negative) == ((yes,), (no,))
    torch.manual_seed(0)
    config = CONFIG_MAPPING["llama"](
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    engine = Engine(model, find_structure(model))
    with torch.no_grad():
        (batch,) = engine.plan(found.ids)
        got = choice_logprobs(engine.run(batch).logits, found.choices)[0]
        plain = torch.log_softmax(model(torch.tensor([parted(f"{text} Yes").input_ids])).logits[0, -2], -1)
    assert torch.allclose(got, plain[[yes, no]], atol=1e-4)


def test_words_with_their_blank_inside_stay_as_they_were(tokenizer):
    found = encode(tokenizer, [prompt("Question: Is it?\nAnswer:")], None)
    assert found.prompts[0].text.endswith("Answer:") and len(found.choices[0].positive) >= 1


@pytest.mark.parametrize("post", ["<bos> $A <eos>", "$A <eos>", "<bos> $A <eos> <eos>"])
def test_a_tokenizer_that_ends_every_text(tokenizer, post):
    ending = copy.deepcopy(tokenizer)
    ending.add_special_tokens({"bos_token": "<bos>"})
    ids = [(s, ending.convert_tokens_to_ids(s)) for s in ("<bos>", "<eos>")]
    ending.backend_tokenizer.post_processor = processors.TemplateProcessing(single=post, special_tokens=ids)
    text = "Question: Is it true that Paris is the capital of France?\nAnswer:"
    assert ending(text).input_ids[-1] == ids[1][1]
    found = encode(ending, [prompt(text)], None)
    assert found.ids[0][-1] != ids[1][1] and (found.ids[0][0] == ids[0][1]) == post.startswith("<bos>")
    plain = encode(tokenizer, [prompt(text)], None)
    assert found.choices == plain.choices
    assert tokenise(ending, text, False) == tokenise(tokenizer, text, True)


def test_tokens_that_the_model_has_no_embedding_for(tokenizer):
    more = copy.deepcopy(tokenizer)
    more.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    with pytest.raises(DataError, match=r"token '<\|im_start\|>' .* embeddings for 600 tokens alone"):
        encode(more, [prompt("<|im_start|>user\nIs it?\nAnswer:", form="chatml")], None, 600)
    assert len(encode(more, [prompt("Is it?\nAnswer:")], None, 600)) == 1


@pytest.mark.parametrize("form", ["plain", "chat", "chatml"])
@pytest.mark.parametrize("place", ["turn", "demonstration", "system"])
def test_control_tokens_in_data(tokenizer, form, place):
    own = copy.deepcopy(tokenizer)
    own.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    own.chat_template = "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"
    texts = {"turn": "Is it?", "demonstration": "Was it?", "system": "Be kind."}
    assert render(form, [(texts["demonstration"], "Yes")], texts["turn"], own, texts["system"])
    for bad in ("<eos>", "<|end|>"):
        given = texts | {place: f"Is it {bad}?"}
        with pytest.raises(DataError, match="control token"):
            render(form, [(given["demonstration"], "Yes")], given["turn"], own, given["system"])


THINKING = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"


def test_templates_that_think(tokenizer):
    own = copy.deepcopy(tokenizer)
    own.chat_template = (
        THINKING + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    )
    assert render("chat", [], "Is it?", own).endswith("</think>\n\n"), "not asked for Yes where a thought would begin"
    assert render("chat:enable_thinking=true", [], "Is it?", own).endswith("<|assistant|>")
    always = copy.deepcopy(tokenizer)
    always.chat_template = THINKING + "{% if not skip %}<think>\n{% endif %}"
    with pytest.raises(ConfigError, match="inside a block of thinking"):
        render("chat", [], "Is it?", always)
    assert render("chat:skip=true", [], "Is it?", always).endswith("<|assistant|>")
    assert ends_in_thought("a [THINK] b") and not ends_in_thought("<think>a</think> b")


@pytest.mark.parametrize("name", ["chat:x", "chat:=3", "chat:messages=3", "chat:a b=3"])
def test_variables_that_are_none(name):
    with pytest.raises(ConfigError, match="expected chat:NAME=VALUE"):
        chat_variables(name)


@pytest.mark.parametrize(
    "mark",
    [
        "<seed:think>",
        "<|START_THINKING|>",
        "<|thinking|>",
        "<|begin_of_thought|>",
        "<scratchpad>",
        "<analysis>",
        "<think effort=low>",
        "◁think▷",
        "<|channel|>analysis",
        "[THINK]",
    ],
)
def test_thinking_by_any_name(mark, tokenizer, tmp_path):
    own = copy.deepcopy(tokenizer)
    own.chat_template = THINKING + mark
    (tmp_path / "f.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}" + mark)
    for form in ("chat", str(tmp_path / "f.jinja")):
        with pytest.raises(ConfigError, match="inside a block of thinking"):
            render(form, [], "Is it?", own)


def test_a_question_about_thinking_is_none(tokenizer):
    own = copy.deepcopy(tokenizer)
    own.chat_template = THINKING
    assert render("chat", [], "Is the tag <reason> part of XML?", own, "Write thoughts inside <thinking>.")


def test_control_tokens_by_another_spelling(tokenizer):
    own = copy.deepcopy(tokenizer)
    own.add_tokens(["<|assistant|>"])
    own.chat_template = THINKING
    for text in ("Is it <|assistant|> so?", "Is it ＜eos＞ so?"):
        with pytest.raises(DataError, match="control token"):
            render("chat", [], text, own)


def test_each_tokenizer_has_its_own_template(tokenizer):
    """An object's id is used again when it is gone; what it renders must not be."""
    for number in range(6):
        own = copy.deepcopy(tokenizer)
        own.add_special_tokens({"bos_token": f"<b{number}>"})
        own.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
        assert render("chat", [], "Is it?", own) == f"<b{number}>Is it?"
        del own


def test_an_interrupt_does_not_give_an_old_answer(tokenizer, monkeypatch):
    from adapterprobe.prompts.formats import sandbox

    def compile_template():
        return lambda text: f"<{text}>"

    assert sandbox.render_apart("k", compile_template, text="first") == "<first>"
    real = sandbox._receive

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(sandbox, "_receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sandbox.render_apart("k", compile_template, text="slow")
    monkeypatch.setattr(sandbox, "_receive", real)
    assert sandbox.render_apart("k", compile_template, text="second") == "<second>"


def test_threads_get_their_own_answers():
    from concurrent.futures import ThreadPoolExecutor

    from adapterprobe.prompts.formats import sandbox

    def compile_template():
        return lambda text: f"<{text}>"

    with ThreadPoolExecutor(4) as pool:
        texts = [str(i) for i in range(400)]
        found = list(pool.map(lambda text: sandbox.render_apart("threads", compile_template, text=text), texts))
    assert found == [f"<{text}>" for text in texts]
