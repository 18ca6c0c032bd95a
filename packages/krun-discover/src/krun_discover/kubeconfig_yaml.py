"""YAML as kubeconfig files use it: texts stay texts, but for null, true and false. Imported late, with yaml.

YAML's own rules would make numbers and dates of tokens and names, and fail on some; tags build no objects here.
"""

from __future__ import annotations

import re

import yaml

QUOTED = re.compile(r"'[^']{2,}'")  # in some complaints, a piece of the file


class _Loader(getattr(yaml, "CBaseLoader", yaml.BaseLoader)):  # type: ignore[misc] # without libyaml the slow one
    pass


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_constructor("tag:yaml.org,2002:null", lambda loader, node: None)
_Loader.add_constructor("tag:yaml.org,2002:bool", lambda loader, node: node.value.lower() == "true")


def parse(text: str) -> object:
    """The one document in the text, None when it is empty. Raises ValueError with the place, not the content."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = error.problem or error.context or "not YAML"
        raise ValueError(place + QUOTED.sub("'…'", problem)) from None
    except yaml.YAMLError:
        raise ValueError("it has characters that YAML does not allow") from None
