"""`python -m bench.upgrade 693dab1 4aa9c4c`: an upgrade in place, while operations are queued, starting and in progress.

Each old version runs as its own `make up` ran it, with its demo, from a worktree of its commit (so this needs the
history, and gunicorn for the versions that were served by it). Once operations are under way it is killed, PostgreSQL
with it (`--orderly`: stopped with Ctrl-C), and this version is started on what it left behind. Ends with 1 if anything
was lost, doubled or judged wrongly, or the doctor is not content at once.
"""

from __future__ import annotations

import argparse
import http.cookiejar
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

from bench.machine import ROOT, children, free_port, save, table

START_SECONDS = 300.0
END_SECONDS = 300.0
# What the doctor says of the world, not of the upgrade: a person is asked, a catalogue has ended.
OF_THE_WORLD = frozenset({"decision_waits", "catalogue_is_old"})
# What a run of the demo can end with only because nobody looked at it in time, or looked with other eyes.
UNFAIR = frozenset({"window.exceeded", "connector.silent", "start.unconfirmed", "connector.garbage"})
# Tables whose rows are people's, or history: an upgrade takes none of them.
KEPT = (
    "auth_user", "vms_connection", "vms_subscription", "vms_resourcegroup", "vms_virtualmachine", "updates_operation",
    "updates_operationevent", "updates_patchresult", "updates_installedpatch", "updates_vmupdatestate", "updates_bulkrequest",
    "updates_bulkoutcome", "updates_rollout", "updates_rolloutmember", "updates_maintenanceconfiguration",
)  # fmt: skip

_COMMON = """
import json
from datetime import timedelta
from django.contrib.auth.models import User
from patching.terms import Classification, InstallationPlan
from updates.services.operations import request_assessments, request_installations
from vms.models import VirtualMachine
admin = User.objects.get(username="admin")
everything = InstallationPlan(classifications=frozenset(Classification))
# Four updates of ten minutes each, and ten for the reboot: not a minute more than they need.
tight = InstallationPlan(classifications=frozenset(Classification), maximum_duration=timedelta(minutes=50))
def pks(*starts):
    found = VirtualMachine.objects.order_by("name")
    return [vm.pk for vm in found if vm.name.startswith(starts)]
def answers(outcomes):
    return [[str(o.operation_id), o.vm_id, str(o.verdict)] for o in outcomes]
"""
# What one of the tight runs comes to that nobody disturbs.
_CONTROL = """
print("ANSWER", json.dumps(answers(request_installations(vm_ids=pks("web-012"), plan=tight, requested_by=admin))))
"""
# While workers run: installations that reboot and that do not, and one whose answer is lost, which stays in `starting`.
_BEGIN = """
lost = VirtualMachine.objects.get(name="web-007")
lost.tags = lost.tags | {"simulate": "lost-answer"}
lost.save()
asked = request_installations(vm_ids=pks("web-007"), plan=everything, requested_by=admin)
asked += request_installations(vm_ids=pks("web-001", "web-002", "web-003", "web-004"), plan=tight, requested_by=admin)
asked += request_installations(vm_ids=pks("fin-00", "lab-00"), plan=everything, requested_by=admin)
asked += request_assessments(vm_ids=pks("sql-"), requested_by=admin)
print("ANSWER", json.dumps(answers(asked)))
"""
# While they stand still: what stays in the queue.
_QUEUE = """
asked = request_installations(vm_ids=pks("web-008", "web-009"), plan=tight, requested_by=admin)
asked += request_installations(vm_ids=pks("edge-00"), plan=everything, requested_by=admin)
asked += request_assessments(vm_ids=pks("img-", "hr-0"), requested_by=admin, is_bulk=True)
print("ANSWER", json.dumps(answers(asked)))
"""
# A rollout in waves, in its first one.
_ROLLOUT = """
from django.utils import timezone
from updates.models import RolloutSource
from updates.services.rollouts import RolloutPlan, create_rollout
what = RolloutPlan(name="Upgrade", source=RolloutSource.ON_DEMAND, plan=everything)
print("ANSWER", json.dumps(str(create_rollout(what=what, vm_ids=pks("app-00"), now=timezone.now(), created_by=admin).pk)))
"""
_QUEUE_IN_BULK = """
import uuid
from patching.terms import OperationKind
from updates.services.bulk import request_bulk
bulk = {name: uuid.uuid4() for name in ("ticked", "matching")}
request_bulk(request_id=bulk["ticked"], kind=OperationKind.INSTALLATION, selection={"vm": pks("web-010", "web-011")},
             plan=everything, requested_by=admin)
request_bulk(request_id=bulk["matching"], kind=OperationKind.ASSESSMENT, selection={"filters": {"q": "app"}},
             plan=None, requested_by=admin)
print("BULK", json.dumps({name: str(pk) for name, pk in bulk.items()}))
"""


