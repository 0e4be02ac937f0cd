"""Word lists and limits that expansion and its checks share."""

MAX_PROMPT_CHARACTERS = 2000

QUOTES = {'"': '"', "“": "”", "‘": "’", "「": "」", "『": "』", "«": "»", "《": "》"}
"""Closing quotation mark by the opening one."""

NEGATIONS = frozenset(
    """
    no not without never none nobody nothing neither nor cannot dont doesnt isnt arent wasnt werent wont
    cant didnt shouldnt
    """.split()  # noqa: SIM905
)

NEGATIONS_ZH = ("没有", "不要", "不许", "不能", "没", "不", "无", "别", "勿", "未")

CLAUSE_ENDS = frozenset(",.;:!?，。；：！？")
