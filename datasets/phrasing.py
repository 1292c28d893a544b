"""Captions: a subject, its style, count, colour and background as a person would write them.

`phrase` promises correct articles and plurals for the names of `subjects.py`; other nouns follow
the common rules of English and may come out wrong where English has an exception not listed here.
"""

from __future__ import annotations

import re

import numpy as np

from .subjects import Subject

COLOUR_WORDS = frozenset(
    (
        "red",
        "orange",
        "yellow",
        "green",
        "blue",
        "purple",
        "pink",
        "black",
        "white",
        "grey",
        "brown",
        "golden",
    )
)
NUMBERS = {2: "two", 3: "three"}
OTHER_NAME_SHARE = 0.3  # of the captions of a subject that has other names
BARE_SHARE = 0.12  # of the captions that are the name alone, without an article

# Each style's ways to say so; {a} is the phrase with its article.
_STYLED = {
    "3d": ["{a}"] * 10
    + ["a picture of {a}"] * 2
    + ["a 3d icon of {a}", "a 3d emoji of {a}", "a 3d render of {a}"],
    "flat": [
        "a flat icon of {a}",
        "{a}, flat icon",
        "a flat illustration of {a}",
        "{a} in flat style",
        "flat art of {a}",
        "a flat vector picture of {a}",
    ],
    "line": [
        "a line drawing of {a}",
        "{a}, line drawing",
        "line art of {a}",
        "{a} as line art",
        "a black line drawing of {a}",
        "an ink drawing of {a}",
    ],
    "pixel": [
        "pixel art of {a}",
        "{a}, pixel art",
        "{a} in pixel art",
        "a pixel art picture of {a}",
        "an 8-bit sprite of {a}",
        "{a} as pixel art",
    ],
}
_BACKED = [
    "{s} on {c} background",
    "{s} on {c} background",
    "{s} against {c} background",
    "{s}, {k} background",
]

# Nouns without an article, and names of one of its kind.
_MASS = frozenset({"broccoli", "sushi", "coral", "lettuce", "meat", "fog", "money"})
_PROPER = {
    "santa claus": "santa claus",
    "father christmas": "father christmas",
    "mrs. claus": "mrs. claus",
    "mount fuji": "mount fuji",
    "planet earth": "planet earth",
    "saturn": "saturn",
    "statue of liberty": "the statue of liberty",
    "milky way": "the milky way",
}
_SAME = ("sheep", "fish", "blowfish", "jellyfish", "pufferfish", "deer", "moose", "bison", "shrimp", "squid")
_PLURALS = {
    "mouse": "mice",
    "goose": "geese",
    "tooth": "teeth",
    "foot": "feet",
    "man": "men",
    "woman": "women",
    "snowman": "snowmen",
    "fireman": "firemen",
    "spaceman": "spacemen",
    "person": "people",
    "child": "children",
    "ox": "oxen",
    "cactus": "cacti",
    **{noun: noun[:-1] + "ves" for noun in ("wolf", "leaf", "loaf", "sheaf", "scarf", "elf")},
    "knife": "knives",
    **{noun: noun + "es" for noun in ("potato", "tomato", "mango", "mosquito", "superhero", "buffalo")},
    **{noun: noun for noun in (*_SAME, "dice")},
}
# Nouns that end in s and are one thing all the same.
_SINGULAR_S = ("ss", "us", "rhinoceros", "'s")
# Where the head of a phrase ends: "glass of milk", "jockey on a race horse", "woman surfing".
_AFTER_HEAD = re.compile(
    r" (?:of|with|in|on|at|and|behind|over|under|for|from|to|as|by|without|wearing|making|taking|painting"
    r"|biting|covering) "
    r"|(?:(?<=\bman|\bmen)|(?<=oman|omen|rson|face|hand)) [\w-]+ing\b|(?<=finger) pointing\b"
)
_AN = re.compile(r"[aeio]|u(?!ni|s|t|fo)|hour|x-ray|suv|8")
_NO_AN = re.compile(r"one-|eu|ewe")


def phrase(
    subject: Subject,
    rng: np.random.Generator,
    *,
    style: str = "3d",
    count: int = 1,
    colour: str | None = None,
    background: str | None = None,
) -> str:
    """One of the ways to ask for the subject; every way names its style unless that is 3d."""
    name = subject.name
    others = [
        other
        for other in subject.others
        if (count == 1 or _counts(other)) and (colour is None or is_plain(other))
    ]
    if others and rng.random() < OTHER_NAME_SHARE:
        name = _pick(others, rng)
    if colour is not None:
        name = coloured(name, colour)
    if count > 1:
        bare = full = f"{NUMBERS[count]} {plural(name)}"
    else:
        bare, full = name, with_article(name)
    text = _pick(_STYLED[style], rng).format(a=full)
    if text == full and rng.random() < BARE_SHARE:
        text = bare
    elif text == full and count == 1 and countable(subject) and rng.random() < 0.06:
        text = f"one {bare}"
    if background is not None:
        backed = _BACKED[-1] if "," in text else _pick(_BACKED, rng)
        text = backed.format(s=text, c=with_article(background), k=background)
    return text


def coloured(name: str, colour: str) -> str:
    """The name with another colour: "red apple" and "blue" give "blue apple"."""
    head, cut, rest = _split_head(name)
    words = head.split()
    old = [word for word in words[:-1] if word in COLOUR_WORDS]
    place = words.index(old[0]) if old else 0
    words = [word for word in words if word not in old]
    return " ".join([*words[:place], colour, *words[place:]]) + cut + rest


def with_article(name: str) -> str:
    """ "an apple", "cherries", "a unicorn", "the statue of liberty"."""
    if name in _PROPER:
        return _PROPER[name]
    if is_plural(name) or _head_noun(name) in _MASS:
        return name
    an = _AN.match(name) and not _NO_AN.match(name)
    return f"{'an' if an else 'a'} {name}"


def is_plural(name: str) -> bool:
    """Whether the phrase is a plural already: "cherries", but not "glass of berries"."""
    noun = _head_noun(name)
    return noun in _PLURALS.values() - _PLURALS.keys() or (
        noun.endswith("s") and not noun.endswith(_SINGULAR_S)
    )


def is_plain(name: str) -> bool:
    """Whether the name is one noun with its adjectives, so that a colour before it means all of it."""
    return not _split_head(name)[1]


def countable(subject: Subject) -> bool:
    """Whether "two ..." of it makes sense as separate copies."""
    return subject.category != "places" and _counts(subject.name)


def _counts(name: str) -> bool:
    one = name not in _PROPER and _head_noun(name) not in _MASS and not is_plural(name)
    return one and re.search(r" (?:and|its|his|her) ", name) is None


def plural(name: str) -> str:
    """The plural of a noun phrase: "glass of milk" gives "glasses of milk"."""
    head, cut, rest = _split_head(name)
    first, _, last = head.rpartition(" ")
    if last in _PLURALS:
        last = _PLURALS[last]
    elif re.search(r"(?:s|x|z|ch|sh)$", last):
        last += "es"
    elif re.search(r"[^aeiou]y$", last):
        last = last[:-1] + "ies"
    else:
        last += "s"
    return " ".join(filter(None, (first, last))) + cut + rest


def _head_noun(name: str) -> str:
    return _split_head(name)[0].rpartition(" ")[2]


def _split_head(name: str) -> tuple[str, str, str]:
    found = _AFTER_HEAD.search(name)
    if found is None:
        return name, "", ""
    return name[: found.start()], found.group(), name[found.end() :]


def _pick(options: list[str] | tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
