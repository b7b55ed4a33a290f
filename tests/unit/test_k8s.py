"""deploy/k8s: what kustomize builds is what Kubernetes takes, runs what docker-compose.yml runs, and may no more."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from schemas.generate import GENERATED
from services.cli.access import principals
from services.cli.api import SHUTDOWN_SECONDS
from services.cli.main import app
from services.cli.service import Service
from services.cli.supervisor import STOP_SECONDS
from services.runtime.settings import Settings

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
OURS = {
    name: body["command"]
    for name, body in COMPOSE.items()
    if body["image"].startswith("refstream:") and "profiles" not in body and name != "secrets"
}
"""What runs by itself; secrets are made by hand here."""
OLDEST, NEWEST = "1.30", kubernetes_validate.latest_version()
KUSTOMIZE = next((each for each in (["kustomize", "build"], ["kubectl", "kustomize"]) if shutil.which(each[0])), None)
PATCHES = {"kustomization.yaml", "authority.yaml"}
KEDA = "keda.sh/v1alpha1"

Document = dict[str, Any]


@cache
def _documents(overlay: str) -> tuple[Document, ...]:
    assert KUSTOMIZE
    ended = subprocess.run(
        [*KUSTOMIZE, K8S / "overlays" / overlay], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return tuple(yaml.safe_load_all(ended.stdout))


@pytest.fixture(params=["small", "production"])
def built(request: pytest.FixtureRequest) -> tuple[Document, ...]:
    """What an overlay builds."""
    if KUSTOMIZE is None:
        pytest.skip("neither kustomize nor kubectl is here: no overlay was built, only the base's files were looked at")
    return _documents(request.param)


@pytest.fixture
def production() -> tuple[Document, ...]:
    if KUSTOMIZE is None:
        pytest.skip("neither kustomize nor kubectl is here: the scaling of the overlay `production` was not looked at")
    return _documents("production")


def _of(documents: tuple[Document, ...], *kinds: str) -> dict[str, Document]:
    return {each["metadata"]["name"]: each for each in documents if each["kind"] in kinds}


def _pods(documents: tuple[Document, ...]) -> dict[str, Document]:
    """The pod templates, by the name of what makes them."""
    return {name: each["spec"]["template"] for name, each in _of(documents, "Deployment", "Job").items()}


def _containers(documents: tuple[Document, ...]) -> Iterator[tuple[str, Document]]:
    for name, pod in _pods(documents).items():
        yield from ((name, container) for container in pod["spec"]["containers"])


def _told(documents: tuple[Document, ...]) -> dict[str, str]:
    """The ConfigMap of the settings."""
    (found,) = (each for name, each in _of(documents, "ConfigMap").items() if name.startswith("refstream-"))
    data: dict[str, str] = found["data"]
    return data


def _secrets_of(container: Document) -> list[str]:
    return [source["secretRef"]["name"] for source in container.get("envFrom", ()) if "secretRef" in source]


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    equal = selector.get("matchLabels", {}).items() <= labels.items()
    expressions = selector.get("matchExpressions", ())
    assert all(each["operator"] == "In" for each in expressions)
    return equal and all(labels.get(each["key"]) in each["values"] for each in expressions)


# --- what Kubernetes takes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_knows_every_field_that_an_overlay_sets(built: tuple[Document, ...], version: str) -> None:
    for document in built:
        if document["apiVersion"] != KEDA:
            kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(K8S.rglob("*.yaml")) if path.name not in PATCHES],
    ids=lambda path: path.relative_to(K8S).as_posix(),
)
def test_kubernetes_knows_every_field_of_a_file(path: Path) -> None:
    documents = [each for each in yaml.safe_load_all(path.read_text()) if each["apiVersion"] != KEDA]
    for document in documents:
        kubernetes_validate.validate(document, NEWEST, strict=True)
    assert documents or path.name == "scaling.yaml"


def test_a_misspelt_field_would_be_seen() -> None:
    document = yaml.safe_load((K8S / "base" / "topics.yaml").read_text())
    document["spec"]["template"]["spec"]["containers"][0]["readOnlyRootFileSystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, NEWEST, strict=True)


# --- what runs ------------------------------------------------------------------------------------------------------


def test_the_containers_are_those_of_docker_compose(built: tuple[Document, ...]) -> None:
    commands = {name: container.get("args") for name, container in _containers(built)}
    assert commands.pop("edge", "") is None
    assert commands == OURS


def test_every_command_exists(built: tuple[Document, ...]) -> None:
    known: Any = get_command(app)
    for name, container in _containers(built):
        if name != "edge":
            command, *arguments = container["args"]
            known.commands[command].make_context(command, list(arguments))


def test_the_settings_are_such_that_a_process_starts_with_them(
    built: tuple[Document, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = _told(built)
    assert {name for name in told if name.startswith("REFSTREAM_")} <= _settings()
    secret = {"REFSTREAM_AUTH_SECRET": "0123456789abcdef" * 2}  # pragma: allowlist secret
    secret |= {f"REFSTREAM_{name}_SECRETS": json.dumps({"1": "0123456789abcdef" * 2}) for name in ("CLICK", "DATA")}
    user = {"REFSTREAM_REDIS": "redis://redis.example:6379/0"}
    if "REFSTREAM_KAFKA_SECURITY_PROTOCOL" in told:
        user |= {f"REFSTREAM_KAFKA_SECURITY_{name}": "x" for name in ("USERNAME", "PASSWORD")}
    for name, value in (told | secret | user).items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    settings.require_production_secrets()
    assert settings.kafka_bootstrap()
    assert not settings.local


def test_every_variable_and_every_key_that_the_page_names_is_a_setting(built: tuple[Document, ...]) -> None:
    named = {variable["name"] for _, container in _containers(built) for variable in container.get("env", ())}
    page = (K8S / "README.md").read_text(encoding="utf-8")
    named |= {word.strip("`,.:;()\\\"'").partition("=")[0] for word in page.replace("--from-literal=", " ").split()}
    assert {name for name in named if name.startswith("REFSTREAM_")} <= _settings()


def _settings() -> set[str]:
    return {f"REFSTREAM_{field.upper()}" for field in Settings.model_fields}


# --- what it may ----------------------------------------------------------------------------------------------------


def test_no_container_may_more_than_it_needs(built: tuple[Document, ...]) -> None:
    for name, container in _containers(built):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["readOnlyRootFilesystem"] is True, name
        more = {"add": ["NET_BIND_SERVICE"]} if name == "edge" else {}
        assert security["capabilities"] == {"drop": ["ALL"], **more}, name
        resources = container["resources"]
        assert set(resources["requests"]) == {"cpu", "memory"}, name
        assert _mebibytes(resources["limits"]["memory"]) > _mebibytes(resources["requests"]["memory"]) > 0, name
    for name, pod in _pods(built).items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["serviceAccountName"] in _of(built, "ServiceAccount"), name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name


def _mebibytes(quantity: str) -> int:
    assert quantity.endswith("Mi")
    return int(quantity.removesuffix("Mi"))


def test_no_secret_is_in_a_file(built: tuple[Document, ...]) -> None:
    assert not _of(built, "Secret")
    told = [*_told(built), *(each["name"] for _, container in _containers(built) for each in container.get("env", ()))]
    assert not [name for name in told if "SECRETS" in name or name.endswith(("SECRET", "PASSWORD", "REDIS"))]


def test_every_process_of_production_is_a_user_of_its_own(production: tuple[Document, ...]) -> None:
    users = {}
    for name, container in _containers(production):
        if name != "edge":
            *shared, users[name] = _secrets_of(container)
            assert shared == ([] if name == "topics" else ["refstream"])
            assert not any(source.get("secretRef", {}).get("optional") for source in container["envFrom"])
    assert users == {name: "operator" if name == "topics" else name for name in OURS}
    assert set(users.values()) == {principal.name for principal in principals()} - {"platform"}


def test_every_selector_finds_its_pods(built: tuple[Document, ...]) -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in _pods(built).items()}
    for name, service in _of(built, "Service").items():
        assert [pod for pod in labels if service["spec"]["selector"].items() <= labels[pod].items()] == [name]
    for name, budget in _of(built, "PodDisruptionBudget").items():
        assert [pod for pod in labels if _selects(budget["spec"]["selector"], labels[pod])] == [name]
    assert set(_of(built, "PodDisruptionBudget")) == set(labels) - {"topics"}
    for policy in _of(built, "NetworkPolicy").values():
        peers = [peer for way in ("from", "to") for rule in _rules(policy) for peer in rule.get(way, ())]
        selectors = [policy["spec"]["podSelector"], *(peer["podSelector"] for peer in peers if "podSelector" in peer)]
        assert all(any(_selects(selector, found) for found in labels.values()) for selector in selectors)


def _rules(policy: Document) -> list[Document]:
    return [*policy["spec"].get("ingress", ()), *policy["spec"].get("egress", ())]


def test_what_may_leave_is_what_the_addresses_need(built: tuple[Document, ...]) -> None:
    ports = {
        name: {port["port"] for rule in _rules(policy) for port in rule.get("ports", ())}
        for name, policy in _of(built, "NetworkPolicy").items()
    }
    assert {int(address.rpartition(":")[2]) for address in _told(built)["REFSTREAM_KAFKA"].split(",")} <= ports[
        "to-kafka"
    ]
    assert urlsplit(_told(built)["REFSTREAM_API_URL"]).port in ports["pages-to-apis"] & ports["edge"]
    assert int(_told(built)["REFSTREAM_METRICS_PORT"]) in ports["from-prometheus"]
    assert _of(built, "NetworkPolicy")["nothing-else"]["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }


def test_browsers_find_the_edge_where_links_lead(built: tuple[Document, ...]) -> None:
    (ingress,) = (each["spec"] for each in _of(built, "Ingress").values())
    (rule,) = ingress["rules"]
    (path,) = rule["http"]["paths"]
    public, api = (urlsplit(_told(built)[f"REFSTREAM_{name}_URL"]) for name in ("PUBLIC", "API"))
    assert rule["host"] == public.hostname
    assert [host for each in ingress.get("tls", ()) for host in each["hosts"]] == [rule["host"]] * (
        public.scheme == "https"
    )
    assert path["backend"]["service"]["name"] == api.hostname == "edge"
    assert "edge" in _of(built, "Service")


# --- alive, ready, and how it ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize("service", list(Service))
def test_alive_is_another_question_than_ready(built: tuple[Document, ...], service: Service) -> None:
    probed = dict(_containers(built))
    openapi = json.loads((GENERATED / f"openapi.{service.value}.json").read_text(encoding="utf-8"))
    for role, prefix, port in (("worker", "", "metrics"), ("api", f"/{service.value}", "http")):
        container = probed[f"{service.value}-{role}"]
        alive, ready = (f"{prefix}/healthz", f"{prefix}/readyz")
        asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
        assert asked == {
            name: {"path": path, "port": port}
            for name, path in (("startup", alive), ("liveness", alive), ("readiness", ready))
        }
        (listening,) = container["ports"]
        assert listening["name"] == port
        if role == "api":
            assert {alive, ready} <= set(openapi["paths"])
        else:
            assert str(listening["containerPort"]) == _told(built)["REFSTREAM_METRICS_PORT"]


def test_a_pod_is_given_the_time_that_it_takes_to_end(built: tuple[Document, ...]) -> None:
    for name, deployment in _of(built, "Deployment").items():
        pod = deployment["spec"]["template"]["spec"]
        before = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        ending = STOP_SECONDS if name.endswith("-worker") else SHUTDOWN_SECONDS
        assert pod["terminationGracePeriodSeconds"] > before + ending
        assert (before > 0) != name.endswith("-worker")


def test_prometheus_finds_every_worker_and_every_api(built: tuple[Document, ...]) -> None:
    (job,) = yaml.safe_load((K8S / "prometheus.yml").read_text())["scrape_configs"]
    kept, path, called = job["relabel_configs"]
    assert (kept["action"], path["target_label"], called["target_label"]) == ("keep", "__metrics_path__", "job")
    assert path["source_labels"] == kept["source_labels"]
    found = {}
    for pod in _pods(built).values():
        labels = _discovered(pod)
        address = "".join(labels.get(name, "") for name in kept["source_labels"])
        if re.fullmatch(kept["regex"], address):
            name = called["separator"].join(labels[each] for each in called["source_labels"])
            found[called["replacement"].replace("$1", name)] = address
    assert found == {
        **{f"refstream-{service.value}-worker": "/metrics" for service in Service},
        **{f"refstream-{service.value}-api": f"/{service.value}/metrics" for service in Service},
    }


def _discovered(pod: Document) -> dict[str, str]:
    """What Prometheus' discovery calls a pod's labels and annotations."""
    return {
        f"__meta_kubernetes_pod_{kind}_{re.sub('[^a-zA-Z0-9_]', '_', key)}": value
        for kind in ("label", "annotation")
        for key, value in pod["metadata"].get(f"{kind}s", {}).items()
    }


# --- how many -------------------------------------------------------------------------------------------------------


def test_each_worker_is_scaled_by_the_lag_of_its_own_group(production: tuple[Document, ...]) -> None:
    """KEDA's types are in no schema here: every field is compared."""
    scaled = _of(production, "ScaledObject")
    assert set(scaled) == {name for name, (command, *_) in OURS.items() if command == "worker"}
    users = {principal.name: principal for principal in principals()}
    for name, document in scaled.items():
        spec = document["spec"]
        (trigger,) = spec["triggers"]
        assert [trigger["metadata"]["consumerGroup"]] == users[name].may("Read", "group")
        assert document["apiVersion"] == KEDA
        assert set(spec) == {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "advanced", "triggers"}
        assert spec["scaleTargetRef"] == {"name": name}
        assert 2 <= spec["minReplicaCount"] < spec["maxReplicaCount"] <= int(_told(production)["REFSTREAM_PARTITIONS"])
        assert trigger["metadata"].keys() == {
            *("bootstrapServersFromEnv", "consumerGroup", "lagThreshold", "offsetResetPolicy", "sasl", "tls")
        }
        assert trigger["metadata"]["bootstrapServersFromEnv"] in _told(production)
        assert trigger["authenticationRef"] == {"name": name}
        assert "replicas" not in _of(production, "Deployment")[name]["spec"]  # or each `apply` would undo KEDA's count


def test_keda_asks_kafka_as_the_worker_itself(production: tuple[Document, ...]) -> None:
    for name, document in _of(production, "TriggerAuthentication").items():
        assert document["spec"]["secretTargetRef"] == [
            {"parameter": word, "name": name, "key": f"REFSTREAM_KAFKA_SECURITY_{word.upper()}"}
            for word in ("username", "password")
        ]
        (authority,) = document["spec"]["configMapTargetRef"]
        (volume,) = (
            each["configMap"]
            for each in _pods(production)[name]["spec"]["volumes"]
            if each["name"] == authority["name"]
        )
        assert authority == {"parameter": "ca", "name": volume["name"], "key": "ca.pem"}
        assert _told(production)["REFSTREAM_KAFKA_SECURITY_CAFILE"].endswith("/ca.pem")
