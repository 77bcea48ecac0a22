"""A client of bearerd in another language, made from the .proto files alone.

Each run makes one call, prints one JSON line and exits 0; an rpc error prints what a caller can learn from it and
exits 1.

  client.py ADDRESS get CREDENTIAL [--refused GENERATION]
  client.py ADDRESS invalidate CREDENTIAL GENERATION
  client.py ADDRESS call CREDENTIAL METHOD PATH
"""

import argparse
import json
import sys
from pathlib import Path

import grpc
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status

# The messages are compiled from the files when they are imported.
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "proto"))
messages, services = grpc.protos_and_services("bearerd/v1/token.proto")

DEADLINE_SECONDS = 30


def get(service, arguments):
    request = messages.GetTokenRequest(credential=arguments.credential, refused_generation=arguments.refused)
    token = service.GetToken(request, timeout=DEADLINE_SECONDS).token
    return {
        "access_token": token.access_token,
        "generation": token.generation,
        "token_type": token.token_type,
        "headers": {header.name: header.value for header in token.headers},
        "expires_at": token.expires_at.ToNanoseconds() / 1e9 if token.HasField("expires_at") else None,
    }


def invalidate(service, arguments):
    request = messages.InvalidateTokenRequest(credential=arguments.credential, generation=arguments.generation)
    answer = service.InvalidateToken(request, timeout=DEADLINE_SECONDS)
    token = answer.token if answer.HasField("token") else None
    outcome = messages.InvalidateTokenOutcome.Name(answer.outcome)
    return {
        "outcome": outcome.removeprefix("INVALIDATE_TOKEN_OUTCOME_"),
        "generation": token.generation if token else None,
        "access_token": token.access_token if token else None,
    }


def call(service, arguments):
    request = messages.CallThroughRequest(
        credential=arguments.credential, method=arguments.method, path=arguments.path
    )
    answer = service.CallThrough(request, timeout=DEADLINE_SECONDS)
    return {
        "status": answer.status,
        "attempts": answer.attempts,
        "refreshed": answer.refreshed,
        "generation": answer.generation,
        "body": answer.body.decode(errors="replace"),
    }


def explain(error):
    """What the status of a failed call says, with the details that bearerd promises."""
    status = rpc_status.from_call(error)
    info = detail(status, ErrorInfo())
    retry = detail(status, RetryInfo())
    return {
        "code": error.code().name,
        "reason": info and info.reason,
        "domain": info and info.domain,
        "retry_after_ms": retry and retry.retry_delay.ToMilliseconds(),
        "message": error.details(),
    }


def detail(status, message):
    """The detail of this message's type, or None."""
    return next((message for packed in (status.details if status else ()) if packed.Unpack(message)), None)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    # Over a Unix-domain socket the core of gRPC names the socket's path, which is no authority (grpc/grpc#38142).
    parser.add_argument("--authority")
    commands = parser.add_subparsers(required=True)
    for run in (get, invalidate, call):
        command = commands.add_parser(run.__name__)
        command.set_defaults(run=run)
        command.add_argument("credential")
        if run is get:
            command.add_argument("--refused", type=int, default=0)
        elif run is invalidate:
            command.add_argument("generation", type=int)
        else:
            command.add_argument("method")
            command.add_argument("path")
    return parser.parse_args()


def main():
    chosen = arguments()
    options = [("grpc.default_authority", chosen.authority)] if chosen.authority else None
    with grpc.insecure_channel(chosen.address, options=options) as channel:
        try:
            answer = chosen.run(services.TokenServiceStub(channel), chosen)
        except grpc.RpcError as error:
            print(json.dumps(explain(error)))
            return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
