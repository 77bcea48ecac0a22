"""Checks what no schema can: that the objects of a rendered deployment fit each other and the bearerd.toml in them.

Usage: check.py RENDERED SECRET_EXAMPLE; prints one line per finding and exits 1 if there is any.
"""

import re
import sys
import tomllib
from pathlib import Path, PurePosixPath

import yaml

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
DEFAULT_SHUTDOWN_TIMEOUT = "20s"


class Bundle:
    """The rendered objects, the one container among them, and the bearerd.toml that it reads."""

    def __init__(self, objects, secret_example):
        self.objects = objects
        self.secret_example = secret_example
        (self.deployment,) = self.of("Deployment")
        self.pod = self.deployment["spec"]["template"]["spec"]
        self.labels = self.deployment["spec"]["template"]["metadata"]["labels"]
        (self.container,) = self.pod["containers"]
        self.ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        (config_map,) = self.of("ConfigMap")
        self.config = tomllib.loads(config_map["data"]["bearerd.toml"])

    def of(self, kind):
        return [item for item in self.objects if item["kind"] == kind]

    def has(self, kind, name):
        return any(item["metadata"]["name"] == name for item in self.of(kind))

    def secret_keys(self):
        return {*self.secret_example.get("stringData", {}), *self.secret_example.get("data", {})}


def seconds(text):
    """The length of a duration such as "20s" or "1m 30s"."""
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)\s*(ms|s|m|h)", text))


def title(item):
    return f'{item["kind"]} {item["metadata"]["name"]}'


def selector(item):
    """The labels by which an object chooses pods, or None for an object that chooses none."""
    spec = item.get("spec", {})
    match item["kind"]:
        case "Service":
            return spec.get("selector", {})
        case "Deployment" | "PodDisruptionBudget":
            return spec["selector"]["matchLabels"]
        case "NetworkPolicy":
            return spec["podSelector"]["matchLabels"]
    return None


def selectors_match_the_pods(bundle):
    for item in bundle.objects:
        wanted = selector(item)
        if wanted is not None and not (wanted and wanted.items() <= bundle.labels.items()):
            yield f"{title(item)}: its selector {wanted} does not match the pod labels {bundle.labels}"
    for spread in bundle.pod["topologySpreadConstraints"]:
        wanted = spread["labelSelector"]["matchLabels"]
        if not wanted.items() <= bundle.labels.items():
            yield f'topologySpreadConstraints {spread["topologyKey"]}: {wanted} does not match the pod labels'


def ports_exist(bundle):
    known = {*bundle.ports, *bundle.ports.values()}
    for service in bundle.of("Service"):
        for port in service["spec"]["ports"]:
            if port.get("targetPort", port["port"]) not in known:
                yield f'{title(service)}: targetPort {port.get("targetPort")} is no port of the container'
    for policy in bundle.of("NetworkPolicy"):
        for port in (port for rule in policy["spec"]["ingress"] for port in rule["ports"]):
            if port["port"] not in known:
                yield f'{title(policy)}: port {port["port"]} is no port of the container'


def probes_ask_the_admin_listener(bundle):
    admin = port_of(bundle.config["server"]["admin_listen"])
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        request = bundle.container.get(probe, {}).get("httpGet")
        if request is None:
            yield f"{probe} is missing"
            continue
        if request["path"] != path:
            yield f'{probe} asks {request["path"]}, not {path}'
        if bundle.ports.get(request["port"], request["port"]) != admin:
            yield f'{probe} asks port {request["port"]}, but server.admin_listen is on {admin}'


def listeners_are_reachable(bundle):
    server = bundle.config["server"]
    for key, name in (("listen", "grpc"), ("admin_listen", "admin")):
        host, port = server[key].rsplit(":", 1)
        if host not in ("0.0.0.0", "[::]"):
            yield f"server.{key} listens on {host}, which nothing outside the pod can reach"
        if bundle.ports.get(name) != int(port):
            yield f"server.{key} is on {port}, but the container port `{name}` is {bundle.ports.get(name)}"
    scraped = bundle.deployment["spec"]["template"]["metadata"].get("annotations", {}).get("prometheus.io/port")
    if scraped is not None and int(scraped) != port_of(server["admin_listen"]):
        yield f"prometheus.io/port is {scraped}, but server.admin_listen is {server['admin_listen']}"


