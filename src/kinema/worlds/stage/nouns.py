"""The nouns of the stage: their words, sprites and abilities.

A row holds the noun's name (also its first English word), its sprite in the atlas, the Chinese measure word
and word, the side that its sprite faces, its traits, and further English words. Traits determine the verbs
(`verbs.py`):

    round    rolls and bounces
    wheels   drives
    legs     walks
    hops     hops
    flies    flies
    floats   rises
    rooted   never moves along the ground
    heavy, light   the mass in collisions
    big      may stand in front of what passes behind it

The order is a curriculum: the sprites of the first n nouns are as distinct as possible.
"""

from dataclasses import dataclass
from typing import Literal

Facing = Literal["left", "right", "front"]


@dataclass(frozen=True)
class Noun:
    """One row of the table. `turn` is the clockwise angle in degrees that sets the atlas sprite upright."""

    name: str
    sprite: str
    chinese: str
    measure: str
    facing: Facing
    traits: frozenset[str]
    synonyms: tuple[str, ...] = ()
    turn: float = 0.0

    @property
    def mass(self) -> float:
        """Mass per unit of area, in arbitrary units: light 0.5, plain 1, heavy 3."""
        return 3.0 if "heavy" in self.traits else 0.5 if "light" in self.traits else 1.0

    @property
    def words(self) -> tuple[str, ...]:
        """The English singular words, the usual one first."""
        return (self.name, *self.synonyms)

    @property
    def locomotion(self) -> str | None:
        """The verb by which it moves along the ground or through the air; None if it has none."""
        for trait, verb in (
            ("wheels", "drive"),
            ("round", "roll"),
            ("legs", "walk"),
            ("hops", "hop"),
            ("flies", "fly"),
        ):
            if trait in self.traits:
                return verb
        return None


def _row(
    name: str, sprite: str, chinese: str, facing: Facing, traits: str, *synonyms: str, turn: float = 0.0
) -> Noun:
    return Noun(name, sprite, chinese[1:], chinese[0], facing, frozenset(traits.split()), synonyms, turn)


