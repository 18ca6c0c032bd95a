"""The static mesh of the container tests: gateway, second workload and Redis by compose, workloads by one line each.

``python -m krun_testbed.containers_mesh`` prepares a folder for the compose file, to start it by hand.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from krun_testbed import components, containers, images, tables
from krun_testbed.certificates import Authority, spiffe_id, write_workload
from krun_testbed.containers import Container
from krun_testbed.docker_engine import docker

COMPOSE = tables.ROOT / "integration" / "compose" / "mesh.yaml"
PROJECT_ID = "krun-test"
DOMAIN = f"{PROJECT_ID}.svc.id.goog"
NAMES = ("a", "b", "c")
READY = r'"tool": "krun-launch", "message": "ready"'


def identity(name: str) -> str:
    """The SPIFFE id of a workload of the mesh."""
    return spiffe_id(trust_domain=DOMAIN, namespace="demo", account=name)


def prepare(folder: Path) -> Path:
    """Write certificates for each name, and the compose file's variables; returns the file of the variables."""
    authority = Authority()
    for name in NAMES:
        pair = authority.workload(spiffe_id=identity(name))
        write_workload(directory=folder / name, pair=pair, root=authority.root)
    variables = {
        "CERTIFICATES": str(folder),
        "PROJECT": PROJECT_ID,
        "OWNER": containers.owner(),
        "TEN": free_network(),
        **{f"IMAGE_{name.upper()}": images.tag(name) for name in ("hgate", "pipeline", "redis")},
    }
    file = folder / "variables.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    return file


def command(file: Path) -> str:
    """Compose's command line for a prepared folder."""
    return f"{components.compose()} --env-file {file}"


def free_network() -> str:
    """A network of 254 addresses in 10.0.0.0/8, drawn by chance, that this machine has no route to."""
    routes = subprocess.run(["ip", "-json", "route"], capture_output=True, text=True, check=True).stdout
    taken = {str(route["dst"]).rpartition(".")[0] for route in json.loads(routes)}
    while True:
        network = f"10.{secrets.randbelow(156) + 100}.{secrets.randbelow(256)}"
        if network not in taken:
            return f"{network}.0/24"


class Mesh:
    """A project of compose that is up, and the workloads that a test adds to it."""

    def __init__(self, *, project: str, folder: Path) -> None:
        self.project = project
        self.folder = folder
        self.network = f"{project}_mesh"
        self.ten = f"{project}_ten"

    @contextlib.contextmanager
    def service(self, name: str) -> Iterator[Container]:
        """A container of the compose file: gate, b or redis."""
        labels = (f"com.docker.compose.project={self.project}", f"com.docker.compose.service={name}")
        filters = [word for label in labels for word in ("--filter", f"label={label}")]
        identifier = docker("ps", "--quiet", "--no-trunc", *filters).stdout.strip()
        assert identifier, f"{name}: does not run"
        with containers.followed(identifier) as container:
            yield container

    def environment(self, name: str, *, bind: str = "0.0.0.0", **variables: str) -> dict[str, str]:
        """What a user sets for a workload of this mesh; an empty ``bind`` leaves it to hboned."""
        return {
            "NAME": name,
            "MESH": "static:gate:15442",
            "WORKLOAD_NAMESPACE": "demo",
            "WORKLOAD_NAME": name,
            "PROJECT_ID": PROJECT_ID,
            "KRUN_CERTS": "/certs",
            "NO_GCE_CHECK": "true",
            **({"KRUN_BIND": bind} if bind else {}),
            **variables,
        }

    @contextlib.contextmanager
    def workload(
        self,
        image: str,
        *command: str,
        name: str = "a",
        bind: str = "0.0.0.0",
        env: Mapping[str, str] | None = None,
        ready: str = READY,
        ten: bool = False,
        cap_add: Sequence[str] = (),
        cap_drop: Sequence[str] = (),
        **options: Any,
    ) -> Iterator[Container]:
        """A workload from an image of the tests, with a certificate of its name; waited for until its log is ``ready``.

        ``name`` is a or c, its name in the mesh; ``ten`` puts it into Redis's network, too; an empty ``ready`` waits
        for nothing; ``options`` are those of ``containers.started``.
        """
        with containers.started(
            images.tag(image),
            *command,
            env=self.environment(name, bind=bind, **(env or {})),
            networks=[self.network, self.ten] if ten else [self.network],
            alias=name,
            volumes={self.folder / name: "/certs"},
            cap_add=cap_add,
            cap_drop=cap_drop,
            **options,
        ) as container:
            if ready:
                container.wait_for(ready)
            yield container

    @contextlib.contextmanager
    def plain(self, *command: str, image: str = "tools", **options: Any) -> Iterator[Container]:
        """A container without krun, in the same network unless ``options`` say otherwise."""
        with containers.started(images.tag(image), *command, **{"networks": [self.network], **options}) as container:
            yield container

    def scan(self, address: str) -> list[int]:
        """The open TCP ports of an address, out of all, as a container beside it finds them."""
        with self.plain("scan", address) as scanner:
            status = scanner.wait(timeout=120.0)
            assert status == 0, scanner.said()
            found: list[int] = json.loads(scanner.stdout)
            return found


def fetch(container: Container, url: str) -> dict[str, Any]:
    """What the application of a workload gets from a URL, as JSON of the application there."""
    answer = container.ask(f"/fetch?url={url}")
    assert answer["status"] == 200, answer
    seen: dict[str, Any] = json.loads(str(answer["body"]))
    return seen


def certificate(seen: dict[str, Any]) -> dict[str, str]:
    """The header in which the application sees both ends of mTLS."""
    return dict(part.split("=", 1) for part in seen["headers"]["x-forwarded-client-cert"].split(";"))


def project() -> str:
    """A name for compose that no other run, and no other worker of this one, has."""
    return f"krun-{secrets.token_hex(4)}"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def main(folder: Path) -> None:
    """Write certificates and variables into FOLDER, and print the command that starts the mesh with them."""
    folder.mkdir(parents=True, exist_ok=True)
    click.echo(f"{command(prepare(folder.resolve()))} --file {COMPOSE} --project-name {project()} up")


if __name__ == "__main__":
    main()
