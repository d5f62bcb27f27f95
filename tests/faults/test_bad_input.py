"""Whatever is sent, the answer is the caller's mistake told in the caller's dialect: never a 500."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from stillroom.api import routes
from stillroom.teachers.scripted import ScriptedTeacher
from tests.faults.wire import Answer, chat, connect, payloads, question, raw, send
from tests.support import Server, example_lines, wait_for

VERSION = "api-version=2024-10-21"
MEGABYTE = 1024 * 1024

NO_JSON = [
    pytest.param(b"", id="empty"),
    pytest.param(b"{", id="cut"),
    pytest.param(b'{"model":"gpt-4o","messages":[{"role":"user","content":"a"}],}', id="trailing comma"),
    pytest.param(b'{"model":"gpt-4o","messages":[{"role":"user","content":"a"}],"temperature":NaN}', id="NaN"),
    pytest.param(b'{"model":"gpt-4o","messages":[{"role":"user","content":"a"}],"seed":-Infinity}', id="Infinity"),
    pytest.param(b'{"model":"gpt-4o","messages":[{"role":"user","content":"a"}],"temperature":1e400}', id="1e400"),
    pytest.param(b'{"model":"\\ud800","messages":[{"role":"user","content":"a"}]}', id="surrogate in the name"),
    pytest.param(b'{"model":"gpt-4o","messages":[{"role":"user","content":"\\udc00 a"}]}', id="low surrogate"),
    pytest.param(b'{"model":"gpt-4o","messages":[{"role":"user","content":"\\ud800\\ud800"}]}', id="two high ones"),
    pytest.param(b'{"model":"gpt-4o","messages":[{"role":"user","content":"\xff"}]}', id="invalid UTF-8"),
    pytest.param(b'{"model":"gpt-4o","messages":[{"role":"user","content":"\xed\xa0\x80"}]}', id="encoded surrogate"),
    pytest.param(b'{"model":"gpt-4o","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="nesting"),
    pytest.param(
        b'{"model":"gpt-4o","messages":[{"role":"user","content":"a"}],"x":' + b"9" * 5000 + b"}", id="digits"
    ),
    pytest.param(b"[]", id="array"),
    pytest.param(b'"text"', id="text"),
    pytest.param(b"null", id="null"),
    pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
    pytest.param(b"\x00", id="NUL byte"),
]

WRONG_TYPES = [
    ({"model": 5}, "model"),
    ({"model": ["gpt-4o"]}, "model"),
    ({"messages": "hello"}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": {}}, "messages"),
    ({"messages": ["hello"]}, "messages"),
    ({"messages": [None]}, "messages"),
    ({"messages": []}, "messages"),
    ({"store": "yes"}, "store"),
    ({"store": 1}, "store"),
    ({"store": 0.0}, "store"),
    ({"stream": "true"}, "stream"),
    ({"stream": 1}, "stream"),
    ({"stream": True, "stream_options": 5}, "stream_options"),
    ({"stream": True, "stream_options": ["include_usage"]}, "stream_options"),
    ({"metadata": "a"}, "metadata"),
    ({"metadata": []}, "metadata"),
    ({"metadata": {"a": 1}}, "metadata.a"),
    ({"metadata": {"a": None}}, "metadata.a"),
    ({"metadata": {"a": {"b": "c"}}}, "metadata.a"),
]

# What can stand in a field's place, or as a body; every one is sent to every route that takes a body.
NASTY: list[Any] = [
    None,
    True,
    -1,
    10**30,
    1.5,
    "",
    "\0",
    "\u202e\ufeff😀",
    "x" * 100_000,
    "../../etc/passwd",
    "' OR '1'='1",
    "{{7*7}}",
    [],
    [None],
    ["a"],
    [[]],
    [{"role": ["user"], "content": {"a": 1}}],
    {},
    {"": ""},
    {"a": None},
    {"type": "x", "name": "x"},
    {"model": "x"},
    {"model": {"name": None}},
    {"model": {"name": ["x"]}},
    {"created_after": 10**30},
    {"created_before": -(10**30)},
    {"metadata": {"a": 1}},
    {"type": "supervised", "supervised": "x"},
    {"type": "supervised", "supervised": {"hyperparameters": [1]}},
    {"n_epochs": 10**30},
]
# The fields that an operation reads, by the end of its path.
FIELDS = {
    "chat/completions": ("model", "messages", "metadata", "store", "stream", "stream_options", "tools", "n", "user"),
    "chat/completions/{id}": ("metadata",),
    "fine_tuning/jobs": (
        *("model", "training_file", "validation_file", "method", "hyperparameters", "suffix", "seed", "metadata"),
        *("integrations", "trainingType"),
    ),
    "evals": ("name", "metadata", "data_source_config", "testing_criteria"),
    "evals/{id}": ("name", "metadata"),
    "evals/{id}/runs": ("name", "metadata", "data_source"),
    "graders/run": ("grader", "model_sample", "item"),
    "graders/validate": ("grader",),
    "deployments/{deployment}": ("properties", "sku", "tags"),
    "stillroom/selections": (
        "filter",
        "ids",
        "validation_fraction",
        "seed",
        "filename",
        "curation",
        "dry_run",
    ),
    "stillroom/keys": ("name",),
    "stillroom/sessions": ("key", "token"),
}


SAME = {
    "type": "string_check",
    "name": "same",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.a }}",
    "operation": "eq",
}


def right_body(path: str) -> dict[str, Any]:
    """A body in which nothing is wrong, of which one field at a time is made nasty."""
    if path.endswith("chat/completions"):
        return question(store=True, stream=True)
    if path == "fine_tuning/jobs":
        return {"model": "scratch-small", "training_file": "file-x"}
    if path == "evals":
        return {"data_source_config": {"type": "logs"}, "testing_criteria": [SAME]}
    if path == "evals/{id}/runs":
        content = [{"item": {"a": "b"}, "sample": {"output_text": "b"}}]
        return {"data_source": {"type": "jsonl", "source": {"type": "file_content", "content": content}}}
    if path.endswith(("graders/run", "graders/validate")):
        return {"grader": {**SAME, "operation": "unknown"}, "model_sample": "a"}  # right so far, but need not be run
    if path.endswith("deployments/{deployment}"):
        return {"properties": {"model": {"format": "OpenAI", "name": "gpt-4o", "version": "1"}}}
    return {"filter": {}} if path.endswith("selections") else {}


@pytest.fixture(scope="module")
def small(teacher: ScriptedTeacher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes bodies of up to 4,000 bytes."""
    teachers = {"gpt-4o": {"base_url": teacher.url}}
    folder = tmp_path_factory.mktemp("small") / "data"
    with Server(folder, teachers=teachers, gateway_chat_body_bytes=4000, gateway_file_bytes=5000).start() as running:
        yield running


