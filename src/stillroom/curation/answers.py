"""Answers in which a model declines, by how they begin: English and Japanese.

Beginnings, because an answer that quotes a refusal is none. A phrase alone ("I'm sorry") is none either: support
staff, too, are sorry. docs/curation.md says what this finds and what it does not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from stillroom.chat import parted
from stillroom.curation.texts import Said

BEGINNING = 300  # letters that are looked at
_CANNOT = (
    r"(?:can(?:no|')t|can not|could(?: not|n't)|won't|will not|"
    r"(?:am|'m|are|'re) (?:unable|not able|not allowed|not comfortable)(?: to)?)"
)
_WHAT = (
    r"(?:(?:help|assist)(?:ing)?(?: you)?(?: (?:with|in|to|on)\b|[.,!]|$)|comply|fulfil|do (?:that|this)\b|"
    r"(?:continue|engage)\b|(?:answer|discuss|support) (?:that|this|your|the|such)\b|"
    r"(?:provid|creat|generat|shar|writ|giv|offer|produc)(?:e|ing)\b(?: you)?(?: with)? (?:that|this|such|instructions|"
    r"information|guidance|advice|assistance|content|medical|legal|financial|explicit|harmful)\b)"
)
_REGRET = r"(?:i(?:'m| am) (?:\w+ )?sorry|sorry|(?:my )?apologies|i apologi[sz]e|unfortunately|i(?:'m| am) afraid)"
ENGLISH = (
    rf"(?:{_REGRET}[^.!?\n]{{0,60}}?\b)?(?:i|we) ?(?:{_CANNOT} (?:be able to )?{_WHAT}|(?:must|have to|need to) decline\b)",
    rf"(?:{_REGRET}[^.!?\n]{{0,20}}?)?as an? (?:ai|artificial intelligence|(?:large )?language model)"
    rf"(?: (?:language )?(?:model|assistant|system))?,? i\b[^.!?\n]{{0,60}}?(?:{_CANNOT}|(?:do not|don't) have)",
    rf"(?:{_REGRET}[^.!?\n]{{0,20}}?)?(?:this|that|your|the) request (?:goes against|violates|is against)",
)
_ANSWER = r"お?(?:手伝い|答え|応え|こたえ|教え)(?:を)?(?:する(?:こと(?:は|が)?)?)?(?:は)?でき(?:ません|かねます)"
_DECLINED = (
    rf"(?:{_ANSWER}|"
    r"(?:お?(?:答え|応え|教え)する|応じる|提供する|対応する|生成する|作成する|支援する)(?:こと|わけ)(?:は|が|には)?(?:でき|いき|まいり)ません|"
    r"ご?(?:提供|対応|生成|作成|回答|支援|案内)(?:は|を|が|も)?(?:いた|致)?(?:しかね(?:ます|る)|でき(?:ません|かねます)))"
)
_ASKED = r"(?:依頼|要望|要求|質問|リクエスト|内容|情報|話題|トピック|コンテンツ)"
_SORRY = r"(?:大変)?(?:申し訳(?:あり|ござい)ません|申し訳ない(?:です)?|すみません|ごめんなさい|恐れ入ります|残念(?:ながら|ですが))"
JAPANESE = (
    rf"{_SORRY}[^。！？\n]{{0,60}}?{_DECLINED}",
    rf"(?:その|この|そのような|このような|こうした)?ご?{_ASKED}[^。！？\n]{{0,30}}?{_DECLINED}",
    r"(?:私は)?(?:AI|人工知能|言語モデル)(?:アシスタント|モデル)?(?:として|なので|ですので|であるため|のため)[^。！？\n]{0,60}?できません",
    _ANSWER,
)
DECLINES = re.compile("|".join((*ENGLISH, *JAPANESE)), re.IGNORECASE)
OPENING = re.compile(r"\A[\s\"'“”‘’「『*_#>-]+")


def is_refusal(said: Said, phrases: Sequence[str] | None) -> bool:
    """`phrases`: how refusals begin, instead of those that are known here."""
    if said.refusal or said.finish_reason == "content_filter":
        return True
    answer = OPENING.sub("", parted(said.answer)[1][: 2 * BEGINNING], count=1)
    begin = answer[:BEGINNING].replace("\u2019", "'")
    if phrases is not None:
        return begin.casefold().startswith(tuple(phrase.strip().casefold() for phrase in phrases))
    return DECLINES.match(begin) is not None
