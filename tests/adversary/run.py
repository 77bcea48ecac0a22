"""Attacks a real bearerd, one attack after the other, while an honest caller asks for a token every 100 ms.

Prints what was sent, what it cost, and what the honest caller saw of it. Exits 1 if one of its calls failed, if memory
grew beyond the bound, or if an attack did not happen. Everything is on loopback, and ends with this process.

  run.py BEARERD [NAME …]      BEARERD is the binary; with names, only these attacks
"""

import contextlib
import hashlib
import json
import multiprocessing
import queue
import resource
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import attacks

# What `deploy/` gives a pod, in MiB. Whoever cannot prove who they are must not be able to get it killed.
MOST_MEMORY = 256

# How long each attack lasts, and how long the server is left alone after it: longer than an honest call can take, so
# that each one that the attack made fail is seen.
SECONDS, REST = 8, 7

# Enough for both ends of 10,000 connections, in two processes.
FILES = 12_000

CONFIG = """\
[server]
listen = "127.0.0.1:{port}"
admin_listen = "127.0.0.1:{admin}"
{lines}
[store]
path = "{directory}/bearerd.redb"

[log]
filter = "warn"

[[identity.token]]
name = "honest"
sha256 = "{hash}"

[[allow]]
caller = "token:honest"
credentials = ["key"]
actions = ["get"]

[credentials.key]
grant = "static"
scheme = "bearer"
secret = {{ file = "{directory}/secret" }}
"""

TLS = '[server.tls]\ncertificate = {{ file = "{directory}/tls.crt" }}\nkey = {{ file = "{directory}/tls.key" }}\n'

# Beyond what one address may have otherwise, to see what each connection costs.
ROOMY = "max_connections = 11000\nmax_connections_per_address = 10500\n"

# The attack, the lines of [server] that it is made on, and what it is called in the table.
ATTACKS = [
    (attacks.requests, "", "requests (h2load)"),
    (attacks.rapid_resets, "", "rapid resets"),
    (attacks.made_resets, "", "resets by the server"),
    (attacks.pings, "", "pings"),
    (attacks.unread, "", "frames, answers unread"),
    (attacks.header_lists, "", "huge header lists"),
    (attacks.oversized, "", "oversized messages"),
    (attacks.begun, "", "begun requests"),
    (attacks.unfinished, "", "unfinished messages"),
    (attacks.slow_headers, "", "slow header fields"),
    (attacks.silent, "", "10,000 silent connections"),
    (attacks.idle, "", "10,000 idle connections"),
    (attacks.idle, ROOMY, "the same, all let in"),
    (attacks.slow_handshakes, TLS, "slow TLS handshakes"),
]