def check_openai(answer: Answer) -> dict[str, Any]:
    """The error, which has all four keys and makes sense with the status."""
    assert 400 <= answer.status < 500, (answer.status, answer.body)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert set(answer.error) == {"message", "type", "param", "code"}, answer.body
    assert answer.error["type"] == "invalid_request_error"
    return answer.error


def check_azure(answer: Answer) -> dict[str, Any]:
    assert 400 <= answer.status < 500, (answer.status, answer.body)
    assert answer.headers["apim-request-id"] == answer.headers["x-request-id"]
    assert isinstance(answer.error["code"], str | None)
    return answer.error


# --- chat completions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("body", NO_JSON)
def test_what_is_no_json_object_is_refused_in_both_dialects(server: Server, body: bytes) -> None:
    assert check_openai(send(server, "POST", "/v1/chat/completions", body))["code"] == "invalid_json"
    azure = send(server, "POST", f"/openai/deployments/gpt-4o/chat/completions?{VERSION}", body)
    assert azure.status == 400
    assert check_azure(azure)["code"] == "invalid_json"


@pytest.mark.parametrize(("wrong", "param"), WRONG_TYPES)
def test_a_wrong_type_is_named_by_its_field(server: Server, wrong: dict[str, Any], param: str) -> None:
    answer = send(server, "POST", "/v1/chat/completions", {**question(), **wrong})
    assert check_openai(answer)["param"] == param
    assert check_azure(send(server, "POST", "/openai/v1/chat/completions", {**question(), **wrong}))["param"] == param


def test_the_same_request_with_right_types_is_answered(server: Server) -> None:
    body = question(store=False, stream=False, stream_options=None, metadata={"a": "b"}, seed=2**70, odd={"x": [1.5]})
    assert send(server, "POST", "/v1/chat/completions", body).status == 200


@pytest.mark.parametrize("where", ["content", "key of a tool", "name"])
def test_nul_is_refused_only_where_it_would_be_stored(server: Server, where: str) -> None:
    body = question("a\0b" if where == "content" else "a")
    if where == "key of a tool":
        body["tools"] = [{"type": "function", "function": {"name": "f", "parameters": {"\0": 1}}}]
    elif where == "name":
        body["messages"][0]["name"] = "\0"
    assert send(server, "POST", "/v1/chat/completions", body).status == 200
    refused = send(server, "POST", "/v1/chat/completions", {**body, "store": True})
    assert refused.status == 400
    assert "NUL" in check_openai(refused)["message"]


