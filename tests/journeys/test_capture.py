"""Stored completions through the official SDKs: kept, found by metadata, changed, deleted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import AsyncAzureOpenAI, AzureOpenAI, BadRequestError, NotFoundError, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from stillroom.teachers.scripted import ScriptedTeacher
from tests.conftest import API_VERSION
from tests.journeys.conftest import Raw
from tests.support import Server

SYSTEM = "あなたはイルカの先生です。子どもにもわかる言葉で、正確に、やさしく答えてください。" * 20
QUESTIONS = [f"質問{number}：イルカはどうやって眠りますか？\n詳しく教えてください🐬" for number in range(11)]


def ask(client: OpenAI, text: str, **options: Any) -> ChatCompletion:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": text},
    ]
    return client.chat.completions.create(model="gpt-4o", messages=messages, **options)


def found(client: OpenAI, **options: Any) -> list[str | None]:
    """The answers that a list gives, over all its pages."""
    return [item.choices[0].message.content for item in client.chat.completions.list(**options)]


def test_eleven_stored_chats_are_listed_back_by_their_metadata(azure: AzureOpenAI, label: dict[str, str]) -> None:
    for text in QUESTIONS:
        ask(azure, text, store=True, metadata={"agent_type": "dolphin", "category": "test", **label})
    ask(azure, "別の質問", store=True, metadata={"agent_type": "whale", **label})
    wanted = {"agent_type": "dolphin", **label}
    assert found(azure, metadata=wanted, limit=3) == QUESTIONS
    assert found(azure, metadata=wanted, limit=3, order="desc") == QUESTIONS[::-1]
    assert found(azure, metadata={**wanted, "category": "other"}) == []


def test_a_stored_chat_is_read_back_whole(client: OpenAI, label: dict[str, str]) -> None:
    answer = ask(client, QUESTIONS[0], store=True, metadata=label, temperature=0.5, seed=11, user="u-1")
    kept = client.chat.completions.retrieve(answer.id)
    assert (kept.id, kept.metadata, kept.choices, kept.usage) == (answer.id, label, answer.choices, answer.usage)
    assert kept.model_extra is not None
    parameters = {name: kept.model_extra[name] for name in ("temperature", "seed", "top_p", "input_user")}
    assert parameters == {"temperature": 0.5, "seed": 11, "top_p": None, "input_user": "u-1"}
    assert kept.model_extra["request_id"] == answer._request_id


def test_the_messages_of_a_stored_chat_are_those_that_were_sent(azure: AzureOpenAI, label: dict[str, str]) -> None:
    answer = ask(azure, QUESTIONS[3], store=True, metadata=label)
    messages = list(azure.chat.completions.messages.list(answer.id, limit=1))
    assert [(message.role, message.content) for message in messages] == [
        ("system", SYSTEM),
        ("user", QUESTIONS[3]),
    ]
    assert [message.id for message in messages] == [f"{answer.id}-0", f"{answer.id}-1"]
    backwards = azure.chat.completions.messages.list(answer.id, order="desc")
    assert [message.id for message in backwards] == [f"{answer.id}-1", f"{answer.id}-0"]


def test_a_message_in_parts_is_given_back_in_parts_and_as_text(client: OpenAI, raw: Raw) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    parts = [{"type": "text", "text": "これは"}, image, {"type": "text", "text": "何ですか？"}]
    answer = client.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": parts}],  # type: ignore[list-item, misc]
        store=True,
    )
    _, _, body = raw("GET", f"/v1/chat/completions/{answer.id}/messages")
    assert body["data"][0]["content_parts"] == parts
    assert body["data"][0]["content"] == "これは何ですか？"


def test_metadata_is_not_in_the_answer_but_in_what_is_kept(azure: AzureOpenAI, label: dict[str, str]) -> None:
    answer = ask(azure, "はい", store=True, metadata=label)
    assert "metadata" not in answer.model_fields_set
    assert azure.chat.completions.retrieve(answer.id).metadata == label


def test_an_update_adds_pairs_and_the_list_finds_old_and_new(client: OpenAI, label: dict[str, str]) -> None:
    answer = ask(client, "一", store=True, metadata={**label, "stage": "raw"})
    changed = client.chat.completions.update(answer.id, metadata={"stage": "checked", "fizz": "buzz"})
    assert changed.metadata == {**label, "stage": "checked", "fizz": "buzz"}
    assert found(client, metadata={"fizz": "buzz", **label}) == ["一"]
    assert found(client, metadata={"stage": "raw", **label}) == []


def test_an_update_with_null_clears_all_metadata(client: OpenAI, label: dict[str, str]) -> None:
    answer = ask(client, "二", store=True, metadata=label)
    assert client.chat.completions.update(answer.id, metadata=None).metadata == {}
    assert found(client, metadata=label) == []
    assert client.chat.completions.retrieve(answer.id).choices == answer.choices


def test_an_update_that_would_make_seventeen_pairs_changes_nothing(client: OpenAI) -> None:
    sixteen = {f"k{number}": "v" for number in range(16)}
    answer = ask(client, "三", store=True, metadata=sixteen)
    with pytest.raises(BadRequestError) as refused:
        client.chat.completions.update(answer.id, metadata={"one": "more"})
    assert refused.value.code == "object_above_max_properties"
    assert client.chat.completions.retrieve(answer.id).metadata == sixteen


def test_a_deleted_chat_is_gone_everywhere(client: OpenAI, label: dict[str, str]) -> None:
    answers = [ask(client, text, store=True, metadata=label) for text in ("一", "二", "三")]
    deleted = client.chat.completions.delete(answers[1].id)
    assert (deleted.id, deleted.object, deleted.deleted) == (answers[1].id, "chat.completion.deleted", True)
    for call in (client.chat.completions.retrieve, client.chat.completions.delete):
        with pytest.raises(NotFoundError):
            call(answers[1].id)
    with pytest.raises(NotFoundError):
        client.chat.completions.messages.list(answers[1].id)
    assert found(client, metadata=label) == ["一", "三"]


def test_listing_after_a_deleted_chat_gives_the_right_rest(client: OpenAI, label: dict[str, str]) -> None:
    answers = [ask(client, text, store=True, metadata=label) for text in ("一", "二", "三")]
    client.chat.completions.delete(answers[0].id)
    assert found(client, metadata=label, after=answers[0].id) == ["二", "三"]
    assert found(client, metadata=label, after=answers[2].id, order="desc") == ["二"]


def test_a_page_says_where_it_begins_and_ends_and_whether_more_follow(client: OpenAI, label: dict[str, str]) -> None:
    answers = [ask(client, text, store=True, metadata=label) for text in ("一", "二", "三")]
    page = client.chat.completions.list(metadata=label, limit=2)
    assert page.model_extra is not None
    assert (page.model_extra["first_id"], page.model_extra["last_id"]) == (answers[0].id, answers[1].id)
    assert page.has_more
    rest = client.chat.completions.list(metadata=label, limit=2, after=answers[1].id)
    assert ([item.id for item in rest.data], rest.has_more) == ([answers[2].id], False)
    nothing = client.chat.completions.list(metadata=label, after=answers[2].id)
    assert nothing.model_extra == {"object": "list", "first_id": None, "last_id": None}


def test_a_list_has_at_most_a_hundred_and_by_default_twenty(client: OpenAI, label: dict[str, str]) -> None:
    for number in range(21):
        ask(client, str(number), store=True, metadata=label)
    assert len(client.chat.completions.list(metadata=label).data) == 20
    assert len(client.chat.completions.list(metadata=label, limit=100).data) == 21
    for limit in (0, 101):
        with pytest.raises(BadRequestError) as refused:
            client.chat.completions.list(limit=limit)
        assert refused.value.param == "limit"


def test_the_list_is_filtered_by_the_name_that_was_called(client: OpenAI, label: dict[str, str]) -> None:
    answer = ask(client, "名前", store=True, metadata=label)
    assert answer.model == "scripted-triage"  # what the teacher calls itself
    assert found(client, model="gpt-4o", metadata=label) == ["名前"]
    assert found(client, model="scripted-triage", metadata=label) == []


def test_metadata_filters_survive_odd_letters(client: OpenAI, label: dict[str, str]) -> None:
    odd = {"a b&c=d[e]": "100 % + ü 値&x=1"}
    ask(client, "奇妙", store=True, metadata={**label, **odd})
    assert found(client, metadata={**label, **odd}) == ["奇妙"]


def test_what_is_not_stored_is_not_kept(client: OpenAI, label: dict[str, str], teacher: ScriptedTeacher) -> None:
    answer = ask(client, "保存しない", metadata=label)
    assert found(client, metadata=label) == []
    with pytest.raises(NotFoundError):
        client.chat.completions.retrieve(answer.id)
    assert teacher.requests[-1]["body"].keys() == {"model", "messages"}


def test_the_teacher_gets_the_request_without_store_and_metadata(
    client: OpenAI, label: dict[str, str], teacher: ScriptedTeacher
) -> None:
    unknown = {"invented_tomorrow": {"nested": [1, 2.5, None]}}
    ask(client, "転送", store=True, metadata=label, temperature=0.25, extra_body=unknown)
    sent = teacher.requests[-1]["body"]
    assert sent.keys() == {"model", "messages", "temperature", "invented_tomorrow"}
    assert sent["invented_tomorrow"] == unknown["invented_tomorrow"]
    assert sent["temperature"] == 0.25


def test_fifty_chats_at_once_are_all_kept(server: Server, label: dict[str, str]) -> None:
    async def ask_all() -> tuple[set[str], list[str]]:
        async with AsyncAzureOpenAI(
            azure_endpoint=server.url, api_key=server.key, api_version=API_VERSION, max_retries=0
        ) as client:
            answers = await asyncio.gather(
                *[
                    client.chat.completions.create(
                        model="gpt-4o", messages=[{"role": "user", "content": str(n)}], store=True, metadata=label
                    )
                    for n in range(50)
                ]
            )
            listed = [item.id async for item in client.chat.completions.list(metadata=label, limit=7)]
            return {answer.id for answer in answers}, listed

    asked, listed = asyncio.run(ask_all())
    assert len(asked) == 50
    assert len(listed) == 50
    assert set(listed) == asked


def test_sixteen_pairs_of_the_longest_keys_and_values_are_taken(client: OpenAI) -> None:
    longest = {f"{number:0>64}": "値" * 512 for number in range(16)}
    answer = ask(client, "十六", store=True, metadata=longest)
    assert client.chat.completions.retrieve(answer.id).metadata == longest


@pytest.mark.parametrize("azure_words", [False, True])
def test_seventeen_pairs_are_refused_in_openais_words(client: OpenAI, azure: AzureOpenAI, azure_words: bool) -> None:
    with pytest.raises(BadRequestError) as refused:
        ask(azure if azure_words else client, "十七", store=True, metadata={f"k{n}": "v" for n in range(17)})
    assert (refused.value.code, refused.value.param) == ("object_above_max_properties", "metadata")
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["message"] == (
        "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, "
        "but got an object with 17 properties instead."
    )


@pytest.mark.parametrize(("key", "value"), [("k" * 65, "v"), ("k", "v" * 513)])
def test_metadata_that_is_too_long_is_refused(client: OpenAI, key: str, value: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        ask(client, "長い", store=True, metadata={key: value})
    assert refused.value.code == "string_above_max_length"


def test_the_request_id_is_in_the_header_the_object_and_the_error(client: OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=[{"role": "user", "content": "生"}]
    )
    parsed = answer.parse()
    assert parsed.choices[0].message.content == "生"
    assert answer.headers["x-request-id"] == answer.request_id == parsed._request_id
    with pytest.raises(NotFoundError) as refused:
        client.chat.completions.retrieve("chatcmpl-unknown")
    assert refused.value.request_id is not None
    assert refused.value.request_id.startswith("req_")
