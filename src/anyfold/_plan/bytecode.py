"""What the instructions of a function say, without where they stand.

Line numbers, file names and docstrings are left out; constants are given by value and jumps by the number
of the instruction that they lead to, so that an added docstring moves nothing.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import resolve_name
from types import CodeType
from typing import Any

__all__ = ["Chain", "Constant", "global_chains", "imports", "signature", "steps"]

Chain = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that an instruction loads."""

    value: Any


def signature(code: CodeType) -> tuple[Any, ...]:
    """Return what a code object says of itself besides its instructions."""
    return (
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags & ~HAS_DOCSTRING,
        arguments_of(code),
        code.co_freevars,
        code.co_cellvars,
        code.co_exceptiontable,
    )


def steps(code: CodeType) -> Iterator[tuple[str, str | Constant | None]]:
    """Yield each instruction with what it works on."""
    instructions = _instructions(code)
    positions = {each.offset: index for index, each in enumerate(instructions)}
    for each in instructions:
        if each.opcode in dis.hasconst:
            yield each.opname, Constant(each.argval)
        elif each.opcode in dis.hasjrel or each.opcode in dis.hasjabs:
            # a jump may lead to the prefix of an instruction with a large argument
            target = next(offset for offset in range(each.argval, each.argval + 8) if offset in positions)
            yield each.opname, str(positions[target])
        else:
            yield each.opname, None if each.arg is None else each.argrepr or str(each.arg)


def _instructions(code: CodeType) -> list[dis.Instruction]:
    return [each for each in dis.get_instructions(code) if each.opname != "EXTENDED_ARG"]


HAS_DOCSTRING = 1 << 26
"""Set in ``co_flags`` by the Pythons that note it there."""


def arguments_of(code: CodeType) -> tuple[str, ...]:
    n_starred = bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + n_starred]


def codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def global_chains(code: CodeType) -> Iterator[Chain]:
    """Yield the globals that code reads, each with the attributes that it reads of them at once."""
    for part in codes(code):
        instructions = _instructions(part)
        for index, each in enumerate(instructions):
            if each.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
                chain = [str(each.argval)]
                for following in instructions[index + 1 :]:
                    if following.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                        chain.append(str(following.argval))
                    else:
                        break
                yield tuple(chain)


def imports(code: CodeType, namespace: Mapping[str, Any]) -> Iterator[tuple[str, Chain]]:
    """Yield the modules that code imports when it runs, and the names that it takes from them."""
    for part in codes(code):
        instructions = _instructions(part)
        for index, each in enumerate(instructions):
            if each.opname == "IMPORT_NAME":
                level, members = instructions[index - 2].argval, instructions[index - 1].argval
                name = "." * level + each.argval
                if level:
                    name = resolve_name(name, str(namespace.get("__package__") or ""))
                yield name, tuple(members or ())