def test_the_six_characters_backslash_u0000_in_a_text_are_stored(server: Server) -> None:
    said = chat(server, "C writes \\u0000", store=True)
    assert said.status == 200
    found = send(server, "GET", f"/v1/chat/completions/{said.json['id']}")
    assert found.json["choices"][0]["message"]["content"] == "C writes \\u0000"


def test_metadata_may_have_sixteen_pairs_and_no_more(server: Server) -> None:
    sixteen = {f"key{n}": "v" for n in range(16)}
    assert chat(server, store=True, metadata=sixteen).status == 200
    for path in ("/v1/chat/completions", "/openai/v1/chat/completions"):
        answer = send(server, "POST", path, question(store=True, metadata={**sixteen, "one": "more"}))
        assert answer.status == 400
        assert answer.error == {
            "message": "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, "
            "but got an object with 17 properties instead.",
            "type": "invalid_request_error",
            "param": "metadata",
            "code": "object_above_max_properties",
        }


@pytest.mark.parametrize(("key", "value"), [(65, 1), (1, 513)])
def test_metadata_keys_have_64_letters_and_values_512(server: Server, key: int, value: int) -> None:
    longest = {"k" * min(key, 64): "日" * min(value, 512)}
    assert chat(server, store=True, metadata=longest).status == 200
    answer = chat(server, store=True, metadata={"k" * key: "日" * value})
    assert check_openai(answer)["code"] == "string_above_max_length"


def test_an_update_cannot_bring_a_completion_beyond_sixteen_pairs(server: Server) -> None:
    made = chat(server, store=True, metadata={f"key{n}": "v" for n in range(16)}).json["id"]
    path = f"/v1/chat/completions/{made}"
    assert check_openai(send(server, "POST", path, {"metadata": {"x": "y"}}))["code"] == "object_above_max_properties"
    assert send(server, "POST", path, {"metadata": {"key0": "w"}}).json["metadata"]["key0"] == "w"
    assert len(send(server, "GET", path).json["metadata"]) == 16


def test_numbers_beyond_64_bits_are_stored_as_they_are(server: Server) -> None:
    made = chat(server, store=True, seed=2**70)
    assert made.status == 200
    assert send(server, "GET", f"/v1/chat/completions/{made.json['id']}").json["seed"] == 2**70


def test_message_parts_of_any_shape_can_be_stored_and_listed(server: Server) -> None:
    content = ["text", 5, None, {"type": "text"}, {"type": "text", "text": 7}, {"type": "text", "text": "end"}]
    body = {
        "model": "gpt-4o",
        "messages": [{"role": "assistant", "content": content}, {"role": "user", "content": "a"}],
    }
    made = send(server, "POST", "/v1/chat/completions", {**body, "store": True})
    assert made.status == 200
    listed = send(server, "GET", f"/v1/chat/completions/{made.json['id']}/messages")
    assert listed.status == 200
    assert listed.json["data"][0]["content_parts"] == content


# --- lists --------------------------------------------------------------------------------------------


LISTS = ["chat/completions", "evals", "files", "fine_tuning/jobs", "fine_tuning/jobs/ftjob-x/events"]


@pytest.mark.parametrize(
    "limit", ["0", "-1", "abc", "", "1.5", "1e3", "٣", "²", "--5", "-", "9" * 400, "0000000001000000"]
)
@pytest.mark.parametrize("path", LISTS)
def test_a_limit_that_is_no_number_in_range_is_refused(server: Server, path: str, limit: str) -> None:
    answer = send(server, "GET", f"/v1/{path}?limit={quote(limit)}")
    assert check_openai(answer)["param"] == "limit"
    assert send(server, "GET", "/v1/chat/completions?limit=1").status == 200


@pytest.mark.parametrize("path", ["chat/completions", "evals", "files"])
def test_an_unknown_order_is_refused(server: Server, path: str) -> None:
    assert check_openai(send(server, "GET", f"/v1/{path}?order=newest"))["param"] == "order"
    assert send(server, "GET", f"/v1/{path}?order=desc").status == 200


@pytest.mark.parametrize("since", ["-1", "²", "x", "1.5"])
def test_usage_since_something_odd_is_refused(server: Server, since: str) -> None:
    assert check_openai(send(server, "GET", f"/v1/stillroom/usage?since={quote(since)}"))["param"] == "since"
    assert send(server, "GET", "/v1/stillroom/usage?since=1").status == 200


@pytest.mark.parametrize("after", ["x", "chatcmpl-x", "chatcmpl-" + "z" * 11, "%00", "chatcmpl-00000000%2F00"])
def test_a_cursor_that_is_no_id_is_refused(server: Server, after: str) -> None:
    assert check_openai(send(server, "GET", f"/v1/chat/completions?after={after}"))["param"] == "after"


