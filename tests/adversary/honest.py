"""An honest caller: asks for a token every 100 ms, half of the time over a connection that it keeps and half over a new
one, and prints a line of JSON for each call. It ends with its standard input.

  honest.py ADDRESS TOKEN [AUTHORITY.pem]
"""

import json
import select
import sys
import time
from pathlib import Path

import grpc

# The messages are compiled from the files when they are imported.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "proto"))
messages, services = grpc.protos_and_services("bearerd/v1/token.proto")

INTERVAL = 0.1

# Longer than any queue should be, shorter than callers usually wait.
DEADLINE = 5.0


def channel(address, authority):
    # Without it all channels to one address share a connection.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost")]
    if authority is None:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(authority), options)


def call(opened, token):
    """One call: what came of it, and how long it took in milliseconds."""
    began = time.monotonic()
    try:
        request = messages.GetTokenRequest(credential="key")
        metadata = [("authorization", f"Bearer {token}")]
        answer = services.TokenServiceStub(opened).GetToken(request, timeout=DEADLINE, metadata=metadata)
        failed = None if answer.token.access_token == "hunter2" else "another token"
    except grpc.RpcError as error:
        failed = f"{error.code().name}: {error.details()}"
    return {"ms": (time.monotonic() - began) * 1000, "failed": failed}


def main():
    address, token, *rest = sys.argv[1:]
    authority = Path(rest[0]).read_bytes() if rest else None
    kept, number = channel(address, authority), 0
    while True:
        began, number = time.monotonic(), number + 1
        if number % 2:
            result = call(kept, token) | {"way": "kept"}
        else:
            with channel(address, authority) as new:
                result = call(new, token) | {"way": "new"}
        print(json.dumps(result), flush=True)
        rest_of_it = max(0.0, INTERVAL - (time.monotonic() - began))
        if select.select([sys.stdin], [], [], rest_of_it)[0]:
            return


if __name__ == "__main__":
    main()
