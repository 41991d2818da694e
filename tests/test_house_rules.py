"""The rules of the house that no linter knows (DESIGN: the ten rules; CONTRIBUTING.md words them)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
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
    "hotpatch_portal",
    "demo",
    "simulation",
)
MAX_VIEW_STATEMENTS_LINES = 15
STATE_WRITER = "updates/engine/transition.py"


def sources(*under: str) -> Iterator[tuple[str, ast.Module]]:
    """Every Python file of these folders, parsed."""
    for folder in under:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "migrations" not in path.parts:
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
    """Lines that set an operation's state: an attribute assignment, or `update(state=...)`."""
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
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "update":
            found += [node.lineno for keyword in node.keywords if keyword.arg == "state"]
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            clauses = re.findall(
                r"UPDATE\s+updates_operation\b(?:\s+\w+)?\s+SET\b(.*?)(?:\bFROM\b|\bWHERE\b|$)", node.value, re.DOTALL
            )
            found += [node.lineno for clause in clauses if re.search(r"\bstate\s*=", clause)]
    return found


def test_the_state_of_an_operation_has_one_writer() -> None:
    offenders = []
    for name, tree in sources("audit", "updates", "vms", "people", "hotpatch_portal", "ui", "demo", "simulation"):
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
    ):
        assert writes_state(ast.parse(code)), code


# --- rooms -------------------------------------------------------------------------------------------------------


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (node for node in tree.body if isinstance(node, ast.FunctionDef))


def test_views_are_short() -> None:
    long = []
    for name, tree in sources("ui", "vms", "updates", "people"):
        if "/views" not in name:
            continue
        for function in functions(tree):
            body = function.body[1:] if ast.get_docstring(function) else function.body
            length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            if length > MAX_VIEW_STATEMENTS_LINES:
                long.append(f"{name}:{function.name} has {length} lines")
    assert long == []


# Two things by position, since nobody could mix them up.
PAIRS = {
    "is_same_image",  # the same either way round
    "selected_vms",  # a user and a selection
    "connector_of",  # a row and a catalogue
}


def positional(function: ast.FunctionDef) -> list[str]:
    return [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]


def test_services_take_one_thing_by_position_at_most_and_never_see_a_request() -> None:
    """What a service is about may come by position; everything else is named, or two ids change places one day."""
    wrong = []
    for name, tree in [*sources("vms/services", "updates/services"), *files("audit/services.py", "people/services.py")]:
        for function in functions(tree):
            names = [*positional(function), *(argument.arg for argument in function.args.kwonlyargs)]
            if "request" in names:
                wrong.append(f"{name}:{function.name} sees a request")
            if len(positional(function)) > 1 and not function.name.startswith("_") and function.name not in PAIRS:
                wrong.append(f"{name}:{function.name} takes {', '.join(positional(function))} by position")
    assert wrong == []


def test_views_branch_on_htmx_in_one_place() -> None:
    offenders = [
        name
        for name, _tree in sources("ui", "db", "audit", "vms", "updates", "people", "hotpatch_portal", "demo")
        if "request.htmx" in (ROOT / name).read_text() and name != "ui/pages.py"
    ]
    assert offenders == []


def test_nobody_refuses_quietly() -> None:
    """No utils, no save() overrides, no signals for domain logic, no generic foreign keys."""
    wrong = []
    for name, tree in sources(*APPS):
        text = (ROOT / name).read_text()
        if Path(name).stem in {"utils", "helpers", "misc", "common"}:
            wrong.append(f"{name}: say what it is")
        if "GenericForeignKey" in text or "django.db.models.signals" in text:
            wrong.append(f"{name}: generic foreign key or model signal")
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and name.endswith("models.py"):
                wrong += [
                    f"{name}:{node.name}.save"
                    for item in node.body
                    if isinstance(item, ast.FunctionDef) and item.name == "save"
                ]
    assert wrong == []


def test_the_rules_have_no_clock() -> None:
    offenders = [
        name
        for name, _tree in sources("patching", "connectors")
        if re.search(
            r"\b(datetime\.now|datetime\.utcnow|date\.today|time\.time|time\.sleep)\b", (ROOT / name).read_text()
        )
    ]
    assert offenders == []


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
    """It and its table import the standard library alone; what feeds it imports no rule and no selector."""
    own = "simulation.train."
    for name in ("checker", "train"):
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


