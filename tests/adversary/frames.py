"""HTTP/2 by hand (RFC 9113), for clients that behave as no library would."""

import errno
import socket
import struct
import time

DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


# The preface and settings with room for large answers.
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0)


def text(value):
    """A text as HPACK has it (RFC 7541 §5.2), without Huffman's code."""
    raw = value.encode()
    return integer(len(raw), 7) + raw


def integer(value, bits, first=0):
    """A number in what is left of a byte (RFC 7541 §5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((first | value,))
    out, value = bytearray((first | most,)), value - most
    while value >= 128:
        out.append(value % 128 | 128)
        value //= 128
    out.append(value)
    return bytes(out)


def field(name, value):
    """A field that goes into no table."""
    return b"\0" + text(name) + text(value)


def begun_field(name, length):
    """A field that goes into no table, up to its value, which is to have this length."""
    return b"\0" + text(name) + integer(length, 7)


def indexed(name, value):
    """A field that is put into the table, and is number 62 there afterwards."""
    return b"\x40" + text(name) + text(value)


def request(path="/bearerd.v1.TokenService/GetToken"):
    """The header fields of a gRPC request: POST, http, path, authority and what gRPC wants."""
    return (
        b"\x83\x86\x04" + text(path) + b"\x01" + text("localhost")
        + field("content-type", "application/grpc") + field("te", "trailers")
    )


def message(body, length=None):
    """A gRPC message; `length` is what it claims to have."""
    return b"\0" + struct.pack(">I", len(body) if length is None else length) + body


# GetTokenRequest { credential: "key" }
GET_TOKEN = message(b"\x0a\x03key")


def connect(target, source, timeout=5.0):
    """A connection from this address of the host."""
    stream = socket.socket()
    stream.settimeout(timeout)
    # A port is chosen when the whole pair of addresses is known, so that there are enough of them.
    stream.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
    stream.bind((source, 0))
    stream.connect(target)
    return stream


def greeted(target, source):
    stream = connect(target, source)
    stream.sendall(GREETING)
    return stream


def is_open(stream):
    """Whether the other side has not hung up. What it said is read and forgotten."""
    stream.setblocking(False)
    try:
        while True:
            if not stream.recv(65536):
                return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def pour(stream, data, until, drain=True):
    """Sends this again and again until the time comes or the other side has had enough. The number of bytes taken."""
    stream.setblocking(False)
    view, taken, at = memoryview(data), 0, 0
    while time.monotonic() < until:
        try:
            sent = stream.send(view[at:])
            taken, at = taken + sent, (at + sent) % len(view)
        except BlockingIOError:
            time.sleep(0.001)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ECONNABORTED):
                raise
            break
        if drain and not is_open(stream):
            break
    return taken
