"""Captions of the stage in English and Chinese. Nouns and verbs have their words in tables of their own."""

import random
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

from kinema.errors import RequestError
from kinema.worlds.base import FORMS, LANGUAGES
from kinema.worlds.stage.nouns import NOUNS, Noun
from kinema.worlds.stage.verbs import VERBS

T = TypeVar("T")

FOIL_SLOTS = ("noun", "verb", "direction", "ground", "sky", "size", "count", "camera")
CHOICES = (
    *("noun", "other", "verb", "direction", "ground", "sky", "size", "camera", "tail"),
    *("order", "detail", "style", "drop", "drop_b"),
)
"""The random choices of a caption, in the order in which they are drawn."""

DIRECTIONS: dict[str, tuple[str, ...]] = {
    "left": ("to the left", "leftwards"),
    "right": ("to the right", "rightwards"),
    "clockwise": ("clockwise",),
    "counterclockwise": ("counterclockwise",),
    "up": ("",),
    "down": ("",),
    "none": ("",),
}
GROUND_WORDS: dict[str, tuple[str, ...]] = {
    "grass": ("a grassy field", "a green meadow", "a field of grass"),
    "desert": ("a sandy desert", "the desert sand"),
    "snow": ("a snowy plain", "a field of snow"),
    "road": ("a city road", "a city street"),
    "wood": ("a wooden floor", "a floor of wooden planks"),
    "lavender": ("a lavender field", "a purple lavender field"),
}
SKY_WORDS: dict[str, tuple[str, ...]] = {
    "day": ("under a blue sky", "on a sunny day"),
    "sunset": ("at sunset", "under an orange sunset sky"),
    "night": ("at night", "under a starry night sky"),
    "cloudy": ("on a cloudy day", "under a grey cloudy sky"),
    "dawn": ("at dawn", "under a pink dawn sky"),
}
INTO_SKY = {"day": "blue", "sunset": "sunset", "night": "night", "cloudy": "cloudy", "dawn": "pink dawn"}
SIZES: dict[str, tuple[str, ...]] = {
    "small": ("small", "little"),
    "regular": ("medium-sized",),
    "large": ("large", "big"),
}
COUNTS = {2: "two", 3: "three"}
CAMERAS: dict[str, tuple[str, ...]] = {
    "still": ("the camera is still", "the camera does not move"),
    "pan_left": ("the camera pans left", "the camera pans to the left"),
    "pan_right": ("the camera pans right", "the camera pans to the right"),
    "zoom_in": ("the camera zooms in", "the camera slowly zooms in"),
    "zoom_out": ("the camera zooms out", "the camera slowly zooms out"),
    "follow": ("the camera follows {it}", "the camera moves along with {it}"),
}
CAMERA_STOPS = " and stops"
TAILS: dict[str, tuple[tuple[str, str], ...]] = {
    "turns_back": (
        ("and turns back at the edge", "and turn back at the edge"),
        ("and turns around at the edge", "and turn around at the edge"),
    ),
    "rolls_on": (("and then rolls on", "and then roll on"),),
    "hovers": (("and hovers there", "and hover there"),),
    "stops": (("and comes to a stop", "and come to a stop"),),
}
STYLES = ("Flat cartoon style.", "Simple flat cartoon style.")
FIXED = "a an the at under on over onto in into the sky scene is it them they"

