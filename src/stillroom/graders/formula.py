"""The formula of a multi grader: arithmetic over the scores of its parts, and nothing more.

Python's own parser reads it; what is not on the lists below is refused. As in OpenAI's formulas, `^`
is a power, and `**` is one too.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from stillroom.errors import InvalidRequest

MOST_LETTERS = 2000
MOST_DEPTH = 50
SHOWN_LETTERS = 40
BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    # On floats only, so a power overflows instead of growing.
    ast.Pow: math.pow,
}
UNARY: dict[type[ast.unaryop], Callable[[float], float]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
FUNCTIONS: dict[str, Callable[..., float]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
SEVERAL = ("min", "max")  # the functions of more than one number
KNOWN = f"A formula may use + - * / ^ % // and parentheses, {', '.join(FUNCTIONS)}"


class FormulaFailed(Exception):
    """The formula has no finite result for these scores."""


@dataclass(frozen=True, kw_only=True)
class Formula:
    """A checked formula."""

    text: str
    tree: ast.expr = field(compare=False, repr=False)

    def result(self, scores: Mapping[str, float]) -> float:
        """Raises FormulaFailed for a division by zero, an overflow, the root of a negative number."""
        try:
            value = float(_value(self.tree, scores))
        except (ArithmeticError, ValueError) as error:
            raise FormulaFailed(f"'{self.text}' has no result for {_told(scores)}: {error}.") from error
        if not math.isfinite(value):
            raise FormulaFailed(f"'{self.text}' has no finite result for {_told(scores)}.")
        return value


def compile_formula(text: str, names: Collection[str], *, param: str) -> Formula:
    """Raises InvalidRequest, with this param, for what is no arithmetic over these names."""
    if len(text) > MOST_LETTERS:
        raise InvalidRequest(
            f"The formula has {len(text)} characters; at most {MOST_LETTERS} can be read.", param=param
        )
    python = text.strip().replace("^", "**")
    try:
        tree = ast.parse(python, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidRequest(f"'{text}' is no formula: {_reason(error)}. {KNOWN}.", param=param) from error
    if wrong := _wrong_part(tree, names, python, MOST_DEPTH):
        raise InvalidRequest(f"'{text}' cannot be used as a formula: {wrong}.", param=param)
    return Formula(text=text, tree=tree)


def _wrong_part(node: ast.expr, names: Collection[str], python: str, depth: int) -> str | None:
    """What in the formula is not allowed, in words; None when everything is."""
    if depth == 0:
        return f"it is nested more than {MOST_DEPTH} deep"
    inner: list[ast.expr]
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return None
        case ast.Name(id=name):
            return None if name in names else f"it names '{name}'; the scores are called {', '.join(sorted(names))}"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            inner = [left, right]
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in UNARY:
            inner = [operand]
        # Only min and max take several numbers, and they need two: Python reads a single one as a list.
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS and (
            len(arguments) > 1 if name in SEVERAL else len(arguments) == 1
        ):
            inner = arguments
        case _:
            written = ast.get_source_segment(python, node) or "a part of it"
            return f"'{written[:SHOWN_LETTERS]}' is not allowed. {KNOWN}"
    found = (_wrong_part(part, names, python, depth - 1) for part in inner)
    return next((wrong for wrong in found if wrong), None)


def _value(node: ast.AST, scores: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return float(scores[name])
        case ast.BinOp(left=left, op=op, right=right):
            return BINARY[type(op)](_value(left, scores), _value(right, scores))
        case ast.UnaryOp(op=sign, operand=operand):
            return UNARY[type(sign)](_value(operand, scores))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return FUNCTIONS[name](*(_value(argument, scores) for argument in arguments))
    raise AssertionError(f"{ast.dump(node)} was let through")


def _reason(error: BaseException) -> str:
    return error.msg if isinstance(error, SyntaxError) else "it is too deeply nested"


def _told(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {score:g}" for name, score in scores.items())
