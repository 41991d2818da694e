"""The rules of the house that no linter knows (DESIGN: the ten rules; CONTRIBUTING.md words them)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
APPS = (
    "patching",
    "connectors",
    "ui",
    "db",
    "audit",
    "vms",
    "updates",
    "people",
    "notifications",
    "arm_api",
    "hotpatch_portal",
    "demo",
    "simulation",
)
MAX_VIEW_STATEMENTS_LINES = 15
STATE_WRITER = "updates/engine/transition.py"


def sources(*under: str) -> Iterator[tuple[str, ast.Module]]:
    """Every Python file of these folders, parsed."""
    for folder in under:
        found = [path for path in sorted((ROOT / folder).rglob("*.py")) if "migrations" not in path.parts]
        assert found, f"{folder} is gone: what it is checked for holds nothing any more"
        for path in found:
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def files(*names: str) -> Iterator[tuple[str, ast.Module]]:
    """These Python files, parsed."""
    yield from ((name, ast.parse((ROOT / name).read_text())) for name in names)


def templates() -> list[Path]:
    return sorted((ROOT / "templates").rglob("*.html"))


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


# --- operations --------------------------------------------------------------------------------------------------


def writes_state(tree: ast.Module) -> list[int]:
    """Lines that set an operation's state: an attribute assignment, `update(state=...)`, a bulk update, SQL."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            flat = [part for target in targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
            found += [
                node.lineno
                for part in flat
                if isinstance(part, ast.Attribute)
                and part.attr == "state"
                and not (isinstance(part.value, ast.Name) and part.value.id in {"self", "cls"})
            ]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "update":
                found += [node.lineno for keyword in node.keywords if keyword.arg == "state"]
            if node.func.attr in {"bulk_update", "bulk_create", "update_or_create"}:
                named = [*node.args, *(keyword.value for keyword in node.keywords)]
                found += [
                    node.lineno
                    for part in named
                    if isinstance(part, (ast.List, ast.Tuple, ast.Set, ast.Dict))
                    and any(isinstance(word, ast.Constant) and word.value == "state" for word in ast.walk(part))
                ]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
            found += [
                node.lineno for part in node.args[1:2] if isinstance(part, ast.Constant) and part.value == "state"
            ]
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            clauses = re.findall(
                r"UPDATE\s+updates_operation\b(?:\s+\w+)?\s+SET\b(.*?)(?:\bFROM\b|\bWHERE\b|$)", node.value, re.DOTALL
            )
            found += [node.lineno for clause in clauses if re.search(r"\bstate\s*=", clause)]
    return found


def test_the_state_of_an_operation_has_one_writer() -> None:
    offenders = []
    for name, tree in sources(*APPS):
        if name == STATE_WRITER:
            continue
        offenders += [f"{name}:{line}" for line in writes_state(tree)]
    assert offenders == []


def test_the_check_for_other_writers_finds_them() -> None:
    for code in (
        "operation.state = 'failed'",
        "row.state, row.handle = 'failed', ''",
        "Operation.objects.filter(pk=1).update(state='failed')",
        "cursor.execute('UPDATE updates_operation SET state = %s')",
        "Operation.objects.bulk_update(rows, ['state', 'handle'])",
        "Operation.objects.bulk_update(rows, fields=('state',))",
        "Operation.objects.update_or_create(pk=1, defaults={'state': 'failed'})",
        "setattr(operation, 'state', 'failed')",
    ):
        assert writes_state(ast.parse(code)), code


# --- SQL -----------------------------------------------------------------------------------------------------------

ENUMS = {"Enum", "StrEnum", "TextChoices"}
# A quoted word that stands for a value: compared, listed, chosen, set. The key of a JSON document and the name of a setting are none.
VALUE = re.compile(r"""(?:=|<>|!=|\bIN\s*\(|\bTHEN|\bELSE|\bSELECT|\bVALUES\s*\(|\bLIKE|\[|,)\s*'([^'%\s]+)'""")
CALL = re.compile(r"\b(?:set_config|current_setting|jsonb_build_object|concat_ws|jsonb_set|jsonb_path_\w+)\([^()]*\)")
SQL = re.compile(r"\b(?:SELECT|UPDATE|INSERT INTO|DELETE FROM|WHERE|CASE|SET|AND|OR|NOT|IN)\b|->>|<>")


