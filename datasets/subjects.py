"""Which emoji become subjects, under which name and in which category.

`select` keeps what a person can name at sight and tell from all others: no flags of countries,
signs or arrows, one of each family of near twins (coloured hearts, globes, men and women who do
the same), and puts a natural noun phrase in the place of labels such as "tennis" or "locked".
What a picture shows was judged by eye on Fluent's 3D pictures; another set may differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Subject:
    """Something to be drawn: `name` is a lower-case noun phrase without article, such as "red apple"."""

    name: str
    category: str
    codepoint: str  # as emojibase writes it, in lower case
    words: tuple[str, ...]  # emojibase's tags


# By emojibase's subgroup; a trailing * stands for the rest of the name. What matches nothing is left out.
CATEGORIES = {
    "face-*": "faces",
    "cat-face": "faces",
    "monkey-face": "faces",
    "heart": "objects",
    "emotion": "objects",
    "hand*": "people",
    "body-parts": "people",
    "person": "people",
    "person-gesture": "people",
    "person-role": "people",
    "person-fantasy": "people",
    "person-activity": "people",
    "person-sport": "people",
    "person-resting": "people",
    "animal-*": "animals",
    "plant-*": "plants",
    "food-*": "food",
    "drink": "food",
    "dishware": "objects",
    "place-*": "places",
    "sky-weather": "places",
    "transport-ground": "vehicles",
    "transport-water": "vehicles",
    "transport-air": "vehicles",
    "hotel": "objects",
    "time": "objects",
    "event": "activities",
    "award-medal": "activities",
    "sport": "activities",
    "game": "activities",
    "arts-crafts": "activities",
    "clothing": "clothing",
    "sound": "objects",
    "music": "objects",
    "musical-instrument": "objects",
    "phone": "objects",
    "computer": "objects",
    "light-video": "objects",
    "book-paper": "objects",
    "money": "objects",
    "mail": "objects",
    "writing": "objects",
    "office": "objects",
    "lock": "objects",
    "tool": "objects",
    "science": "objects",
    "medical": "objects",
    "household": "objects",
    "other-object": "objects",
    "flag": "objects",
}

# Labels that say nothing, look like another one, or mean nothing as a picture.
_LABELS = """
    anger symbol|sweat droplets|dashing away|ZZZ|hundred points|dizzy|heart decoration|growing heart
    beating heart|hollow red circle|heart exclamation|right anger bubble|left speech bubble
    pink heart|orange heart|yellow heart|green heart|blue heart|light blue heart|purple heart
    brown heart|grey heart|green book|blue book|orange book|page facing up|ledger|yen banknote
    euro banknote|pound banknote|softball|rugby football|speaker low volume|speaker medium volume
    bell with slash|musical note|musical score|outbox tray|inbox tray|incoming envelope
    closed mailbox with lowered flag|open mailbox with lowered flag|mobile phone with arrow|dvd
    chart increasing with yen|locked with pen|magnifying glass tilted right|low battery|hourglass not done
    globe showing Asia-Australia|globe showing Americas|waxing crescent moon|waxing gibbous moon
    waning gibbous moon|last quarter moon|waning crescent moon|last quarter moon face|cloud with lightning
    oncoming bus|oncoming police car|oncoming taxi|oncoming automobile|tram car|mountain railway
    airplane arrival|airplane departure|train|light rail|department store|office building|love hotel
    kissing face with smiling eyes|hushed face|slightly smiling face
    slightly frowning face|grinning face with big eyes|face with diagonal mouth|expressionless face
    downcast face with sweat|tired face|confounded face|anguished face|face with open mouth
    smiling face|anxious face with sweat|worried face|sad but relieved face|disappointed face
    persevering face|grinning cat with smiling eyes|kissing face|enraged face|face without mouth
    heart suit|person|person: beard
    rightwards hand|leftwards hand|palm down hand|palm up hand|leftwards pushing hand
    rightwards pushing hand|left-facing fist|right-facing fist|middle finger|raised back of hand
    backhand index pointing right|index pointing up|hand with fingers splayed|older person
    Mx Claus|merperson|merman|elf|man elf|woman in motorized wheelchair|woman in manual wheelchair
    bust in silhouette|busts in silhouette|person in manual wheelchair
    front-facing baby chick|two-hump camel|leaf fluttering in wind|blossom|white flower|ice cream
    clinking glasses|roll of paper|file folder|woman’s sandal|1st place medal|2nd place medal
    black flag|white flag|transgender flag|map of Japan|new moon|circled M|radio button
    Japanese post office|ATM sign|placard|cinema|musical keyboard|memo|pen|black nib
    """
LEFT_OUT = frozenset(label.strip() for line in _LABELS.splitlines() for label in line.split("|"))
_LEFT_OUT_ENDINGS = (": facing right", "o’clock", "-thirty")

# Labels that name a sport, a sign or an idea where the picture shows a thing.
RENAMED = {
    "collision": "explosion",
    "kiss mark": "lipstick kiss mark",
    "rolling on the floor laughing": "face rolling on the floor laughing",
    "star-struck": "star-struck face",
    "exploding head": "face with an exploding head",
    "pile of poo": "pile of poo with a smile",
    "alien monster": "pixel alien monster",
    "eye in speech bubble": "eye in a speech bubble",
    "OK hand": "hand making an ok sign",
    "love-you gesture": "hand making a love-you sign",
    "sign of the horns": "hand making the sign of the horns",
    "vulcan salute": "hand making a vulcan salute",
    "call me hand": "hand making a phone call sign",
    "index pointing at the viewer": "finger pointing at the viewer",
    "backhand index pointing left": "finger pointing left",
    "backhand index pointing up": "finger pointing up",
    "backhand index pointing down": "finger pointing down",
    "thumbs up": "hand with thumb up",
    "thumbs down": "hand with thumb down",
    "selfie": "hand taking a selfie",
    "nail polish": "hand painting its nails",
    "palms up together": "two open palms",
    "biting lip": "mouth biting its lip",
    "breast-feeding": "woman breast-feeding a baby",
    "horse racing": "jockey on a race horse",
    "guide dog": "guide dog in a harness",
    "service dog": "service dog in a vest",
    "bug": "caterpillar",
    "lady beetle": "ladybug",
    "ewe": "sheep",
    "honeybee": "bee",
    "bird": "small red bird",
    "sauropod": "long-necked dinosaur",
    "T-Rex": "tyrannosaurus rex",
    "wing": "bird wing",
    "chicken": "hen's head",
    "turkey": "turkey bird",
    "rose": "red rose",
    "mushroom": "spotted mushroom",
    "wood": "stack of wood logs",
    "brick": "red brick",
    "cooking": "fried egg in a pan",
    "spaghetti": "plate of spaghetti",
    "steaming bowl": "steaming bowl of noodles",
    "cooked rice": "bowl of cooked rice",
    "curry rice": "plate of curry rice",
    "butter": "stick of butter",
    "salt": "salt shaker",
    "bread": "loaf of bread",
    "ice": "ice cube",
    "mate": "cup of mate tea",
    "sake": "sake bottle and cup",
    "custard": "caramel custard",
    "dango": "skewer of dango",
    "oden": "skewer of oden",
    "cheese wedge": "wedge of cheese",
    "popcorn": "box of popcorn",
    "french fries": "box of french fries",
    "bacon": "bacon strips",
    "pouring liquid": "glass with pouring liquid",
    "globe showing Europe-Africa": "planet earth",
    "globe with meridians": "wire globe",
    "wedding": "wedding chapel",
    "foggy": "city skyline in fog",
    "night with stars": "city at night with stars",
    "sunrise": "sunrise over the sea",
    "sunset": "sunset behind buildings",
    "hindu temple": "temple",
    "Tokyo tower": "red radio tower",
    "station": "railway station",
    "seat": "airplane seat",
    "construction": "construction barrier",
    "wheel": "car wheel",
    "metro": "subway train",
    "automobile": "red car",
    "sport utility vehicle": "blue suv car",
    "articulated lorry": "large truck",
    "locomotive": "steam locomotive",
    "hourglass done": "hourglass",
    "high voltage": "lightning bolt",
    "cyclone": "cyclone swirl",
    "snowman without snow": "snowman",
    "snowman": "snowman in falling snow",
    "first quarter moon": "half moon",
    "first quarter moon face": "half moon with a face",
    "new moon face": "dark moon with a face",
    "full moon face": "full moon with a face",
    "umbrella with rain drops": "umbrella in the rain",
    "umbrella on ground": "beach umbrella",
    "milky way": "night sky with the milky way",
    "3rd place medal": "bronze medal",
    "tennis": "tennis ball",
    "bowling": "bowling ball and pins",
    "cricket game": "cricket bat and ball",
    "field hockey": "field hockey stick and ball",
    "ice hockey": "ice hockey stick and puck",
    "lacrosse": "lacrosse stick",
    "ping pong": "ping pong paddle",
    "badminton": "badminton racket",
    "running shirt": "running shirt with a sash",
    "flag in hole": "golf flag in a hole",
    "performing arts": "theatre masks",
    "joker": "joker card",
    "mahjong red dragon": "mahjong tile",
    "pine decoration": "bamboo pine decoration",
    "moon viewing ceremony": "grass and dumplings for moon viewing",
    "bullseye": "dart board",
    "game die": "dice",
    "admission tickets": "admission ticket",
    "woman’s clothes": "woman's blouse",
    "woman’s hat": "straw hat with a ribbon",
    "hair pick": "hair comb",
    "coat": "winter coat",
    "thong sandal": "flip-flop sandal",
    "billed cap": "baseball cap",
    "speaker high volume": "loudspeaker with sound waves",
    "loudspeaker": "public address loudspeaker",
    "musical notes": "music notes",
    "optical disk": "compact disc",
    "closed book": "red book",
    "books": "stack of books",
    "page with curl": "page with a curl",
    "diya lamp": "oil lamp",
    "e-mail": "envelope with an at sign",
    "package": "cardboard box",
    "chart increasing": "chart with a rising line",
    "chart decreasing": "chart with a falling line",
    "locked": "closed padlock",
    "unlocked": "open padlock",
    "locked with key": "padlock with a key",
    "link": "chain link",
    "dna": "dna helix",
    "x-ray": "x-ray picture",
    "shower": "shower head",
    "moai": "stone head statue",
    "hamsa": "hamsa hand amulet",
    "nazar amulet": "blue eye amulet",
    "rock": "grey rock",
    "deciduous tree": "leafy tree",
    "flower playing cards": "flower playing card",
    "red envelope": "red gift envelope",
    "man: bald": "bald man",
    "woman: bald": "bald woman",
    "pot of food": "pot of stew",
    "shallow pan of food": "pan of paella",
    "kaaba": "black cube shrine",
    "pouting cat": "angry cat",
    "worm": "earthworm",
}
_MALE, _FEMALE = 1, 0


def select(entries: Iterable[dict[str, Any]], subgroups: dict[int, str]) -> list[Subject]:
    """The subjects of emojibase's data, in its order, each name once."""
    families: dict[str, list[dict[str, Any]]] = {}
    for entry in sorted((e for e in entries if "group" in e), key=lambda e: e["order"]):
        label, subgroup = entry["label"], subgroups[entry["subgroup"]]
        left_out = label in LEFT_OUT or label.endswith(_LEFT_OUT_ENDINGS) or label.startswith("person: ")
        if _category(subgroup) and not left_out:
            families.setdefault(_family(entry, subgroup), []).append(entry)
    chosen: dict[str, Subject] = {}
    for family, members in families.items():
        entry = _one_of(family, members)
        subject = Subject(
            name=natural_name(entry["label"]),
            category=_category(subgroups[entry["subgroup"]]),
            codepoint=entry["hexcode"].lower(),
            words=tuple(entry.get("tags", ())),
        )
        chosen.setdefault(subject.name, subject)
    return list(chosen.values())


