"""Conversations as they are sent: the reply is found whatever a template does around it, or the row is refused."""

import copy

import pytest

from adapterprobe.errors import ConfigError, DataError
from adapterprobe.prompts.conversations import conversation_format, render_conversation
from adapterprobe.prompts.encoded import encode
from adapterprobe.prompts.formats import format_names
from adapterprobe.prompts.read_prompts import read_prompts, token_spans
from adapterprobe.prompts.token_ranges import token_range
from adapterprobe.readout import ReadoutConfig
from adapterprobe.types import Conversation, Example, Message

TALK = Conversation(
    (
        Message("system", "Sell it."),
        Message("user", "Is it new?"),
        Message("assistant", "Yes."),
        Message("user", "Really?"),
    ),
    "It is as new as they come.",
)
PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


@pytest.fixture
def chatty(tokenizer):
    def make(template):
        made = copy.deepcopy(tokenizer)
        made.chat_template = template
        return made

    return make


@pytest.mark.parametrize("name", [name for name in format_names() if name != "chat"])
def test_every_format_shows_where_the_reply_is(name, tokenizer):
    for follow_up in (None, "Did you lie?"):
        found = render_conversation(name, TALK, tokenizer, follow_up)
        assert found.text[found.start : found.stop] == TALK.reply and not found.fallback
        assert all(text in found.text[: found.start] for text in ("Sell it.", "Is it new?", "Yes.", "Really?"))
        assert (follow_up in found.text[found.stop :]) if follow_up else found.text.endswith(TALK.reply)


