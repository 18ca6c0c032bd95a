"""Frozen records with keyword arguments, as ``@dataclass(frozen=True, kw_only=True)`` makes them.

Not dataclasses: importing them (with inspect, ast and tokenize) and running what they generate takes longer than all
else of a start where everything is known. To a type checker a Record is a dataclass (PEP 681).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_):
        """Nothing: it is for type checkers."""
        return lambda kind: kind


# A default that nobody can write to: types.MappingProxyType, whose module takes longer to load than this one.
NONE: Mapping[str, Any] = type(type.__dict__)({})


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """Annotations are fields, in order; a value in the class is a field's default; ``hidden`` ones are not shown."""

    _fields: ClassVar[tuple[str, ...]] = ()
    _hidden: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, *, hidden: tuple[str, ...] = ()) -> None:
        cls._fields = (*cls._fields, *cls.__annotations__)
        cls._hidden = (*cls._hidden, *hidden)

    def __init__(self, **values: Any) -> None:
        for name in self._fields:
            try:
                self.__dict__[name] = values.pop(name) if name in values else getattr(type(self), name)
            except AttributeError:
                raise TypeError(f"{type(self).__name__} needs {name}") from None
        if values:
            raise TypeError(f"{type(self).__name__} has no {', '.join(values)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} is frozen")

    def _values(self) -> tuple[object, ...]:
        return tuple(self.__dict__[name] for name in self._fields)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        pairs = (f"{name}={self.__dict__[name]!r}" for name in self._fields if name not in self._hidden)
        return f"{type(self).__name__}({', '.join(pairs)})"

    def but(self, **changes: Any) -> Self:
        """The same with other values in some fields."""
        return type(self)(**{**self.__dict__, **changes})
