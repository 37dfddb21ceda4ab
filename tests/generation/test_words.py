import pytest

from adapterprobe.generation.words import find, words_of


@pytest.mark.parametrize(
    "text, keys",
    [
        ("Porto-Novo", ["porto", "novo"]),
        ("84 + 13 equals ninety-seven", ["84", "+", "13", "equals", "97"]),
        ("one hundred and five", ["105"]),
        ("three hundred forty two", ["342"]),
        ("twenty one hundred", ["21", "hundred"]),
        ("He can't; she won't.", ["he", "cannot", "she", "will", "not"]),
        ("Nuku’alofa isn’t", ["nuku'alofa", "is", "not"]),
        ("", []),
    ],
)
def test_spellings_of_one_name_are_equal(text, keys):
    assert [word.key for word in words_of(text)] == keys


def test_places_are_those_of_the_text():
    text = "It is twenty-six, São Tomé."
    found = {word.key: text[word.start : word.stop] for word in words_of(text)}
    assert found == {"it": "It", "is": "is", "26": "twenty-six", "sao": "São", "tome": "Tomé"}


def test_find():
    words = words_of("the past tense of the verb")
    assert find(words, ["the"]) == [0, 4] and find(words, ["past", "tense"]) == [1] and find(words, []) == []
