"""Checks that the Dockerfile fits the Deployment, .dockerignore and Cargo.toml, as far as that shows without an engine.

Usage: image.py ROOT RENDERED; prints one line per finding and exits 1 if there is any.
"""

import json
import re
import sys
import tomllib
from pathlib import Path, PurePosixPath

import yaml


def instructions(dockerfile):
    """(instruction, rest) of every logical line."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def last(parsed, name):
    return [rest for instruction, rest in parsed if instruction == name][-1]


def copied(parsed):
    """The paths of the build context that any COPY asks for."""
    plain = [rest.split() for name, rest in parsed if name == "COPY" and "--from" not in rest]
    return [source for words in plain for source in words[:-1]]


def fits_the_deployment(parsed, deployment):
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    security = pod["securityContext"]
    if last(parsed, "FROM") != "scratch":
        yield f'the last stage is from {last(parsed, "FROM")}, not from scratch'
    if last(parsed, "USER") != f'{security["runAsUser"]}:{security["runAsGroup"]}':
        yield f'USER {last(parsed, "USER")} differs from the runAsUser and runAsGroup of the Deployment'
    if {int(port) for port in last(parsed, "EXPOSE").split()} != {port["containerPort"] for port in container["ports"]}:
        yield f'EXPOSE {last(parsed, "EXPOSE")} differs from the container ports of the Deployment'
    if json.loads(last(parsed, "CMD")) != container["args"]:
        yield f'CMD {last(parsed, "CMD")} differs from the args of the Deployment'


def fits_the_crate(parsed, cargo):
    stage = next(rest for name, rest in parsed if name == "FROM")
    tag = re.fullmatch(r"rust:(\d+\.\d+\.\d+)-alpine\d+\.\d+ AS \w+", stage)
    wanted = [int(part) for part in cargo["package"]["rust-version"].split(".")]
    if tag is None:
        yield f"FROM {stage} is not a rust image pinned to a full version and an Alpine release"
    elif [int(part) for part in tag[1].split(".")] < wanted:
        yield f'FROM {stage} is older than the rust-version {cargo["package"]["rust-version"]} of Cargo.toml'


def context_is_complete(root, parsed, ignore):
    admitted = {line[1:].strip("/") for line in ignore.splitlines() if line.startswith("!")}
    if "*" not in ignore.splitlines():
        yield ".dockerignore does not begin by ignoring everything"
    for source in copied(parsed):
        if source not in admitted:
            yield f"COPY {source}: .dockerignore keeps it out of the build context"
        if not (root / source).exists():
            yield f"COPY {source}: there is no such file"
    for name in sorted(admitted - set(copied(parsed))):
        yield f".dockerignore admits {name}, which the Dockerfile does not copy"


def targets_are_copied(parsed, cargo):
    """Cargo refuses to build anything while the source of any target that its manifest names is missing."""
    sources = copied(parsed)
    for kind, folder in (("bin", "src/bin"), ("bench", "benches"), ("test", "tests"), ("example", "examples")):
        for target in cargo.get(kind, []):
            path = PurePosixPath(target.get("path", f'{folder}/{target["name"]}'))
            if not any(path.is_relative_to(source) for source in sources):
                yield f'Cargo.toml names the {kind} {target["name"]}, but the Dockerfile does not copy {path.parent}'


def findings(root, dockerfile, ignore, deployment, cargo):
    """All findings of all rules, as lines for a person."""
    parsed = instructions(dockerfile)
    return [
        *fits_the_deployment(parsed, deployment),
        *fits_the_crate(parsed, cargo),
        *context_is_complete(root, parsed, ignore),
        *targets_are_copied(parsed, cargo),
    ]


def main(root, rendered):
    root = Path(root)
    dockerfile = (root / "deploy/Dockerfile").read_text()
    objects = yaml.safe_load_all(Path(rendered).read_text())
    deployment = next(item for item in objects if item["kind"] == "Deployment")
    cargo = tomllib.loads((root / "Cargo.toml").read_text())
    found = findings(root, dockerfile, (root / ".dockerignore").read_text(), deployment, cargo)
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