def test_the_rest_after_a_deleted_completion_is_still_right(server: Server) -> None:
    made = [chat(server, f"{n}", store=True, metadata={"of": "cursor"}).json["id"] for n in range(5)]
    assert send(server, "DELETE", f"/v1/chat/completions/{made[1]}").status == 200
    query = "metadata[of]=cursor&after="
    ascending = send(server, "GET", f"/v1/chat/completions?{query}{made[1]}").json
    assert [c["id"] for c in ascending["data"]] == made[2:]
    descending = send(server, "GET", f"/v1/chat/completions?order=desc&{query}{made[1]}").json
    assert [c["id"] for c in descending["data"]] == made[:1]


@pytest.mark.parametrize("path", ["/v1/chat/completions?after=%ff", "/v1/files/%ff", "/v1/models/%ed%a0%80"])
def test_percent_encoded_nonsense_is_refused(server: Server, path: str) -> None:
    check_openai(send(server, "GET", path))


# --- who and where ------------------------------------------------------------------------------------


def test_unknown_models_are_told_in_each_dialects_words(server: Server) -> None:
    openai = chat(server, model="gpt-99")
    assert openai.status == 404
    assert check_openai(openai)["code"] == "model_not_found"
    assert openai.error["message"] == "The model `gpt-99` does not exist or you do not have access to it."
    azure = send(server, "POST", f"/openai/deployments/gpt-99/chat/completions?{VERSION}", question())
    assert (azure.status, azure.error) == (
        404,
        {
            "code": "DeploymentNotFound",
            "message": "The API deployment for this resource does not exist. If you created the deployment within "
            "the last 5 minutes, please wait a moment and try again.",
        },
    )


def test_a_request_that_names_no_model_is_refused(server: Server) -> None:
    body = {**question(), "model": None}
    assert check_openai(send(server, "POST", "/v1/chat/completions", body))["param"] == "model"
    # LangChain's Azure client sends null and names the deployment in the path.
    assert send(server, "POST", f"/openai/deployments/gpt-4o/chat/completions?{VERSION}", body).status == 200


def test_azure_paths_need_an_api_version_that_azure_has_had(server: Server) -> None:
    path = "/openai/deployments/gpt-4o/chat/completions"
    missing = send(server, "POST", path, question())
    assert (missing.status, missing.error) == (404, {"code": "404", "message": "Resource not found"})
    unknown = send(server, "POST", f"{path}?api-version=1999-01-01", question())
    assert (unknown.status, unknown.error) == (400, {"code": "BadRequest", "message": "API version not supported"})
    for version in ("2024-10-21", "2025-04-01-preview", "v1", "preview", "latest"):
        assert send(server, "POST", f"{path}?api-version={version}", question()).status == 200
    assert send(server, "POST", "/openai/v1/chat/completions", question()).status == 200


def test_unknown_paths_and_methods_are_told(server: Server) -> None:
    answer = send(server, "POST", "/v1/chat/completion", question())
    assert answer.status == 404
    assert check_openai(answer)["code"] == "unknown_url"
    wrong_method = send(server, "PUT", "/v1/chat/completions", question())
    assert wrong_method.status == 405
    check_openai(wrong_method)
    azure = send(server, "GET", f"/openai/nothing?{VERSION}")
    assert (azure.status, azure.error) == (404, {"code": "404", "message": "Resource not found"})
    for path in (
        "/",
        "//",
        "/v1",
        "/openai",
        "/v1//",
        "/v2/models",
        "/v1/models/",
        "/..",
        "/v1/files/../../etc/passwd",
    ):
        assert send(server, "GET", path).status in (200, 404)
    for path in ("/v1/files/..%2F..%2Fadmin-key/content", "/v1/files/%2Fetc%2Fpasswd/content"):
        assert send(server, "GET", path).status == 404


ALL_ROUTES = [
    *(("/v1/", route) for route in (*routes.BOTH_DIALECTS, *routes.OWN)),
    *(("/openai/v1/", route) for route in routes.BOTH_DIALECTS),
    *(("/", route) for route in (*routes.ARM, *routes.IDENTITY)),
    ("/v1/", routes.Route("POST", "chat/completions", lambda _: None)),  # type: ignore[arg-type,return-value]
    ("/openai/v1/", routes.Route("POST", "chat/completions", lambda _: None)),  # type: ignore[arg-type,return-value]
]


def path_of(prefix: str, route: routes.Route, **parameters: str) -> str:
    query = f"?{VERSION}" if prefix == "/" else ""
    return prefix + re.sub(r"\{(\w+)\}", lambda found: parameters.get(found[1], "x"), route.path) + query