def values_of_enums() -> set[str]:
    """The texts that the enums of the portal stand for, as they are written in its code."""
    found = set()
    for _name, tree in sources(*TABLES_AND_TERMS):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base).split(".")[-1] in ENUMS for base in node.bases):
                for line in (line for line in node.body if isinstance(line, ast.Assign)):
                    first = line.value.elts[0] if isinstance(line.value, ast.Tuple) and line.value.elts else line.value
                    if isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value:
                        found.add(first.value)
    return found


def docstrings(tree: ast.Module) -> set[int]:
    """The nodes that are docstrings: text for people."""
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if node.body and isinstance(node.body[0], ast.Expr)
    }


def enum_values_in_sql(tree: ast.Module, values: set[str]) -> list[tuple[int, str]]:
    """Where a statement has the value of an enum as a literal, and which: a renamed value would break it silently."""
    texts = docstrings(tree)
    found = []
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in texts
            and SQL.search(node.value)
        ):
            sql = CALL.sub(lambda call: re.sub(r"[^\n]", " ", call[0]), node.value)
            found += [
                (node.lineno + sql[: match.start(1)].count("\n"), match[1])
                for match in VALUE.finditer(sql)
                if match[1] in values
            ]
    return found


# The rooms that have tables, and those below them whose enums are stored.
ROOMS_WITH_TABLES = ("db", "audit", "vms", "updates", "people", "notifications", "demo", "simulation")
TABLES_AND_TERMS = ("patching", "connectors", "audit", "vms", "updates", "people", "notifications")


def test_values_of_enums_are_parameters_of_sql_and_never_literals() -> None:
    values = values_of_enums()
    assert {"queued", "Critical", "AutomaticByPlatform", "paused", "waiting"} <= values
    offenders = [
        f"{name}:{line}: '{value}'"
        for name, tree in sources(*ROOMS_WITH_TABLES)
        for line, value in enum_values_in_sql(tree, values)
    ]
    assert offenders == []


@pytest.mark.parametrize(
    ("code", "planted"),
    [
        ("Q = \"SELECT 1 FROM updates_operation o WHERE o.state = 'queued'\"", ["queued"]),
        ("Q = \"WHERE o.state NOT IN ('succeeded', 'failed')\"", ["succeeded", "failed"]),
        ("Q = \"UPDATE t SET status = CASE WHEN a THEN 'skipped' ELSE 'failed' END\"", ["skipped", "failed"]),
        ("Q = \"SELECT %s, r.wave, 'waiting', '' FROM r\"", ["waiting"]),
        ("Q = f\"SELECT 1 FROM {table} WHERE kind <> 'assessment'\"", ["assessment"]),
        ("Q = \"it->>'status' = 'paused'\"", ["paused"]),
        ("Q = \"WHERE o.state = ANY(ARRAY['queued'])\"", ["queued"]),
        ("Q = \"WHERE o.state = %(queued)s AND detail->>'failed' <> ''\"", []),
        ("Q = \"SELECT set_config('x', 'failed', true)\"", []),
        ("Q = \"SELECT jsonb_build_object('failed', count(*))\"", []),
        ("def f():\n    \"SELECT what is = 'queued' in words.\"", []),
    ],
)
def test_the_check_for_values_of_enums_in_sql_finds_them(code: str, planted: list[str]) -> None:
    values = {"queued", "succeeded", "failed", "skipped", "waiting", "assessment", "paused"}
    assert [value for _line, value in enum_values_in_sql(ast.parse(code), values)] == planted


# PostgreSQL may run a sub-select once for each row: with SKIP LOCKED it then gets other rows each time, and more than its
# LIMIT in all. A CTE runs once. The check does not find the ORM's form, `pk__in=` with a slice of `skip_locked=True`.
_INSIDE = r"(?:[^()]|\((?:[^()]|\([^()]*\))*\))*?"
REPEATED = re.compile(rf"\b(?:IN|ANY|FROM)\s*\(\s*SELECT\b{_INSIDE}\bSKIP\s+LOCKED\b", re.IGNORECASE)