def port_of(address):
    return int(address.rsplit(":", 1)[1])


def a_drain_leaves_a_replica(bundle):
    replicas = bundle.deployment["spec"]["replicas"]
    budgets = bundle.of("PodDisruptionBudget")
    if not budgets:
        yield "there is no PodDisruptionBudget"
    for budget in budgets:
        for bound in ("minAvailable", "maxUnavailable"):
            number = budget["spec"].get(bound)
            if number is not None and not 1 <= number < replicas:
                yield f"{title(budget)}: {bound} {number} of {replicas} replicas blocks every drain or protects nothing"
    if bundle.deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] != 0:
        yield "a rolling update may take a replica away before its successor is ready"


def the_grace_period_covers_the_shutdown(bundle):
    sleep = bundle.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    shutdown = seconds(bundle.config["server"].get("shutdown_timeout", DEFAULT_SHUTDOWN_TIMEOUT))
    grace = bundle.pod.get("terminationGracePeriodSeconds", 30)
    if grace <= sleep + shutdown:
        yield f"terminationGracePeriodSeconds {grace} must exceed preStop {sleep} s + shutdown_timeout {shutdown:g} s"


def references_resolve(bundle):
    account = bundle.pod["serviceAccountName"]
    if not bundle.has("ServiceAccount", account):
        yield f"ServiceAccount {account} is not rendered"
    for volume in bundle.pod["volumes"]:
        if "configMap" in volume and not bundle.has("ConfigMap", volume["configMap"]["name"]):
            yield f'volume {volume["name"]}: ConfigMap {volume["configMap"]["name"]} is not rendered'
        if "secret" in volume:
            yield from undocumented(bundle, volume["secret"]["secretName"], ())
    for variable in bundle.container.get("env", []):
        secret = variable.get("valueFrom", {}).get("secretKeyRef")
        if secret:
            yield from undocumented(bundle, secret["name"], (secret["key"],))
    volumes = {volume["name"] for volume in bundle.pod["volumes"]}
    for mount in bundle.container["volumeMounts"]:
        if mount["name"] not in volumes:
            yield f'{mount["mountPath"]}: there is no volume {mount["name"]}'
    config = PurePosixPath(bundle.container["args"][bundle.container["args"].index("--config") + 1])
    if config != mounted_at(bundle, "configMap") / "bearerd.toml":
        yield f"--config {config} is not where the ConfigMap is mounted"


def undocumented(bundle, name, keys):
    """Findings for a Secret, or keys of it, that secret.example.yaml does not show."""
    if name != bundle.secret_example["metadata"]["name"]:
        yield f"Secret {name} is not the one that secret.example.yaml shows"
    for key in keys:
        if key not in bundle.secret_keys():
            yield f"Secret {name}: secret.example.yaml does not show the key {key}"


def mounted_at(bundle, source):
    """The folder at which the volume of this kind is mounted, or a path that equals none."""
    names = {volume["name"] for volume in bundle.pod["volumes"] if source in volume}
    paths = [mount["mountPath"] for mount in bundle.container["volumeMounts"] if mount["name"] in names]
    return PurePosixPath(paths[0]) if paths else PurePosixPath("nowhere")


def the_secrets_of_the_configuration_arrive(bundle):
    folder = mounted_at(bundle, "secret")
    variables = {variable["name"] for variable in bundle.container.get("env", [])}
    for table in tables(bundle.config):
        if isinstance(table.get("file"), str):
            path = PurePosixPath(table["file"])
            if path in projected(bundle):
                continue
            if path.parent != folder:
                yield f"bearerd.toml names {path}, but the Secret is mounted at {folder}"
            elif path.name not in bundle.secret_keys():
                yield f"bearerd.toml names {path}, but secret.example.yaml does not show the key {path.name}"
        if isinstance(table.get("env"), str) and table["env"] not in variables:
            yield f'bearerd.toml names the variable {table["env"]}, which the container does not get'
    if bundle.of("Secret"):
        yield "a Secret is rendered; its values would stand in the repository"


