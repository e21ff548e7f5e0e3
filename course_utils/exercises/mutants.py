"""Can the checks fail? Every reference answer is broken in many small ways, and the check must notice.

A mutant is the reference with one change: an operator or comparison swapped, a number off by one, a term, a call, an
argument or a statement dropped, a condition negated, a bound of a slice forgotten. One that survives is either no
mistake at all (a redundant piece of the reference) or a case that is missing.
"""

from __future__ import annotations

import ast
import copy
import time
import warnings
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import NamedTuple

from course_utils.exercises.book import Exercise
from course_utils.exercises.check import examine
from course_utils.exercises.source import tree_of

LIMIT = 1.0  # seconds for a mutant's check; references take a fraction of that
_SWAPS = {  # of operators, of comparisons, and of functions that are easily confused
    ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult], ast.Pow: [ast.Mult],
    ast.FloorDiv: [ast.Div], ast.Mod: [ast.FloorDiv], ast.MatMult: [ast.Mult],
    ast.BitAnd: [ast.BitOr], ast.BitOr: [ast.BitAnd], ast.And: [ast.Or], ast.Or: [ast.And],
    ast.Lt: [ast.LtE, ast.Gt], ast.LtE: [ast.Lt, ast.GtE], ast.Gt: [ast.GtE, ast.Lt], ast.GtE: [ast.Gt, ast.LtE],
    ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.In: [ast.NotIn], ast.NotIn: [ast.In], ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
}
_PAIRS = [("max", "min"), ("argmax", "argmin"), ("amax", "amin"), ("sum", "mean"), ("any", "all"),
          ("maximum", "minimum"), ("triu", "tril"), ("floor", "ceil"), ("softmax", "log_softmax")]
_TWINS = {**dict(_PAIRS), **{b: a for a, b in _PAIRS}}


class Mutant(NamedTuple):
    """A broken answer, and what was changed: ``"line 2: x @ W.T → x @ W"``."""

    change: str
    answer: Callable


class Score(NamedTuple):
    """How many mutants there were, those that the check did not notice, and the seconds that a check takes."""

    mutants: int
    survivors: list[str]
    seconds: float

    @property
    def killed(self) -> int:
        """How many the check noticed."""
        return self.mutants - len(self.survivors)


def score(ex: Exercise) -> Score:
    """Run the check on every mutant of an exercise's reference answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        all_ = list(mutants(ex.answer))
        survivors = [m.change for m in all_ if examine(ex, m.answer, LIMIT, diagnose=False) is None]
        begun = time.perf_counter()
        examine(ex, ex.answer)
    return Score(len(all_), survivors, time.perf_counter() - begun)


def mutants(answer: FunctionType) -> Iterator[Mutant]:
    """Yield every mutant of a function; what only looks different is left out."""
    tree = tree_of(answer)
    tree.returns = None
    for argument in ast.walk(tree.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    seen = {ast.dump(tree)}
    modules = {name for name, value in answer.__globals__.items() if isinstance(value, ModuleType)}
    for node in _nodes(tree):
        for new in _variants(node, modules, tree):
            broken = copy.deepcopy(tree, {id(node): new})  # the copy finds the new node where the old one was
            if ast.dump(broken) not in seen:
                seen.add(ast.dump(broken))
                change = f"line {node.lineno}: {ast.unparse(node)} → {ast.unparse(new)}"
                yield Mutant(change, _compiled(broken, answer))


def _compiled(tree: ast.FunctionDef, like: FunctionType) -> Callable:
    names = dict(like.__globals__)
    exec(compile(ast.fix_missing_locations(ast.Module([tree], [])), f"<mutant of {tree.name}>", "exec"), names)
    return names[tree.name]


def _nodes(tree: ast.FunctionDef) -> Iterator[ast.AST]:
    """Yield what can be changed: the body, not the parameters."""
    for statement in tree.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.expr | ast.stmt | ast.comprehension):
                node.lineno = getattr(node, "lineno", statement.lineno)  # a comprehension has no line of its own
                yield node


def _like(node: ast.AST, **fields: object) -> ast.AST:
    """Return a copy of a node with other fields."""
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _without(items: list, i: int) -> list:
    return items[:i] + items[i + 1:]


def _variants(node: ast.AST, modules: set[str], tree: ast.FunctionDef) -> Iterator[ast.AST]:
    """Yield what may stand in a node's place."""
    match node:
        case ast.BinOp(left, op, right):
            yield from (_like(node, op=other()) for other in _SWAPS.get(type(op), []))
            yield from (left, right)
            if not isinstance(op, ast.Add | ast.Mult | ast.BitAnd | ast.BitOr):
                yield _like(node, left=right, right=left)
        case ast.AugAssign(op=op):
            yield from (_like(node, op=other()) for other in _SWAPS.get(type(op), []))
            yield ast.Pass()
        case ast.BoolOp(op, values):
            yield _like(node, op=_SWAPS[type(op)][0]())
            fewer = [_without(values, i) for i in range(len(values))]
            yield from (_like(node, values=rest) if len(rest) > 1 else rest[0] for rest in fewer)
        case ast.Compare(ops=[op, *rest]):
            yield from (_like(node, ops=[other(), *rest]) for other in _SWAPS[type(op)])
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.Constant(value):
            yield from (_like(node, value=other) for other in _constants(value))
        case ast.Call():
            yield from _calls(node, modules)
        case ast.Attribute(value, "T" | "mT"):
            yield value
        case ast.Attribute(attr=name) | ast.Name(id=name) if name in _TWINS:
            yield _like(node, **{"attr" if isinstance(node, ast.Attribute) else "id": _TWINS[name]})
        case ast.Slice(lower, upper, step):
            bounds = {"lower": lower, "upper": upper, "step": step}
            yield from (_like(node, **{name: None}) for name, bound in bounds.items() if bound)
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            yield _like(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.comprehension(ifs=ifs):
            yield from (_like(node, ifs=_without(ifs, i)) for i in range(len(ifs)))
        case ast.Expr() | ast.Assign() if _droppable(node, tree):
            yield ast.Pass()


def _constants(value: object) -> list:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, float):  # a tiny one only guards against a division by zero
        return [1.5 * value] if abs(value) > 1e-5 else [0.5] if value == 0 else []
    return []


def _calls(node: ast.Call, modules: set[str]) -> Iterator[ast.AST]:
    """Yield a call's first argument or its object alone, and the call with an argument fewer or two swapped."""
    method = isinstance(node.func, ast.Attribute) and ast.unparse(node.func).split(".")[0] not in modules
    inner = [node.func.value] if method else node.args[:1]
    yield from (value for value in inner if not isinstance(value, ast.Starred))
    yield from (_like(node, keywords=_without(node.keywords, i)) for i in range(len(node.keywords)))
    if len(node.args) > (not method):
        yield _like(node, args=node.args[:-1])
    for i in range(len(node.args) - 1):
        yield _like(node, args=[*node.args[:i], node.args[i + 1], node.args[i], *node.args[i + 2:]])


def _droppable(node: ast.Expr | ast.Assign, tree: ast.FunctionDef) -> bool:
    """Tell whether a statement can be left out without a name being missing, which any check would notice."""
    if isinstance(node, ast.Expr):
        return True
    names = [target.id for target in node.targets if isinstance(target, ast.Name)]
    before = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
              and n.lineno < node.lineno} | {a.arg for a in ast.walk(tree.args) if isinstance(a, ast.arg)}
    return len(names) < len(node.targets) and not any(isinstance(t, ast.Tuple) for t in node.targets) or \
        bool(names) and set(names) <= before