def repeated_claims(tree: ast.Module) -> list[int]:
    """Numbers of the lines whose SQL has SKIP LOCKED in a sub-select after IN, ANY or FROM."""
    parts = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    texts = [
        (node.lineno, "".join(v.value if isinstance(v, ast.Constant) else "x" for v in node.values))
        if isinstance(node, ast.JoinedStr)
        else (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        or (isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts)
    ]
    return [line for line, text in texts if REPEATED.search(text)]


def test_no_claim_of_some_rows_is_a_sub_select_that_may_run_again() -> None:
    assert [f"{name}:{line}" for name, tree in sources(*APPS) for line in repeated_claims(tree)] == []


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("A = 'UPDATE m SET d = 1 WHERE id IN (SELECT id FROM m WHERE y <= %(now)s LIMIT %(batch)s FOR UPDATE SKIP LOCKED)'", [1]),
        ("A = 'UPDATE m SET d = %s WHERE id IN (SELECT id FROM m WHERE y <= %s LIMIT %s FOR UPDATE SKIP LOCKED)'", [1]),
        ("A = 'UPDATE m SET d = 1 WHERE id = ANY (SELECT id FROM m LIMIT 2 FOR UPDATE SKIP LOCKED)'", [1]),
        ("A = 'UPDATE m SET d = 1 FROM (SELECT id FROM m FOR UPDATE SKIP LOCKED LIMIT 2) due WHERE m.id = due.id'", [1]),
        ("A = f'UPDATE {m} SET d = 1 WHERE id IN (SELECT id FROM {m} LIMIT {n} FOR UPDATE SKIP LOCKED)'", [1]),
        ("A = 'WITH due AS MATERIALIZED (SELECT id FROM m LIMIT 2 FOR UPDATE SKIP LOCKED) UPDATE m SET d = 1 FROM due'", []),
        ("A = 'UPDATE m SET d = 1 WHERE id = (SELECT id FROM m LIMIT 1 FOR UPDATE SKIP LOCKED)'", []),
        ("A = 'SELECT 1 FROM m WHERE id IN (SELECT id FROM n) LIMIT 2 FOR UPDATE SKIP LOCKED'", []),
    ],
)  # fmt: skip
def test_the_check_for_claims_that_may_run_again_finds_them(code: str, lines: list[int]) -> None:
    assert repeated_claims(ast.parse(code)) == lines


# --- rooms -------------------------------------------------------------------------------------------------------


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> Iterator[tuple[str, Function, bool]]:
    """Functions of a module and methods of its classes: the full name, the function, and whether it is a method."""
    for node in tree.body:
        if isinstance(node, Function):
            yield node.name, node, False
        elif isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{item.name}", item, True) for item in node.body if isinstance(item, Function))


def long_functions(tree: ast.Module) -> list[str]:
    """The functions and methods whose body has more lines than a view may have."""
    found = []
    for name, function, _is_method in functions(tree):
        body = function.body[1:] if ast.get_docstring(function) else function.body
        length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
        if length > MAX_VIEW_STATEMENTS_LINES:
            found.append(f"{name} has {length} lines")
    return found


def test_views_are_short() -> None:
    views = [(name, tree) for name, tree in sources(*APPS) if "views" in Path(name).stem or "views" in Path(name).parts]
    assert len(views) > 5
    assert [f"{name}:{words}" for name, tree in views for words in long_functions(tree)] == []


def test_the_check_for_long_views_finds_them() -> None:
    lines = "\n".join(f"        a = {number}" for number in range(16))
    for code in (
        f"async def show(request):\n{lines}",
        f"def show(request):\n{lines}",
        f"class Show:\n    def get(self):\n{lines}",
    ):
        assert len(long_functions(ast.parse(code))) == 1, code
        assert long_functions(ast.parse(code.replace("        a = 15", ""))) == []


# Two things by position, since nobody could mix them up.
PAIRS = {
    "is_same_image",  # the same either way round
    "selected_vms",  # a user and a selection
}


