"""Requests are read into structs, and what is wrong with one is said in plain words."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal

import msgspec
import pytest

from stillroom import bodies
from stillroom.errors import InvalidRequest


class Size(enum.StrEnum):
    SMALL = "small"
    LARGE = "large"


class Cat(msgspec.Struct, tag="cat", tag_field="kind", forbid_unknown_fields=True):
    lives: Annotated[int, msgspec.Meta(ge=1, le=9)] = 9


class Dog(msgspec.Struct, tag="dog", tag_field="kind", forbid_unknown_fields=True):
    tricks: list[str] = []


class Order(msgspec.Struct, forbid_unknown_fields=True):
    pet: Cat | Dog
    size: Size = Size.SMALL
    colour: Literal["red", "blue"] | None = None
    weight: Annotated[float, msgspec.Meta(gt=0)] | None = None
    names: str | list[str] | None = None
    tags: dict[str, str] = {}
    others: list[Cat | Dog] = []
    gift: bool = False


CAT = {"kind": "cat"}


@pytest.mark.parametrize(
    ("order", "param", "message"),
    [
        ([], None, "Invalid 'body': expected an object, got a list."),
        ({}, "pet", "Missing required parameter: 'pet'."),
        ({"pet": {}}, "pet.kind", "Missing required parameter: 'pet.kind'."),
        ({"pet": {"kind": "cow"}}, "pet.kind", "Invalid 'pet.kind': 'cow' is none of cat, dog."),
        (
            {"pet": CAT, "others": [CAT, {"kind": "c"}]},
            "others[1].kind",
            "Invalid 'others[1].kind': 'c' is none of cat, dog.",
        ),
        ({"pet": CAT, "size": "big"}, "size", "Invalid 'size': 'big' is none of small, large."),
        ({"pet": CAT, "colour": "green"}, "colour", "Invalid 'colour': 'green' is none of blue, red."),
        ({"pet": {**CAT, "lives": 0}}, "pet.lives", "Invalid 'pet.lives': expected a whole number from 1 up."),
        ({"pet": {**CAT, "lives": 10}}, "pet.lives", "Invalid 'pet.lives': expected a whole number up to 9."),
        ({"pet": CAT, "weight": 0}, "weight", "Invalid 'weight': expected a number above 0."),
        (
            {"pet": CAT, "names": 5},
            "names",
            "Invalid 'names': expected a string, a list or null, got a whole number.",
        ),
        ({"pet": CAT, "gift": "yes"}, "gift", "Invalid 'gift': expected true or false, got a string."),
        ({"pet": CAT, "tags": {"a": 1}}, "tags[...]", "Invalid 'tags[...]': expected a string, got a whole number."),
        (
            {"pet": CAT, "colours": 1},
            "colours",
            "Unknown parameter: 'colours'. Did you mean `colour`? Known are: pet, size, colour, weight, names, tags, others, gift.",
        ),
        (
            {"pet": CAT, "price": 1},
            "price",
            "Unknown parameter: 'price'. Known are: pet, size, colour, weight, names, tags, others, gift.",
        ),
        ({"pet": {**CAT, "tricks": []}}, "pet.tricks", "Unknown parameter: 'pet.tricks'."),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(order: Any, param: str | None, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        bodies.read(order, Order)
    assert (refused.value.param, refused.value.message) == (param, message)


def test_the_place_of_a_part_is_part_of_its_fields_names() -> None:
    with pytest.raises(InvalidRequest) as refused:
        bodies.read({"pet": 5}, Order, "order")
    assert refused.value.param == "order.pet"
    with pytest.raises(InvalidRequest) as refused:
        bodies.read(5, Order, "order")
    assert refused.value.message == "Invalid 'order': expected an object, got a whole number."


def test_what_is_long_is_echoed_short() -> None:
    for order in ({"pet": {"kind": "x" * 5000}}, {"pet": CAT, "size": "x" * 5000}, {"pet": CAT, "x" * 5000: 1}):
        with pytest.raises(InvalidRequest) as refused:
            bodies.read(order, Order)
        assert len(refused.value.message) < 400
        assert "x…" in refused.value.message


def test_what_is_right_is_read() -> None:
    """The control."""
    read = bodies.read({"pet": {"kind": "dog", "tricks": ["sit"]}, "size": "large", "names": ["a"]}, Order)
    assert read == Order(pet=Dog(tricks=["sit"]), size=Size.LARGE, names=["a"])