class Stack:
    """One version of the portal on a directory."""

    def __init__(self, tree: Path, directory: Path, port: int) -> None:
        self.tree, self.directory, self.port = tree, directory, port
        self.log = directory.parent / f"{tree.name}.log"
        taken = {"DATABASE_URL", "REDIS_URL", "SECRET_KEY", "DJANGO_SETTINGS_MODULE", "DEMO", "HOST", "HAS_DEMO"}
        self.environment = {key: value for key, value in os.environ.items() if key not in taken}
        self.environment |= {"PORTAL_DIR": str(directory), "PORT": str(port)}
        began = time.time()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "portal"],
                cwd=tree,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for(lambda: self.has_ended() or is_newer(directory / "access.json", began), START_SECONDS, self.trouble)
        if self.has_ended():
            raise SystemExit(f"{tree.name} does not start: {self.trouble()}")
        self.seconds = time.time() - began
        self.access = json.loads((directory / "access.json").read_text())
        self.database = json.loads((directory / "environment.json").read_text())["DATABASE_URL"]

    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self.process.poll() is not None

    def trouble(self) -> str:
        """What it said, once it has ended or is slow."""
        return self.log.read_text(errors="replace")[-3_000:]

    def manage(self, *arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
        """Run a management command of this version."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments, *(["-c", code] if code else [])],
            cwd=self.tree,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def ask(self, code: str, mark: str = "ANSWER") -> Any:
        """What Python code of this version answers."""
        done = self.manage("shell", code=_COMMON + code)
        found = re.search(f"^{mark} (.*)$", done.stdout, re.MULTILINE)
        if found is None:
            raise SystemExit(f"{self.tree.name}: {done.stderr[-2_000:]}")
        return json.loads(found[1])

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Rows of the database."""
        with psycopg.connect(self.database) as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def counts(self) -> dict[str, int]:
        """How many rows the tables have that an upgrade must keep."""
        there = {name for (name,) in self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
        return {name: self.rows(f"SELECT count(*) FROM {name}")[0][0] for name in KEPT if name in there}

    def workers(self) -> list[int]:
        """Its workers and beat, with their processes."""
        found = []
        for pid in children(self.process.pid):
            with suppress(FileNotFoundError):
                if b"celery" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def kill(self) -> None:
        """End supervisor and PostgreSQL at once, as a power loss does; the rest dies with them."""
        postgres = int((self.data() / "postmaster.pid").read_text().split()[0])
        left = children(self.process.pid)
        os.kill(self.process.pid, signal.SIGKILL)
        os.kill(postgres, signal.SIGKILL)
        self.process.wait()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def data(self) -> Path:
        """PostgreSQL's data: it names the directory itself."""
        return Path(self.rows("SHOW data_directory")[0][0])

    def stop(self) -> None:
        """Stop it as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)

    def pages(self) -> Callable[[str], str]:
        """Sign in; a function that reads a page."""
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
        where = f"{self.access['url']}accounts/login/"
        found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', browser.open(where).read().decode())
        assert found is not None
        form = {"login": self.access["username"], "password": self.access["password"], "csrfmiddlewaretoken": found[1]}
        browser.open(urllib.request.Request(where, urllib.parse.urlencode(form).encode(), {"Referer": where}))
        return lambda path: browser.open(urllib.parse.urljoin(self.access["url"], path)).read().decode()


def is_newer(path: Path, moment: float) -> bool:
    """Whether the file is there and was written after that moment; a portal that was killed leaves an older one."""
    try:
        return path.stat().st_mtime >= moment
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float, trouble: Callable[[], str]) -> float:
    """Wait until something is so; how long it took. Ends with what `trouble` says if it takes too long."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise SystemExit(f"waited {seconds:.0f} s in vain: {trouble()}")
        time.sleep(0.2)
    return time.monotonic() - began


_STATES = "SELECT state, count(*) FROM updates_operation WHERE id = ANY(%s::uuid[]) GROUP BY 1"


def run_old(stack: Stack, *, is_orderly: bool) -> dict[str, Any]:
    """Let an old version work until operations stand everywhere, then end it: what it had asked for, and its counts."""
    busy = (
        "SELECT count(*) FROM updates_operation o JOIN vms_virtualmachine v ON v.id = o.vm_id"
        " WHERE o.state IN ('queued', 'starting', 'in_progress', 'rebooting') AND v.name NOT LIKE 'run-%%'"
    )
    wait_for(lambda: not stack.rows(busy)[0][0], 240, lambda: "the demo's first assessments do not end")
    (control,) = stack.ask(_CONTROL)
    end = "SELECT state, error_code FROM updates_operation WHERE id = %s AND finished_at IS NOT NULL"
    wait_for(lambda: bool(stack.rows(end, control[0])), 120, lambda: "the run that nobody disturbs does not end")
    if stack.rows(end, control[0]) != [("succeeded", "")]:
        raise SystemExit(f"the run that nobody disturbs ended with {stack.rows(end, control[0])}")
    has_bulk = bool(stack.rows("SELECT 1 FROM pg_tables WHERE tablename = 'updates_bulkrequest'"))
    rollout = stack.ask(_ROLLOUT) if has_bulk else ""
    asked = stack.ask(_BEGIN)
    ids = [row[0] for row in asked]

    def is_everywhere() -> bool:
        states = dict(stack.rows(_STATES, ids))
        return states.get("starting", 0) >= 1 and states.get("in_progress", 0) + states.get("rebooting", 0) >= 3

    wait_for(is_everywhere, 60, lambda: str(stack.rows(_STATES, ids)))
    frozen = stack.workers()
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    asked += stack.ask(_QUEUE)
    bulk = stack.ask(_QUEUE_IN_BULK, "BULK") if has_bulk else {}
    wanted = [row for row in asked if row[2] == "accepted"]
    left = {
        "asked": {row[0]: row[1] for row in wanted},
        "refused": len(asked) - len(wanted),
        "states": dict(stack.rows(_STATES, [row[0] for row in wanted])),
        "counts": stack.counts(),
        "operations": {str(pk) for (pk,) in stack.rows("SELECT id FROM updates_operation")},
        "bulk": bulk,
        "rollout": rollout,
    }
    if is_orderly:
        stack.stop()
    else:
        stack.kill()
    return left


def doctor(stack: Stack) -> list[str]:
    """What the doctor finds."""
    said = stack.manage("doctor")
    codes = re.findall(r"^([a-z_]+) \(", said.stdout, re.MULTILINE)
    return codes if codes or said.returncode == 0 else [f"no answer: {said.stderr.strip()[-300:]}"]


def judge(stack: Stack, left: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """What is wrong after the upgrade (nothing: an empty list), and figures."""
    wrong: list[str] = []
    codes = doctor(stack)
    wrong += [f"the doctor at once: {code}" for code in codes if code not in OF_THE_WORLD]
    check = stack.manage("check", "--database", "default")
    if check.returncode:
        wrong.append(f"manage.py check: {check.stderr.strip()}")
    for table_, before in left["counts"].items():
        after = stack.rows(f"SELECT count(*) FROM {table_}")[0][0]
        if after < before:
            wrong.append(f"{table_} had {before} rows and has {after}")
    now = {str(pk) for (pk,) in stack.rows("SELECT id FROM updates_operation")}
    wrong += [f"operation {pk} is gone" for pk in sorted(left["operations"] - now)]
    waits = (
        "SELECT count(*) FROM updates_operation WHERE state IN ('queued', 'starting', 'in_progress', 'rebooting')"
        " AND id = ANY(%s::uuid[])"
    )
    ids = list(left["asked"])
    seconds = wait_for(
        lambda: not stack.rows(waits, ids)[0][0],
        END_SECONDS,
        lambda: str(
            stack.rows("SELECT id, kind, state, next_step_at FROM updates_operation WHERE id = ANY(%s::uuid[])", ids)
        ),
    )
    ends = stack.rows(
        "SELECT o.id, v.name, o.kind, o.state, o.error_code, o.error_detail FROM updates_operation o"
        " JOIN vms_virtualmachine v ON v.id = o.vm_id WHERE o.id = ANY(%s::uuid[]) ORDER BY v.name",
        ids,
    )
    wrong += [
        f"{row[2]} on {row[1]} ended {row[3]} {row[4]} {row[5]}"
        for row in ends
        if row[4] in UNFAIR or row[3] == "failed"
    ]
    doubled = stack.rows(
        "SELECT operation_id, code, count(*) FROM updates_operationevent"
        " WHERE operation_id = ANY(%s::uuid[]) AND code IN ('operation.started', 'operation.finished')"
        " GROUP BY 1, 2 HAVING count(*) > 1",
        ids,
    )
    wrong += [f"{pk} has {code} {count} times" for pk, code, count in doubled]
    twice = stack.rows(
        "SELECT v.name FROM updates_operation o JOIN vms_virtualmachine v ON v.id = o.vm_id"
        " WHERE o.kind = 'installation' AND NOT o.id = ANY(%s::uuid[]) AND NOT o.is_bulk"
        " AND NOT v.name LIKE 'app-00%%'",
        list(left["operations"]),
    )
    wrong += [f"an installation on {name} that nobody asked for" for (name,) in twice]
    wrong += [*judge_bulk(stack, left["bulk"]), *judge_rollout(stack, left["rollout"])]
    wrong += [f"the doctor at the end: {code}" for code in doctor(stack) if code not in OF_THE_WORLD]
    read = stack.pages()
    for path in ("/virtual-machines/", "/calendar/", "/rollouts/", "/decisions/", f"/operations/{ids[0]}/"):
        read(path)
    return wrong, {
        "start": stack.seconds,
        "end": seconds,
        "doctor at once": ", ".join(codes) or "nothing",
        "ends": dict(Counter(f"{row[2]} {row[3]}{' ' + row[4] if row[4] else ''}" for row in ends)),
    }


def judge_bulk(stack: Stack, bulk: dict[str, str]) -> list[str]:
    """Whether bulk requests of the old version were answered: the ticked machines, and a sentence for "all that match"."""
    if not bulk:
        return []
    wrong = []
    handed = "SELECT count(*) FROM updates_bulkrequest WHERE NOT is_handed_out"
    wait_for(lambda: not stack.rows(handed)[0][0], 60, lambda: "bulk requests wait")
    verdicts = stack.rows("SELECT verdict FROM updates_bulkoutcome WHERE request_id = %s", bulk["ticked"])
    if [verdict for (verdict,) in verdicts] != ["accepted", "accepted"]:
        wrong.append(f"the bulk request of two ticked machines was answered {verdicts}")
    ended = (
        "SELECT count(*) FROM updates_operation p JOIN updates_bulkoutcome o ON o.operation_id = p.id"
        " WHERE o.request_id = %s AND p.finished_at IS NULL"
    )
    wait_for(lambda: not stack.rows(ended, bulk["ticked"])[0][0], 120, lambda: "the bulk request's runs do not end")
    if stack.rows("SELECT 1 FROM updates_bulkoutcome WHERE request_id = %s", bulk["matching"]):
        wrong.append("“all that match” took machines")
    page = stack.pages()(f"/bulk/{bulk['matching']}/")
    if "The portal was upgraded before every machine had been asked." not in page:
        wrong.append("the page of “all that match” does not say why it ended")
    return wrong


def judge_rollout(stack: Stack, rollout: str) -> list[str]:
    """Whether a rollout of the old version goes on to its end, and patches each of its machines once."""
    if not rollout:
        return []
    state = "SELECT status FROM updates_rollout WHERE id = %s"
    wait_for(
        lambda: stack.rows(state, rollout)[0][0] != "running",
        END_SECONDS,
        lambda: str(
            stack.rows(
                "SELECT status, code, count(*) FROM updates_rolloutmember WHERE rollout_id = %s GROUP BY 1, 2", rollout
            )
        ),
    )
    wrong = []
    if stack.rows(state, rollout) != [("finished",)]:
        wrong.append(f"the rollout is {stack.rows(state, rollout)}")
    members = stack.rows(
        "SELECT status, code, count(*) FROM updates_rolloutmember WHERE rollout_id = %s GROUP BY 1, 2", rollout
    )
    if [row for row in members if row[0] != "succeeded"]:
        wrong.append(f"the rollout's machines ended {members}")
    often = stack.rows(
        "SELECT v.name, count(*) FROM updates_operation o JOIN vms_virtualmachine v ON v.id = o.vm_id"
        " WHERE o.kind = 'installation' AND v.name LIKE 'app-00%%' GROUP BY 1 HAVING count(*) <> 1"
    )
    return [*wrong, *(f"the rollout patched {name} {count} times" for name, count in often)]


def upgrade(commit: str, *, is_orderly: bool) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
    """Upgrade from one commit."""
    place = Path(tempfile.mkdtemp(prefix="hp-upgrade-"))
    place.chmod(0o755)
    tree = place / f"at-{commit}"
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(tree), commit], cwd=ROOT, check=True)
    stacks: list[Stack] = []
    try:
        stacks.append(Stack(tree, place / "p", free_port()))
        left = run_old(stacks[0], is_orderly=is_orderly)
        print(f"{commit}: ended with {left['states']}, {left['refused']} refused", flush=True)
        stacks.append(Stack(ROOT, place / "p", free_port()))
        wrong, figures = judge(stacks[1], left)
        return wrong, figures, left
    finally:
        for stack in stacks:
            if stack.process.poll() is None:
                stack.stop()
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=False)
        shutil.rmtree(place, ignore_errors=True)


def main() -> None:
    """Upgrade from each commit, print what was seen, and end with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commits", nargs="+", help="versions to upgrade from")
    parser.add_argument("--orderly", action="store_true", help="stop the old version with Ctrl-C instead of killing it")
    options = parser.parse_args()
    rows, found = [], {}
    for commit in options.commits:
        wrong, figures, left = upgrade(commit, is_orderly=options.orderly)
        found[commit] = figures | {"wrong": wrong, "states": left["states"], "counts": left["counts"]}
        states = ", ".join(f"{count} {state}" for state, count in sorted(left["states"].items()))
        ends = ", ".join(f"{count} {end}" for end, count in sorted(figures["ends"].items()))
        rows.append([commit, states, figures["start"], figures["end"], ends, figures["doctor at once"], len(wrong)])
        for sentence in wrong:
            print(f"{commit}: {sentence}", flush=True)
    table("Upgrades in place", ["from", "left", "start s", "ended after s", "ends", "doctor at once", "wrong"], rows)
    save("upgrade", found)
    if any(figures["wrong"] for figures in found.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
