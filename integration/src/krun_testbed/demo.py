"""The demo: two plain programs, one outside and one behind Cloud Run's front, in one mesh, on this machine.

Everything that is started here is real (Envoy, OpenSSH, the six tools); only Google's endpoints are stood in for.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from krun_testbed import addresses, cloudrun, components, demo_calls, processes
from krun_testbed.certificates import Authority, Pair, spiffe_id, write, write_workload
from krun_testbed.cloudrun import CloudRun, Service
from krun_testbed.google_tokens import Issuer
from krun_testbed.metadata import Facts, MetadataServer
from krun_testbed.tables import ROOT

PROJECT = "krun-demo"
NUMBER = "424242"
REGION = "local1"
DOMAIN = f"{PROJECT}.svc.id.goog"
HOST = f"b-{NUMBER}.{REGION}.run.app"
NAMES = ("b", "b.demo", "b.demo.svc", "b.demo.svc.cluster.local")
PLAIN = ROOT / "samples" / "plain"


class Failed(click.ClickException):
    """The demo did not go as the story says."""


@dataclass
class Clock:
    """Prints each step as it begins, and how long it took when it ends; an interrupted one is the last."""

    taken: list[tuple[str, float]] = field(default_factory=list)
    interrupted: int = 0

    def interrupt(self, number: int, _: object) -> None:
        """A signal handler. The exception alone is not enough: Python drops one that is raised in a destructor."""
        self.interrupted = number
        sys.exit(128 + number)

    @contextlib.contextmanager
    def step(self, name: str, text: str) -> Iterator[None]:
        click.echo(f"\n{len(self.taken) + 1}. {name}: {text}")
        started = time.monotonic()
        yield
        if self.interrupted:
            sys.exit(128 + self.interrupted)
        self.taken.append((name, time.monotonic() - started))

    def table(self) -> str:
        lines = [f"   {name:<12} {seconds:6.2f} s" for name, seconds in self.taken]
        total = sum(seconds for _, seconds in self.taken)
        return "\n".join([*lines, f"   {'all':<12} {total:6.2f} s"])


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the demo lives: a folder that goes away, and the addresses of its parts."""

    folder: Path
    a: str
    b: str
    front: int
    gate: int


def workload_command(application: str) -> list[str]:
    """What a user's Dockerfile says: our small init, and the pipeline in a shell."""
    return ["krun-launch", "--init", "--", "sh", "-c", f"krun-discover | krun-launch -- {application}"]


def say(text: str) -> None:
    click.echo(f"   {text}")


