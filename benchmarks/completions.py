"""Filtering, searching and counting stored completions over HTTP, by how many there are.

Makes a data folder of completions such as agents leave behind: one of 20 system prompts of 2.6 KB, a
question of about 165 bytes, an answer of about 1 KB, 30 % of them Japanese, four metadata keys, three
models, 0.5 % of the answers incomplete, spread over 90 days. It is made by the owners' own functions,
many in a transaction. Then a real server answers on it, one call at a time, and each kind of call's
median and 95th percentile in milliseconds are printed, as the client sees them.

`--data DIR` keeps the folder and uses it again when it is there.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from sqlalchemy import Connection

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support import Server

from stillroom import auth, billing, ids
from stillroom.assembly import ensure_admin_key, open_platform
from stillroom.completions import search, table
from stillroom.completions.conversations import texts_of
from stillroom.config import Price, Settings

DAYS = 90
PART = 2000  # completions in a transaction
PRICE = Price(input=2.5, output=10.0)
TEACHERS = {"gpt-4o": {"base_url": "http://127.0.0.1:9", "price": {"input": 2.5, "output": 10.0}}}
SYLLABLES = ["ba", "co", "di", "fu", "ga", "he", "ki", "lo", "mu", "na", "po", "qu", "ra", "se", "ti", "vo", "wa", "zi"]
JAPANESE = [
    *[
        "注文",
        "配送",
        "返金",
        "商品",
        "確認",
        "変更",
        "住所",
        "電話",
        "番号",
        "担当",
        "連絡",
        "予約",
        "料金",
        "支払",
        "方法",
        "登録",
        "会員",
        "情報",
        "更新",
        "手続",
        "完了",
        "在庫",
    ],
    *[
        "お客様",
        "ご案内",
        "いたします",
        "ください",
        "について",
        "です",
        "ます",
        "から",
        "まで",
        "それで",
        "しかし",
        "また",
        "ありがとう",
        "ございます",
    ],
    *[
        "システム",
        "サービス",
        "アカウント",
        "パスワード",
        "メール",
        "キャンセル",
        "ポイント",
        "クーポン",
        "東京",
        "大阪",
        "京都",
        "本日",
        "明日",
        "午前",
    ],
]
KANJI = [chr(0x4E00 + step * 7) for step in range(2000)]
RARE, RARE_JAPANESE = "zeppelin", "琥珀細工"  # in one of ten thousand each


@dataclass(frozen=True, kw_only=True)
class Row:
    """One completion, ready to be written."""

    new: table.NewCompletion
    packed: table.Packed
    words: search.Document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--data", type=Path, help="keep the data folder here, or use the one that is here")
    parser.add_argument("--calls", type=int, default=40, help="of each kind")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = asked.data or Path(folder) / "data"
        if not (data / "stillroom.db").exists():
            _build(data, asked.rows)
        with Server(data.resolve(), teachers=TEACHERS).start() as server:
            _measure(server, asked.calls)


# --- making the data ----------------------------------------------------------------------------------------


def _build(data: Path, rows: int) -> None:
    platform = open_platform(Settings(data=str(data)))
    ensure_admin_key(platform)
    began = time.monotonic()
    now = int(time.time() * 1000)
    with ProcessPoolExecutor(1) as maker:
        for done, part in _made(maker, rows, now):
            platform.writer.write(lambda connection, part=part: _write(connection, part))
            print(f"\r{done:,} of {rows:,} rows, {time.monotonic() - began:.0f} s", end="", file=sys.stderr)
    print(file=sys.stderr)
    platform.close()


def _made(maker: ProcessPoolExecutor, rows: int, now: int) -> Iterator[tuple[int, list[Row]]]:
    """Parts as they are made, a few ahead of whoever writes them."""
    step = DAYS * 24 * 3600 * 1000 / rows
    waiting: list[Future[list[Row]]] = []
    for start in range(0, rows, PART):
        begins = now - DAYS * 24 * 3600 * 1000 + int(start * step)
        waiting.append(maker.submit(_rows, start, min(PART, rows - start), begins, step))
        if len(waiting) == 4 or start + PART >= rows:
            while waiting and (len(waiting) == 4 or start + PART >= rows):
                part = waiting.pop(0).result()
                yield start + PART - len(waiting) * PART, part


def _rows(start: int, count: int, begins: int, step: float) -> list[Row]:
    choose = random.Random(start)
    english = ["".join(choose.choices(SYLLABLES, k=2 + n % 3)) for n in range(20_000)]
    weights = list(itertools.accumulate(1 / (n + 10) for n in range(len(english))))
    systems = [" ".join(random.Random(n).choices(english[:500], k=430))[:2600] for n in range(20)]
    return [
        _row(start + n, int(begins + n * step), choose, english, weights, systems[choose.randrange(20)])
        for n in range(count)
    ]


def _row(
    n: int, milliseconds: int, choose: random.Random, english: list[str], weights: list[float], system: str
) -> Row:
    def said(letters: int) -> str:
        if n % 10 < 3:
            words = [
                *choose.choices(JAPANESE, k=letters // 12),
                *("".join(choose.choices(KANJI, k=2)) for _ in range(3)),
            ]
            choose.shuffle(words)
            return "".join(words)
        return "please " + " ".join(choose.choices(english, cum_weights=weights, k=letters // 7))

    rare = {7: f" {RARE} ", 1: RARE_JAPANESE}.get(n % 10_000, "")
    question, answer = said(165), said(1000) + rare
    number = milliseconds * (ids.NUMBERS_PER_SECOND // 1000) + choose.getrandbits(19)
    prompt_tokens, completion_tokens = 700 + len(question) // 4, len(answer) // 4
    new = table.NewCompletion(
        number=number,
        project=auth.DEFAULT_PROJECT,
        created_at=milliseconds // 1000,
        model=choose.choices(["gpt-4o", "gpt-4o-mini", "kyle"], [80, 19, 1])[0],
        status=table.Status.INCOMPLETE if choose.random() < 0.005 else table.Status.COMPLETED,
        request={
            "model": "gpt-4o",
            "temperature": 0.2,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": question}],
        },
        response={
            "id": ids.completion_id(number),
            "object": "chat.completion",
            "created": milliseconds // 1000,
            "model": "gpt-4o-2024-08-06",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
        },
        metadata={
            "agent_type": choose.choices(["dolphin", "triage", "refund", "search", "sales"], [40, 30, 15, 10, 5])[0],
            "env": "prod" if choose.random() < 0.9 else "staging",
            "version": f"v{choose.randrange(50)}",
            "user": f"user-{choose.randrange(10_000)}",
        },
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        first_token_ms=choose.randrange(100, 900),
        latency_ms=choose.randrange(900, 9000),
    )
    packed = table.pack(new.request, new.response)
    return Row(new=new, packed=packed, words=search.document(texts_of(table.unpacked(packed.body))))


def _write(connection: Connection, rows: list[Row]) -> None:
    for row in rows:
        new = row.new
        table.add(connection, new, row.packed)
        entry = billing.Entry(
            project=new.project,
            kind=billing.Kind.ANSWER,
            model=new.model,
            deployment=new.model,
            subject=ids.completion_id(new.number),
            prompt_tokens=new.prompt_tokens,
            completion_tokens=new.completion_tokens,
        )
        billing.record(connection, entry, PRICE, at=new.created_at)
    search.index(connection, {row.new.number: row.words for row in rows})


# --- asking -------------------------------------------------------------------------------------------------


def _measure(server: Server, calls: int) -> None:
    where = urlsplit(server.url)
    assert where.hostname and where.port
    connection = http.client.HTTPConnection(where.hostname, where.port)
    print(f"{'call':58} {'p50 ms':>8} {'p95 ms':>8}   found")
    for name, path, queries in _kinds():
        times, found = [], ""
        for number in range(calls):
            query = queries[number % len(queries)]
            began = time.perf_counter()
            connection.request("GET", f"{path}?{urlencode(query)}", headers={"Authorization": f"Bearer {server.key}"})
            answer = connection.getresponse()
            body = answer.read()
            times.append((time.perf_counter() - began) * 1000)
            assert answer.status == 200, body
            found = _told(json.loads(body))
        p95 = statistics.quantiles(times, n=20)[-1]
        print(f"{name:58} {statistics.median(times):8.1f} {p95:8.1f}   {found}")


def _told(body: dict[str, object]) -> str:
    if "data" in body:
        return f"{len(list(body['data']))} rows"  # type: ignore[call-overload]
    return f"{body['count']}" if "count" in body else f"sampled {body.get('sampled')}"


def _kinds() -> list[tuple[str, str, list[dict[str, object]]]]:
    """What is asked: a name, a path, and queries that are asked in turn."""
    one = [{"metadata[agent_type]": "dolphin"}, {"metadata[env]": "staging"}, {"metadata[version]": "v7"}]
    two = [{**one[0], "metadata[version]": f"v{n}"} for n in range(10)]
    three = [{**query, "metadata[env]": "staging"} for query in two]
    now = int(time.time())
    filters: dict[str, list[dict[str, object]]] = {
        "no filter": [{}],
        "1 metadata pair": list(one),
        "2 metadata pairs": list(two),
        "3 metadata pairs": list(three),
        "a user's own (100 rows)": [{"metadata[user]": f"user-{n}"} for n in range(20)],
        "model, common": [{"model": "gpt-4o"}],
        "model, rare": [{"model": "kyle"}],
        "model, rare, and 1 pair": [{"model": "kyle", **pair} for pair in one],
        "status=incomplete": [{"status": "incomplete"}],
        "status=incomplete, model and 1 pair": [{"status": "incomplete", "model": "kyle", **pair} for pair in one],
        "one day, two months ago": [{"created_after": now - 60 * 86400, "created_before": now - 59 * 86400}],
        "one day, two months ago, and 1 pair": [
            {"created_after": now - 60 * 86400, "created_before": now - 59 * 86400, **pair} for pair in one
        ],
        "search, rare word": [{"search": RARE}],
        "search, common word": [{"search": "please"}],
        "search, a common and a rare word": [{"search": f"please {RARE}"}],
        "search, rare Japanese word": [{"search": "琥珀"}],
        "search, common Japanese word": [{"search": "注文"}],
        "search, one letter": [{"search": "京"}],
        "search, a phrase": [{"search": '"ご案内いたします"'}],
        "search, nothing found": [{"search": "nowhere"}],
        "search, common, and 2 pairs": [{"search": "please", **query} for query in two],
        "search, Japanese, and 3 pairs": [{"search": "注文", **query} for query in three],
        "search, Japanese, and a user's own": [{"search": "注文", "metadata[user]": f"user-{n}"} for n in range(20)],
        "search, common, model and incomplete": [{"search": "please", "model": "gpt-4o", "status": "incomplete"}],
    }
    path = "/v1/stillroom/completions"
    found = [
        (f"page: {name}", path, [{"limit": 50, **query} for query in queries]) for name, queries in filters.items()
    ]
    found += [(f"count: {name}", f"{path}/count", queries) for name, queries in filters.items()]
    found += [(f"facets: {name}", f"{path}/facets", queries) for name, queries in filters.items()]
    return found


if __name__ == "__main__":
    main()