def loose_services(tree: ast.Module) -> list[str]:
    """What is wrong with the public functions and methods of services: two things by position, or a request in sight."""
    wrong = []
    for name, function, is_method in functions(tree):
        arguments = function.args
        by_position = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
        is_static = any(isinstance(word, ast.Name) and word.id == "staticmethod" for word in function.decorator_list)
        if is_method and not is_static:
            by_position = by_position[1:]
        if arguments.vararg:
            by_position += [f"*{arguments.vararg.arg}", f"*{arguments.vararg.arg}"]
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        hints = " ".join(ast.unparse(argument.annotation) for argument in every if argument.annotation)
        if "request" in {argument.arg for argument in every} or re.search(r"\b\w*HttpRequest|\bPortalRequest", hints):
            wrong.append(f"{name} sees a request")
        owner, _, last = name.rpartition(".")
        is_public = not owner.startswith("_") and (not last.startswith("_") or last in {"__init__", "__call__"})
        if is_public and len(by_position) > 1 and name not in PAIRS:
            wrong.append(f"{name} takes {', '.join(by_position)} by position")
    return wrong


def services() -> list[tuple[str, ast.Module]]:
    return [
        *sources("vms/services", "updates/services"),
        *files("audit/services.py", "people/services.py", "notifications/services.py"),
    ]


def test_services_take_one_thing_by_position_at_most_and_never_see_a_request() -> None:
    """What a service is about may come by position; everything else is named, or two ids change places one day."""
    assert [f"{name}:{words}" for name, tree in services() for words in loose_services(tree)] == []
    there = {name for _file, tree in services() for name, _function, _is_method in functions(tree)}
    assert there >= PAIRS, "an exception of nothing"


def test_the_check_for_loose_services_finds_them() -> None:
    for code in (
        "def move(vm_id, group_id): ...",
        "def move(vm_id, /, group_id, *, by): ...",
        "async def move(vm_id, group_id): ...",
        "def move(*ids): ...",
        "class Mover:\n    def move(self, vm_id, group_id): ...",
        "class Mover:\n    def __init__(self, vm_id, group_id): ...",
        "class Mover:\n    @staticmethod\n    def move(vm_id, group_id): ...",
        "def move(*, request): ...",
        "def _move(*, asked: HttpRequest | None): ...",
        "def move(*, asked: PortalRequest): ...",
    ):
        assert len(loose_services(ast.parse(code))) == 1, code
    for code in (
        "def move(vm, *, group, by): ...",
        "def _move(vm, group): ...",
        "class Mover:\n    def move(self, vm, *, group): ...",
    ):
        assert loose_services(ast.parse(code)) == [], code