def projected(bundle):
    """The files of the volumes that Kubernetes fills: a token of the pod, and the authority of the cluster."""
    folders = {mount["name"]: PurePosixPath(mount["mountPath"]) for mount in bundle.container["volumeMounts"]}
    for volume in bundle.pod["volumes"]:
        for source in volume.get("projected", {}).get("sources", []):
            for item in source.get("configMap", {}).get("items", []) + [source.get("serviceAccountToken", {})]:
                if "path" in item and volume["name"] in folders:
                    yield folders[volume["name"]] / item["path"]


def tables(value):
    """Every table of a TOML document, at any depth."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from tables(item)


def the_process_has_no_rights(bundle):
    pod, container = bundle.pod.get("securityContext", {}), bundle.container.get("securityContext", {})
    wanted = {
        "runAsNonRoot": pod.get("runAsNonRoot") is True,
        "runAsUser above 0": pod.get("runAsUser", 0) > 0,
        "seccompProfile RuntimeDefault": pod.get("seccompProfile", {}).get("type") == "RuntimeDefault",
        "allowPrivilegeEscalation: false": container.get("allowPrivilegeEscalation") is False,
        "readOnlyRootFilesystem": container.get("readOnlyRootFilesystem") is True,
        "capabilities drop ALL": container.get("capabilities", {}).get("drop") == ["ALL"],
        "no capabilities added": not container.get("capabilities", {}).get("add"),
        "automountServiceAccountToken: false": bundle.pod.get("automountServiceAccountToken") is False,
        "a memory limit": "memory" in container_resources(bundle, "limits"),
        "requests of cpu and memory": {"cpu", "memory"} <= container_resources(bundle, "requests").keys(),
    }
    for name, held in wanted.items():
        if not held:
            yield f"{title(bundle.deployment)}: {name} is missing"


def callers_are_encrypted(bundle):
    server = bundle.config["server"]
    if server.get("plaintext", False) or not {"certificate", "key"} <= server.get("tls", {}).keys():
        yield "bearerd.toml: callers are not encrypted; set [server.tls]"
    for service in bundle.of("Service"):
        for port in service["spec"]["ports"]:
            if port.get("appProtocol") == "kubernetes.io/h2c":
                yield f"{title(service)}: appProtocol says that there is no TLS"


def the_network_is_narrow(bundle):
    for policy in bundle.of("NetworkPolicy"):
        if {"Ingress", "Egress"} - set(policy["spec"]["policyTypes"]):
            yield f"{title(policy)}: it has to limit Ingress and Egress"
        for rule in policy["spec"]["ingress"]:
            if any(peer.get("namespaceSelector") == {} for peer in rule.get("from", [{"namespaceSelector": {}}])):
                yield f"{title(policy)}: every namespace is let in"
        for block in (peer.get("ipBlock", {}) for rule in policy["spec"].get("egress", []) for peer in rule.get("to", [])):
            if block.get("cidr") == "0.0.0.0/0" and "169.254.0.0/16" not in block.get("except", []):
                yield f"{title(policy)}: metadata services of clouds are reached"


def container_resources(bundle, kind):
    return bundle.container.get("resources", {}).get(kind, {})


RULES = (
    selectors_match_the_pods,
    ports_exist,
    probes_ask_the_admin_listener,
    listeners_are_reachable,
    a_drain_leaves_a_replica,
    the_grace_period_covers_the_shutdown,
    references_resolve,
    the_secrets_of_the_configuration_arrive,
    the_process_has_no_rights,
    callers_are_encrypted,
    the_network_is_narrow,
)


def findings(objects, secret_example):
    """All findings of all rules, as lines for a person."""
    bundle = Bundle(objects, secret_example)
    return [finding for rule in RULES for finding in rule(bundle)]


def main(rendered, secret_example):
    objects = [item for item in yaml.safe_load_all(Path(rendered).read_text()) if item]
    found = findings(objects, yaml.safe_load(Path(secret_example).read_text()))
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
