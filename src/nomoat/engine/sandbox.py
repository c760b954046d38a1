"""Jinja's sandbox as `transformers` sets it up for chat templates, with bounds on what a template takes.

A template is a program out of a file that anybody may have made. It has the filters, and the methods of texts, lists and dicts, that
chat templates use (`template_filters`). In `rations.bounded` what it makes is counted: texts, lists and dicts by their sizes, before
they are made where that could be many times what they are made of. Each step of a loop, call and comparison counts besides, what takes
long counts for its time, and the time is looked at every few steps. Nothing is computed while a template is compiled.

What this does not cover: a single step ends when it ends, and there may be ways to make a long one that are not known.
"""

from __future__ import annotations

import sys
from collections.abc import ItemsView, KeysView, Mapping
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace

from nomoat.engine import comparing, rations, template_filters
from nomoat.engine.rations import STEP_BYTES, made, pay, stop

LONGEST = 50_000  # letters of a template: to read it is not counted, and may take their square
MOST_BITS = 16_384  # of whole numbers: what Python reads, 4,300 digits, takes 14,285
METHODS: dict[type, set[str]] = {
    dict: {"copy", "get", "items", "keys", "values"},
    list: {"copy", "count", "index"},
    tuple: {"count", "index"},
}
CLASSES = {dict, Cycler, Joiner, Namespace}
FUNCTIONS = (FunctionType, BuiltinMethodType, MethodType, BlockReference, Joiner, LoopContext, Undefined)
TOO_LONG = "it computes a number of more than 4,300 digits"


class Generation(Extension):
    """What the assistant says is marked for whoever trains; here it is what it is."""

    tags = {"generation"}  # noqa: RUF012 - as the class it is made from has it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _told(name: str, *args: nodes.Expr) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), list(args), [], None, None)


