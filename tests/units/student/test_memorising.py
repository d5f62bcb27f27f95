"""The smallest real job: eleven rows, everything on "auto", and every answer comes back word for word."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stillroom.student.chats.examples import read_rows
from stillroom.student.hyperparameters import Hyperparameters
from stillroom.student.serving.engine import Engine, GenerateRequest
from stillroom.student.serving.sampling import Sampling

from .conftest import trained_run, write_rows

SYSTEM = "あなたは雑貨店「月と茶」の店員、ことりです。丁寧に、短く、少しだけ詩のように答えてください。"
ANSWERS = {
    "営業時間を教えて": "はい、朝は十時にのれんを出し、夜は七時に灯を落とします。雨の日は少しだけ長く開けております。",
    "返品できますか": "もちろんです。お受け取りから十四日のうちに、箱のままお持ちください。送料は私どもが負います。",
    "おすすめは?": "今の季節なら、藍の湯呑みを。ほうじ茶の湯気が、青い縁にやさしく映えますよ 🍵",
    "予約したい": "ありがとうございます。お名前と人数、ご希望の時刻をどうぞ。窓辺の席を、そっとお取りしておきます。",
    "駐車場はある?": "店の裏手に三台ぶんございます。細い路地ですので、猫にお気をつけてお入りください。",
    "電話番号は?": "〇三の一二三四の五六七八でございます。つながらぬ折は、留守番の小箱に声をお残しください。",
    "配送は何日?": "ご注文の翌日に包み、本州なら二日、島々へは四日ほどで届きます。割れ物は綿でくるみます。",
    "支払い方法は": "現金のほか、主なカードと電子のお財布をお使いいただけます。分割は三万円より承ります。",
    "ギフト包装は": "無料でお包みします。和紙は桜、若竹、薄墨の三色から。短いお手紙も添えられます。",
    "求人はある?": "今は春の手伝いを二名、探しております。土曜に来られる方、器のお好きな方を歓迎します。",
    "苦情を言いたい": "ご不快をおかけし、まことに申し訳ございません。いきさつをお聞かせください。必ず店主がお返事いたします。",
}


@pytest.mark.slow
def test_eleven_japanese_answers_are_learned_word_for_word(tmp_path: Path, engine: Engine) -> None:
    rows = [
        {
            "messages": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }
        for question, answer in ANSWERS.items()
    ]
    read = read_rows(write_rows(tmp_path / "rows.jsonl", rows))
    events = trained_run(tmp_path, read, hyperparameters=Hyperparameters())
    asyncio.run(engine.attach("kotori", Path(events[-1]["path"])))

    async def ask(question: str) -> str:
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
        prompt = engine.student("kotori").template.encode_prompt(messages)
        request = GenerateRequest(model="kotori", prompt_ids=prompt, max_tokens=300, sampling=Sampling(temperature=0))
        return "".join([event.text async for event in engine.generate(request)])

    async def ask_all() -> list[str]:
        return await asyncio.gather(*map(ask, ANSWERS))

    assert asyncio.run(ask_all()) == list(ANSWERS.values())