class Demo:
    """The story, one method a chapter; ``parts`` ends what was started, in reverse order."""

    def __init__(self, *, place: Place, parts: contextlib.ExitStack) -> None:
        self.place = place
        self.parts = parts
        self.authority = Authority(name="the mesh's root")
        self.stranger = Authority(name="another mesh's root")
        self.issuer = Issuer()
        self.gate: processes.Running | None = None

    def certificate(self, name: str, *, authority: Authority, domain: str = DOMAIN) -> Pair:
        """A workload's certificate, filed in a folder of its name."""
        pair = authority.workload(spiffe_id=spiffe_id(trust_domain=domain, namespace="demo", account=name))
        write_workload(directory=self.place.folder / name, pair=pair, root=self.authority.root)
        return pair

    def identities(self) -> None:
        for name in ("a", "b"):
            self.certificate(name, authority=self.authority)
            say(f"{name}  {spiffe_id(trust_domain=DOMAIN, namespace='demo', account=name)}")
        self.certificate("x", authority=self.authority, domain="other.example")
        say(f"x  {spiffe_id(trust_domain='other.example', namespace='demo', account='x')}: another trust domain")
        self.certificate("y", authority=self.stranger)
        say(f"y  {spiffe_id(trust_domain=DOMAIN, namespace='demo', account='y')}: another root")
        write(path=self.place.folder / "root.pem", content=self.authority.root)
        self.issuer.save(self.place.folder / "tokens")
        key = self.place.folder / "ssh-key"
        subprocess.run(
            [
                components.program("ssh-keygen", package="openssh-client"),
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-f",
                str(key),
            ],
            check=True,
        )

    def metadata(self) -> str:
        email = f"k8s-demo@{PROJECT}.iam.gserviceaccount.com"
        facts = Facts(project=PROJECT, number=NUMBER, region=REGION, email=email)
        server = self.parts.enter_context(MetadataServer(facts=facts))
        say(f"project {PROJECT}, region {REGION},")
        say(f"account {email}")
        return server.address

    def workload_b(self, *, metadata: str) -> None:
        public = (self.place.folder / "ssh-key.pub").read_text(encoding="ascii").strip()
        env = processes.environment(
            GCE_METADATA_HOST=metadata,
            NO_GCE_CHECK="",
            MESH=f"static:127.0.0.1:{self.place.gate}",
            KRUN_LOOPBACK=self.place.b,
            KRUN_BIND=self.place.b,
            KRUN_CERTS=str(self.place.folder / "b"),
            KRUN_LOG_FORMAT="text",
            SSH_AUTH=public,
            NAME="b",
        )
        service = Service(
            name="b",
            host=HOST,
            command=workload_command(f"{sys.executable} {PLAIN / 'hello.py'} {self.place.b}"),
            env=env,
            address=self.place.b,
            startup_timeout=60,
            log=self.place.folder / "b.log",
        )
        front = CloudRun(
            services=(service,),
            issuer=self.issuer,
            authority=self.authority,
            listen=("127.0.0.1", self.place.front),
            directory=self.place.folder,
        )
        self.parts.enter_context(front)
        say(f"https://{HOST}  TLS, HTTP/2, ID token required")
        say(f"behind it: krun-discover | krun-launch -- hello.py   on {self.place.b}")

    def gateway(self) -> None:
        argv = ["hgate", "--listen", f"127.0.0.1:{self.place.gate}", "--route", f"b.demo=https://{HOST}"]
        running = self.parts.enter_context(processes.start(argv, env=self.client_environment()))
        running.wait_for("ready")
        self.gate = running
        say(f"hgate on 127.0.0.1:{self.place.gate}, route b.demo=https://{HOST}")

    def client_environment(self) -> dict[str, str]:
        """What every client of the front needs: its address, its root, and a way to get ID tokens."""
        tokens = f"{sys.executable} -m krun_testbed.google_tokens id --dir {self.place.folder / 'tokens'}"
        return processes.environment(
            KRUN_CONNECT_TO=f"127.0.0.1:{self.place.front}",
            KRUN_CA_FILE=str(self.place.folder / "root.pem"),
            KRUN_ID_TOKEN_COMMAND=f"{tokens} --audience {{audience}}",
            KRUN_LOG_FORMAT="text",
        )

    def calls(self) -> None:
        env = processes.environment(
            WORKLOAD_NAMESPACE="demo",
            WORKLOAD_NAME="a",
            PROJECT_ID=PROJECT,
            MESH=f"static:127.0.0.1:{self.place.gate}",
            KRUN_LOOPBACK=self.place.a,
            KRUN_CERTS=str(self.place.folder / "a"),
            KRUN_LOG_FORMAT="text",
        )
        urls = [f"http://{name}{port}/" for name in NAMES for port in ("", ":8080")]
        say(f"krun-discover | krun-launch -- call.py URL…   on {self.place.a}")
        done = processes.run(
            workload_command(f"{sys.executable} {PLAIN / 'call.py'} {' '.join(urls)}"), env=env, stdin=None
        )
        results = [json.loads(line) for line in done.stdout.splitlines()]
        if done.returncode != 0 or [result["url"] for result in results] != urls:
            said = f"{done.stdout}{done.stderr}{self.gate.stderr if self.gate else ''}"
            raise Failed(f"a could not call b (status {done.returncode})\n{said}")
        for result in results:
            say(f"GET {result['url']:<38} {result['status']}  {result['ms']:6.1f} ms")
        seen = {result["answer"]["client-certificate"] for result in results}
        parts = dict(word.partition("=")[::2] for text in seen for word in text.split(";"))
        expected = {
            "By": spiffe_id(trust_domain=DOMAIN, namespace="demo", account="b"),
            "URI": spiffe_id(trust_domain=DOMAIN, namespace="demo", account="a"),
        }
        if len(seen) != 1 or {key: parts.get(key) for key in expected} != expected:
            raise Failed(f"b's application did not see both identities: {seen}")
        say("b's program, which knows nothing of a mesh, was told:")
        say(f"  caller  {parts['URI']}")
        say(f"  itself  {parts['By']}")

    def refusals(self) -> None:
        gate = ("127.0.0.1", self.place.gate)
        callers = {
            "with a's certificate": "a",
            "without a certificate": "",
            "as x, another trust domain": "x",
            "as y, signed by another root": "y",
        }
        for who, folder in callers.items():
            identity = self.place.folder / folder if folder else None
            answer = demo_calls.call(gate=gate, name="b.demo", root=self.place.folder / "root.pem", identity=identity)
            if answer.accepted != (folder == "a"):
                raise Failed(f"a call {who}: {answer.text}")
            say(f"{who:<28} {'accepted' if answer.accepted else 'refused '}  {answer.text}")

    def ssh(self) -> None:
        url = f"https://{HOST}/_hbone/22"
        say(f"ssh -o ProxyCommand='hbone {url}' root@b")
        quiet = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "LogLevel=ERROR")
        argv = [components.program("ssh", package="openssh-client"), "-F", "/dev/null"]
        argv += [word for option in quiet for word in ("-o", option)]
        argv += ["-i", str(self.place.folder / "ssh-key"), "-o", f"ProxyCommand=hbone {url}"]
        argv += ["root@b", 'echo "inside $K_SERVICE, revision $K_REVISION"; exit 3']
        done = processes.run(argv, env=self.client_environment(), stdin=None)
        if done.returncode != 3 or not done.stdout.startswith("inside b"):
            raise Failed(f"ssh into b: status {done.returncode}\n{done.stdout}{done.stderr}")
        say(f"  {done.stdout.strip()}")
        say("  (exit status 3, as the command inside said)")


