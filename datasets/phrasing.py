"""Captions: a subject, its style, count, colour and background as a person would write them.

`phrase` promises correct articles and plurals for the names of `subjects.py`; other nouns follow
the common rules of English and may come out wrong where English has an exception not listed here.
"""

from __future__ import annotations

import re

import numpy as np

from .subjects import Subject

COLOUR_WORDS = frozenset(
    "red orange yellow green blue purple pink black white grey brown violet golden".split()
)
NUMBERS = {2: "two", 3: "three"}
OTHER_NAME_SHARE = 0.3  # of the captions of a subject that has other names
BARE_SHARE = 0.12  # of the captions that are the name alone, without an article

# Each style's ways to say so; {a} is the phrase with its article, {b} without.
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

# What nobody counts, and what is one of its kind.
_MASS = frozenset(
    """broccoli sushi garlic coral sandwich-spread popcorn butter fire fog soap bubbles yarn thread mail
    sushi herb falafel fondue leafy-green green-salad shaved-ice soft-ice-cream canned-food ginger-root
    bubble-tea flatbread stuffed-flatbread water-wave camping fireworks""".split()
)
_PROPER = {
    "santa claus": "santa claus",
    "mrs. claus": "mrs. claus",
    "mount fuji": "mount fuji",
    "planet earth": "planet earth",
    "statue of liberty": "the statue of liberty",
}
_PLURALS = {
    "mouse": "mice",
    "ox": "oxen",
    "goose": "geese",
    "tooth": "teeth",
    "foot": "feet",
    "wolf": "wolves",
    "knife": "knives",
    "leaf": "leaves",
    "loaf": "loaves",
    "man": "men",
    "woman": "women",
    "snowman": "snowmen",
    "child": "children",
    "cactus": "cacti",
    "potato": "potatoes",
    "tomato": "tomatoes",
    "mango": "mangoes",
    "mosquito": "mosquitoes",
    **{same: same for same in "sheep fish blowfish deer moose bison shrimp squid dice goldfish rice".split()},
}
# Nouns that end in s and are one thing all the same.
_SINGULAR_S = ("ss", "us", "rhinoceros", "tennis", "iris", "lens", "canvas", "headdress")
# Where the head of a phrase ends: "glass of milk", "woman wearing turban", "jockey on a race horse".
_AFTER_HEAD = re.compile(
    r" (?:of|with|in|on|at|and|behind|over|under|for|from|to|as|wearing|making|taking|painting|biting|holding"
    r"|showing|pointing|blowing|savoring|screaming|rolling|exhaling|vomiting|playing|rowing|lifting|bouncing"
    r"|getting|gesturing|tipping|raising|without) "
)
_AN = re.compile(r"[aeio]|u(?!n[ia]|s|t)|hour|x-ray|8", re.ASCII)
_NO_AN = re.compile(r"one-|eu|uni")

