"""Files through the official SDKs: up, listed, down again, gone."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from openai import AzureOpenAI, BadRequestError, NotFoundError, OpenAI

from tests.conftest import API_VERSION
from tests.journeys.conftest import Raw
from tests.support import Server, example_lines


def test_a_training_file_goes_up_is_listed_comes_down_and_goes(client: OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "訓練 データ.jsonl"
    path.write_bytes(example_lines(10))
    with path.open("rb") as opened:
        made = client.files.create(file=opened, purpose="fine-tune")
    assert (made.bytes, made.purpose, made.status) == (path.stat().st_size, "fine-tune", "processed")
    assert made.filename == path.name
    assert client.files.retrieve(made.id) == made
    assert made in client.files.list(purpose="fine-tune").data
    assert made not in client.files.list(purpose="batch").data
    assert client.files.content(made.id).read() == path.read_bytes()
    deleted = client.files.delete(made.id)
    assert (deleted.id, deleted.object, deleted.deleted) == (made.id, "file", True)
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(NotFoundError):
            call(made.id)


def test_a_file_with_every_byte_in_it_comes_back_as_it_went(client: OpenAI) -> None:
    data = bytes(range(256)) * 5000 + b"\r\n--boundary\r\n"
    made = client.files.create(file=io.BytesIO(data), purpose="user_data")
    assert made.filename == "upload"
    assert client.files.content(made.id).read() == data


def test_files_are_listed_newest_first_and_page_by_page(client: OpenAI) -> None:
    made = [client.files.create(file=(f"{n}.png", b"x"), purpose="vision").id for n in range(5)]
    assert [file.id for file in client.files.list(purpose="vision", limit=2)] == made[::-1]
    assert [file.id for file in client.files.list(purpose="vision", limit=2, order="asc")] == made
    page = client.files.list(purpose="vision", limit=2)
    assert ([file.id for file in page.data], page.has_more) == (made[:2:-1], True)


def test_a_file_can_be_told_when_to_expire(client: OpenAI) -> None:
    made = client.files.create(
        file=("a.txt", b"x"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert made.expires_at == made.created_at + 3600
    with pytest.raises(BadRequestError) as refused:
        client.files.create(
            file=("a.txt", b"x"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 60}
        )
    assert refused.value.param == "expires_after[seconds]"


def test_an_unknown_purpose_is_refused(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.files.create(file=("a.txt", b"x"), purpose="guesswork")  # type: ignore[arg-type]
    assert refused.value.param == "purpose"


def test_azure_answers_an_upload_with_201_and_openai_with_200(client: OpenAI, azure: AzureOpenAI) -> None:
    for sdk, status in ((client, 200), (azure, 201)):
        answer = sdk.files.with_raw_response.create(file=("a.jsonl", b"{}"), purpose="fine-tune")
        assert answer.http_response.status_code == status


def test_a_byte_order_mark_crlf_and_a_missing_last_newline_do_no_harm(client: OpenAI) -> None:
    lines = b"\xef\xbb\xbf" + example_lines(10).replace(b"\n", b"\r\n").removesuffix(b"\r\n")
    made = client.files.create(file=("windows.jsonl", lines), purpose="fine-tune")
    assert (made.status, made.status_details) == ("processed", None)


@pytest.mark.parametrize(
    ("line", "names"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b'{"prompt": "a", "completion": "b"}', "completion"),
        (b'{"messages": [{"role": "wizard", "content": "a"}]}', "messages[0].role"),
    ],
)
def test_a_broken_training_file_says_which_line_and_field(client: OpenAI, line: bytes, names: str) -> None:
    made = client.files.create(file=("broken.jsonl", example_lines(3) + line), purpose="fine-tune")
    assert made.status == "error"
    assert made.status_details is not None
    assert "Line 4" in made.status_details
    assert names in made.status_details


def test_an_upload_that_is_no_form_is_refused(raw: Raw) -> None:
    status, _, body = raw("POST", "/v1/files", {"purpose": "fine-tune"})
    assert (status, body["error"]["param"]) == (400, "file")


def test_no_delete_answers_with_an_empty_body(client: OpenAI, raw: Raw) -> None:
    file = client.files.create(file=("a.jsonl", b"{}"), purpose="fine-tune")
    kept = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}], store=True)
    for path, answer in (
        (f"/v1/files/{file.id}", {"id": file.id, "object": "file", "deleted": True}),
        (
            f"/openai/chat/completions/{kept.id}?api-version={API_VERSION}",
            {"id": kept.id, "object": "chat.completion.deleted", "deleted": True},
        ),
    ):
        status, headers, body = raw("DELETE", path)
        assert (status, body) == (200, answer)
        assert headers["content-type"] == "application/json"


def test_a_selection_of_stored_chats_is_a_file_that_can_be_downloaded(
    client: OpenAI, raw: Raw, label: dict[str, str]
) -> None:
    for number in range(12):
        client.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "system", "content": "繰り返して"}, {"role": "user", "content": f"値{number}"}],
            store=True,
            metadata=label,
        )
    asked = {"filter": {"metadata": label}, "validation_fraction": 0.1, "seed": 3}
    status, _, made = raw("POST", "/v1/stillroom/selections", asked)
    assert status == 200
    assert (made["training_examples"], made["validation_examples"], made["skipped"]) == (11, 1, {})
    rows = [
        json.loads(line)
        for name in ("training_file", "validation_file")
        for line in client.files.content(made[name]["id"]).text.splitlines()
    ]
    expected = [
        {
            "messages": [
                {"role": "system", "content": "繰り返して"},
                {"role": "user", "content": f"値{number}"},
                {"role": "assistant", "content": f"値{number}"},
            ]
        }
        for number in range(12)
    ]
    assert sorted(rows, key=str) == sorted(expected, key=str)


def test_a_selection_of_nine_is_refused(client: OpenAI, raw: Raw, label: dict[str, str]) -> None:
    for number in range(9):
        client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": str(number)}], store=True, metadata=label
        )
    status, _, body = raw("POST", "/v1/stillroom/selections", {"filter": {"metadata": label}})
    assert status == 400
    assert "9 completions" in body["error"]["message"]
    assert "at least 10" in body["error"]["message"]


def test_another_keys_revocation_does_not_touch_files_but_its_holder_is_out(server: Server, raw: Raw) -> None:
    _, _, key = raw("POST", "/v1/stillroom/keys", {"name": "visitor"})
    visitor = OpenAI(base_url=f"{server.url}/v1", api_key=key["key"], max_retries=0)
    file = visitor.files.create(file=("a.jsonl", b"{}"), purpose="fine-tune")
    assert raw("DELETE", f"/v1/stillroom/keys/{key['id']}")[0] == 200
    assert raw("GET", "/v1/files", authorization=f"Bearer {key['key']}")[0] == 401
    assert raw("GET", f"/v1/files/{file.id}")[0] == 200