def natural_name(label: str) -> str:
    """A label as a noun phrase: "person: red hair" becomes "person with red hair"."""
    name = RENAMED.get(label, label).replace("’", "'")
    who, colon, what = name.partition(": ")
    if colon:
        name = f"{who} with {'a ' if what == 'beard' else ''}{what}"
    return " ".join(name.lower().replace("“", "").replace("”", "").split())


def _category(subgroup: str) -> str:
    for pattern, category in CATEGORIES.items():
        if subgroup == pattern or (pattern.endswith("*") and subgroup.startswith(pattern[:-1])):
            return category
    return ""


def _family(entry: dict[str, Any], subgroup: str) -> str:
    """The same for the man, the woman and the person who do one thing; else the code point itself."""
    code = entry["hexcode"].upper()
    if subgroup == "person" or not subgroup.startswith("person-"):
        return code
    parts = [part for part in code.split("-") if part not in ("2640", "2642", "FE0F")]
    if parts[0] in ("1F468", "1F469", "1F9D1"):
        parts[0] = "1F9D1"
    while parts[-1] == "200D":
        parts.pop()
    return "-".join(parts)


def _one_of(family: str, members: list[dict[str, Any]]) -> dict[str, Any]:
    """Of near twins the neutral one; where it would be named "person ...", the man or the woman."""
    neutral = [e for e in members if "gender" not in e]
    if neutral and not neutral[0]["label"].startswith(("person", "people", "deaf person")):
        return neutral[0]
    wanted = (_FEMALE, _MALE)[hashlib.sha256(family.encode()).digest()[0] % 2]
    gendered = [e for e in members if e.get("gender") == wanted]
    return (gendered or members)[0]