DIRECTIONS_ZH: dict[str, tuple[str, ...]] = {
    "left": ("向左", "往左"),
    "right": ("向右", "往右"),
    "clockwise": ("顺时针",),
    "counterclockwise": ("逆时针",),
    "up": ("",),
    "down": ("",),
    "none": ("",),
}
GROUND_WORDS_ZH = {
    "grass": ("草地", "绿草地"),
    "desert": ("沙漠", "沙地"),
    "snow": ("雪地", "雪原"),
    "road": ("城市马路", "城市街道"),
    "wood": ("木地板",),
    "lavender": ("薰衣草田", "紫色薰衣草田"),
}
SKY_WORDS_ZH = {
    "day": ("蓝天下", "晴天"),
    "sunset": ("日落时", "夕阳下"),
    "night": ("夜晚", "星空下"),
    "cloudy": ("阴天", "灰色的天空下"),
    "dawn": ("黎明时", "粉色的晨光中"),
}
SIZES_ZH = {"small": ("很小的", "小小的"), "regular": ("中等大小的",), "large": ("很大的", "大大的")}
COUNTS_ZH = {1: "一", 2: "两", 3: "三"}
CAMERAS_ZH = {
    "still": ("镜头静止", "镜头不动"),
    "pan_left": ("镜头向左平移", "镜头左移"),
    "pan_right": ("镜头向右平移", "镜头右移"),
    "zoom_in": ("镜头拉近", "镜头推近"),
    "zoom_out": ("镜头拉远", "镜头后退"),
    "follow": ("镜头跟随", "镜头跟着移动"),
}
CAMERA_STOPS_ZH = "然后停下"
TAILS_ZH = {
    "turns_back": ("，到边缘后折返", "，在边缘掉头"),
    "rolls_on": ("，然后继续滚动",),
    "hovers": ("，然后停在空中",),
    "stops": ("，然后停下",),
}
STYLES_ZH = ("扁平卡通风格", "简单的扁平卡通风格")
FIXED_ZH = ("在", "上", "。", "，")

IRREGULAR = {"mouse": "mice", "die": "dice", "deer": "deer", "cactus": "cacti", "octopus": "octopuses"}
IRREGULAR |= {"bus": "buses", "dice cube": "dice cubes"}


def plural(words: str) -> str:
    """The plural of an English noun phrase."""
    if words in IRREGULAR:
        return IRREGULAR[words]
    head, _, last = words.rpartition(" ")
    if last in IRREGULAR:
        last = IRREGULAR[last]
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return f"{head} {last}".strip()


def article(words: str) -> str:
    """The words with "a" or "an" in front."""
    return ("an " if words[0] in "aeiou" and not words.startswith(("ufo", "uni")) else "a ") + words


class _Draws:
    """One number in [0, 1) per choice.

    All are drawn first, so that the value of one slot does not change the words of the others."""

    def __init__(self, rng: random.Random):
        self.value = {name: rng.random() for name in CHOICES}

    def pick(self, name: str, options: tuple[Any, ...]) -> Any:
        """One of `options`: the first in half of all captions, so that the usual wording is learned best."""
        value = self.value[name]
        if value < 0.5:
            return options[0]
        return options[min(int((value - 0.5) * 2 * len(options)), len(options) - 1)]

    def named_size(self, size: str, form: str) -> str:
        """The size if the caption names it, else an empty string."""
        if form == "detailed":
            return size
        is_dropped = form == "short" and self.value["drop"] < 0.5
        return "" if size == "regular" or is_dropped else size


def caption(truth: Mapping[str, Any], form: str, language: str, rng: random.Random) -> str:
    """The caption of a clip with that truth. `rng` selects synonyms and word order.

    A short caption names the nouns and the verb, mostly the direction, and sometimes the ground or sky. A
    medium caption names every slot that does not have its default value (one object, regular size, still
    camera). A detailed caption names all slots in a few sentences. Raises `RequestError` for an unknown form
    or language.
    """
    if form not in FORMS or language not in LANGUAGES:
        raise RequestError(
            f"no caption '{form}' in '{language}': "
            f"forms are {', '.join(FORMS)}; languages are {', '.join(LANGUAGES)}"
        )
    write = {"en": _english, "zh": _chinese}[language]
    return write(truth, form, _Draws(rng))


