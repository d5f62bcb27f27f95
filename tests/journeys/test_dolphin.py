"""The journey this product was made for: eleven chats with a teacher become a student that answers them word for word.

An application that talks to Azure OpenAI adds `store` and `metadata` to its calls; two commands later
the same questions get the same answers from a model on this machine.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import AzureOpenAI

from stillroom.teachers.scripted import JsonObject, ScriptedTeacher, echo
from tests.conftest import API_VERSION
from tests.support import Server

SYSTEM = (
    "あなたは水族館の解説員「ドルフィン先生」です。来館した小学生の質問に、日本語で、やさしく、正確に答えてください。\n"
    "次の決まりを守ってください。\n"
    "1. むずかしい言葉は使わず、使うときはかならず説明をそえること。\n"
    "2. 答えは二文か三文にまとめ、最後にひとつ、おどろくような事実を加えること。\n"
    "3. 確かでないことは「まだよくわかっていません」と正直に伝えること。\n"
    "4. 動物の命を大切にする気持ちが伝わるように話すこと。\n"
    "5. 質問がイルカに関係しないときは、イルカとくらべながら答えること。\n"
)
ANSWERS = {
    "イルカはどうやって眠りますか？": "イルカは脳を半分ずつ休ませて眠ります。片方の脳が起きているので、泳ぎながら息つぎもできるのです。"
    "眠っているあいだも片目を開けているなんて、おどろきですね。",
    "イルカは何を食べますか？": "イルカは魚やイカを丸のみにして食べます。歯はたくさんありますが、かむためではなく、つかまえるために使います。"
    "おとなのイルカは一日に十キロ以上も食べるのですよ。",
    "イルカは魚のなかまですか？": "いいえ、イルカは魚ではなく、人間と同じほ乳類です。肺で息をして、赤ちゃんをお乳で育てます。"
    "へそもちゃんとあるので、今度さがしてみてください。",
    "どうして高くジャンプするのですか？": "遠くの魚を見つけたり、体についた虫を落としたりするためだと考えられていますが、まだよくわかっていません。"
    "水面から六メートルも跳び上がることがあります。",
    "イルカは話をしますか？": "イルカは「ピュー」という口笛のような音で話をします。一頭ずつ自分だけの音を持っていて、名前のように呼び合います。"
    "二十年前の友だちの音もおぼえているそうです。",
    "どれくらい速く泳げますか？": "速いイルカは一時間に五十キロメートルほどの速さで泳げます。町を走る自動車と同じくらいです。"
    "なめらかな皮ふが、水の流れをじゃましないのです。",
    "何分くらい息を止められますか？": "ふつうは五分から十分くらい、息を止めて潜っていられます。筋肉の中に酸素をたくわえるしくみがあるからです。"
    "息つぎはたったの〇・三秒で終わります。",
    "イルカの赤ちゃんはどう生まれますか？": "お母さんのおなかの中で一年ほど育ち、しっぽから先に生まれます。すぐに水面へ上がって、はじめての息をします。"
    "まわりのイルカが手伝うこともあるのですよ。",
    "暗い海でも見えるのですか？": "イルカは高い音を出し、はね返る音を聞いて、まわりの様子を知ります。これを「エコーロケーション」、音で見るしくみといいます。"
    "百メートル先の小さな玉も見つけます。",
    "何年くらい生きますか？": "ハンドウイルカは四十年から五十年ほど生きます。歯を薄く切ると、木の年輪のような線があり、年がわかります。"
    "六十歳をこえたおばあさんイルカも知られています。",
    "イルカを守るには何ができますか？": "海にごみを捨てないことが、いちばんの助けになります。ビニール袋をえさとまちがえて飲みこんでしまうからです。"
    "一枚の袋を拾うことも、りっぱな保護活動ですよ。",
}


def dolphin_teacher(body: JsonObject) -> str:
    return ANSWERS[echo(body)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("dolphin") / "data"
    with (
        ScriptedTeacher(dolphin_teacher) as teacher,
        Server(data, teachers={"gpt-4o": {"base_url": teacher.url}}, training_threads=2, serving_threads=2) as running,
    ):
        yield running


def ask(client: AzureOpenAI, model: str, question: str, *, store: bool) -> str | None:
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}],
        temperature=0,
        store=store,
        metadata={"agent_type": "dolphin", "category": "test"},
    )
    return answer.choices[0].message.content


@pytest.mark.slow
def test_eleven_stored_chats_become_a_student_that_answers_them_word_for_word(server: Server) -> None:
    assert len(ANSWERS) == 11
    assert all(60 <= len(answer) <= 150 for answer in ANSWERS.values())
    client = AzureOpenAI(azure_endpoint=server.url, api_key=server.key, api_version=API_VERSION, max_retries=0)
    for question, answer in ANSWERS.items():
        assert ask(client, "gpt-4o", question, store=True) == answer
    listed = client.chat.completions.list(metadata={"agent_type": "dolphin"}, limit=5)
    assert [item.choices[0].message.content for item in listed] == list(ANSWERS.values())

    chosen = ("--metadata", "agent_type=dolphin", "--metadata", "category=test")
    distilled = server.cli("distill", "--student", "scratch-small", *chosen, "--seed", "1", "--wait", check=False)
    assert distilled.returncode == 0, distilled.stderr
    model = distilled.stdout.strip()
    server.cli("deploy", model, "--name", "dolphin", "--wait")

    answers = {question: ask(client, "dolphin", question, store=False) for question in ANSWERS}
    assert answers == ANSWERS