TEMPLATES = {
    "as it is": PLAIN,
    "trims": PLAIN.replace("m.content", "m.content | trim"),
    "thinks in front of the last answer": PLAIN.replace(
        "{{ m.content }}", "{% if loop.last and m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}"
    ),
    "moves the system text behind the first turn": (
        "{% set s = messages[0].content %}{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}"
        "{% if loop.first %} ({{ s }}){% endif %}<end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    ),
    "says the first turn twice": "{{ messages[1].content }}" + PLAIN,
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("reply", ["It is as new as they come.", "Is it new?", "Yes.", "new?\n\nIs\tit…", "日本 é ✓."])
@pytest.mark.parametrize("follow_up", [None, "Is it new?"])
def test_templates_that_do_things_around_the_reply(chatty, name, reply, follow_up):
    tokenizer = chatty(TEMPLATES[name])
    talk = Conversation(TALK.context, reply)
    found = render_conversation("chat", talk, tokenizer, follow_up)
    assert found.text[found.start : found.stop] == reply and not found.fallback
    before = found.text[: found.start]
    assert before.endswith(("<assistant>", "<think></think>")) and before.count("<assistant>") == 2
    ids = tokenizer(found.text, add_special_tokens=False).input_ids
    start, stop = token_range(tokenizer, found.text, ids, False, found.start, found.stop)
    assert tokenizer.decode(ids[start:stop]).split() == reply.split()


@pytest.mark.parametrize(
    ("template", "match"),
    [
        (PLAIN.replace("{{ m.content }}", "{{ m.content | upper }}"), "leaves the reply out|leaves out"),
        (PLAIN.replace("{{ m.content }}", "{{ m.content[:14] }}"), "leaves out|changes the reply|leaves the reply out"),
        (PLAIN + "{{ messages[-1].content }}", "writes the reply twice"),
        ("{{ raise_exception('never') }}", "fails: never"),
        ("{% for m in messages if m.role != 'user' %}{{ m.content }}{% endfor %}", "leaves out the user's message"),
    ],
)
def test_templates_that_do_things_to_the_reply_are_refused(chatty, template, match):
    with pytest.raises(DataError, match=match):
        render_conversation("chat", TALK, chatty(template))


def test_what_a_template_cannot_say_is_said_in_words_and_told(chatty):
    talk = Conversation(
        (
            Message("system", "Sell."),
            Message("developer", "Be brief."),
            Message("user", "New?"),
            Message("assistant", "", {"tool_calls": [{"function": {"name": "shop", "arguments": '{"id": 1}'}}]}),
            Message("tool", "Used.", {"name": "shop"}),
        ),
        "Brand new.",
    )
    found = render_conversation("chat", talk, chatty(PLAIN))
    assert found.fallback == "developer turns as the system's, tools in words"
    assert found.text == (
        '<system>Sell.\n\nBe brief.<end><user>New?<end><assistant>[calls the tool shop with {"id": 1}]<end>'
        "<user>Result of the tool shop: Used.<end><assistant>Brand new.<end>"
    )
    able = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}<end>"
        "{% endfor %}{# developer, tool #}"
    )
    found = render_conversation("chat", talk, chatty(able))
    assert not found.fallback and "<developer>Be brief." in found.text and "<tool>Used." in found.text
    strict = (
        "{% for m in messages %}{% if m.role == 'system' or (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('alternate') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    )
    twice = Conversation((Message("user", "Hello?"), *talk.context[:1], Message("user", "New?")), "Brand new.")
    found = render_conversation("chat", twice, chatty(strict))
    assert found.fallback == "turns of one role joined" and found.text.endswith("New?<assistant>Brand new.")


def test_formats_of_conversations(chatty, tokenizer):
    assert conversation_format(None, chatty(PLAIN)) == "chat" and conversation_format(None, tokenizer) == "plain"
    with pytest.raises(ConfigError, match="no chat template"):
        render_conversation("chat", TALK, tokenizer)
    with pytest.raises(ConfigError, match="block of thinking"):
        render_conversation("chat", TALK, chatty(PLAIN.replace("<assistant>{% endif %}", "<think>{% endif %}")), "Why?")
    with pytest.raises(DataError, match="control token"):
        render_conversation("plain", Conversation(TALK.context, "Yes.<eos>"), tokenizer)


@pytest.mark.parametrize("behind", ["</s>", "\n\n", "<end>", " and so on", ""])
def test_tokens_that_stand_over_the_edge_of_the_reply(tokenizer, behind):
    text = f"Answer: It is new.{behind}"
    ids = tokenizer(text).input_ids
    start, stop = token_range(tokenizer, text, ids, True, 8, 18)
    assert tokenizer.decode(ids[start:stop]).strip() == "It is new."
    with pytest.raises(DataError, match="its tokens decode to"):
        token_range(tokenizer, text, ids[:3], True, 8, 18)


class Slow:
    """A tokenizer without offsets."""

    is_fast = False

    def __init__(self, own):
        self.own = own

    def __call__(self, text, add_special_tokens=True):
        return self.own(text, add_special_tokens=add_special_tokens)

    def decode(self, ids):
        return self.own.decode(ids)


def test_tokenizers_without_offsets_find_the_same_tokens(tokenizer):
    found = render_conversation("plain", TALK, tokenizer, "Why?")
    ids = tokenizer(found.text).input_ids
    for reader in (tokenizer, Slow(tokenizer)):
        assert token_range(reader, found.text, ids, True, found.start, found.stop) == token_range(
            tokenizer, found.text, ids, True, found.start, found.stop
        )


def example(talk, number=0):
    texts = {"dialogue": talk.script, "reply": talk.reply}
    return Example(f"e{number}", "d", f"g{number}", "reply", "Yes", "No", True, texts, number, talk)


def test_reads_skip_first_tokens_and_take_the_closing_one(chatty):
    tokenizer = chatty(PLAIN.replace("<end>", "<eos>"))
    prompts = read_prompts([example(TALK)], "test", ReadoutConfig(what="reply"), None, tokenizer)
    encoded = encode(tokenizer, prompts, None)
    (whole,) = token_spans(encoded, ReadoutConfig(what="reply"), tokenizer)
    ids = encoded.ids[0]
    assert tokenizer.decode(ids[slice(*whole)]) == TALK.reply
    assert token_spans(encoded, ReadoutConfig(what="reply", skip=2), tokenizer) == ((whole[0] + 2, whole[1]),)
    assert token_spans(encoded, ReadoutConfig(what="reply", skip=999), tokenizer) == ((whole[1] - 1, whole[1]),)
    (closed,) = token_spans(encoded, ReadoutConfig(what="reply", closing=True), tokenizer)
    assert closed == (whole[0], whole[1] + 1) and tokenizer.decode([ids[closed[1] - 1]]) == "<eos>"


def test_conversations_beyond_the_context(tokenizer, capsys):
    turns = [Message(role, f"{role} {i} says a word or two") for i in range(12) for role in ("user", "assistant")]
    talk = Conversation((Message("system", "Be kind."), *turns, Message("user", "And now?")), "Now it is new.")
    whole = read_prompts([example(talk, 7)], "test", ReadoutConfig(what="reply"), "plain", tokenizer)
    with pytest.raises(DataError, match=r"makes a prompt of \d+ tokens, the model's context has 100.*--drop-turns"):
        encode(tokenizer, whole, 100)
    readout = ReadoutConfig(what="reply", drop_turns=True)
    cut = read_prompts([example(talk, 7), example(TALK, 8)], "test", readout, "plain", tokenizer, context_length=100)
    assert encode(tokenizer, cut, 100).ids and "earliest turns left out" in capsys.readouterr().err
    text = cut[0].text
    assert text.startswith("Be kind.\n\nQuestion: user") and text.endswith("Question: And now?\nAnswer: Now it is new.")
    assert "user 0" not in text and "user 11" in text


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"what": "reply", "pool": "median"}, "last, first, mean, max, rolling:N"),
        ({"what": "reply", "pool": "rolling:0"}, "rolling:N"),
        ({"what": "answer", "pool": "mean"}, "say nothing where the answer is read"),
        ({"what": "statement", "closing": True}, "a statement has no turns"),
    ],
)
def test_readouts_that_cannot_be(given, match):
    with pytest.raises(ValueError, match=match):
        ReadoutConfig(**given)


def test_tokenizers_that_bring_texts_into_a_normal_form(tokenizer):
    from tokenizers import normalizers

    composing = copy.deepcopy(tokenizer)
    composing.backend_tokenizer.normalizer = normalizers.NFC()
    text = "Answer: the cafe\u0301 is \u2126. Done"
    ids = composing(text).input_ids
    start, stop = token_range(composing, text, ids, True, 8, text.index(" Done"))
    assert composing.decode(ids[start:stop]).strip() == "the caf\u00e9 is \u03a9."