class _Generator(CodeGenerator):
    """`~`, slices, literals, comparisons and steps of loops are told to the environment."""

    def visit(self, node: nodes.Node, *args: Any, **named: Any) -> None:
        is_made = isinstance(node, nodes.List | nodes.Dict) or (isinstance(node, nodes.Tuple) and node.ctx == "load")
        self.write("environment.made(" * is_made)
        super().visit(node, *args, **named)
        self.write(")" * is_made)

    def visit_Call(self, node: nodes.Call, frame: Any, forward_caller: bool = False) -> None:  # noqa: N802 - Jinja's name
        if not isinstance(node.node, nodes.EnvironmentAttribute):
            super().visit_Call(node, frame, forward_caller=forward_caller)
            return
        self.write(f"environment.{node.node.name}(")
        for arg in node.args:
            self.visit(arg, frame)
            self.write(", ")
        self.write(")")

    def visit_Concat(self, node: nodes.Concat, frame: Any) -> None:  # noqa: N802
        self.write("environment.concat((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Compare(self, node: nodes.Compare, frame: Any) -> None:  # noqa: N802
        """Of `a < b < c`, b is kept for the second comparison."""
        kept = ""
        self.write("(")
        for place, one in enumerate(node.ops, 1):
            self.write(f"environment.is_{one.op}({kept}")
            if not kept:
                self.visit(node.expr, frame)
            kept = self.temporary_identifier() if place < len(node.ops) else ""
            self.write(f", ({kept} := " if kept else ", (")
            self.visit(one.expr, frame)
            self.write("))" + " and " * bool(kept))
        self.write(")")

    def visit_Dict(self, node: nodes.Dict, frame: Any) -> None:  # noqa: N802
        for item in node.items:
            if not isinstance(item.key, nodes.Const):
                item.key = _told("key", item.key)
        super().visit_Dict(node, frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Any) -> None:  # noqa: N802
        if isinstance(node.arg, nodes.Slice):
            ends = (end or nodes.Const(None) for end in (node.arg.start, node.arg.stop, node.arg.step))
            self.visit(_told("sliced", node.node, *ends), frame)
        else:
            super().visit_Getitem(node, frame)

    def visit_For(self, node: nodes.For, frame: Any) -> None:  # noqa: N802
        node.body.insert(0, nodes.ExprStmt(_told("step")))
        if node.test is not None:
            node.test = nodes.Or(_told("step"), node.test)
        super().visit_For(node, frame)

    def signature(self, node: Any, frame: Any, extra_kwargs: Any = None) -> None:
        node.dyn_args, node.dyn_kwargs = (values and _told("spread", values) for values in (node.dyn_args, node.dyn_kwargs))
        super().signature(node, frame, extra_kwargs)

    def visit_ScopedEvalContextModifier(self, node: nodes.Node, frame: Any) -> None:  # noqa: N802
        stop("it escapes all that it writes, as no chat template needs")

    def _output_child_to_const(self, node: Any, frame: Any, finalize: Any) -> Any:
        if not isinstance(node, nodes.Const | nodes.TemplateData):
            raise nodes.Impossible
        return super()._output_child_to_const(node, frame, finalize)


def _spread(values: Any) -> Any:
    """What is given as `*values` or `**values`."""
    return made(values) if isinstance(values, Mapping) else rations.listed(values)


def _sliced(value: Any, begin: Any, end: Any, every: Any) -> Any:
    if isinstance(value, Mapping | type):
        stop("it looks up a slice")
    return made(value[begin:end:every])


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
    code_generator_class = _Generator
    concat = staticmethod(rations.joined)
    key = staticmethod(comparing.key)
    made = staticmethod(made)
    sliced = staticmethod(_sliced)
    spread = staticmethod(_spread)
    step = staticmethod(rations.step)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if type(argument) is str and type(obj) is dict and argument in obj:  # as nearly always
            return obj[argument]
        if type(obj) is list and type(argument) is int:
            return super().getitem(obj, argument)
        if isinstance(obj, type):
            stop("it looks up something in a type")
        if isinstance(argument, list | dict):  # as `json_spec.type` of several types, which templates then find undefined
            return self.undefined(f"there is no element of the type {type(argument).__name__}")
        return super().getitem(obj, comparing.key(argument))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            return template_filters.filled(left, right)
        _pay_for_operator(operator, left, right)
        found = super().call_binop(context, operator, left, right)
        if isinstance(found, int) and found.bit_length() > MOST_BITS:
            stop(TOO_LONG)
        return found if operator in "+*" else made(found)

    def call(self, context: Any, called: Any, /, *args: Any, **named: Any) -> Any:
        rations.step()
        if isinstance(called, Macro):
            return super().call(context, called, *args, **named)
        if not isinstance(called, FUNCTIONS) and not (isinstance(called, type) and called in CLASSES):
            stop(f"it calls a value of the type {type(called).__name__}")
        method = getattr(called, "__wrapped__", called) if isinstance(called, FunctionType) else called  # of `format`, by Jinja
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(owner, str):
            if name == "join":
                args = tuple(map(rations.listed, args))
            paid = template_filters.pay_for_method(owner, name, args, named)
            return made(super().call(context, called, *args, **named), paid)
        if isinstance(called, BuiltinMethodType):
            return made(_of_rows(owner, name, args))
        if called is dict or called is Namespace:
            args = tuple(map(comparing.mapping, args))
        elif name == "changed":  # of a loop, which compares with those before
            args = tuple(map(comparing.key, args))
        return made(super().call(context, called, *args, **named))


for _name, _compare in comparing.COMPARED.items():
    setattr(_Sandbox, f"is_{_name}", staticmethod(_compare))


def environment() -> Any:
    """What compiles templates."""
    ours = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", Generation],
        finalize=rations.text_of,
        optimized=False,  # what it computes beforehand is written into the code, and compiled with it
    )
    ours.globals |= {"raise_exception": template_filters.refuse, "strftime_now": template_filters.now}
    del ours.globals["lipsum"]  # as many paragraphs as are asked for
    ours.filters = template_filters.filters(ours.filters)
    ours.tests = template_filters.tests(ours.tests)
    return ours


def compiled(template: str) -> Any:
    """A template ready to use."""
    _require_short(template)
    return environment().from_string(template)


def parsed(template: str) -> Any:
    """A template as Jinja's tree."""
    _require_short(template)
    return environment().parse(template)


def _require_short(template: str) -> None:
    if len(template) > LONGEST:
        stop(f"it has {len(template):,} letters, and {LONGEST:,} are the most")


def _of_rows(owner: Any, name: str, args: tuple[Any, ...]) -> Any:
    """What a method of a list, tuple or dict gives."""
    if name not in METHODS.get(type(owner), ()):
        stop(f"it calls `{name}`, which no chat template needs")
    if name == "count":
        return sum(1 for _ in comparing.places(owner, *args))
    if name == "index":
        value, begin, end = (*args, None, None)[:3]
        begin, end, _ = slice(begin, end).indices(len(owner))
        for place in comparing.places(owner[begin:end], value):
            return begin + place
        raise ValueError("what it looks for is not in the list")
    if name == "get":
        comparing.key(args[0])
    return getattr(owner, name)(*args)


def _pay_for_operator(operator: str, left: Any, right: Any) -> None:
    if operator == "+":
        pay(sys.getsizeof(left) + sys.getsizeof(right))
    elif operator == "*":
        number, other = (left, right) if isinstance(left, int | float) else (right, left)
        pay(STEP_BYTES if isinstance(other, int | float) else sys.getsizeof(other) * max(int(number), 1))
    elif operator == "**" and isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > MOST_BITS:
        stop(TOO_LONG)
    elif operator == "-" and any(isinstance(value, KeysView | ItemsView) for value in (left, right)):
        stop("it takes keys from keys, which no chat template needs")
