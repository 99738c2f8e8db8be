"""`${VAR}` in configuration, from the operator's environment; never from a client."""

import re
from collections.abc import Mapping

__all__ = ["Missing", "expand"]

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?\Z", re.DOTALL)


class Missing(Exception):
    """A reference that cannot be resolved; the message says which and what to do."""


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Replace `${VAR}`, `${VAR:-default}` and `${env:VAR}`; a bare `$` stays. Raises `Missing`."""

    def value(reference: re.Match[str]) -> str:
        found = _NAME.match(reference[1])
        if found is None:
            raise Missing(
                f"{reference[0]} is not a variable of the environment; write ${{NAME}} or ${{NAME:-default}}, "
                "and put editor placeholders in by hand"
            )
        name, default = found[1], found[2]
        given = environ.get(name)
        if given or (given is not None and default is None):
            return given
        if default is not None:
            return default
        raise Missing(f"${{{name}}} is not set; export {name}, or write ${{{name}:-default}}")

    return _REFERENCE.sub(value, text)