@pytest.mark.parametrize("key", [None, "sk-wrong", "' OR '1'='1", "ключ".encode().decode("latin-1")])
def test_every_route_needs_a_key(server: Server, key: str | None) -> None:
    for prefix, route in ALL_ROUTES:
        answer = send(server, route.method, path_of(prefix, route), key=key)
        signs_in = (route.method, route.path) == ("POST", "/".join(routes.SIGN_IN))  # its key is in the body
        assert answer.status == (400 if signs_in else 401), route
        assert answer.error
    for path in ("/v1/nothing", "/openai/nothing", "/subscriptions/x", "/v1/chat/completions/extra/x/y"):
        assert send(server, "GET", path, key=key).status == 401
    assert send(server, "GET", "/health", key=key).status == 200
    assert send(server, "GET", "/", key=key).status == 200


def test_a_wrong_key_is_told_in_each_dialects_words_and_not_repeated(server: Server) -> None:
    secret = "sk-somebody-elses-secret"
    openai = send(server, "GET", "/v1/models", key=secret)
    assert check_openai(openai)["code"] == "invalid_api_key"
    assert secret.encode() not in openai.body
    azure = send(server, "GET", f"/openai/models?{VERSION}", key=None, api_key=secret)
    assert azure.status == 401
    assert azure.error["code"] == "401"
    assert azure.error["message"].startswith("Access denied due to invalid subscription key")
    right = send(server, "GET", f"/openai/models?{VERSION}", key=None, api_key=server.key)
    assert right.status == 200
    assert secret not in server.log.read_text()


# --- sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/fine_tuning/jobs", "/v1/stillroom/selections"])
def test_a_body_beyond_the_limit_is_413_however_it_is_sent(small: Server, path: str) -> None:
    body = json.dumps(question("x" * 5000)).encode()
    declared = send(small, "POST", path, body)
    assert declared.status == 413
    assert check_openai(declared)["code"] == "request_too_large"
    chunked = connect(small)
    chunked.request("POST", path, iter([body]), {"authorization": f"Bearer {small.key}"}, encode_chunked=True)
    assert chunked.getresponse().status == 413
    chunked.close()


def test_a_body_below_the_limit_is_taken(small: Server, server: Server) -> None:
    assert chat(small, "x" * 3000).status == 200
    assert chat(server, "x" * 5000).status == 200


def test_a_file_beyond_the_limit_is_413(small: Server) -> None:
    assert upload(small, b"x" * 5000, purpose="batch").status == 200
    assert upload(small, b"x" * 2 * MEGABYTE, purpose="batch").status == 413


def test_a_file_just_beyond_the_limit_is_413(small: Server) -> None:
    assert upload(small, b"x" * 6000, purpose="batch").status == 413


@pytest.mark.parametrize("size", [70_000, 30 * MEGABYTE])
def test_huge_headers_are_refused_and_harm_nobody(server: Server, size: int) -> None:
    connection = raw(server)
    try:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: test\r\nx-long: " + b"a" * size + b"\r\n\r\n")
        answer = connection.recv(65536)
    except OSError:
        answer = b""  # closed before all was sent
    finally:
        connection.close()
    assert b" 200 " not in answer.partition(b"\r\n")[0]
    assert send(server, "GET", "/health", x_long="a" * 10_000).status == 200


def test_ten_thousand_headers_are_refused(server: Server) -> None:
    with raw(server, b"GET /health HTTP/1.1\r\nhost: test\r\n" + b"a: b\r\n" * 10_000 + b"\r\n") as connection:
        try:
            answer = connection.recv(65536)
        except OSError:
            answer = b""
    assert b" 200 " not in answer.partition(b"\r\n")[0]


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"GET\r\n\r\n", id="no path"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="TLS on the plain port"),
        pytest.param(b"POST /v1/models HTTP/1.1\r\nhost: t\r\ncontent-length: -5\r\n\r\n", id="negative length"),
        pytest.param(b"POST /v1/models HTTP/1.1\r\nhost: t\r\ncontent-length: \xb2\r\n\r\n", id="superscript length"),
        pytest.param(
            b"POST /v1/models HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            id="two lengths",
        ),
    ],
)
def test_what_is_no_http_is_refused_and_harms_nobody(server: Server, head: bytes) -> None:
    with raw(server, head) as connection:
        connection.settimeout(8)
        assert b" 200 " not in connection.recv(65536).partition(b"\r\n")[0]
    assert send(server, "GET", "/health").status == 200


# --- files and jobs -----------------------------------------------------------------------------------