def _phrase(noun: Noun, count: int, size: str, draws: _Draws, slot: str) -> str:
    word = draws.pick(slot, noun.words)
    adjective = draws.pick("size", SIZES[size]) + " " if size else ""
    if count == 1:
        return article(adjective + word)
    return f"{COUNTS[count]} {adjective}{plural(word)}"


def _english(truth: Mapping[str, Any], form: str, draws: _Draws) -> str:
    verb, count = VERBS[truth["verb"]], truth["count"]
    number = 0 if count == 1 else 1

    subject = _phrase(NOUNS[truth["noun"]], count, draws.named_size(truth["size"], form), draws, "noun")
    action = draws.pick("verb", verb.english)[number]
    if truth["other"]:
        action = action.format(other=_phrase(NOUNS[truth["other"]], 1, "", draws, "other"))
    direction = draws.pick("direction", DIRECTIONS[truth["direction"]])
    ground = draws.pick("ground", GROUND_WORDS[truth["ground"]])
    sky = draws.pick("sky", SKY_WORDS[truth["sky"]])
    on_ground = f"{verb.preposition} {ground}"
    order = draws.value["order"]

    if form == "short":
        if draws.value["drop_b"] < 0.15 and verb.kind != "turning":
            direction = ""
        setting = on_ground if order < 0.25 else sky if order < 0.45 else ""
        return _join([subject, action, direction, setting])

    tail = draws.pick("tail", TAILS[truth["tail"]])[number] if truth["tail"] else ""
    if verb.is_into_sky and order < 0.6:
        phrases = [subject, action, f"into the {INTO_SKY[truth['sky']]} sky", on_ground, tail]
    elif not verb.is_into_sky and order < 0.15:
        phrases = [f"{sky},", subject, action, direction, on_ground, tail]
    else:
        phrases = [subject, action, direction, on_ground, sky, tail]
    sentence = _join(phrases)

    camera = draws.pick("camera", CAMERAS[truth["camera"]]).format(it="it" if count == 1 else "them")
    camera += CAMERA_STOPS if truth["camera_stops"] else ""
    if form == "medium":
        return sentence if truth["camera"] == "still" else f"{sentence}, {camera}"

    detail = draws.pick("detail", verb.details) if count == 1 else ""
    scene = f"The scene is {ground} {sky}."
    style = draws.pick("style", STYLES)
    return _join([f"{_capital(sentence)}.", detail, scene, f"{_capital(camera)}.", style])


def _join(phrases: Iterable[str]) -> str:
    return " ".join(filter(None, phrases))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _chinese(truth: Mapping[str, Any], form: str, draws: _Draws) -> str:
    noun = NOUNS[truth["noun"]]
    other = NOUNS[truth["other"]] if truth["other"] else None
    size = draws.named_size(truth["size"], form)
    adjective = draws.pick("size", SIZES_ZH[size]) if size else ""
    subject = COUNTS_ZH[truth["count"]] + noun.measure + adjective + noun.chinese

    ground = draws.pick("ground", GROUND_WORDS_ZH[truth["ground"]])
    sky = draws.pick("sky", SKY_WORDS_ZH[truth["sky"]])
    order = draws.value["order"]
    action = draws.pick("verb", VERBS[truth["verb"]].chinese).format(
        at="" if form == "short" and order >= 0.25 else f"在{ground}上",
        ground=ground,
        to=draws.pick("direction", DIRECTIONS_ZH[truth["direction"]]),
        other=f"一{other.measure}{other.chinese}" if other else "",
    )
    if form == "short":
        return f"{sky}，{subject}{action}" if 0.25 <= order < 0.45 else subject + action

    tail = draws.pick("tail", TAILS_ZH[truth["tail"]]) if truth["tail"] else ""
    sentence = f"{sky}，{subject}{action}{tail}"
    stops = CAMERA_STOPS_ZH if truth["camera_stops"] else ""
    camera = f"，{draws.pick('camera', CAMERAS_ZH[truth['camera']])}{stops}"
    if form == "medium":
        return sentence if truth["camera"] == "still" else sentence + camera
    return f"{sentence}{camera}。{draws.pick('style', STYLES_ZH)}。"