def htmx_reads(tree: ast.Module) -> list[int]:
    """Lines that ask whether htmx sent a request: by what the middleware keeps, or by the header itself."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr == "htmx")
        or (
            (isinstance(node, ast.Constant) and isinstance(node.value, str))
            and re.fullmatch(r"(?i)(http[_-])?hx[_-]request|htmx", node.value)
        )
    ]


def test_views_branch_on_htmx_in_one_place() -> None:
    offenders = [
        f"{name}:{line}" for name, tree in sources(*APPS) for line in htmx_reads(tree) if name != "ui/pages.py"
    ]
    assert offenders == []
    for code in ("if asked.htmx: ...", "getattr(request, 'htmx')", "request.headers.get('HX-Request')"):
        assert htmx_reads(ast.parse(code)), code


QUIET_NAMES = {"utils", "helpers", "misc", "common"}


def quiet_ways(name: str, tree: ast.Module) -> list[str]:
    """What of a file acts where nobody looks for it, or says nothing of what it is."""
    wrong = [f"{name}: say what it is" for part in Path(name).with_suffix("").parts if part in QUIET_NAMES]
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            told = ast.unparse(node)
            if re.search(r"django\S*\.(signals|dispatch)\b|\bimport signals\b", told):
                wrong.append(f"{name}:{node.lineno} a signal of Django")
            if "GenericForeignKey" in told or "contenttypes.fields" in told:
                wrong.append(f"{name}:{node.lineno} a generic foreign key")
        if isinstance(node, ast.ClassDef):
            bases = " ".join(map(ast.unparse, node.bases))
            is_model = re.search(r"\bModel\b|Model$", bases) and not re.search(r"Form|Admin|Factory|Backend", bases)
            if is_model or Path(name).stem.endswith("models"):
                wrong += [
                    f"{name}:{node.name}.{item.name}"
                    for item in node.body
                    if isinstance(item, Function) and item.name in {"save", "asave", "save_base"}
                ]
    return wrong


def test_no_utils_no_signals_no_save_overrides_no_generic_foreign_keys() -> None:
    assert [words for name, tree in sources(*APPS) for words in quiet_ways(name, tree)] == []


def test_the_check_for_quiet_ways_finds_them() -> None:
    for name, code in (
        ("vms/utils.py", ""),
        ("vms/common/names.py", ""),
        ("vms/apps.py", "from django.db.models.signals import post_save"),
        ("vms/apps.py", "from django.db.models import signals"),
        ("vms/apps.py", "from django.dispatch import receiver"),
        ("vms/models.py", "from django.contrib.contenttypes.fields import GenericForeignKey"),
        ("vms/models.py", "class Vm(Base):\n    def save(self): ..."),
        ("vms/import_models.py", "class Job(Base):\n    async def asave(self): ..."),
        ("vms/tags.py", "class Tag(models.Model):\n    def save(self): ..."),
    ):
        assert len(quiet_ways(name, ast.parse(code))) == 1, (name, code)


CLOCKS = {"now", "utcnow", "today", "localdate", "localtime", "time", "time_ns", "sleep", "gmtime"}


def clock_reads(tree: ast.Module) -> list[int]:
    """Lines that ask what time it is, or wait. How long something has taken (`monotonic`) is no time of day."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, (ast.Name, ast.Attribute)):
            owner = ast.unparse(node.value).rpartition(".")[2]
            if owner in {"datetime", "date", "time", "timezone"} and node.attr in CLOCKS - {"time"} | {
                "time" if owner == "time" else "now"
            }:
                found.append(node.lineno)
        if isinstance(node, ast.ImportFrom) and node.module in {"time", "django.utils.timezone"}:
            found += [node.lineno for alias in node.names if alias.name in CLOCKS]
    return found


def test_the_rules_and_the_connectors_have_no_clock() -> None:
    offenders = [f"{name}:{line}" for name, tree in sources("patching", "connectors") for line in clock_reads(tree)]
    assert offenders == []
    for code in (
        "datetime.now(UTC)",
        "datetime.datetime.utcnow()",
        "date.today()",
        "map(date.today, ())",
        "time.time()",
        "from time import sleep",
        "timezone.now()",
    ):
        assert clock_reads(ast.parse(code)), code
    for code in ("datetime.combine(day, time(10))", "moment.time()", "time.monotonic()", "self.now"):
        assert not clock_reads(ast.parse(code)), code


def kind_tests(text: str, names: tuple[str, ...]) -> list[str]:
    """Where a text asks which kind of connector it is, by name: in Python, in a template, in SQL."""
    word = "|".join(map(re.escape, names))
    return re.findall(rf"""\bkind(?:__\w+)?\s*(?:==?|!=|<>|in|IN|is)\s*[\[({{]?\s*["'](?:{word})["']""", text)


def test_only_the_registry_knows_kinds_of_connectors() -> None:
    from connectors.registry import KINDS

    offenders = [
        str(path.relative_to(ROOT))
        for folder in (*APPS, "templates")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in {".py", ".html"} and "migrations" not in path.parts
        if path != ROOT / "connectors/registry.py" and kind_tests(path.read_text(), tuple(KINDS))
    ]
    assert offenders == []
    for text in (
        'if self.kind == "simulator":',
        "Q(kind__in=['simulator'])",
        "{% if connection.kind == 'simulator' %}",
        "SELECT 1 FROM vms_connection c WHERE c.kind <> 'simulator'",
        'Connection.objects.filter(kind="simulator")',
    ):
        assert kind_tests(text, ("simulator",)), text