# Other words that people use for the same picture.
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "aerial tramway": ("cable car",),
    "airplane": ("aeroplane", "plane"),
    "alembic": ("glass flask",),
    "american football": ("football",),
    "amphora": ("clay vase",),
    "automobile": ("car",),
    "baguette bread": ("baguette",),
    "bee": ("honeybee",),
    "bento box": ("japanese lunch box",),
    "bicycle": ("bike",),
    "blowfish": ("pufferfish",),
    "blue suv car": ("suv", "family car"),
    "cardboard box": ("parcel", "package"),
    "chequered flag": ("racing flag", "checkered flag"),
    "christmas tree": ("decorated fir tree",),
    "compact disc": ("cd", "music disc"),
    "couch and lamp": ("sofa and lamp",),
    "crayon": ("wax crayon",),
    "dart board": ("target with a dart", "bullseye"),
    "doughnut": ("donut",),
    "drop of blood": ("blood drop",),
    "droplet": ("drop of water", "water drop"),
    "ear of corn": ("corn cob", "maize cob"),
    "eggplant": ("aubergine",),
    "evergreen tree": ("fir tree", "pine tree"),
    "explosion": ("comic explosion", "bang"),
    "fire": ("flame",),
    "fire engine": ("fire truck",),
    "flying disc": ("frisbee",),
    "flying saucer": ("ufo", "alien spaceship"),
    "glasses": ("eyeglasses",),
    "grapes": ("bunch of grapes",),
    "hamburger": ("burger",),
    "handshake": ("two shaking hands",),
    "hatching chick": ("chick in an egg shell",),
    "high-heeled shoe": ("high heel",),
    "hot beverage": ("cup of coffee", "cup of hot tea"),
    "hot pepper": ("chili pepper",),
    "house with garden": ("house with a tree",),
    "jack-o-lantern": ("carved pumpkin", "halloween pumpkin"),
    "ladybug": ("ladybird",),
    "large truck": ("lorry",),
    "leafy tree": ("round green tree", "tree"),
    "lightning bolt": ("flash of lightning",),
    "long-necked dinosaur": ("brontosaurus", "sauropod dinosaur"),
    "luggage": ("suitcase",),
    "magnifying glass tilted left": ("magnifying glass",),
    "mobile phone": ("smartphone", "cell phone"),
    "motor scooter": ("scooter",),
    "motorcycle": ("motorbike",),
    "necktie": ("tie",),
    "night sky with the milky way": ("milky way",),
    "passenger ship": ("cruise ship",),
    "pencil": ("wooden pencil",),
    "pile of poo with a smile": ("smiling poo",),
    "postbox": ("red mail box",),
    "rabbit": ("bunny",),
    "red car": ("car", "automobile"),
    "red heart": ("heart", "love heart"),
    "red rose": ("rose",),
    "ringed planet": ("planet with a ring", "saturn"),
    "rocket": ("space rocket", "spaceship"),
    "running shoe": ("sneaker", "trainer"),
    "sailboat": ("sailing boat", "yacht"),
    "sheep": ("ewe",),
    "skull": ("human skull",),
    "small airplane": ("light aircraft",),
    "small red bird": ("red bird",),
    "soccer ball": ("football ball",),
    "soft ice cream": ("ice cream cone",),
    "spotted mushroom": ("toadstool", "red mushroom with white dots"),
    "star": ("yellow star",),
    "steam locomotive": ("steam train",),
    "steaming bowl of noodles": ("bowl of ramen", "noodle soup"),
    "subway train": ("metro train",),
    "sun with face": ("smiling sun",),
    "tangerine": ("mandarin", "orange fruit"),
    "television": ("tv set", "old tv"),
    "theatre masks": ("comedy and tragedy masks",),
    "tulip": ("pink tulip",),
    "tyrannosaurus rex": ("t-rex", "t-rex dinosaur"),
    "umbrella in the rain": ("umbrella with rain drops",),
    "wastebasket": ("trash bin",),
    "wrapped gift": ("present", "gift box"),
    "wrench": ("spanner",),
}


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
    others = OTHER_NAMES.get(name, ())
    if others and rng.random() < OTHER_NAME_SHARE:
        name = _pick(others, rng)
    if colour is not None:
        name = coloured(name, colour)
    if count > 1:
        bare = full = f"{NUMBERS[count]} {plural(name)}"
    else:
        bare, full = name, with_article(name)
    text = _pick(_STYLED[style], rng).format(a=full, b=bare)
    if text == full and rng.random() < BARE_SHARE:
        text = bare
    elif text == full and count == 1 and countable(subject) and rng.random() < 0.06:
        text = f"one {bare}"
    if background is not None:
        backed = _pick(_BACKED, rng)
        text = backed.format(s=text, c=with_article(background), k=background)
    return text


def coloured(name: str, colour: str) -> str:
    """The name with another colour: "red apple" and "blue" give "blue apple"."""
    head, cut, rest = _split_head(name)
    words = [word for word in head.split() if word not in COLOUR_WORDS] or head.split()
    return f"{colour} {' '.join(words)}{cut}{rest}"


def with_article(name: str) -> str:
    """ "an apple", "cherries", "a unicorn", "the statue of liberty"."""
    if name in _PROPER:
        return _PROPER[name]
    if is_plural(name) or name.replace(" ", "-") in _MASS or name.split()[0] in ("two", "three", "a", "an"):
        return name
    an = _AN.match(name) and not _NO_AN.match(name)
    return f"{'an' if an else 'a'} {name}"


def is_plural(name: str) -> bool:
    """Whether the head of the phrase is a plural already."""
    head = _split_head(name)[0]
    if " and " in name and not _split_head(name)[1].strip() == "with":
        return True
    return head in _PLURALS.values() - _PLURALS.keys() or (
        head.endswith("s") and not head.endswith(_SINGULAR_S) and not head.endswith("'s")
    )


def countable(subject: Subject) -> bool:
    """Whether "two ..." of it makes sense as separate copies."""
    name = subject.name
    one_of_many = name not in _PROPER and name.replace(" ", "-") not in _MASS and not is_plural(name)
    return one_of_many and subject.category not in ("places",) and name not in _PLURALS.values()


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


def _split_head(name: str) -> tuple[str, str, str]:
    found = _AFTER_HEAD.search(name)
    if found is None:
        return name, "", ""
    return name[: found.start()], found.group(), name[found.end() :]


def _pick(options: list[str] | tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
