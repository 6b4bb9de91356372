"""What a piece of code is: a name and a version where it is installed, otherwise what it does.

Code that is not installed is its instructions and everything that they refer to: constants, defaults,
closures, globals, called functions, base classes, to the end. Where it stands does not matter, nor do
line numbers, file names and docstrings.

    fit ──global──> helper ──global──> TABLE            each piece of code is numbered when it is first
     │                └──global──> numpy.mean           met and described once, so that references in
     └──closure──> Model ──base──> BaseEstimator        circles end
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    ModuleType,
)
from typing import Any

from anyfold._plan.bytecode import Chain, Constant, global_chains, imports, signature, steps
from anyfold._plan.canonical import Encoder, Untrusted, digest, token, within
from anyfold._plan.installed import global_name, installed_version

__all__ = ["CodeIdentities"]

DYNAMIC = frozenset({"eval", "exec", "globals", "__import__"})
"""Built-in functions by which code can refer to anything."""

PLACES = frozenset(
    ["__cached__", "__doc__", "__file__", "__loader__", "__name__", "__package__", "__qualname__", "__spec__"]
)
"""Globals that say where code stands."""

BOOKKEEPING = PLACES | {
    "__annotate__",
    "__annotate_func__",
    "__annotations__",
    "__annotations_cache__",
    "__classdictcell__",
    "__dict__",
    "__firstlineno__",
    "__module__",
    "__slotnames__",
    "__static_attributes__",
    "__type_params__",
    "__weakref__",
    "_abc_impl",
}
"""What stands in the dictionary of a class and does nothing."""


class CodeIdentities:
    """Identities of classes, functions and modules, each worked out once; not for longer than a run.

    Called with an object, returns its identity, or None if it is no code.
    """

    def __init__(self) -> None:
        # the objects are kept too, so that no other can take their place in memory
        self._known: dict[int, tuple[Any, bytes]] = {}
        self._open: set[int] = set()

    def __call__(self, obj: Any) -> bytes | None:
        found = installed(obj)
        if found is not None or not is_code(obj):
            return found
        known = self._known.get(id(obj))
        if known is None:
            if id(obj) in self._open:
                raise Untrusted(f"{_title(obj)} is a member of a set that it refers to")
            self._open.add(id(obj))
            try:
                known = self._known[id(obj)] = (obj, _Walk(self).identity(obj))
            finally:
                self._open.discard(id(obj))
        return known[1]


def installed(obj: Any) -> bytes | None:
    """Return name and version of what is installed, else None."""
    if isinstance(obj, ModuleType):
        version = installed_version(obj.__name__)
        return None if version is None else _texts("module", obj.__name__, version)
    named = global_name(obj)
    if named is not None:
        return _texts("installed", *named)
    if isinstance(obj, BuiltinFunctionType) and isinstance(obj.__self__, ModuleType):
        version = installed_version(obj.__self__.__name__)
        if version is not None:
            return _texts("installed", obj.__self__.__name__, obj.__qualname__, version)
    return None


def is_code(obj: Any) -> bool:
    """Return whether an object is code rather than data."""
    return isinstance(obj, (type, FunctionType, ModuleType, BuiltinFunctionType, *_DESCRIPTORS))


_DESCRIPTORS = (
    property,
    staticmethod,
    classmethod,
    cached_property,
    MemberDescriptorType,
    GetSetDescriptorType,
)


class _Walk:
    """Describes one piece of code and everything that it refers to."""

    def __init__(self, identities: CodeIdentities) -> None:
        self._numbers: dict[int, int] = {}
        self._found: list[Any] = []
        self._encoder = Encoder(self._refer, identities)

    def identity(self, root: Any) -> bytes:
        self._refer(root)
        return digest(map(self._describe, self._found))  # the list grows while it is read

    def _refer(self, obj: Any) -> bytes | None:
        found = installed(obj)
        if found is not None or not is_code(obj):
            return found
        number = self._numbers.get(id(obj))
        if number is None:
            if isinstance(obj, type) and not obj.__flags__ & HEAP_TYPE:
                raise Untrusted(f"{_title(obj)} is compiled and belongs to no installed distribution")
            number = self._numbers[id(obj)] = len(self._found)
            self._found.append(obj)
        return _texts("reference", str(number))

    def _describe(self, obj: Any) -> bytes:
        describe: Callable[[Any], bytes]
        match obj:
            case FunctionType():
                describe = self._function
            case type():
                describe = self._class
            case ModuleType():
                describe = self._module
            case MemberDescriptorType() | GetSetDescriptorType():
                return _texts("slot", obj.__name__)
            case property():
                return self._encoder.encode(("property", obj.fget, obj.fset, obj.fdel))
            case staticmethod() | classmethod():
                return self._encoder.encode((type(obj).__name__, obj.__func__))
            case cached_property():
                return self._encoder.encode(("cached_property", obj.func))
            case BuiltinFunctionType() if not isinstance(obj.__self__, ModuleType | None):
                return self._encoder.encode(("bound", obj.__self__, obj.__name__))
            case _:
                raise Untrusted(f"{_title(obj)} is compiled and belongs to no installed distribution")
        with within(_title(obj)):
            return describe(obj)

    # ---- functions ----------------------------------------------------------------------------

    def _function(self, function: FunctionType) -> bytes:
        encode = self._encoder.encode
        parts = [self._code(function.__code__)]
        with within("a default"):
            parts += [encode(function.__defaults__), self._encoder.named(function.__kwdefaults__ or {}, "of")]
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with within(f"the enclosed {name!r}"):
                try:
                    value = cell.cell_contents
                except ValueError:
                    parts.append(token("empty"))
                else:
                    parts.append(encode(value))
        parts.append(self._encoder.named(vars(function), "attribute"))
        module = str(function.__globals__.get("__name__"))
        version = installed_version(module)
        if version is not None:
            # made inside an installed function: what it calls there goes by the version
            return token("made", *parts, _texts("where", module, version, function.__code__.co_qualname))
        for chain in sorted(set(global_chains(function.__code__))):
            with within(f"the global {chain[0]!r}"):
                parts += [_texts("chain", *chain), self._global(function.__globals__, chain)]
        for name, members in sorted(set(imports(function.__code__, function.__globals__))):
            with within(f"the import of {name!r}"):
                parts += [_texts("import", name, *members), self._imported(name, members)]
        return token("function", *parts)

    def _global(self, namespace: Mapping[str, Any], chain: Chain) -> bytes:
        name, *attributes = chain
        if name not in namespace or name in PLACES:
            if name in DYNAMIC:
                raise Untrusted(f"{name}() can refer to anything")
            return _texts("builtin", name)
        value = namespace[name]
        while attributes and isinstance(value, ModuleType) and installed(value) is None:
            name, *attributes = attributes
            if not hasattr(value, name):
                return _texts("missing", name)
            value = getattr(value, name)
        return self._encoder.encode(value)

    def _imported(self, name: str, members: tuple[str, ...]) -> bytes:
        version = installed_version(name)
        if version is not None:
            return _texts("module", name, version)
        module = sys.modules.get(name)
        if module is None:
            raise Untrusted("it is loaded only when the code runs; import it at the top of the module")
        if not members or "*" in members:
            return self._encoder.encode(module)
        return self._encoder.encode([getattr(module, member, None) for member in members])

    def _code(self, code: CodeType) -> bytes:
        parts = [self._encoder.encode(signature(code))]
        for operation, argument in steps(code):
            parts.append(_texts("op", operation))
            if isinstance(argument, Constant):
                parts.append(self._constant(argument.value))
            elif argument is not None:
                parts.append(_texts("argument", argument))
        return token("code", *parts)

    def _constant(self, value: Any) -> bytes:
        if isinstance(value, CodeType):
            return self._code(value)
        if type(value) is tuple:
            return token("tuple", *map(self._constant, value))
        return self._encoder.encode(value)

    # ---- classes and modules ------------------------------------------------------------------

    def _class(self, cls: type) -> bytes:
        parts = [self._encoder.encode((cls.__name__, type(cls), cls.__mro__[1:]))]
        own = {name: value for name, value in vars(cls).items() if name not in BOOKKEEPING}
        parts.append(self._encoder.named(own, "attribute"))
        return token("class", *parts)

    def _module(self, module: ModuleType) -> bytes:
        # used as a whole, not only for some of its names
        own = {name: value for name, value in vars(module).items() if not name.startswith("__")}
        return token("module", self._encoder.named(own, "global"))


HEAP_TYPE = 1 << 9
"""Set in ``__flags__`` of classes that were made by a class statement."""


def _title(obj: Any) -> str:
    match obj:
        case ModuleType():
            return f"module {obj.__name__}"
        case type():
            return f"class {obj.__qualname__}"
    return f"function {getattr(obj, '__qualname__', type(obj).__name__)}"


def _texts(kind: str, *texts: str) -> bytes:
    return token(kind, *(token("text", text.encode("utf-8", "surrogatepass")) for text in texts))