def imported(tree: ast.Module) -> set[str]:
    """The modules that a file imports, each name in full."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_the_checker_of_the_simulation_shares_no_judgement_with_the_portal() -> None:
    """It, its table and its days import the standard library and each other; what feeds them no rule and no selector."""
    own = ("simulation.train.", "simulation.checker.")
    for name in ("checker", "train", "days"):
        tree = ast.parse((ROOT / f"simulation/{name}.py").read_text())
        foreign = [
            module
            for module in imported(tree)
            if module.split(".")[0] not in sys.stdlib_module_names and not module.startswith(own)
        ]
        assert foreign == [], name
    fed_by = imported(ast.parse((ROOT / "simulation/report.py").read_text()))
    ours = [name for name in fed_by if name.split(".")[0] in APPS and not name.startswith("simulation.")]
    assert [name for name in ours if not name.startswith("patching.terms.")] == []


# --- tests -------------------------------------------------------------------------------------------------------


def imports_of_tests(tree: ast.Module) -> list[str]:
    """What a file takes from a file of tests. What several need has a file of its own, which holds no test."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found += [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name for name in found if any(part.startswith("test_") for part in name.split("."))]


def test_no_file_imports_from_a_file_of_tests() -> None:
    taken = [f"{name}: {words}" for name, tree in sources("tests", *APPS, "bench") for words in imports_of_tests(tree)]
    assert taken == []
    for code in (
        "from tests.vms.test_pages import page",
        "from tests.vms import test_pages",
        "import tests.vms.test_pages as pages",
        "from .test_pages import page",
        "def late():\n    from tests.test_doors import DOORS",
    ):
        assert imports_of_tests(ast.parse(code)), code


def names_of_tests(tree: ast.Module) -> list[str]:
    """The tests of a file by their names."""
    return [name for name, _function, _is_method in functions(tree) if name.rpartition(".")[2].startswith("test_")]


TESTS_BY_HAND = "tests/browser/screenshots.py"  # `make screenshots`


def test_tests_stand_in_files_that_are_collected() -> None:
    lost = [
        f"{name}:{words}"
        for name, tree in sources("tests")
        if not Path(name).name.startswith("test_") and name != TESTS_BY_HAND
        for words in names_of_tests(tree)
    ]
    assert lost == []
    assert names_of_tests(ast.parse("class Some:\n    def test_it(self): ...\ndef test_that(): ...\ndef other(): ..."))


