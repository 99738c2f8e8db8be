"""What the engine's syntax trees say about modules: rules, what they read, what they call, where they stand.

Everything errs on the side of "may": a reference that is not plainly static counts as reading everything below it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal

__all__ = [
    "PHASES",
    "Body",
    "CallSite",
    "ModuleSyntax",
    "Path",
    "RuleSyntax",
    "overlaps",
    "parse_module",
    "plain_column",
]

Path = tuple[str | None, ...]
"""A reference's steps; None where a step is computed."""

PHASES = frozenset(("list", "call", "result"))

Kind = Literal["value", "set", "object", "tree", "function"]
"""`object` is `rule[computed] := ...`; `tree` is every other head with steps, which has no value as a whole."""

_TAB = 4

_KINDS: Mapping[str, Kind] = {"Compr": "value", "Set": "set", "Func": "function"}


@dataclass(frozen=True, slots=True)
class CallSite:
    """A call of a function: its name as written, its place and the syntax of its parameters."""

    name: str
    line: int
    column: int
    parameters: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Body:
    """One body of a rule: the phases it can hold in, and the plain names it requires (helper rules)."""

    phases: frozenset[str]
    requires: tuple[str, ...]
    constant_false: bool


@dataclass(slots=True)
class RuleSyntax:
    """One definition of a rule. It stands from byte `start` to before `end`; `local` names are its variables."""

    package: str
    name: str
    kind: Kind
    default: bool
    line: int
    column: int
    start: int
    end: int
    bodies: tuple[Body, ...] = ()
    inputs: list[tuple[Path, int, int]] = field(default_factory=list[tuple[Path, int, int]])
    data: list[Path] = field(default_factory=list[Path])
    names: set[str] = field(default_factory=set[str])
    calls: list[CallSite] = field(default_factory=list[CallSite])
    local: set[str] = field(default_factory=set[str])
    overridden: list[str] = field(default_factory=list[str])
    """What its `with` modifiers replace."""
    plain: bool = False
    """Its value can only be a set or an object, whatever the input."""

    @property
    def path(self) -> str:
        """For example `data.fulcrum.policies.mine.allow`."""
        return f"data.{self.package}.{self.name}"


@dataclass(frozen=True, slots=True)
class ModuleSyntax:
    """One file: its package (None when it has computed parts), the aliases of its imports and its rules."""

    file: str
    package: str
    package_line: int
    imports: Mapping[str, Path]
    rules: tuple[RuleSyntax, ...]


def overlaps(path: Path, target: tuple[str, ...]) -> bool:
    """True when reading `path` can see something of `target`, or the other way round."""
    return all(step is None or step == wanted for step, wanted in zip(path, target, strict=False))


def parse_module(tree: Mapping[str, Any]) -> ModuleSyntax:
    """One entry of `native.syntax_trees`."""
    ast = tree["ast"]
    root, steps = _flatten(ast["package"]["refr"])
    package = ".".join([root or "?", *(step if step is not None else "?" for step in steps)])
    source = tree["source"]["contents"].encode()
    imports = dict(_imports(ast["imports"], source))
    rules = tuple(_rule(node, package, imports, source) for node in ast["rules"])
    for rule, after in pairwise(rules):
        rule.end = after.start
    lines = tree["source"]["contents"].split("\n")
    for rule in rules:
        _count_tabs_once(rule, lines)
    return ModuleSyntax(tree["source"]["file"], package, ast["package"]["span"]["line"], imports, rules)


def plain_column(line: str, column: int) -> int:
    """A column as editors and OPA count it: the engine counts a tab as four."""
    at = 1
    for index, char in enumerate(line):
        if at >= column:
            return index + 1
        at += _TAB if char == "\t" else 1
    return len(line) + 1


def _count_tabs_once(rule: RuleSyntax, lines: list[str]) -> None:
    def plain(line: int, column: int) -> int:
        return plain_column(lines[line - 1], column) if 0 < line <= len(lines) else column

    rule.column = plain(rule.line, rule.column)
    rule.inputs = [(path, line, plain(line, column)) for path, line, column in rule.inputs]
    rule.calls = [replace(call, column=plain(call.line, call.column)) for call in rule.calls]