# --- templates and styles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", templates(), ids=lambda path: str(path.relative_to(ROOT)))
def test_templates_keep_to_the_house(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\sstyle=", text), "inline style"
    assert not re.search(r"\son[a-z]+=", text), "inline script"
    assert "<script>" not in text, "inline script"
    assert 'href="#"' not in text, "a link that leads nowhere"
    assert "hx-on" not in text
    assert "hx-confirm" not in text
    for name in re.findall(r"{% partialdef (\S+)", text):
        assert f'id="{name}"' in text, f"the part {name} is no element's id"
        assert f'hx-target="#{name}"' in text, f"nothing asks for the part {name}"
    for form in re.findall(r'<form[^>]*method="post".*?</form>', text, re.DOTALL):
        assert "{% csrf_token %}" in form, "a form without its token"


# Templates are the top floor (docs/adr/0011-templates-are-the-top-floor.md): they name pages of every app, by its name.
LINKS = {
    "account": {""},
    "admin": {"admin"},
    "updates": {"", "updates", "vms"},
    "vms": {"", "admin", "updates", "vms"},
}
PARTS_OF = {"account": {"account"}, "admin": {"admin"}, "updates": {"updates", "vms", "parts"}, "vms": {"vms", "parts"}}


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
    if folder in LINKS:
        assert {name.rpartition(":")[0] for name in linked} - LINKS[folder] == set()
    included = set(re.findall(r"""{% include ["']([^"'/]+)/""", text))
    if folder in PARTS_OF:
        assert included - PARTS_OF[folder] == set()


def css_without_comments(name: str) -> str:
    return re.sub(r"/\*.*?\*/", "", (ROOT / "static/css" / name).read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("name", ["portal.css", "pictures.css"])
def test_the_stylesheet_uses_tokens_only(name: str) -> None:
    style, tokens = css_without_comments(name), css_without_comments("tokens.css")
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b|rgba?\(|hsla?\(", style), "a colour outside the tokens"
    used = set(re.findall(r"var\((--[A-Za-z0-9]+)\)", style))
    defined = set(re.findall(r"(--[A-Za-z0-9]+):", tokens))
    assert used - defined == set()


def test_the_script_stays_small() -> None:
    assert len((ROOT / "static/js/portal.js").read_text().splitlines()) <= 100


# --- files -------------------------------------------------------------------------------------------------------


def test_no_file_names_a_package_host_or_a_machine() -> None:
    hosts = "|".join(
        ("pypi" + r"\.org", "pythonhosted" + r"\.org", "registry" + r"\.npmjs", "files\\.python" + "hosted")
    )
    wrong = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        if re.search(hosts, text):
            wrong.append(f"{path.relative_to(ROOT)}: a package host")
        if path.suffix == ".lock" and re.search(r"https?://", text):
            wrong.append(f"{path.relative_to(ROOT)}: a URL")
    assert wrong == []


def test_every_dependency_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("[tool.")]
    lines = [line.strip() for line in block.splitlines() if line.strip().startswith('"')]
    assert lines
    assert [line for line in lines if "#" not in line] == []


def test_the_lock_has_hashes_for_everything() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        pinned = re.findall(r"^([A-Za-z0-9_.\[\],-]+)==", text, re.MULTILINE)
        assert pinned
        blocks = re.split(r"\n(?=[A-Za-z0-9])", text)
        assert [
            block.split("==")[0] for block in blocks if "==" in block.split("\n")[0] and "--hash=" not in block
        ] == []


@pytest.mark.django_db
def test_every_table_is_documented() -> None:
    from django.apps import apps

    documented = "\n".join(path.read_text() for path in (ROOT / "docs/models").glob("*.md"))
    missing = [
        model.__name__
        for app in ("audit", "vms", "updates", "people")
        for model in apps.get_app_config(app).get_models()
        if f"`{model.__name__}`" not in documented
    ]
    assert missing == []