def test_types_are_checked_of_all_that_tests_stand_on() -> None:
    """Strictly, by `make types`: a file of tests proves itself when it runs, one that many use must be right before."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["modules"]
    shared = {
        name.removesuffix(".py").replace("/", ".")
        for name, _tree in sources("tests")
        if not Path(name).name.startswith(("test_", "__init__")) and name != TESTS_BY_HAND
    }
    assert shared - set(listed) == set()
    assert {name for name in listed if name.startswith("tests.")} - shared == set()


# --- templates and styles ----------------------------------------------------------------------------------------


FORBIDDEN = {
    r"\sstyle=": "inline style",
    r"<style\b": "inline style",
    r"\son[a-z]+=": "inline script",
    r"<script\b(?![^>]*\ssrc=)": "inline script",
    r"javascript:": "inline script",
    r'href=["\']#["\']': "a link that leads nowhere",
    r"\bhx-on": "inline script",
    r"\bhx-confirm": "a question that only a script asks",
}


def template_faults(text: str) -> list[str]:
    found = [words for pattern, words in FORBIDDEN.items() if re.search(pattern, text)]
    for name in re.findall(r"{% partialdef (\S+)", text):
        if f'id="{name}"' not in text:
            found.append(f"the part {name} is no element's id")
        if f'hx-target="#{name}"' not in text:
            found.append(f"nothing asks for the part {name}")
    for form in re.findall(r'<form[^>]*method=["\']post["\'].*?</form>', text, re.DOTALL | re.IGNORECASE):
        if "{% csrf_token %}" not in form:
            found.append("a form without its token")
    return found


@pytest.mark.parametrize("path", templates(), ids=lambda path: str(path.relative_to(ROOT)))
def test_templates_keep_to_the_house(path: Path) -> None:
    assert template_faults(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        '<p style="color: red">',
        "<style>p {}</style>",
        '<a onclick="go()">',
        "<script>go()</script>",
        '<script type="module">go()</script>',
        '<a href="javascript:go()">',
        '<a href="#">',
        '<a hx-on:click="go()">',
        '<a hx-confirm="Really?">',
        '{% partialdef rows %}<tr hx-target="#rows">{% endpartialdef %}',
        '{% partialdef rows %}<tbody id="rows">{% endpartialdef %}',
        '<form method="post"><button></form>',
    ],
)
def test_the_check_of_templates_finds_what_is_wrong(text: str) -> None:
    assert len(template_faults(text)) == 1


# Templates are the top floor (docs/adr/0011-templates-are-the-top-floor.md): they name pages of every app, by its name. Every
# folder says whose pages it links and which folders it takes parts from; "" is what stands beside the folders.
LINKS: dict[str, set[str]] = {
    "": {"", "admin", "updates", "vms"},
    "account": {""},
    "admin": {"admin"},
    "allauth": set(),
    "arm_api": {"", "arm"},
    "parts": {"", "admin", "arm", "updates", "vms"},
    "people": {"", "updates"},
    "updates": {"", "updates", "vms"},
    "vms": {"", "admin", "updates", "vms"},
}
PARTS_OF: dict[str, set[str]] = {
    "": {"parts"},
    "account": {"account"},
    "admin": {"admin"},
    "allauth": set(),
    "arm_api": set(),
    "parts": {"parts", "updates"},
    "people": {"parts", "people"},
    "updates": {"updates", "vms", "parts"},
    "vms": {"vms", "parts"},
}


def folder_of(path: Path) -> str:
    below = path.relative_to(ROOT / "templates").parts
    return below[0] if len(below) > 1 else ""


@pytest.mark.parametrize("path", templates(), ids=lambda path: str(path.relative_to(ROOT)))
def test_templates_link_pages_that_exist_and_take_parts_from_below(path: Path) -> None:
    from django.urls import get_resolver

    def exists(name: str) -> bool:
        *spaces, last = name.split(":")
        resolver = get_resolver()
        for space in spaces:
            if space not in resolver.namespace_dict:
                return False
            resolver = resolver.namespace_dict[space][1]
        return last in resolver.reverse_dict

    text = path.read_text()
    linked = re.findall(r"""{% url ["']([^"']+)["']""", text)
    assert [name for name in linked if not exists(name)] == []
    folder = folder_of(path)
    assert {name.rpartition(":")[0] for name in linked} - LINKS[folder] == set()
    assert set(re.findall(r"""{% (?:include|extends) ["']([^"'/]+)/""", text)) - PARTS_OF[folder] == set()


def test_every_folder_of_templates_says_what_it_links() -> None:
    assert {folder_of(path) for path in templates()} == LINKS.keys() == PARTS_OF.keys()


def test_only_what_makes_a_page_names_one_of_a_floor_above() -> None:
    """Views and template tags do as templates do; anywhere else a name would hide an import that points up."""
    above = {"vms": ("updates",), "audit": ("vms", "updates"), "ui": ("vms", "updates")}
    named = [
        (name, found)
        for floor, spaces in above.items()
        for name, _tree in sources(floor)
        if "/views" not in name and "/templatetags/" not in name
        for found in re.findall(rf"""["'](?:{"|".join(spaces)}):[a-z-]+["']""", (ROOT / name).read_text())
    ]
    assert named == []


def css_without_comments(name: str) -> str:
    return re.sub(r"/\*.*?\*/", "", (ROOT / "static/css" / name).read_text(), flags=re.DOTALL)


NAMED_COLOURS = "white|black|red|green|blue|grey|gray|orange|yellow|purple|navy|teal|silver"


def colours_of_its_own(style: str) -> list[str]:
    """Colours in the declarations of a stylesheet that are no tokens."""
    values = re.findall(r":([^;{}]+)[;}]", style)
    colour = (
        rf"#[0-9a-fA-F]{{3,8}}\b|\b(?:rgba?|hsla?|oklch|oklab|lab|lch|hwb)\(|(?<![\w-])(?:{NAMED_COLOURS})(?![\w-])"
    )
    return [found for value in values for found in re.findall(colour, value)]


def undefined_tokens(style: str, tokens: str) -> set[str]:
    return set(re.findall(r"var\((--[A-Za-z0-9-]+)", style)) - set(re.findall(r"(--[A-Za-z0-9-]+):", tokens))


@pytest.mark.parametrize("name", ["portal.css", "pictures.css"])
def test_the_stylesheet_takes_its_colours_from_tokens_that_exist(name: str) -> None:
    style, tokens = css_without_comments(name), css_without_comments("tokens.css")
    assert colours_of_its_own(style) == []
    assert undefined_tokens(style, tokens + style) == set()
    for rule in (
        "a { color: #fff; }",
        "a { color: rgb(0 0 0); }",
        "a { border: 1px solid red }",
        "a{color:hsl(1 1% 1%)}",
    ):
        assert colours_of_its_own(rule), rule
    for rule in ("a { color: var(--red-1); }", ".red { margin: 0; }", "a#fff:hover { margin: 0; }"):
        assert not colours_of_its_own(rule), rule
    assert undefined_tokens("a { color: var(--one, var(--two)) }", ":root { --one: 1 }") == {"--two"}


def test_the_script_stays_small() -> None:
    assert len((ROOT / "static/js/portal.js").read_text().splitlines()) <= 100


# --- files -------------------------------------------------------------------------------------------------------


def addresses_of_packages(text: str, *, is_lock: bool) -> list[str]:
    """Hosts of packages that a text names; of a lock every address."""
    hosts = ("pypi" + r"\.org", "pythonhosted" + r"\.org", "registry" + r"\.npmjs", "files\\.python" + "hosted")
    return re.findall("|".join((*hosts, *(["https?://"] if is_lock else []))), text)


def test_no_file_names_a_package_host_and_no_lock_an_address() -> None:
    wrong = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found = addresses_of_packages(text, is_lock=path.suffix == ".lock")
        wrong += [f"{path.relative_to(ROOT)}: {words}" for words in found]
    assert wrong == []
    assert addresses_of_packages("see https://" + "pypi" + ".org/simple", is_lock=False)
    assert addresses_of_packages("--index-url http://10.0.0.4/simple", is_lock=True)


def without_reason(text: str) -> list[str]:
    """The dependencies that a project file lists without a word why."""
    block = text[text.index("dependencies = [") : text.index("[tool.")]
    lines = [line.strip() for line in block.splitlines() if line.strip().startswith('"')]
    assert lines
    return [line for line in lines if not re.search(r"#\s*\w", line)]


def test_every_dependency_has_its_reason() -> None:
    assert without_reason((ROOT / "pyproject.toml").read_text()) == []
    planted = (
        'dependencies = [\n  "one>=1", # why\n  "two>=1",\n]\n[dependency-groups]\ndev = [\n  "three", #\n]\n[tool.x]'
    )
    assert without_reason(planted) == ['"two>=1",', '"three", #']


def unhashed(text: str) -> list[str]:
    """The packages of a lock that are pinned without a hash, and those that are not pinned."""
    blocks = [block for block in re.split(r"\n(?=[A-Za-z0-9])", text) if re.match(r"[A-Za-z0-9]", block)]
    assert blocks
    return [block.split()[0] for block in blocks if "==" not in block.split("\n")[0] or "--hash=sha256:" not in block]


def test_the_lock_has_hashes_for_everything() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        assert unhashed((ROOT / name).read_text()) == []
    planted = "# made by\none==1 \\\n    --hash=sha256:00\ntwo==2\n    # via one\nthree>=3 \\\n    --hash=sha256:00\n"
    assert unhashed(planted) == ["two==2", "three>=3"]


@pytest.mark.django_db
def test_every_table_is_documented() -> None:
    from django.apps import apps

    documented = "\n".join(path.read_text() for path in (ROOT / "docs/models").glob("*.md"))
    missing = [
        model.__name__
        for app in ("audit", "vms", "updates", "people", "notifications")
        for model in apps.get_app_config(app).get_models()
        if f"`{model.__name__}`" not in documented
    ]
    assert missing == []