_TABLE = (
    _row("soccer ball", "soccer-ball", "个足球", "front", "round light", "football"),
    _row("rocket", "rocket", "枚火箭", "front", "floats heavy", "space rocket", turn=-45),
    _row("car", "automobile", "辆红色汽车", "left", "wheels heavy", "red car"),
    _row("penguin", "penguin", "只企鹅", "front", "legs hops"),
    _row("balloon", "balloon", "个气球", "front", "floats light", "red balloon"),
    _row("tractor", "tractor", "台拖拉机", "left", "wheels heavy", "farm tractor"),
    _row("duck", "duck", "只鸭子", "left", "legs flies light", "mallard"),
    _row("pumpkin", "jack-o-lantern", "个南瓜", "front", "round", "carved pumpkin"),
    _row("turtle", "turtle", "只乌龟", "left", "legs", "tortoise"),
    _row("butterfly", "butterfly", "只蝴蝶", "front", "flies light"),
    _row("bus", "bus", "辆公交车", "left", "wheels heavy", "city bus"),
    _row("basketball", "basketball", "个篮球", "front", "round light"),
    _row("helicopter", "helicopter", "架直升机", "left", "flies heavy", "chopper"),
    _row("elephant", "elephant", "头大象", "left", "legs heavy big"),
    _row("apple", "red-apple", "个苹果", "front", "round light", "red apple"),
    _row("airplane", "airplane", "架飞机", "right", "flies heavy", "plane", turn=25),
    _row("horse", "horse", "匹马", "left", "legs heavy", "brown horse"),
    _row("star", "star", "颗星星", "front", "floats light", "yellow star"),
    _row("sunflower", "sunflower", "朵向日葵", "front", "rooted big"),
    _row("frog", "frog", "只青蛙", "front", "hops", "green frog"),
    _row("crab", "crab", "只螃蟹", "front", "legs light", "red crab"),
    _row("teddy bear", "teddy-bear", "只玩具熊", "front", "hops light big", "toy bear"),
    _row("pine tree", "evergreen-tree", "棵松树", "front", "rooted big", "evergreen tree"),
    _row("snowman", "snowman-without-snow", "个雪人", "front", "big hops"),
    _row("cactus", "cactus", "棵仙人掌", "front", "rooted big"),
    _row("fox", "fox", "只狐狸", "front", "hops legs"),
    _row("bee", "honeybee", "只蜜蜂", "left", "flies light", "honeybee"),
    _row("orange", "tangerine", "个橙子", "front", "round light", "tangerine"),
    _row("train", "locomotive", "列火车", "left", "wheels heavy", "locomotive"),
    _row("rabbit", "rabbit", "只兔子", "left", "hops light", "bunny"),
    _row("taxi", "taxi", "辆出租车", "left", "wheels heavy", "cab"),
    _row("ufo", "flying-saucer", "个飞碟", "front", "flies", "flying saucer"),
    _row("cow", "cow", "头奶牛", "left", "legs heavy big"),
    _row("volleyball", "volleyball", "个排球", "front", "round light"),
    _row("parrot", "parrot", "只鹦鹉", "left", "flies hops light"),
    _row("house", "house", "座房子", "front", "rooted heavy big"),
    _row("pig", "pig", "头猪", "left", "legs", "pink pig"),
    _row("fire truck", "fire-engine", "辆消防车", "left", "wheels heavy", "fire engine"),
    _row("watermelon slice", "watermelon", "块西瓜", "front", "light"),
    _row("octopus", "octopus", "只章鱼", "front", "legs hops"),
    _row("bicycle", "bicycle", "部自行车", "left", "wheels", "bike"),
    _row("panda", "panda", "只熊猫", "front", "legs hops"),
    _row("mushroom", "mushroom", "个蘑菇", "front", "light big", "red mushroom"),
    _row("tiger", "tiger", "只老虎", "left", "legs", "striped tiger"),
    _row("gift box", "wrapped-gift", "个礼物盒", "front", "light big", "present"),
    _row("snail", "snail", "只蜗牛", "left", "legs light"),
    _row("dinosaur", "t-rex", "只恐龙", "left", "legs heavy big", "green dinosaur"),
    _row("doughnut", "doughnut", "个甜甜圈", "front", "round light", "donut"),
    _row("flamingo", "flamingo", "只火烈鸟", "left", "legs flies light", "pink flamingo"),
    _row("tent", "tent", "顶帐篷", "front", "rooted big", "green tent"),
    _row("ladybug", "lady-beetle", "只瓢虫", "front", "flies legs light", "ladybird"),
    _row("ambulance", "ambulance", "辆救护车", "left", "wheels heavy"),
    _row("lion", "lion", "头狮子", "front", "legs heavy"),
    _row("wagon wheel", "wheel", "个木轮", "front", "round", "wooden wheel"),
    _row("owl", "owl", "只猫头鹰", "front", "flies hops"),
    _row("cupcake", "cupcake", "个纸杯蛋糕", "front", "light"),
    _row("giraffe", "giraffe", "只长颈鹿", "left", "legs heavy big"),
    _row("scooter", "motor-scooter", "辆踏板车", "left", "wheels", "motor scooter"),
    _row("whale", "spouting-whale", "条鲸鱼", "left", "heavy"),
    _row("palm tree", "palm-tree", "棵棕榈树", "front", "rooted big"),
    _row("dog", "dog", "只狗", "left", "legs", "brown dog"),
    _row("baseball", "baseball", "个棒球", "front", "round light"),
    _row("rooster", "rooster", "只公鸡", "left", "legs light"),
    _row("castle", "castle", "座城堡", "front", "rooted heavy big"),
    _row("monkey", "monkey", "只猴子", "left", "legs hops"),
    _row("truck", "delivery-truck", "辆货车", "left", "wheels heavy", "delivery truck"),
    _row("crown", "crown", "顶皇冠", "front", "light", "golden crown"),
    _row("zebra", "zebra", "匹斑马", "left", "legs"),
    _row("lemon", "lemon", "个柠檬", "front", "round light"),
    _row("koala", "koala", "只考拉", "front", "hops legs"),
    _row("guitar", "guitar", "把吉他", "front", "light", "electric guitar"),
    _row("swan", "swan", "只天鹅", "left", "flies legs light"),
    _row("kite", "kite", "只风筝", "front", "flies light"),
    _row("rhino", "rhinoceros", "头犀牛", "left", "legs heavy", "rhinoceros"),
    _row("tomato", "tomato", "个番茄", "front", "round light"),
    _row("cat", "cat", "只猫", "left", "legs", "kitten"),
    _row("racing car", "racing-car", "辆赛车", "left", "wheels heavy", "race car"),
    _row("umbrella", "umbrella", "把雨伞", "front", "light", "purple umbrella"),
    _row("chick", "baby-chick", "只小鸡", "left", "legs hops light", "baby chick"),
    _row("diamond", "gem-stone", "颗钻石", "front", "light", "gem"),
    _row("camel", "camel", "头骆驼", "left", "legs heavy"),
    _row("ringed planet", "ringed-planet", "颗行星", "front", "floats heavy", "planet"),
    _row("eight ball", "pool-8-ball", "个黑球", "front", "round", "pool ball"),
    _row("eagle", "eagle", "只老鹰", "left", "flies"),
    _row("strawberry", "strawberry", "颗草莓", "front", "light"),
    _row("police car", "police-car", "辆警车", "left", "wheels heavy"),
    _row("bear", "bear", "头熊", "front", "legs heavy"),
    _row("oak tree", "deciduous-tree", "棵橡树", "front", "rooted big", "leafy tree"),
    _row("snake", "snake", "条蛇", "left", "legs light"),
    _row("burger", "hamburger", "个汉堡", "front", "light", "hamburger"),
    _row("deer", "deer", "头鹿", "left", "legs"),
    _row("hedgehog", "hedgehog", "只刺猬", "left", "legs light"),
    _row("bomb", "bomb", "颗炸弹", "front", "round heavy"),
    _row("tulip", "tulip", "朵郁金香", "front", "rooted", "pink tulip"),
    _row("motorcycle", "motorcycle", "辆摩托车", "left", "wheels heavy", "motorbike"),
    _row("squirrel", "chipmunk", "只松鼠", "left", "hops light", "chipmunk"),
    _row("cookie", "cookie", "块曲奇饼", "front", "round light"),
    _row("shark", "shark", "条鲨鱼", "left", "heavy"),
    _row("dove", "dove", "只鸽子", "left", "flies light", "white dove"),
    _row("goat", "goat", "只山羊", "left", "legs"),
    _row("birthday cake", "birthday-cake", "个生日蛋糕", "front", "big", "cake"),
    _row("spider", "spider", "只蜘蛛", "front", "legs light"),
    _row("christmas tree", "christmas-tree", "棵圣诞树", "front", "rooted big"),
    _row("drum", "drum", "面鼓", "front", "light", "snare drum"),
    _row("kangaroo", "kangaroo", "只袋鼠", "left", "hops"),
    _row("tram", "tram-car", "辆电车", "front", "wheels heavy", "streetcar"),
    _row("rock", "rock", "块石头", "front", "heavy big", "grey rock"),
    _row("mouse", "mouse", "只老鼠", "left", "legs light"),
    _row("teapot", "teapot", "个茶壶", "left", "light", "red teapot"),
    _row("hippo", "hippopotamus", "头河马", "left", "legs heavy", "hippopotamus"),
    _row("peach", "peach", "个桃子", "front", "round light"),
    _row("die", "game-die", "颗骰子", "front", "light", "dice cube"),
)

NOUNS: dict[str, Noun] = {noun.name: noun for noun in _TABLE}
