"""What docs and docstrings name exists: every file, link, dotted path, command, option and identifier."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from django.core.management import get_commands, load_command_class

ROOT = Path(__file__).resolve().parents[1]
# The packages of the product and what lies beside it: every folder that holds Python.
PACKAGES = tuple(sorted(path.parent.name for path in ROOT.glob("*/__init__.py")))
SUFFIXES = r"py|md|json|html|csv|toml|lock|css|js|svg|png|po|sql|txt"
SOURCES = {".py", ".html", ".js", ".css", ".toml", ".json", ".csv", ".po", ".txt"}
MADE_BY_PROGRAMS = (".portal/", ".venv/", "bench/results/", "screenshots/")  # in no clone


@lru_cache(maxsize=1)
def tracked() -> frozenset[str]:
    """The files of the repository, also those that are new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return frozenset(name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file())


def documents() -> list[str]:
    found = sorted(ROOT.glob("docs/**/*.md"))
    return [str(path.relative_to(ROOT)) for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *found)]


@lru_cache(maxsize=1)
def words_of_the_sources() -> frozenset[str]:
    """Every identifier that a source holds. This file and the docs themselves do not count."""
    found: set[str] = set()
    for name in tracked():
        if Path(name).suffix in SOURCES | {""} and not name.startswith("docs/") and name != "tests/test_docs.py":
            try:
                found.update(re.findall(r"\w+", (ROOT / name).read_text()))
            except UnicodeDecodeError:
                continue
    return frozenset(found)


# --- what one name may be ----------------------------------------------------------------------------------------


def missing_file(name: str, document: str = "") -> bool:
    """Whether a path names no file and no folder, seen from the root or from the document's folder."""
    if re.search(r"[<>*{}…]", name):
        return False  # a pattern
    name = name.rstrip("/")
    places = {name, str((Path(document).parent / name).as_posix()) if document else name}
    resolved = {str((ROOT / place).resolve().relative_to(ROOT)) for place in places if within(place)}
    return not any(place in tracked() or any(file.startswith(f"{place}/") for file in tracked()) for place in resolved)


def within(place: str) -> bool:
    return (ROOT / place).resolve().is_relative_to(ROOT)


def missing_symbol(dotted: str) -> bool:
    """Whether a dotted path names no module and nothing in one."""
    parts = dotted.split(".")
    thing: Any = None
    for count in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:count]))
        except ImportError:
            continue
        return not has(thing, parts[count:])
    return True


def has(thing: Any, names: list[str]) -> bool:
    """Whether a thing has an attribute, and that one has the next; fields without a value count."""
    for position, name in enumerate(names):
        annotations = {key for each in getattr(thing, "__mro__", ()) for key in vars(each).get("__annotations__", {})}
        if not hasattr(thing, name):
            return name in annotations and position == len(names) - 1
        thing = getattr(thing, name)
    return True


def missing_command(command: str) -> str | None:
    """What a command line names that does not exist: the command, or an option of it."""
    if found := re.search(r"\bmanage\.py ([a-z_]+)(.*)", command):
        name, rest = found.groups()
        if name not in get_commands():
            return f"manage.py {name}"
        app = get_commands()[name]
        parser = (load_command_class(app, name) if isinstance(app, str) else app).create_parser("manage.py", name)
        of_its_own = (action.choices for action in parser._actions if isinstance(action.choices, dict))
        parsers = [parser, *(each for choices in of_its_own for each in choices.values())]
        known = {option for each in parsers for action in each._actions for option in action.option_strings}
        return next((word for word in re.findall(r"(?<!\S)--[a-z][a-z-]*", rest) if word not in known), None)
    if found := re.search(r"\bpython3? -m ([\w.]+)", command):
        module = found.group(1)
        ours = module.split(".")[0] in PACKAGES
        return module if ours and missing_symbol(module) else None
    if found := re.search(r"(?:^|\s)make ([a-z]+)", command):
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return None if found.group(1) in targets else f"make {found.group(1)}"
    return None


def wrong(span: str, document: str = "") -> str | None:
    """What a piece of code in a text names that does not exist; None if it exists or names nothing of ours."""
    span = span.strip()
    if " " in span:
        return missing_command(span)
    bare = re.sub(r"\(.*\)$|[:#][\w-]*$|^\.venv/bin/", "", span)
    top = bare.split("/")[0]
    if span.startswith(MADE_BY_PROGRAMS) or bare.startswith(MADE_BY_PROGRAMS):
        return None
    if re.fullmatch(rf"[\w./-]+\.(?:{SUFFIXES})", bare) or ("/" in bare and (ROOT / top).is_dir() and top):
        is_ours = (ROOT / top).exists() or "/" not in bare
        return bare if is_ours and missing_anywhere(bare, document) else None
    if re.fullmatch(r"[a-z_]\w*(\.\w+)+", bare) and bare.split(".")[0] in PACKAGES:
        return bare if missing_symbol(bare) else None
    is_identifier = re.fullmatch(r"[A-Za-z]\w*_\w+|(?:[A-Z][a-z0-9]+){2,}", bare)
    return bare if is_identifier and bare not in words_of_the_sources() else None


