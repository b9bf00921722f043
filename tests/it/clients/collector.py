"""A collector of traces, which reads OTLP over HTTP with OpenTelemetry's own messages.

collector.py HOW [CERTIFICATE KEY]
    prints its port, and then each post as a line of JSON. HOW it answers: `take`, `hang` (never),
    `reject` (takes the post and keeps none of its spans), `twice` (503 to every other post), or a
    status.
"""

import itertools
import json
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

how = sys.argv[1]
posts = itertools.count()
PARTS = ("string_value", "int_value", "bool_value", "double_value", "array_value")


def value(any_value):
    part = any_value.WhichOneof("value")
    assert part in PARTS, any_value
    found = getattr(any_value, part)
    return [value(one) for one in found.values] if part == "array_value" else found


def attributes(pairs):
    found = {pair.key: value(pair.value) for pair in pairs}
    assert len(found) == len(pairs), "a key stands there twice"
    return found


def read(span):
    return {
        "trace": span.trace_id.hex(),
        "span": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "state": span.trace_state,
        "flags": span.flags,
        "name": span.name,
        "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        "began": span.start_time_unix_nano,
        "ended": span.end_time_unix_nano,
        "status": Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        "attributes": attributes(span.attributes),
    }


class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/x-protobuf"
        said = ExportTraceServiceRequest.FromString(body)
        spans = [
            dict(read(span), scope=scope.scope.name, resource=attributes(one.resource.attributes))
            for one in said.resource_spans
            for scope in one.scope_spans
            for span in scope.spans
        ]
        headers = {name.lower(): value for name, value in self.headers.items()}
        first = how == "twice" and next(posts) % 2 == 0
        # In one piece: posts come at the same time.
        line = {"path": self.path, "headers": headers, "spans": spans, "kept": not first}
        sys.stdout.write(json.dumps(line) + "\n")
        if how == "hang":
            time.sleep(3600)
        answer = ExportTraceServiceResponse()
        if how == "reject":
            answer.partial_success.rejected_spans = len(spans)
            answer.partial_success.error_message = "none of it is wanted"
        text = answer.SerializeToString()
        self.send_response(503 if first else int(how) if how.isdigit() else 200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
server.daemon_threads = True
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1])
server.serve_forever()
