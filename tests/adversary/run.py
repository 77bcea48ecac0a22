"""Attacks a real bearerd, one attack after the other, while an honest caller asks for a token every 100 ms.

Prints what was sent, what it cost, and what the honest caller saw of it. Exits 1 if one of its calls failed, if memory
grew beyond the bound, or if an attack did not happen. Everything is on loopback, and ends with this process.

  run.py BEARERD [NAME …]      BEARERD is the binary; with names, only these attacks
"""

import contextlib
import hashlib
import http.server
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

[[identity.token]]
name = "attacker"
sha256 = "{attacker}"

[[allow]]
caller = "token:attacker"
credentials = ["stalled"]
actions = ["call"]

[credentials.stalled]
grant = "static"
scheme = "bearer"
secret = {{ file = "{directory}/secret" }}
base_url = "http://127.0.0.1:{stalled}/"
call_timeout = "60s"

[credentials.key]
"""

# What the honest caller asks for: a secret that is there, or tokens that a provider has to be asked for every second.
SECRET = 'grant = "static"\nscheme = "bearer"\nsecret = {{ file = "{directory}/secret" }}\n'
MINTED = """\
grant = "client_credentials"
token_url = "http://127.0.0.1:{provider}/token"
client_id = "bearerd"
client_secret = {{ file = "{directory}/secret" }}
"""

TLS = '[server.tls]\ncertificate = {{ file = "{directory}/tls.crt" }}\nkey = {{ file = "{directory}/tls.key" }}\n'

# Beyond what one address may have otherwise, to see what each connection costs.
ROOMY = "max_connections = 11000\nmax_connections_per_address = 10500\n"

# A server of its own for the attack: one that keeps an audit log, and one that may have few files open.
AUDITED = '[audit]\noutput = "{directory}/audit"\n'
STARVED = "# few files\n"
FEW_FILES = 1024

# What the audit log of an attack may have, in bytes.
MOST_AUDIT = 8 << 20

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
    (attacks.admin, "", "admin port"),
    (attacks.bodies, "", "bodies of calls"),
    (attacks.guesses, AUDITED, "audit log"),
    (attacks.starve, STARVED, "file descriptors"),
    (attacks.slow_handshakes, TLS, "slow TLS handshakes"),
]


class Server:
    """A bearerd with one credential, and an honest caller with its token."""

    def __init__(self, binary, lines, directory):
        self.directory, token, self.attacker = Path(directory), made_token(), made_token()
        self.port, self.admin = free_port(), free_port()
        self.stalled, self.provider = Stalled(), Provider()
        lines = lines.format(directory=directory)
        encrypted = "tls" in lines
        if encrypted:
            self.certificate()
        (self.directory / "secret").write_text("hunter2")
        few_files = lines == STARVED
        config = (CONFIG + (MINTED if few_files else SECRET)).format(
            port=self.port, admin=self.admin, lines=lines, directory=directory, hash=hash_of(token),
            attacker=hash_of(self.attacker), stalled=self.stalled.port, provider=self.provider.port)
        (self.directory / "bearerd.toml").write_text(config)
        self.log = (self.directory / "log").open("w")
        self.process = subprocess.Popen(
            [binary, "serve", "--config", self.directory / "bearerd.toml"], stderr=self.log, stdout=self.log,
            preexec_fn=limit_files if few_files else None)
        self.wait_for(self.admin)
        authority = [str(self.directory / "tls.crt")] if encrypted else []
        honest = Path(__file__).with_name("honest.py")
        self.caller = subprocess.Popen([sys.executable, honest, f"127.0.0.1:{self.port}", token, *authority],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.calls = queue.SimpleQueue()
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def target(self, attack):
        """Where an attack is made, and what it is made with."""
        if attack is attacks.admin:
            return "127.0.0.1", self.admin
        if attack is attacks.bodies:
            return "127.0.0.1", self.port, self.attacker
        return "127.0.0.1", self.port

    def probed(self):
        """Whether a probe is answered."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.admin), 3) as probe:
            probe.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
            return b" 200 " in probe.recv(64)
        return False

    def audit(self):
        """The bytes of its audit log."""
        file = self.directory / "audit"
        return file.stat().st_size if file.exists() else 0

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
        self.stalled.close()
        self.provider.close()
        self.caller.stdin.close()
        for process in (self.caller, self.process):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.log.close()


class Stalled:
    """An API that takes requests and never answers."""

    def __init__(self):
        self.socket, self.held = socket.create_server(("127.0.0.1", 0), backlog=1024), []
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                self.held.append(self.socket.accept()[0])

    def close(self):
        for one in [self.socket, *self.held]:
            one.close()


class Tokens(http.server.BaseHTTPRequestHandler):
    """A token endpoint whose tokens are good for a second."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps({"access_token": "hunter2", "token_type": "Bearer", "expires_in": 1}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Provider:
    def __init__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tokens)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def made_token():
    return "bearerd_" + secrets.token_urlsafe(32)


def hash_of(token):
    return hashlib.sha256(token.encode()).hexdigest()


def limit_files():
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW_FILES, FEW_FILES))


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
    attacker = multiprocessing.Process(target=work, args=(attack, server.target(attack), SECONDS, tells))
    attacker.start()
    unanswered = 0
    while attacker.is_alive():
        peak = max(peak, server.memory())
        unanswered += not server.probed()
        attacker.join(0.1)
    sent, amount = told.recv() if told.poll() else ("the attack itself failed", 0)
    time.sleep(REST)
    calls = server.ended() + [{"ms": 0.0, "way": "probe's", "failed": "no answer"}] * unanswered
    if server.audit() > MOST_AUDIT:
        calls.append({"ms": 0.0, "way": "every", "failed": f"{server.audit() >> 20} MiB of audit log"})
    return sent, amount, (before, max(peak, before), server.memory()), calls


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
