"""Takes spans, decoded with OpenTelemetry's own library, over gRPC and HTTP, and other requests: collect.py <packages>

Says where it listens, then a line for each span, and one for each request over HTTP, with the header that tells of its trace.
"""

import gzip
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.path.insert(0, sys.argv[1])

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


def values(attributes):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


lock = threading.Lock()


def say(**line):
    with lock:
        print(json.dumps(line), flush=True)


def take(over, request):
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                say(
                    over=over,
                    resource=values(resource.resource.attributes),
                    scope=[scope.scope.name, scope.scope.version],
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    span=span.name,
                    kind=span.kind,
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    attributes=values(span.attributes),
                    status=[span.status.code, span.status.message],
                )


class Grpc(TraceServiceServicer):
    def Export(self, request, context):
        take("grpc", request)
        return ExportTraceServiceResponse()


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.say()
        if self.path.endswith("/v1/traces"):
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            take(self.path, ExportTraceServiceRequest.FromString(body))
        self.answer("application/x-protobuf", b"")

    def say(self):
        say(page=self.path, traceparent=self.headers["traceparent"])

    def do_GET(self):
        self.say()
        if self.path.startswith("/sampling"):
            # Everything that is served, nothing else.
            by_name = [{"operation": "GET /-/ready", "probabilisticSampling": {"samplingRate": 1}}]
            strategy = {"defaultSamplingProbability": 0, "defaultLowerBoundTracesPerSecond": 0, "perOperationStrategies": by_name}
            self.answer("application/json", json.dumps({"strategyType": "PROBABILISTIC", "operationSampling": strategy}).encode())
        else:
            self.answer("text/plain; version=0.0.4", b"# TYPE up_and_well gauge\nup_and_well 1\n")

    def answer(self, content_type, body):
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


service = grpc.server(ThreadPoolExecutor(4))
add_TraceServiceServicer_to_server(Grpc(), service)
port = service.add_insecure_port("127.0.0.1:0")
service.start()
server = ThreadingHTTPServer(("127.0.0.1", 0), Http)
say(grpc=f"127.0.0.1:{port}", http="127.0.0.1:%d" % server.server_address[1])
server.serve_forever()