def upload(server: Server, content: bytes, *, purpose: str = "fine-tune", filename: str = "a.jsonl") -> Answer:
    form = (
        f'--B\r\ncontent-disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n'
        f'--B\r\ncontent-disposition: form-data; name="file"; filename="{filename}"\r\n\r\n'
    ).encode()
    body = form + content + b"\r\n--B--\r\n"
    return send(server, "POST", "/v1/files", body, content_type="multipart/form-data; boundary=B")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=", b"----\r\n"),
        ("multipart/form-data; boundary=B", b""),
        ("multipart/form-data; boundary=B", b"nonsense"),
        ("multipart/form-data; boundary=B", b"--B\r\n"),
        ("multipart/form-data; boundary=B", b"--B\r\n\r\n\r\n--B--"),
        (
            "multipart/form-data; boundary=B",
            b'--B\r\ncontent-disposition: form-data; name="file"\r\n\r\na\r\n--B--\r\n',
        ),
        ("multipart/form-data; boundary=B", b"--B\r\ncontent-disposition: \xff\r\n\r\na\r\n--B--\r\n"),
        (
            "multipart/form-data; boundary=B; charset=nonsense",
            b'--B\r\ncontent-disposition: form-data; name="purpose"\r\n\r\na\r\n--B--\r\n',
        ),
        (
            "multipart/form-data; boundary=B",
            b'--B\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\na',
        ),
        ("multipart/form-data; boundary=" + "B" * 500, b"--B\r\n"),
        (
            "multipart/form-data; boundary=B",
            b'--B\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n' * 30 + b"--B--\r\n",
        ),
    ],
)
def test_a_broken_form_is_refused(server: Server, kind: str, body: bytes) -> None:
    answer = send(server, "POST", "/v1/files", body, content_type=kind)
    assert answer.status == 400, answer.body
    check_openai(answer)