def _imports(nodes: list[Any], source: bytes) -> Iterator[tuple[str, Path]]:
    for node in nodes:
        root, steps = _flatten(node["refr"])
        if root is None or root in {"rego", "future"}:
            continue
        name = _text(node["as"], source) if node.get("as") else (steps[-1] if steps else root)
        yield (name or "?"), (root, *steps)


def _is_computed(reference: Mapping[str, Any]) -> bool:
    """`name[variable]`: one step, and no literal."""
    step = reference.get("RefBrack")
    return step is not None and "Var" in step["refr"] and "Var" in step["index"]


def _is_object(assign: Any) -> bool:
    return isinstance(assign, dict) and "Object" in assign["value"]


def _text(span: Mapping[str, Any], source: bytes) -> str:
    return source[span["start"] : span["end"]].decode(errors="replace")


def _rule(node: Mapping[str, Any], package: str, imports: Mapping[str, Path], source: bytes) -> RuleSyntax:
    (form, inner), *_ = node.items()
    default = form == "Default"
    if default:
        head, kind = inner, _KINDS["Func" if inner["args"] else "Compr"]
    else:
        (shape, head), *_ = inner["head"].items()
        kind = _KINDS[shape]
    root, steps = _flatten(head["refr"])
    if steps and kind != "function":
        kind = "object" if kind == "value" and _is_computed(head["refr"]) else "tree"
    span = inner["span"]
    rule = RuleSyntax(package, root or "?", kind, default, span["line"], span["col"], span["start"], len(source))
    reader = _Reader(rule, imports, source)
    for argument in head.get("args", ()) or ():
        reader.declare(argument)
    reader.read_steps(head["refr"])
    for key in ("args", "key", "assign", "value"):
        reader.read(head.get(key))
    bodies = inner.get("bodies", ())
    reader.read(bodies)
    rule.bodies = tuple(_body(body["query"]["stmts"], imports) for body in bodies)
    rule.plain = kind in {"set", "object", "tree"} or (
        all(_is_object(body.get("assign")) for body in bodies if body.get("is_else"))
        and _is_object(inner if default else head.get("assign"))
    )
    return rule


