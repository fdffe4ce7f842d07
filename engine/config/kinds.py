"""The kinds of values in config.toml, and what every table of it shares."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from engine.config.problems import masked

Count = Annotated[int, Meta(ge=1, le=2**62)]
CountOrZero = Annotated[int, Meta(ge=0, le=2**62)]
MOST_WORKERS = 64
Workers = Annotated[int, Meta(ge=1, le=MOST_WORKERS)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Seconds = Annotated[float, Meta(gt=0)]
SecondsOrZero = Annotated[float, Meta(ge=0)]
NAME = "a name of 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit"
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z", description=NAME)]
Reference = Annotated[str, Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,63})?\Z", description=f"empty or {NAME}")]
Code = Annotated[
    str, Meta(pattern=r"^(?!\.{1,2}\Z)[^\s\x00-\x1f\x7f]+\Z", description="a text without spaces, not empty")
]
Token = Annotated[
    str, Meta(pattern=r"^[\x21-\x7e]*\Z", description="printable ASCII without spaces, it is sent in a header")
]
Text = Annotated[str, Meta(min_length=1)]
Texts = Annotated[tuple[Text, ...], Meta(min_length=1)]
File = Annotated[str, Meta(extra={"file": True})]
Secret = Annotated[str, Meta(extra={"secret": True})]
Variable = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?\Z",
        description="the name of an environment variable, not the secret itself",
        extra={"env": True},
    ),
]
Sha256 = Annotated[
    str,
    Meta(
        pattern=r"^([0-9A-Fa-f]{64})?\Z",
        description="64 hexadecimal digits, the SHA-256 of the key and never the key itself",
        extra={"secret": True},
    ),
]
ClientId = Annotated[
    str,
    Meta(
        pattern=r"^[\x21-\x39\x3b-\x7e]{0,128}\Z",
        description="at most 128 characters of printable ASCII without spaces and ':'",
    ),
]
Exits = Annotated[
    str, Meta(pattern=r"^(ignore|store|flag:[A-Za-z][A-Za-z0-9_]*)\Z", description="'ignore', 'store' or 'flag:FIELD'")
]
Scope = Literal[
    "profiles:write",
    "profiles:view",
    "profiles:erase",
    "segments:view",
    "destinations:view",
    "destinations:manage",
    "destinations:activate",
]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all tables share: no secret ever stands in a repr."""

    not_keys: ClassVar[tuple[str, ...]] = ()

    def __rich_repr__(self) -> Any:
        for it in msgspec.structs.fields(type(self)):
            yield it.name, masked(it.type, getattr(self, it.name))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"