@pytest.mark.parametrize(
    ("seconds", "anchor"),
    [
        ("3599", "created_at"),
        ("x", "created_at"),
        ("²", "created_at"),
        ("-1", "created_at"),
        ("2592001", "created_at"),
        ("3600", "x"),
    ],
)
def test_an_expiry_out_of_range_is_refused(server: Server, seconds: str, anchor: str) -> None:
    fields = {"purpose": "batch", "expires_after[seconds]": seconds, "expires_after[anchor]": anchor}
    form = "".join(f'--B\r\ncontent-disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in fields.items())
    form += '--B\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--B--\r\n'
    answer = send(server, "POST", "/v1/files", form.encode(), content_type="multipart/form-data; boundary=B")
    assert check_openai(answer)["param"].startswith("expires_after[")


BROKEN_LINES = [
    (b"not json", "Line 12", None),
    (b'{"messages": "text"}', "Line 12", "messages"),
    (b'{"messages": []}', "Line 12", "messages"),
    (b'{"messages": [{"role": "user", "content": "a"}]}', "Line 12", "messages[0]"),
    (b'{"messages": [{"role": "robot", "content": "a"}]}', "Line 12", "messages[0].role"),
    (b'{"messages": [{"role": ["user"], "content": "a"}]}', "Line 12", "messages[0].role"),
    (b'{"messages": [{"role": "assistant", "content": 5}]}', "Line 12", "messages[0].content"),
    (b'{"messages": [{"role": "assistant", "content": "a", "weight": 2}]}', "Line 12", "messages[0].weight"),
    (b'{"messages": [{"role": "assistant", "content": "\\ud800"}]}', "Line 12", None),
    (b'{"messages": [{"role": "assistant", "content": "a"}], "n": NaN}', "Line 12", None),
    (b'{"prompt": "a", "completion": "b"}', "Line 12", "completion"),
    (b"[" * 5000, "Line 12", None),
    (b"\xff\xfe", "Line 12", None),
]


@pytest.mark.parametrize(("line", "where", "field"), BROKEN_LINES)
def test_a_broken_line_is_named_with_its_field_and_fails_the_job(
    server: Server, line: bytes, where: str, field: str | None
) -> None:
    file = upload(server, example_lines(11) + line + b"\n")
    assert file.status == 200
    assert file.json["status"] == "error"
    assert file.json["status_details"].startswith(where)
    assert field is None or f"`{field}`" in file.json["status_details"]
    job = send(server, "POST", "/v1/fine_tuning/jobs", {"model": "scratch-small", "training_file": file.json["id"]})
    assert job.status == 200
    failed = await_end(server, job.json["id"])
    assert failed["status"] == "failed"
    assert failed["error"]["code"] == "invalid_training_file"
    assert failed["error"]["param"] == "training_file"
    assert where in failed["error"]["message"]


def test_the_same_file_without_the_broken_line_is_accepted(server: Server) -> None:
    assert upload(server, b"\xef\xbb\xbf" + example_lines(11).replace(b"\n", b"\r\n\r\n")).json["status"] == "processed"


def test_a_job_on_nine_rows_is_made_and_fails(server: Server) -> None:
    file = upload(server, example_lines(9)).json["id"]
    job = send(server, "POST", "/v1/fine_tuning/jobs", {"model": "scratch-small", "training_file": file})
    assert job.status == 200
    failed = await_end(server, job.json["id"])
    assert (failed["status"], failed["error"]["param"]) == ("failed", "training_file")
    assert "9 example" in failed["error"]["message"]
    assert failed["fine_tuned_model"] is None


def test_a_selection_of_nine_is_refused_and_of_ten_is_not(server: Server) -> None:
    for number in range(9):
        chat(server, f"{number}", store=True, metadata={"of": "selection"})
    body = {"filter": {"metadata": {"of": "selection"}}}
    refused = send(server, "POST", "/v1/stillroom/selections", body)
    assert refused.status == 400
    assert check_openai(refused)["code"] == "invalid_n_examples"
    chat(server, "9", store=True, metadata={"of": "selection"})
    assert send(server, "POST", "/v1/stillroom/selections", body).json["training_examples"] == 10


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": 1.5}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": True}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": [1]}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"batch_size": 257}}, "hyperparameters.batch_size"),
        ({"hyperparameters": {"learning_rate_multiplier": 0}}, "hyperparameters.learning_rate_multiplier"),
        ({"hyperparameters": {"learning_rate_multiplier": {}}}, "hyperparameters.learning_rate_multiplier"),
        ({"hyperparameters": {"warmup": 1}}, "hyperparameters.warmup"),
        ({"hyperparameters": {"training": "qlora"}}, "hyperparameters.training"),
        ({"hyperparameters": {"training": ["lora"]}}, "hyperparameters.training"),
        ({"hyperparameters": {"training": "lora"}}, "hyperparameters.training"),
        ({"hyperparameters": {"lora_rank": 0}}, "hyperparameters.lora_rank"),
        ({"hyperparameters": {"lora_rank": 1025}}, "hyperparameters.lora_rank"),
        ({"hyperparameters": {"lora_alpha": 1.5}}, "hyperparameters.lora_alpha"),
        ({"hyperparameters": {"lora_targets": "q_proj"}}, "hyperparameters.lora_targets"),
        ({"hyperparameters": {"lora_targets": []}}, "hyperparameters.lora_targets"),
        ({"hyperparameters": {"lora_targets": ["q proj"]}}, "hyperparameters.lora_targets"),
        ({"hyperparameters": {"lora_targets": ["q_proj"] * 65}}, "hyperparameters.lora_targets"),
        ({"hyperparameters": {"lora_targets": {"q_proj": 1}}}, "hyperparameters.lora_targets"),
        ({"hyperparameters": {"long_rows": True}}, "hyperparameters.long_rows"),
        ({"hyperparameters": {"long_rows": {"cut": 1}}}, "hyperparameters.long_rows"),
        ({"hyperparameters": [1]}, "hyperparameters"),
        ({"hyperparameters": "x"}, "hyperparameters"),
        ({"method": "supervised"}, "method"),
        ({"method": {"type": ["supervised"]}}, "method.type"),
        ({"method": {"type": "supervised", "supervised": "x"}}, "method.supervised"),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": "x"}}},
            "method.supervised.hyperparameters",
        ),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 51}}}},
            "hyperparameters.n_epochs",
        ),
        ({"method": {"type": "dpo"}}, "model"),
        ({"method": {"type": "on_policy"}}, "model"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"seed": "1"}, "seed"),
        ({"suffix": "s" * 65}, "suffix"),
        ({"suffix": "a b"}, "suffix"),
        ({"suffix": 5}, "suffix"),
        ({"model": "gpt-4o"}, "model"),
        ({"model": None}, "model"),
        ({"training_file": "file-none"}, "training_file"),
        ({"training_file": 5}, "training_file"),
        ({"validation_file": 5}, "validation_file"),
        ({"validation_file": "file-none"}, "validation_file"),
        ({"integrations": [{"type": "wandb"}]}, "integrations"),
        ({"metadata": {f"k{n}": "v" for n in range(17)}}, "metadata"),
    ],
)
def test_a_job_asked_for_wrongly_names_the_field(server: Server, wrong: dict[str, Any], param: str) -> None:
    file = upload(server, example_lines(11)).json["id"]
    body = {"model": "scratch-small", "training_file": file, **wrong}
    for path in ("/v1/fine_tuning/jobs", "/openai/v1/fine_tuning/jobs"):
        answer = send(server, "POST", path, body)
        assert answer.status == 400, answer.body
        assert answer.error["param"] == param, answer.body


def test_an_unknown_argument_of_a_job_is_told_in_openais_words(server: Server) -> None:
    answer = send(server, "POST", "/v1/fine_tuning/jobs", {"model": "scratch-small", "training_file": "x", "epochs": 3})
    assert check_openai(answer)["message"] == "Unrecognized request argument supplied: epochs"