class _Reader:
    """Walks a definition and notes what it reads."""

    def __init__(self, rule: RuleSyntax, imports: Mapping[str, Path], source: bytes) -> None:
        self.rule = rule
        self.imports = imports
        self.source = source

    def read(self, node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                self.read(item)
            return
        if not isinstance(node, dict):
            return
        for key, value in node.items():
            special = self._special.get(key)
            if special is not None:
                special(self, key, value)
            elif key != "span":
                self.read(value)

    def _assignment(self, _key: str, node: Mapping[str, Any]) -> None:
        if node["op"] == "ColEq":
            self.declare(node["lhs"])
        self.read(node["lhs"])
        self.read(node["rhs"])

    def declare(self, node: Any) -> None:
        """Every variable in a pattern (`[a, {"k": b}]`) is local."""
        if isinstance(node, list):
            for item in node:
                self.declare(item)
        elif isinstance(node, dict):
            for key, value in node.items():
                if key == "Var":
                    self.rule.local.add(value["value"])
                elif key in ("Array", "Object", "Set", "items", "fields"):
                    self.declare(value)

    def read_steps(self, node: Any) -> None:
        """Computed steps of a head: `p[input.x] := ...`."""
        for key in ("RefDot", "RefBrack"):
            if key in node:
                self.read_steps(node[key]["refr"])
                self.read(node[key].get("index"))

    def _reference(self, key: str, inner: Mapping[str, Any]) -> None:
        node = {key: inner}
        root, steps = _flatten(node)
        self.read_steps(node)
        if root is None:
            self.read(_innermost(node))
            return
        self._note((root, *steps), *_start(node))

    def _note(self, path: Path, line: int, column: int) -> None:
        root = path[0]
        alias = None if root in {"input", "data"} else self.imports.get(root or "")
        if alias is not None:
            path = (*alias, *path[1:])
        if path[0] == "input":
            self.rule.inputs.append((path[1:], line, column))
        elif path[0] == "data":
            self.rule.data.append(path[1:])
        elif root is not None:
            self.rule.names.add(root)

    def _call(self, _key: str, node: Mapping[str, Any]) -> None:
        root, steps = _flatten(node["fcn"])
        name = ".".join(str(step) for step in (root, *steps))
        line, column = _start(node["fcn"])
        self.rule.calls.append(CallSite(name, line, column, tuple(node["params"])))
        self._note((root, *steps), line, column)
        self.read(node["params"])

    def _modifiers(self, _key: str, mods: list[Any]) -> None:
        for mod in mods:
            root, steps = _flatten(mod["refr"])
            self.rule.overridden.append(".".join(str(step) for step in (root, *steps)))
            self.read_steps(mod["refr"])
            self._note((root, *steps), 0, 0)
            self.read(mod["as"])

    def _declaration(self, key: str, node: Mapping[str, Any]) -> None:
        if key == "SomeIn":
            self.declare(node.get("key"))
            self.declare(node.get("value"))
        for spot in ("vars", "key", "value"):
            self._declare_spans(node.get(spot))
        self.read(node)

    def _declare_spans(self, node: Any) -> None:
        for item in node if isinstance(node, list) else [node]:
            if isinstance(item, dict) and "start" in item:
                self.rule.local.add(_text(item, self.source))

    _special: ClassVar[Mapping[str, Callable[..., None]]] = {
        "RefDot": _reference,
        "RefBrack": _reference,
        "Var": _reference,
        "Call": _call,
        "with_mods": _modifiers,
        "SomeVars": _declaration,
        "SomeIn": _declaration,
        "Every": _declaration,
        "AssignExpr": _assignment,
    }


def _flatten(node: Mapping[str, Any]) -> tuple[str | None, tuple[str | None, ...]]:
    """A reference's root variable (None: it starts from a computed value) and its steps."""
    steps: list[str | None] = []
    while True:
        if "Var" in node:
            return node["Var"]["value"], tuple(reversed(steps))
        if "RefDot" in node:
            steps.append(node["RefDot"]["field"][1])
            node = node["RefDot"]["refr"]
        elif "RefBrack" in node:
            steps.append(_literal(node["RefBrack"]["index"]))
            node = node["RefBrack"]["refr"]
        else:
            return None, ()


def _literal(node: Mapping[str, Any]) -> str | None:
    """The text of a plain string; None for anything computed (an escape is not looked into)."""
    for form in ("String", "RawString"):
        if form in node:
            text = node[form]["value"]
            return None if "\\" in text else str(text)
    return None


def _innermost(node: Mapping[str, Any]) -> Any:
    while "RefDot" in node or "RefBrack" in node:
        node = (node.get("RefDot") or node["RefBrack"])["refr"]
    return node


def _start(node: Mapping[str, Any]) -> tuple[int, int]:
    span = _innermost(node)["Var"]["span"] if "Var" in _innermost(node) else next(iter(node.values()))["span"]
    return span["line"], span["col"]


def _body(statements: list[Any], imports: Mapping[str, Path]) -> Body:
    phases = PHASES
    requires: list[str] = []
    constant_false = False
    for statement in statements:
        if statement.get("with_mods"):
            continue
        literal = statement["literal"]
        expression = literal.get("Expr", {}).get("expr", {})
        phases &= _phases(expression)
        if "Var" in expression and expression["Var"]["value"] not in imports:
            requires.append(expression["Var"]["value"])
        constant_false = constant_false or expression.get("Bool", {}).get("value") is False
    return Body(phases, tuple(requires), constant_false)


def _phases(expression: Mapping[str, Any]) -> frozenset[str]:
    """The phases in which a statement about `input.phase` can hold; all when it is not about it."""
    for form in ("BoolExpr", "AssignExpr"):
        node = expression.get(form)
        if node is None or node["op"] not in {"Eq", "Ne"}:
            continue
        sides = (node["lhs"], node["rhs"])
        for side, other in (sides, sides[::-1]):
            text = _literal(other)
            if text is not None and _flatten(side) == ("input", ("phase",)):
                return PHASES - {text} if node["op"] == "Ne" else PHASES & {text}
    member = expression.get("Membership")
    if member is not None and member["key"] is None and _flatten(member["value"]) == ("input", ("phase",)):
        group = member["collection"].get("Set") or member["collection"].get("Array")
        texts = [_literal(item) for item in group["items"]] if group else [None]
        if None not in texts:
            return PHASES & {text for text in texts if text is not None}
    return PHASES
