"""Templates name values of the item and the sample, and can do nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.errors import InvalidRequest, VariableMissing
from stillroom.graders.subject import Subject, sample_of, sample_of_completion
from stillroom.graders.template import Reference, Template, resolve

ITEM: dict[str, Any] = {
    "question": "Why?",
    "odd key": "odd",
    'a"b': "quoted",
    "list": [{"x": 1}, {"x": "two"}],
    "nested": {"deep": {"er": True}},
    "number": 2.50,
    "nothing": None,
    "日本": "にほん",
    "0": "zero",
}


def rendered(text: str, *, sample: dict[str, Any] | None = None) -> str:
    return Template.read(text, param="input").render(Subject(item=ITEM, sample=sample))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no variable", "no variable"),
        ("", ""),
        ("{{item.question}}", "Why?"),
        ("{{ item.question }} {{  item.question}}", "Why? Why?"),
        ("{{item.list[1].x}}", "two"),
        ("{{item.list.1.x}}", "two"),
        ('{{item["odd key"]}}', "odd"),
        ("{{item['odd key']}}", "odd"),
        (r'{{item["a\"b"]}}', "quoted"),
        ("{{item.日本}}", "にほん"),
        ("{{item[0]}}", "zero"),
        ("{{item.nested.deep.er}}", "true"),
        ("{{item.number}}", "2.5"),
        ("{{item.nothing}}", "null"),
        ("{{item.list}}", '[{"x":1},{"x":"two"}]'),
        ("{a} }} {{item.question}}}", "{a} }} Why?}"),
        ('{"smiles": "{{item.question}}"}', '{"smiles": "Why?"}'),
    ],
)
def test_a_path_is_replaced_by_its_value(text: str, expected: str) -> None:
    assert rendered(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ foo.x }}", "begin with item. or sample."),
        ("{{ item }}", "begin with item. or sample."),
        ("{{ question }}", "begin with item. or sample."),
        ("{{ item.question", "never closes it"),
        ("ok {{ item.question | upper }}", "calls and filters are not known"),
        ("{{ item.question() }}", "calls and filters are not known"),
        ("{{ item.list[-1] }}", "calls and filters are not known"),
        ("{{ item.a + item.b }}", "calls and filters are not known"),
        ("{{ 7 * 7 }}", "calls and filters are not known"),
        ("{{}}", "calls and filters are not known"),
        ("{{{item.question}}}", "calls and filters are not known"),
    ],
)
def test_what_is_no_path_is_refused_with_the_remedy(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Template.read(text, param="testing_criteria[0].input")
    assert said in refused.value.message
    assert refused.value.param == "testing_criteria[0].input"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ item.answer }}", "item.answer, and item has question, odd key"),
        ("{{ item.list[2] }}", "item.list[2], and item.list is a list of 2"),
        ("{{ item.question.x }}", "item.question.x, and item.question is 'Why?'"),
        ("{{ item.nothing.x }}", "item.nothing is null"),
        ("{{ sample.output_text }}", "no model has answered"),
    ],
)
def test_a_missing_variable_is_named_with_what_is_there(text: str, said: str) -> None:
    with pytest.raises(VariableMissing) as missing:
        rendered(text)
    assert said in missing.value.message


def test_only_json_answers_have_output_json() -> None:
    assert rendered("{{sample.output_json.a[0]}}", sample=sample_of('{"a": [7]}')) == "7"
    with pytest.raises(VariableMissing, match="asks for JSON, and the answer is none"):
        rendered("{{sample.output_json.a}}", sample=sample_of("plainly no"))
    with pytest.raises(VariableMissing, match=r"sample\.output_json has a"):
        rendered("{{sample.output_json.b}}", sample=sample_of('{"a": 1}'))


def test_a_reference_gives_the_value_itself() -> None:
    messages = [{"role": "user", "content": "hi"}]
    for written in ("item.input", "{{ item.input }}", ' item["input"] '):
        reference = Reference.read(written, param="item_reference")
        assert resolve(reference, Subject(item={"input": messages})) is messages
    with pytest.raises(InvalidRequest, match=r"write a path such as item\.input"):
        Reference.read("item.input | first", param="item_reference")
    with pytest.raises(VariableMissing):
        resolve(Reference.read("item.gone", param=""), Subject(item={}))


@given(value=st.text() | st.just("{{item.secret}}") | st.just("{{ sample.output_text }}"))
def test_what_is_put_in_is_never_read_as_a_template(value: str) -> None:
    template = Template.read("<{{item.a}}|{{ item.a }}>", param="input")
    assert template.render(Subject(item={"a": value, "secret": "s"})) == f"<{value}|{value}>"


@given(text=st.text(alphabet="{} item.sample[]\"'\\x0") | st.text())
def test_any_text_is_rendered_or_refused(text: str) -> None:
    try:
        template = Template.read(text, param="input")
    except InvalidRequest:
        assert "{{" in text
    else:
        assert ("{{" in text) == any(isinstance(part, Reference) for part in template.parts)


def test_a_completion_gives_the_sample_openais_templates_name() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": '{"q": 1}'}}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": None, "tool_calls": [call]},
        "finish_reason": "tool_calls",
    }
    sample = sample_of_completion({"model": "m", "choices": [choice], "usage": {"total_tokens": 3}})
    assert sample == {
        "model": "m",
        "usage": {"total_tokens": 3},
        "output_text": "",
        "output_json": None,
        "output_tools": [call],
        "choices": [choice],
        "finish_reason": "tool_calls",
    }
    assert rendered("{{sample.output_tools[0].function.name}}", sample=sample) == "find"
