"""A gRPC service of raw bytes, and a client that tries all of it.

grpc_site.py serve          prints its port and serves
grpc_site.py call ADDRESS   calls it there; fails where anything is not as it should be
"""

import sys
import threading
import time
from concurrent import futures

import grpc

left = threading.Event()


def unary(request, context):
    context.set_trailing_metadata((("seen-user", dict(context.invocation_metadata()).get("x-user", "")),))
    return request[::-1]


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def total(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def echo(requests, context):
    for request in requests:
        yield request.upper()


def refuse(request, context):
    context.set_trailing_metadata((("why-bin", b"\x00\xff"),))
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "not today: 50% ä")


def slow(request, context):
    context.add_callback(left.set)
    time.sleep(3)
    return b"late"


def was_left(request, context):
    return b"yes" if left.wait(5) else b"no"


def forget(request, context):
    left.clear()
    return b""


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(16))
    one, many = grpc.unary_unary_rpc_method_handler, grpc.stream_unary_rpc_method_handler
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "check.Check",
                {
                    "Unary": one(unary),
                    "Count": grpc.unary_stream_rpc_method_handler(count),
                    "Total": many(total),
                    "Echo": grpc.stream_stream_rpc_method_handler(echo),
                    "Refuse": one(refuse),
                    "Slow": one(slow),
                    "WasLeft": one(was_left),
                    "Forget": one(forget),
                },
            ),
        )
    )
    print(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


def call(address):
    with grpc.insecure_channel(address) as channel:
        stub = lambda name, kind="unary_unary": getattr(channel, kind)(f"/check.Check/{name}")
        for size in (0, 5, 3_000_000):
            request = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
            answer, done = stub("Unary").with_call(request, timeout=20, metadata=(("x-user", "carl"),))
            assert answer == request[::-1], size
            assert dict(done.trailing_metadata())["seen-user"] == "carl", done.trailing_metadata()
        answers = list(stub("Count", "unary_stream")(b"1000", timeout=20))
        assert answers == [str(number).encode() for number in range(1000)]
        answer = stub("Total", "stream_unary")((b"x" * 10_000 for _ in range(500)), timeout=20)
        assert answer == b"5000000", answer

        # Each word is answered before the next is said.
        heard = threading.Semaphore(1)

        def words():
            for word in (b"a", b"b", b"c"):
                assert heard.acquire(timeout=10), "no answer came back in between"
                yield word

        answers = []
        for answer in stub("Echo", "stream_stream")(words(), timeout=20):
            answers.append(answer)
            heard.release()
        assert answers == [b"A", b"B", b"C"], answers

        try:
            stub("Refuse")(b"", timeout=20)
            raise AssertionError("not refused")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.PERMISSION_DENIED, error
            assert error.details() == "not today: 50% ä", error
            assert dict(error.trailing_metadata())["why-bin"] == b"\x00\xff", error
        try:
            stub("Nothing")(b"", timeout=20)
            raise AssertionError("answered")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error

        # A deadline, and a client that changes its mind: the server hears of both.
        for leave in ("deadline", "cancel"):
            stub("Forget")(b"", timeout=20)
            begun = time.monotonic()
            pending = stub("Slow").future(b"", timeout=0.5 if leave == "deadline" else 20)
            if leave == "cancel":
                time.sleep(0.5)
                pending.cancel()
            try:
                pending.result()
                raise AssertionError("answered")
            except grpc.FutureCancelledError:
                assert leave == "cancel"
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
            assert stub("WasLeft")(b"", timeout=20) == b"yes"
            assert time.monotonic() - begun < 2.5, f"heard only at the end, after {leave}"
    print("all is well")


if sys.argv[1] == "serve":
    serve()
else:
    call(sys.argv[2])