class Server:
    """A bearerd with one credential, and an honest caller with its token."""

    def __init__(self, binary, lines, directory):
        self.directory, token = Path(directory), secrets.token_urlsafe(32)
        self.port, admin = free_port(), free_port()
        lines = lines.format(directory=directory)
        encrypted = "tls" in lines
        if encrypted:
            self.certificate()
        (self.directory / "secret").write_text("hunter2")
        config = CONFIG.format(port=self.port, admin=admin, lines=lines, directory=directory,
                               hash=hashlib.sha256(token.encode()).hexdigest())
        (self.directory / "bearerd.toml").write_text(config)
        self.log = (self.directory / "log").open("w")
        self.process = subprocess.Popen(
            [binary, "serve", "--config", self.directory / "bearerd.toml"], stderr=self.log, stdout=self.log)
        self.wait_for(admin)
        authority = [str(self.directory / "tls.crt")] if encrypted else []
        honest = Path(__file__).with_name("honest.py")
        self.caller = subprocess.Popen([sys.executable, honest, f"127.0.0.1:{self.port}", token, *authority],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.calls = queue.SimpleQueue()
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def certificate(self):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
             "-keyout", self.directory / "tls.key", "-out", self.directory / "tls.crt"],
            check=True, capture_output=True)

    def wait_for(self, admin):
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", admin), 1) as probe:
                probe.sendall(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                if b" 200 " in probe.recv(64):
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        sys.exit(f"bearerd does not start: {(self.directory / 'log').read_text()}")

    def listen(self):
        for line in self.caller.stdout:
            self.calls.put(json.loads(line))

    def ended(self):
        """The honest calls that have ended since this was last asked."""
        return [self.calls.get() for _ in range(self.calls.qsize())]

    def last_calls(self):
        """Has the honest caller finish what it does. The calls that have ended since."""
        self.caller.stdin.close()
        self.caller.wait(60)
        self.listener.join()
        return self.ended()

    def memory(self):
        """What it holds in memory, in MiB; 0 once it has ended."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) / 1024
        return 0.0

    def close(self):
        self.caller.stdin.close()
        for process in (self.caller, self.process):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.log.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def work(attack, target, seconds, told):
    told.send(attack(target, seconds))


def attacked(server, attack):
    """Makes an attack; what was sent, how much of it, what the server held in memory before, at most, and after, and
    the honest calls since the last attack."""
    time.sleep(1)
    before, peak = server.memory(), 0.0
    told, tells = multiprocessing.Pipe(duplex=False)
    attacker = multiprocessing.Process(target=work, args=(attack, ("127.0.0.1", server.port), SECONDS, tells))
    attacker.start()
    while attacker.is_alive():
        peak = max(peak, server.memory())
        attacker.join(0.1)
    sent, amount = told.recv() if told.poll() else ("the attack itself failed", 0)
    time.sleep(REST)
    return sent, amount, (before, max(peak, before), server.memory()), server.ended()


def row(name, sent, amount, memory, calls):
    """Prints what came of an attack; whether it did no harm."""
    failed = failures(calls)
    slowest = max((call["ms"] for call in calls), default=0.0)
    mib = " ".join(f"{size:6.0f}" for size in memory)
    print(f"{name:26} {sent:44} {mib}  {len(calls) - len(failed):5} {len(failed):6} {slowest:7.0f} ms", flush=True)
    explain(failed)
    if amount <= 0:
        print(f"{'':26} nothing of it was taken, so it shows nothing", flush=True)
    if memory[1] > MOST_MEMORY:
        print(f"{'':26} more than {MOST_MEMORY} MiB of memory", flush=True)
    return amount > 0 and bool(calls) and not failed and 0 < memory[1] <= MOST_MEMORY and memory[2] > 0


def failures(calls):
    return [call for call in calls if call["failed"]]


def explain(failed):
    for why in sorted({f"{call['way']} connection: {call['failed']}" for call in failed}):
        print(f"{'':26} {why}", flush=True)


def main():
    binary, *names = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        sys.exit(f"adversary: {FILES} files have to be open at a time; raise `ulimit -Hn`, which is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(FILES, min(hard, 1 << 16)), hard))
    if shutil.which("h2load") is None or shutil.which("openssl") is None:
        sys.exit("adversary: h2load (Debian: nghttp2-client) and openssl are needed")
    chosen = [entry for entry in ATTACKS if not names or any(name in entry[2] for name in names)]
    print(f"{'':26} {'':44} {'RSS in MiB':^20}  {'honest calls':>24}")
    print(f"{'attack':26} {'sent':44} {'before':>6} {'peak':>6} {'after':>6}  {'ok':>5} {'failed':>6} {'slowest':>10}")
    harmless = True
    for lines in dict.fromkeys(entry[1] for entry in chosen):
        with tempfile.TemporaryDirectory(prefix="bearerd-adversary-") as directory:
            server = Server(binary, lines, directory)
            try:
                for attack, needs, name in chosen:
                    if needs == lines:
                        harmless &= row(name, *attacked(server, attack))
                failed = failures(server.last_calls())
                explain(failed)
                harmless &= not failed
            finally:
                server.close()
            log = (Path(directory) / "log").stat().st_size
            print(f"{'':26} {log >> 10:,} KiB of log", flush=True)
    sys.exit(0 if harmless else 1)


if __name__ == "__main__":
    main()
