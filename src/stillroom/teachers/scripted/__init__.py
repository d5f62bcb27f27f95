"""A teacher that answers from a script: a real HTTP server on loopback, speaking OpenAI's chat completions.

It is for the demo, which needs a teacher without keys or network, and for tests (yours too), which need a
teacher that fails on demand:

    with ScriptedTeacher(echo) as teacher:
        teacher.script(Status(code=429, headers={"retry-after": "1"}))
        client = OpenAI(base_url=teacher.url, api_key="any")

Owns the wire: the response objects, the server-sent events, the scripted faults and the record of what
arrived. What an answer says comes from a function that is handed in; there is no language model in here.
Knows nothing of stillroom's own API, of deployments or of prices.
"""

from stillroom.teachers.scripted.faults import (
    BadJson,
    CloseAtOnce,
    CutStream,
    Drip,
    EndStreamWithoutDone,
    Fault,
    GzipBomb,
    Hang,
    Html,
    HugeLine,
    RefuseLogprobs,
    RefuseStreamOptions,
    Reply,
    Status,
    StreamError,
)
from stillroom.teachers.scripted.forms import in_form
from stillroom.teachers.scripted.objects import JsonObject, count_tokens
from stillroom.teachers.scripted.server import Answer, ReceivedRequest, ScriptedTeacher, echo, triage_expert

__all__ = [
    "Answer",
    "BadJson",
    "CloseAtOnce",
    "CutStream",
    "Drip",
    "EndStreamWithoutDone",
    "Fault",
    "GzipBomb",
    "Hang",
    "Html",
    "HugeLine",
    "JsonObject",
    "ReceivedRequest",
    "RefuseLogprobs",
    "RefuseStreamOptions",
    "Reply",
    "ScriptedTeacher",
    "Status",
    "StreamError",
    "count_tokens",
    "echo",
    "in_form",
    "triage_expert",
]