def choose_place(folder: Path) -> Place:
    """Addresses for the parts: 127.0.0.2 and 127.0.0.3 when they are free, others when not."""
    wanted = [address for address in ("127.0.0.2", "127.0.0.3") if _is_free(address)]
    while len(wanted) < 2:
        wanted.append(addresses.loopback())
    return Place(folder=folder, a=wanted[0], b=wanted[1], front=addresses.free_port(), gate=addresses.free_port())


def _is_free(address: str) -> bool:
    return not any(processes.listens(address, port) for port in (8080, 15000, 15003, 15007, 15009, 15019, 15022))


def tell(clock: Clock, folder: Path) -> None:
    """Run the whole story."""
    with contextlib.ExitStack() as parts:
        demo = Demo(place=choose_place(folder), parts=parts)
        with clock.step("identities", "one certificate authority, an identity for each workload"):
            demo.identities()
        with clock.step("metadata", "a metadata server, as Cloud Run has it"):
            metadata = demo.metadata()
        with clock.step("workload b", "Cloud Run's front starts an instance"):
            demo.workload_b(metadata=metadata)
        with clock.step("gateway", "from the mesh to Cloud Run, by SNI"):
            demo.gateway()
        with clock.step("workload a", "calls b by every name, with a plain HTTP client"):
            demo.calls()
        with clock.step("refusals", "the same door, four callers"):
            demo.refusals()
        with clock.step("ssh", "into b, through the tunnel"):
            demo.ssh()
        click.echo(f"\n{len(clock.taken) + 1}. stop: everything, in order")
        started = time.monotonic()
    clock.taken.append(("stop", time.monotonic() - started))


@click.command()
def main() -> None:
    """Run the demo: two plain programs in a mesh, in about ten seconds, on loopback only."""
    # Ctrl-C and SIGTERM end the story in order: what was started is stopped, the folder goes.
    clock = Clock()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, clock.interrupt)
    click.echo("krun: two programs that know nothing of a mesh talk over mTLS.")
    with tempfile.TemporaryDirectory(prefix="krun-demo-") as name:
        folder = Path(name)
        try:
            tell(clock, folder)
        except (components.Missing, cloudrun.Failed, AssertionError) as error:
            log = folder / "b.log"
            said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            raise Failed(f"{error}\n{said}".strip()) from error
        finally:
            # An interruption in the middle of a start: nobody has the new process in hand.
            processes.end_children()
    left = processes.children(os.getpid())
    if left or folder.exists():
        raise Failed(f"left behind: processes {left}, folder {folder if folder.exists() else 'none'}")
    say("no process and no file is left")
    click.echo(f"\nHow long each step took:\n{clock.table()}")


if __name__ == "__main__":
    main()
