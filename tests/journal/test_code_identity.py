"""The identity of code changes with what it does, and with nothing else."""

import linecache
import pickle
import sys
import textwrap
import types

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from anyfold._plan.canonical import Untrusted
from anyfold._plan.code_identity import CodeIdentities

MODEL = """
    import numpy as np
    import sklearn.base

    SCALE = 2.0
    TABLE = {"a": np.arange(3.0)}

    def helper(x):
        return x * SCALE

    class Base(sklearn.base.BaseEstimator):
        def shift(self, x):
            return x + 1

    class Model(Base):
        def __init__(self, power=1):
            self.power = power

        def fit(self, X, y=None, *, weight=1):
            inner = lambda values: [helper(value) for value in values]
            self.mean_ = np.mean(inner(X)) ** self.power
            return self

        def predict(self, X):
            return super().shift(X) + TABLE["a"][0]
"""


def load(source, name="somewhere"):
    """Return a module made of source, as an edited file would give it."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    try:
        exec(compile(textwrap.dedent(source), f"/{name}.py", "exec"), vars(module))
    finally:
        linecache.clearcache()
    return module


@pytest.fixture(autouse=True)
def no_module_is_left():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__spec__", None) is None:
            del sys.modules[name]


def identity(obj):
    return CodeIdentities()(obj)


def identity_of(source, attribute="Model", name="somewhere"):
    return identity(getattr(load(source, name), attribute))


def edited(old, new):
    assert MODEL.count(old) == 1
    return MODEL.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("np.mean(inner(X))", "np.median(inner(X))"),
        ("** self.power", "+ self.power"),
        ("x * SCALE", "x / SCALE"),
        ("x + 1\n", "x + 2\n"),
        ("x + 1\n", "x + 1.0\n"),
        ("x + 1\n", "x + True\n"),
        ("SCALE = 2.0", "SCALE = 3.0"),
        ("SCALE = 2.0", "SCALE = 2"),
        ("np.arange(3.0)", "np.arange(1, 4.0)"),
        ("weight=1", "weight=2"),
        ("power=1", "power=1.0"),
        ("class Model(Base):", "class Model(sklearn.base.ClassifierMixin, Base):"),
        ("[helper(value)", "[-helper(value)"),
    ],
    ids=lambda text: text.strip(),
)
def test_an_edit_that_changes_what_runs_changes_the_identity(old, new):
    assert identity_of(edited(old, new)) != identity_of(MODEL)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    SCALE = 2.0", "\n\n    # moved down\n\n    SCALE = 2.0"),
        ("        return x * SCALE", '        """Say what it does."""\n        return x * SCALE'),
        (
            "        def shift(self, x):",
            '        """A class."""\n\n        def shift(self, x: float) -> float:',
        ),
        ("    SCALE = 2.0", "    SCALE = 2.0\n    UNUSED = 7"),
        ("    class Model(Base):", "    def other(): pass\n\n    class Model(Base):"),
    ],
)
def test_an_edit_that_changes_nothing_that_runs_keeps_the_identity(old, new):
    assert identity_of(edited(old, new)) == identity_of(MODEL)


def test_moving_code_to_another_module_keeps_the_identity():
    assert identity_of(MODEL, name="here") == identity_of(MODEL, name="elsewhere")


def test_a_docstring_that_shifts_every_constant_and_jump_changes_nothing():
    body = "".join(f"        if x == {n}: x = {n * 3 + 1000}\n" for n in range(300))
    bare = f"    def f(x):\n{body}        return x\n"
    told = bare.replace("def f(x):\n", 'def f(x):\n        """Count."""\n')
    assert identity_of(bare, "f") == identity_of(told, "f")
    assert identity_of(bare.replace("x == 299", "x == 298"), "f") != identity_of(bare, "f")


def test_using_and_pickling_a_class_keeps_its_identity():
    model = load(MODEL).Model
    before = identity(model)
    fitted = model().fit(np.arange(4.0), np.arange(4))
    fitted.predict(1.0)
    pickle.dumps(fitted)
    clone(fitted).set_params(power=2)
    assert identity(model) == before


def test_what_a_closure_holds_is_part_of_it():
    def made(k):
        return lambda x: x + k

    assert identity(made(1)) == identity(made(1))
    assert len({identity(made(k)) for k in (1, 1.0, True, np.int64(1), 2)}) == 5


def test_functions_that_call_each_other_have_an_identity():
    source = """
        def even(n): return n == 0 or odd(n - 1)
        def odd(n): return n != 0 and even(n - 1)
    """
    assert identity_of(source, "even") == identity_of(source, "even")
    assert identity_of(source, "even") != identity_of(source, "odd")
    assert identity_of(source, "even") != identity_of(source.replace("n != 0", "n > 0"), "even")


def test_functions_of_a_local_module_count_as_far_as_they_are_used():
    def user(tools_source):
        tools = load(tools_source, "tools")
        user = load("import tools\ndef f(x): return tools.used(x)\n")
        assert user.tools is tools
        return identity(user.f)

    tools = "def used(x): return x\ndef unused(x): return x\n"
    assert user(tools) == user(tools.replace("unused(x): return x", "unused(x): return -x"))
    assert user(tools) != user(tools.replace("used(x): return x", "used(x): return -x", 1))


def test_a_local_module_that_is_imported_inside_a_function_counts():
    def user(tools_source):
        load(tools_source, "tools")
        return identity(load("def f(x):\n    from tools import used\n    return used(x)\n").f)

    tools = "def used(x): return x\n"
    assert user(tools) == user(tools)
    assert user(tools) != user("def used(x): return -x\n")


def test_a_module_that_is_handed_on_counts_as_a_whole():
    def user(tools_source):
        load(tools_source, "tools")
        return identity(load("import tools\ndef f(x): return getattr(tools, x)\n").f)

    assert user("A = 1\n") == user("A = 1\n")
    assert user("A = 1\n") != user("A = 2\n")


def test_decorated_methods_and_properties_count():
    source = """
        import functools
        def twice(f):
            @functools.wraps(f)
            def run(*args): return f(*args) * 2
            return run
        class Model:
            @twice
            def a(self): return 1
            @property
            def b(self): return 2
            @staticmethod
            def c(): return 3
            @classmethod
            def d(cls): return 4
            @functools.cached_property
            def e(self): return 5
            @functools.lru_cache
            def f(self): return 6
    """
    assert identity_of(source) == identity_of(source)
    for n in range(1, 7):
        assert identity_of(source.replace(f"return {n}", "return 9")) != identity_of(source), n
    assert identity_of(source.replace("def b(self): return 2", "def b(self): return 9")) != identity_of(
        source
    )
    assert identity_of(source.replace("* 2", "* 3")) != identity_of(source)


def test_enumerations_and_dataclasses_have_an_identity():
    source = """
        import dataclasses, enum
        class Kind(enum.Enum):
            A = 1
            B = 2
        @dataclasses.dataclass
        class Model:
            kind: Kind = Kind.A
            parts: list = dataclasses.field(default_factory=list)
            def fit(self): return self.kind
    """
    assert identity_of(source) == identity_of(source)
    assert identity_of(source.replace("A = 1", "A = 3")) != identity_of(source)
    assert identity_of(source.replace("= Kind.A", "= Kind.B")) != identity_of(source)


def test_installed_code_is_its_name_and_version():
    assert identity(LogisticRegression) != identity(DecisionTreeClassifier)
    assert b"scikit-learn" in identity(LogisticRegression)
    assert b"LogisticRegression" in identity(LogisticRegression)
    assert b"numpy" in identity(np.mean)


def test_what_stands_in_for_an_installed_function_is_looked_into(monkeypatch):
    def stand_in(k):
        def median(x):
            return k

        median.__module__, median.__qualname__ = np.median.__module__, "median"
        return median

    found = []
    for k in (1, 2):
        monkeypatch.setattr(np, "median", stand_in(k))
        found.append(identity(np.median))
    assert found[0] != found[1]


def test_a_function_made_by_an_installed_one_holds_what_it_was_made_of():
    from sklearn.utils.metaestimators import available_if

    def model(number):
        class Model:
            @available_if(lambda self: number)
            def predict(self, X):
                return X

        return Model

    assert identity(model(1)) == identity(model(1))
    assert identity(model(1)) != identity(model(2))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f(x): return eval(x)", "the global 'eval': eval() can refer to anything"),
        ("g = (i for i in [])\ndef f(x): return g", "the global 'g': generator has no content"),
        ("h = open('/dev/null')\ndef f(x): return h", "the global 'h': _io.TextIOWrapper has no content"),
        ("def f(x):\n    import not_there_yet\n    return x", "'not_there_yet': it is loaded only when"),
        (
            "def f(x, y=iter([])): return x, y",
            "function f: a default: list_iterator: class list_iterator is compiled",
        ),
    ],
)
def test_code_over_things_without_content_is_not_trusted(source, reason):
    module = load(source)
    with pytest.raises(Untrusted) as refused:
        identity(module.f)
    assert reason in str(refused.value)
    if hasattr(module, "h"):
        module.h.close()


def test_a_compiled_class_without_a_distribution_is_not_trusted(monkeypatch):
    from anyfold._plan import code_identity

    monkeypatch.setattr(code_identity, "global_name", lambda obj: None)
    with pytest.raises(Untrusted, match="compiled and belongs to no installed distribution"):
        CodeIdentities()(np.random.RandomState)