def missing_anywhere(name: str, document: str) -> bool:
    """A file without its folder may lie anywhere; one with its folder lies there."""
    if "/" not in name and any(file.endswith(f"/{name}") for file in tracked()):
        return False
    return missing_file(name, document) and name not in words_in_code(name)


def words_in_code(name: str) -> set[str]:
    """The name itself, where a program writes or reads a file of that name (`access.json`)."""
    if "/" in name:
        return set()
    readers = (ROOT / file for file in tracked() if file.endswith(".py") and file != "tests/test_docs.py")
    return {name for path in readers if f'"{name}"' in path.read_text()}


# --- where names stand -------------------------------------------------------------------------------------------


def blocks_and_spans(text: str) -> Iterator[str]:
    """The code of a Markdown text: each line of a block, and what stands between backticks. Diagrams are not code."""
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if kind in {"", "sh", "bash"}:
            yield from (
                line.split("  #")[0] for line in block.splitlines() if re.match(r"(\.venv/bin/|make |\S*python)", line)
            )
    yield from re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def bad_links(text: str, document: str) -> list[str]:
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _hash, anchor = target.partition("#")
        where = (ROOT / document).parent / path if path else ROOT / document
        is_bad = not where.exists() or bool(anchor and anchor not in anchors(where.read_text()))
        found += [target] if is_bad else []
    return found


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def names_in_prose(text: str) -> Iterator[str]:
    """Paths and dotted names of ours that stand in a sentence without backticks."""
    tops = "|".join((*PACKAGES, "docs", "templates", "static", "locale"))
    yield from re.findall(rf"(?<![\w./-])(?:{tops})/[\w./-]*\w\.(?:{SUFFIXES})\b", text)
    yield from re.findall(rf"(?<![\w./-])(?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+", text)


@pytest.mark.parametrize("document", documents())
def test_what_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    found = [wrong(span, document) for span in blocks_and_spans(text)]
    prose = re.sub(r"^```.*?^```|`[^`\n]+`|\]\([^)]*\)", "", text, flags=re.DOTALL | re.MULTILINE)
    found += [wrong(name, document) for name in names_in_prose(prose)]
    assert sorted({name for name in found if name}) == []
    assert bad_links(text, document) == []


def test_what_docstrings_and_comments_name_exists() -> None:
    found = []
    for name in sorted(tracked()):
        if not name.endswith(".py") or "/migrations/" in name or name == "tests/test_docs.py":
            continue
        source = (ROOT / name).read_text()
        texts = list(docstrings(ast.parse(source)))
        texts += [
            (n, line.split("# ", 1)[1]) for n, line in enumerate(source.splitlines(), 1) if re.match(r"\s*# ", line)
        ]
        for line, text in texts:
            named = [*re.findall(r"`([^`\n]+)`", text), *names_in_prose(re.sub(r"`[^`\n]+`", "", text))]
            found += [f"{name}:{line}: {bad}" for span in named if (bad := wrong(span))]
    assert found == []


@pytest.mark.parametrize(
    "span",
    [
        "docs/nothing.md",
        "updates/services/nothing.py",
        "nothing_of_ours.py",
        "updates.services.nothing",
        "updates.models.Operation.nothing",
        "patching.terms.Nothing",
        "manage.py nothing",
        ".venv/bin/python manage.py import_vms --nothing",
        "python -m bench.nothing",
        "make nothing",
        "NothingOfOurs",
        "nothing_of_ours",
        "nothing_of_ours()",
    ],
)
def test_the_check_finds_what_does_not_exist(span: str) -> None:
    assert wrong(span, "docs/rules.md")


@pytest.mark.parametrize(
    "span",
    [
        "docs/rules.md",
        "rules.md",
        "updates/services/",
        "updates.models.Operation.state",
        "patching.terms.Patch.kb_number",
        "manage.py import_vms vms.json --dry-run",
        "python -m bench.pages",
        "make check",
        "VirtualMachine",
        "kb_number",
        "access.json",
    ],
)
def test_the_check_leaves_what_exists_alone(span: str) -> None:
    assert wrong(span, "docs/rules.md") is None


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("[a](rules.md#run-outcome)", []),
        ("[a](rules.md#nothing) [b](nothing.md)", ["rules.md#nothing", "nothing.md"]),
        ("[a](https://example.com/)", []),
    ],
)
def test_links_lead_somewhere(text: str, bad: list[str]) -> None:
    assert bad_links(text, "docs/glossary.md") == bad