# --- everything at once -------------------------------------------------------------------------------


BODY_ROUTES = [(prefix, route) for prefix, route in ALL_ROUTES if route.method in ("POST", "PUT", "PATCH")]


@pytest.mark.parametrize(("prefix", "route"), BODY_ROUTES, ids=lambda value: getattr(value, "path", value))
def test_no_nasty_body_is_a_500(server: Server, prefix: str, route: routes.Route) -> None:
    made = chat(server, store=True).json["id"]
    if route.path.startswith("evals/{id}"):
        made = send(server, "POST", "/v1/evals", right_body("evals")).json["id"]
    path = path_of(prefix, route, id=made, deployment="nasty")
    bodies = [json.dumps(value).encode() for value in NASTY]
    bodies += [param.values[0] for param in NO_JSON]  # type: ignore[misc]
    fields = next((fields for end, fields in FIELDS.items() if route.path.endswith(end)), ())
    bodies += [json.dumps({**right_body(route.path), field: value}).encode() for field in fields for value in NASTY]
    connection = connect(server)
    headers = {"authorization": f"Bearer {server.key}", "content-type": "application/json"}
    for body in bodies:
        connection.request(route.method, path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        assert answer.status < 500, (path, body[:300], data)
        if answer.status >= 400:
            error = json.loads(data)["error"]
            assert {"message", "code"} <= set(error), (body[:300], data)
            assert prefix != "/v1/" or {"type", "param"} <= set(error), (body[:300], data)
    connection.close()
    for listing in (
        "chat/completions",
        "evals",
        "files",
        "fine_tuning/jobs",
        "models",
        "stillroom/keys",
        "stillroom/usage",
    ):
        assert send(server, "GET", f"/v1/{listing}").status == 200, "a nasty body was kept and cannot be listed"
    deployments = "/subscriptions/x/resourceGroups/x/providers/Microsoft.CognitiveServices/accounts/x/deployments"
    assert send(server, "GET", deployments).status == 200
    assert "Traceback" not in server.log.read_text()
    send(server, "DELETE", f"{deployments}/nasty")


def test_a_long_name_of_nothing_is_not_echoed_whole(server: Server) -> None:
    refused = 0
    for prefix, route in ALL_ROUTES:
        names = re.findall(r"\{(\w+)\}", route.path)
        if names and route.method in ("GET", "DELETE"):
            answer = send(server, route.method, path_of(prefix, route, **dict.fromkeys(names, "a" * 5000)))
            if answer.status == 404:
                refused += 1
                assert len(answer.body) < 600, route
    assert refused > 30
    assert len(send(server, "GET", "/v1/" + "a" * 5000).body) < 600
    assert len(send(server, "GET", "/" + "a" * 5000).body) < 600


@pytest.mark.parametrize("nasty", ["\0", "%00", "a" * 5000, "😀", "..", "a/b", "' OR '1'='1", "{x}", "ftckpt_x", "-"])
def test_no_nasty_path_parameter_is_a_500(server: Server, nasty: str) -> None:
    for prefix, route in ALL_ROUTES:
        if "{" not in route.path or route.path.endswith("listKeys"):
            continue
        names = re.findall(r"\{(\w+)\}", route.path)
        path = path_of(prefix, route, **{name: quote(nasty, safe="") for name in names})
        body = right_body(route.path) if route.method in ("POST", "PUT", "PATCH") else None
        answer = send(server, route.method, path, body)
        assert answer.status < 500, (route, answer.body)
        if route.method == "PUT" and answer.status < 300:
            assert send(server, "DELETE", path).status == 200


def test_the_check_for_500s_can_tell_one(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The control: a teacher that is truly broken gives a 5xx, so the checks above are able to fail."""
    folder = tmp_path_factory.mktemp("control") / "data"
    teachers = {"gpt-4o": {"base_url": "http://127.0.0.1:9/v1"}}
    with Server(folder, teachers=teachers, gateway_attempts=1).start() as server:
        assert chat(server).status == 502


def test_streams_of_bad_requests_are_refused_before_they_begin(server: Server) -> None:
    answer = chat(server, stream=True, model="gpt-99")
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/json"
    begun = chat(server, stream=True)
    assert begun.headers["content-type"].startswith("text/event-stream")
    assert payloads(begun.body)[-1] == "[DONE]"


def await_end(server: Server, job: str) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        now = send(server, "GET", f"/v1/fine_tuning/jobs/{job}").json
        return now if now["status"] in ("succeeded", "failed", "cancelled") else None

    return dict(wait_for(ended, seconds=30))
