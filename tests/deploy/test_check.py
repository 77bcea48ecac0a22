"""Proves that every rule can fail: each case breaks one thing in the real files and expects the finding that names it.

scripts/check-deploy runs this with RENDERED (the rendered base) and ROOT (the repository) in the environment.
"""

import copy
import os
import re
import tomllib
import unittest
from pathlib import Path

import check
import image
import yaml

ROOT = Path(os.environ["ROOT"])
OBJECTS = list(yaml.safe_load_all(Path(os.environ["RENDERED"]).read_text()))
SECRET = yaml.safe_load((ROOT / "deploy/kubernetes/base/secret.example.yaml").read_text())
DEPLOYMENT = next(item for item in OBJECTS if item["kind"] == "Deployment")
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
IGNORE = (ROOT / ".dockerignore").read_text()
CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text())

POD = "Deployment/spec/template/spec"
CONTAINER = f"{POD}/containers/0"
DELETE = object()


def variable(secret, key):
    """A variable of the environment that a Secret gives."""
    return {"name": "A", "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


# Where, what to put there, and what the finding must say. The first word of a path is a kind; a number is an index.
OBJECT_CASES = [
    ("Deployment/spec/template/metadata/labels", {"app": "x"}, "Deployment bearerd: its selector"),
    ("Service/spec/selector", {"app": "x"}, "Service bearerd: its selector"),
    ("Service/spec/selector", {}, "Service bearerd: its selector"),
    ("PodDisruptionBudget/spec/selector/matchLabels", {"app": "x"}, "PodDisruptionBudget bearerd: its selector"),
    ("NetworkPolicy/spec/podSelector/matchLabels", {"app": "x"}, "NetworkPolicy bearerd: its selector"),
    (f"{POD}/topologySpreadConstraints/1/labelSelector/matchLabels", {"app": "x"}, "kubernetes.io/hostname"),
    ("Service/spec/ports/0/targetPort", "grcp", "targetPort grcp"),
    ("Service/spec/ports/0/targetPort", 7444, "targetPort 7444"),
    ("NetworkPolicy/spec/ingress/0/ports/0/port", "grcp", "port grcp"),
    (f"{CONTAINER}/readinessProbe", DELETE, "readinessProbe is missing"),
    (f"{CONTAINER}/readinessProbe/httpGet/path", "/livez", "readinessProbe asks /livez, not /readyz"),
    (f"{CONTAINER}/livenessProbe/httpGet/port", "grpc", "livenessProbe asks port grpc"),
    (f"{CONTAINER}/startupProbe/httpGet/port", "http", "startupProbe asks port http"),
    (f"{CONTAINER}/ports/0/containerPort", 7444, "server.listen is on 7443"),
    ("Deployment/spec/template/metadata/annotations/prometheus.io~1port", "7443", "prometheus.io/port is 7443"),
    ("PodDisruptionBudget/spec/maxUnavailable", 3, "maxUnavailable 3 of 3"),
    ("PodDisruptionBudget/spec/maxUnavailable", 0, "maxUnavailable 0 of 3"),
    ("PodDisruptionBudget/spec/minAvailable", 3, "minAvailable 3 of 3"),
    ("PodDisruptionBudget/kind", "Other", "there is no PodDisruptionBudget"),
    ("Deployment/spec/replicas", 1, "maxUnavailable 1 of 1"),
    ("Deployment/spec/strategy/rollingUpdate/maxUnavailable", 1, "a rolling update"),
    (f"{POD}/terminationGracePeriodSeconds", 25, "terminationGracePeriodSeconds 25 must exceed"),
    (f"{CONTAINER}/lifecycle/preStop/sleep/seconds", 15, "terminationGracePeriodSeconds 35 must exceed"),
    (f"{POD}/serviceAccountName", "x", "ServiceAccount x is not rendered"),
    (f"{POD}/volumes/0/configMap/name", "x", "ConfigMap x is not rendered"),
    (f"{POD}/volumes/1/secret/secretName", "x", "Secret x is not the one"),
    (f"{POD}/volumes/1/name", "x", "there is no volume secrets"),
    (f"{CONTAINER}/env", [variable("x", "redis-url")], "Secret x is not the one"),
    (f"{CONTAINER}/env", [variable("bearerd-secrets", "x")], "does not show the key x"),
    (f"{CONTAINER}/args/2", "/etc/bearerd.toml", "--config /etc/bearerd.toml is not where"),
    (f"{CONTAINER}/volumeMounts/0/mountPath", "/etc/other", "is not where the ConfigMap is mounted"),
    (f"{CONTAINER}/volumeMounts/1/mountPath", "/run/other", "but the Secret is mounted at /run/other"),
    (f"{POD}/volumes/2/projected/sources", [], "names /run/secrets/kubernetes/ca.crt"),
    (f"{CONTAINER}/volumeMounts/2/mountPath", "/run/other", "names /run/secrets/kubernetes/token"),
    ("ServiceAccount/kind", "Secret", "a Secret is rendered"),
    (f"{POD}/automountServiceAccountToken", True, "automountServiceAccountToken"),
    (f"{POD}/securityContext/runAsNonRoot", False, "runAsNonRoot"),
    (f"{POD}/securityContext/runAsUser", 0, "runAsUser above 0"),
    (f"{POD}/securityContext/seccompProfile/type", "Unconfined", "seccompProfile"),
    (f"{CONTAINER}/securityContext/allowPrivilegeEscalation", DELETE, "allowPrivilegeEscalation"),
    (f"{CONTAINER}/securityContext/readOnlyRootFilesystem", False, "readOnlyRootFilesystem"),
    (f"{CONTAINER}/securityContext/capabilities", DELETE, "capabilities drop ALL"),
    (f"{CONTAINER}/securityContext/capabilities/add", ["NET_ADMIN"], "no capabilities added"),
    ("Service/spec/ports/0/appProtocol", "kubernetes.io/h2c", "appProtocol says that there is no TLS"),
    ("NetworkPolicy/spec/policyTypes", ["Ingress"], "has to limit Ingress and Egress"),
    ("NetworkPolicy/spec/ingress/1/from/0/namespaceSelector", {}, "every namespace is let in"),
    ("NetworkPolicy/spec/egress/1/to/0/ipBlock/except", DELETE, "metadata services of clouds are reached"),
    (f"{CONTAINER}/resources/limits", DELETE, "a memory limit"),
    (f"{CONTAINER}/resources/requests/cpu", DELETE, "requests of cpu and memory"),
]

# What to replace in bearerd.toml, and what the finding must say.
CONFIG_CASES = [
    ('admin_listen = "0.0.0.0:7480"', 'admin_listen = "0.0.0.0:7481"', "server.admin_listen is on 7481"),
    ('listen = "0.0.0.0:7443"', 'listen = "127.0.0.1:7443"', "server.listen listens on 127.0.0.1"),
    ("metrics = true", "plaintext = true", "callers are not encrypted"),
    ("/run/secrets/bearerd/tls.key", "/run/secrets/bearerd/tls.pem", "does not show the key tls.pem"),
    ('shutdown_timeout = "20s"', 'shutdown_timeout = "1m"', "shutdown_timeout 60 s"),
    ("/run/secrets/bearerd/seal-key", "/run/secrets/seal-key", "the Secret is mounted at /run/secrets/bearerd"),
    ("/run/secrets/bearerd/seal-key", "/run/secrets/bearerd/seal", "does not show the key seal"),
    ('file = "/run/secrets/bearerd/redis-url"', 'env = "REDIS_URL"', "names the variable REDIS_URL"),
    ("/run/secrets/kubernetes/token", "/run/secrets/kubernetes/tokens", "names /run/secrets/kubernetes/tokens"),
]

# What to replace in the Dockerfile, and what the finding must say.
DOCKERFILE_CASES = [
    ("FROM scratch", "FROM alpine:3.23", "the last stage is from alpine:3.23"),
    ("USER 65532:65532", "USER 0:0", "USER 0:0 differs"),
    ("EXPOSE 7443 7480", "EXPOSE 7443", "EXPOSE 7443 differs"),
    ('"/etc/bearerd/bearerd.toml"]', '"/bearerd.toml"]', "differs from the args"),
    ("rust:1.95.0-alpine3.23", "rust:alpine", "is not a rust image pinned"),
    ("rust:1.95.0-alpine3.23", "rust:1.94.1-alpine3.23", "is older than the rust-version"),
    ("COPY src src", "COPY srcs srcs", "there is no such file"),
    ("COPY src src", "", ".dockerignore admits src"),
]


def place(objects, path, value):
    """Puts `value` where the path leads, in the first object of the kind."""
    kind, *steps = [step.replace("~1", "/") for step in path.split("/")]
    here = next(item for item in objects if item["kind"] == kind)
    *way, final = [int(step) if step.isdigit() else step for step in steps]
    for step in way:
        here = here[step]
    if value is DELETE:
        del here[final]
    else:
        here[final] = value


def swap(test, text, old, new):
    test.assertIn(old, text, "the case no longer fits the file")
    return text.replace(old, new)


class EveryRuleCanFail(unittest.TestCase):
    def expect(self, found, wanted):
        self.assertTrue(any(wanted in line for line in found), f"no finding says {wanted!r}: {found}")

    def test_the_files_as_they_are_have_no_finding(self):
        self.assertEqual(check.findings(OBJECTS, SECRET), [])
        self.assertEqual(image.findings(ROOT, DOCKERFILE, IGNORE, DEPLOYMENT, CARGO), [])

    def test_objects(self):
        for path, value, wanted in OBJECT_CASES:
            with self.subTest(path=path, value=value):
                objects = copy.deepcopy(OBJECTS)
                place(objects, path, value)
                self.expect(check.findings(objects, SECRET), wanted)

    def test_configuration(self):
        for old, new, wanted in CONFIG_CASES:
            with self.subTest(new=new):
                objects = copy.deepcopy(OBJECTS)
                data = next(item for item in objects if item["kind"] == "ConfigMap")["data"]
                data["bearerd.toml"] = swap(self, data["bearerd.toml"], old, new)
                self.expect(check.findings(objects, SECRET), wanted)

    def test_the_example_secret_shows_every_key(self):
        for key in SECRET["stringData"]:
            with self.subTest(key=key):
                secret = copy.deepcopy(SECRET)
                del secret["stringData"][key]
                self.expect(check.findings(OBJECTS, secret), f"does not show the key {key}")

    def test_dockerfile(self):
        for old, new, wanted in DOCKERFILE_CASES:
            with self.subTest(new=new):
                changed = swap(self, DOCKERFILE, old, new)
                self.expect(image.findings(ROOT, changed, IGNORE, DEPLOYMENT, CARGO), wanted)

    def test_dockerignore(self):
        closed = swap(self, IGNORE, "!proto\n", "")
        self.expect(image.findings(ROOT, DOCKERFILE, closed, DEPLOYMENT, CARGO), "COPY proto: .dockerignore keeps it")
        open_wide = re.sub(r"^\*\n", "", IGNORE, flags=re.MULTILINE)
        self.expect(image.findings(ROOT, DOCKERFILE, open_wide, DEPLOYMENT, CARGO), "ignoring everything")

    def test_targets(self):
        cases = (("example", {"name": "e"}, "copy examples"), ("bench", {"name": "b", "path": "other/b.rs"}, "copy other"))
        for kind, target, wanted in cases:
            with self.subTest(target=target):
                cargo = {**CARGO, kind: [target]}
                self.expect(image.findings(ROOT, DOCKERFILE, IGNORE, DEPLOYMENT, cargo), wanted)


class Durations(unittest.TestCase):
    def test_are_read_in_seconds(self):
        for text, wanted in (("20s", 20), ("5m", 300), ("1m 30s", 90), ("1500ms", 1.5), ("1h", 3600)):
            with self.subTest(text=text):
                self.assertEqual(check.seconds(text), wanted)


if __name__ == "__main__":
    unittest.main()