def words_of(nouns: list[str]) -> tuple[str, ...]:
    """Every word of the captions about `nouns`: lower-case English words, then Chinese words, in table order.

    A Chinese caption is a sequence of the Chinese words and of the marks `，` and `。`.
    """
    english: list[str] = [FIXED, CAMERA_STOPS, *STYLES, *INTO_SKY.values(), *COUNTS.values()]
    english += [text for verb in VERBS.values() for pair in verb.english for text in pair]
    english += [text for pair in _flat(TAILS) for text in pair]
    for table in (DIRECTIONS, GROUND_WORDS, SKY_WORDS, SIZES, CAMERAS):
        english += _flat(table)
    english += [text for verb in VERBS.values() for text in verb.details]

    chinese: list[str] = [*FIXED_ZH, CAMERA_STOPS_ZH, *STYLES_ZH, *COUNTS_ZH.values()]
    chinese += [text for verb in VERBS.values() for text in verb.chinese]
    for table_zh in (DIRECTIONS_ZH, GROUND_WORDS_ZH, SKY_WORDS_ZH, SIZES_ZH, CAMERAS_ZH, TAILS_ZH):
        chinese += _flat(table_zh)

    for name in nouns:
        noun = NOUNS[name]
        english += [text for word in noun.words for text in (word, plural(word))]
        chinese += [noun.measure, noun.chinese]

    english_words: list[str] = []
    for text in english:
        english_words += re.findall(r"[a-z]+(?:-[a-z]+)*", re.sub(r"\{\w+\}", " ", text).lower())
    chinese_words: list[str] = []
    for text in chinese:
        chinese_words += re.sub(r"\{\w+\}|，", " ", text).split()
    return tuple(dict.fromkeys([*english_words, "，", *chinese_words]))


def _flat(table: Mapping[str, Iterable[T]]) -> list[T]:
    return [option for options in table.values() for option in options]


@cache
def optional_phrases(language: str) -> dict[str, tuple[str, ...]]:
    """By slot, the phrases with which a medium caption can name it and without which it stays a caption.

    Longer phrases come first.
    """
    phrases = OPTIONAL_PHRASES[language]()
    return {
        slot: tuple(sorted(set(texts), key=lambda text: (-len(text), text)))
        for slot, texts in phrases.items()
    }


def _english_phrases() -> dict[str, list[str]]:
    prepositions = {verb.preposition for verb in VERBS.values()}
    cameras = [f", {text.format(it=it)}" for text in _flat(CAMERAS) for it in ("it", "them")]
    return {
        "ground": [f"{preposition} {text}" for preposition in prepositions for text in _flat(GROUND_WORDS)],
        "sky": [*_flat(SKY_WORDS), *(f"into the {name} sky" for name in INTO_SKY.values())],
        "direction": [text for text in _flat(DIRECTIONS) if text],
        "tail": [text for pair in _flat(TAILS) for text in pair],
        "size": _flat(SIZES),
        "camera": [*cameras, *(text + CAMERA_STOPS for text in cameras)],
    }


def _chinese_phrases() -> dict[str, list[str]]:
    cameras = [f"，{text}" for text in _flat(CAMERAS_ZH)]
    return {
        "ground": [f"在{text}上" for text in _flat(GROUND_WORDS_ZH)],
        "sky": [f"{text}，" for text in _flat(SKY_WORDS_ZH)],
        "direction": [text for text in _flat(DIRECTIONS_ZH) if text],
        "tail": _flat(TAILS_ZH),
        "size": _flat(SIZES_ZH),
        "camera": [*cameras, *(text + CAMERA_STOPS_ZH for text in cameras)],
    }


OPTIONAL_PHRASES = {"en": _english_phrases, "zh": _chinese_phrases}
