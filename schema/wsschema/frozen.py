"""`frozen`: immutable messages that cost less to make than those of ``dataclass(frozen=True)``.

A frozen dataclass sets each member with ``object.__setattr__``, which finds its slot by name every
time; here ``__init__`` has the slots at hand, and takes two fifths less. A push makes a dozen such
objects. All else is the dataclass's own.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def frozen(cls: type[T]) -> type[T]:
    """The class as a frozen, slotted dataclass: assigning to a member raises FrozenInstanceError.

    Of `dataclasses.field` it takes ``default`` and ``repr``. What makes ``__init__`` do more than
    set the members (a default factory, ``__post_init__`` and their like) fails an assertion.
    """
    made = dataclasses.dataclass(frozen=True, slots=True)(cls)
    made.__init__ = _make_init(made)  # type: ignore[method-assign]  # nobody has made one yet
    return made


def _make_init(cls: type[Any]) -> Any:
    """The dataclass's ``__init__`` with another body, made from source text as that one is."""
    original: Any = vars(cls)["__init__"]
    members = dataclasses.fields(cls)
    assert original.__code__.co_argcount == 1 + len(members), "each member is an argument"
    assert all(member.default_factory is dataclasses.MISSING for member in members)
    assert not hasattr(cls, "__post_init__")
    names = [member.name for member in members]
    body = [f"    _set_{name}(self, {name})" for name in names] or ["    pass"]
    # `__set__` of a slot is not held up by the `__setattr__` that refuses everyone else.
    namespace = {f"_set_{name}": getattr(cls, name).__set__ for name in names}
    source = "\n".join([f"def init({', '.join(['self', *names])}):", *body])
    exec(source, namespace)  # noqa: S102  # of nothing but the names of members
    init: Any = functools.wraps(original)(namespace["init"])
    init.__defaults__ = original.__defaults__
    return init
