"""
The files for containers agree with the worker: its options, its settings and its end.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from exponea_async import Configuration
from exponea_async.cli.app import create_parser

FOLDER = Path(__file__).parent.parent / "examples" / "deploy"
#: How long closing may take after the requests under way were waited for, in seconds.
CLOSING = 5.0
#: What the secrets of Kubernetes and the variables of Compose stand for.
SECRETS = {
    "authorization-token": "key",
    "storage": "postgresql://exponea:secret@db:5432/exponea",
    "EXPONEA_PROJECT_TOKEN": "shop",
    "EXPONEA_AUTHORIZATION_TOKEN": "key",
    "POSTGRES_PASSWORD": "secret",
}
VARIABLE = re.compile(r"\$\{(\w+)(?::[-?]([^}]*))?\}")


def compose_services() -> dict[str, Any]:
    """Return the services of the Compose file, with their variables."""
    text = (FOLDER / "compose.yaml").read_text()
    known = VARIABLE.sub(lambda found: SECRETS.get(found[1], found[2]), text)
    services: dict[str, Any] = yaml.safe_load(known)["services"]
    return services


def manifests(kind: str) -> dict[str, Any]:
    """Return the objects of a kind in the manifest of Kubernetes, by name."""
    objects = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def pods() -> dict[str, Any]:
    """Return the pods of all Deployments."""
    return {name: each["spec"]["template"]["spec"] for name, each in manifests("Deployment").items()}


def pod_environment(pod: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of the container of a pod."""
    (container,) = pod["containers"]
    (source,) = container["envFrom"]
    variables = dict(manifests("ConfigMap")[source["configMapRef"]["name"]]["data"])
    for each in container["env"]:
        secret = each.get("valueFrom", {}).get("secretKeyRef")
        variables[each["name"]] = SECRETS[secret["key"]] if secret else each["value"]
    return variables


def environments() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the name of each container that uses the package, and its variables."""
    for name, service in compose_services().items():
        if name != "db":
            yield f"compose {name}", service["environment"]
    for name, pod in pods().items():
        yield f"kubernetes {name}", pod_environment(pod)


def worker_commands() -> Iterator[tuple[str, Sequence[str], float]]:
    """Yield the name of each worker, its arguments, and how long the host waits for its end in seconds."""
    service, pod = compose_services()["worker"], pods()["exponea-worker"]
    yield "compose", service["command"], float(service["stop_grace_period"].removesuffix("s"))
    yield "kubernetes", pod["containers"][0]["args"], pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize(("name", "variables"), [*environments()])
def test_the_settings_are_valid(name: str, variables: dict[str, str]) -> None:
    """Each container has a complete environment, in which all names and values are valid."""
    configuration = Configuration.from_env(variables)
    assert configuration.upload.enabled is ("worker" in name)
    assert variables["EXPONEA_STORAGE"] == SECRETS["storage"]


@pytest.mark.parametrize(("name", "args", "grace"), [*worker_commands()])
def test_the_host_waits_long_enough(name: str, args: Sequence[str], grace: float) -> None:
    """The options exist, the port is reachable from outside, and the worker may finish what it is sending."""
    options = create_parser().parse_args(args)
    assert (options.host, options.port) == ("0.0.0.0", 8080), name
    assert options.drain + CLOSING < grace


def test_the_probes_lead_to_the_worker() -> None:
    """The probes of the worker are requests to its pages."""
    container = pods()["exponea-worker"]["containers"][0]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["ports"] == [{"name": "http", "containerPort": 8080}]


def test_no_secret_is_in_the_manifest() -> None:
    """Keys and the URL of the database come from a secret, and nothing of them is in a ConfigMap."""
    for pod in pods().values():
        secrets = [each["name"] for each in pod["containers"][0]["env"] if "valueFrom" in each]
        assert secrets == ["EXPONEA_AUTHORIZATION_TOKEN", "EXPONEA_STORAGE"]
    (shared,) = manifests("ConfigMap").values()
    assert not {"EXPONEA_AUTHORIZATION_TOKEN", "EXPONEA_STORAGE"} & set(shared["data"])


def test_the_containers_have_no_rights() -> None:
    """Each container runs as a user without rights, on a root that can't be written."""
    for pod in pods().values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        own = pod["containers"][0]["securityContext"]
        assert (own["readOnlyRootFilesystem"], own["allowPrivilegeEscalation"]) == (True, False)
    assert all(service["read_only"] for name, service in compose_services().items() if name != "db")


def test_the_image_has_what_it_copies() -> None:
    """The files that the image is built from exist, and the command of the image is that of a worker."""
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    assert copied
    assert all((FOLDER.parent.parent / path).exists() for paths in copied for path in paths)
    (command,) = (line.removeprefix("CMD ") for line in lines if line.startswith("CMD "))
    assert create_parser().parse_args(yaml.safe_load(command)).port == 8080
