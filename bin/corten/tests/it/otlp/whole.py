"""Messages in which every field is set, and a server that looks whether they come as they were sent: whole.py <packages>

Says where it listens. Asked for `/send?grpc=<address>&http=<address>` it sends all signals there, over gRPC, and over HTTP as
protocol buffers and as JSON. Says for each message that arrives by which way it came, and how it differs from what it should be:
what was sent, where the way is `changed` with an attribute `added` of each resource and record.
"""

import base64
import difflib
import gzip
import itertools
import json
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

sys.path.insert(0, sys.argv[1])

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

SIGNALS = {
    "traces": (trace_service_pb2.ExportTraceServiceRequest, trace_service_pb2_grpc, "TraceService", "resource_spans"),
    "metrics": (metrics_service_pb2.ExportMetricsServiceRequest, metrics_service_pb2_grpc, "MetricsService", "resource_metrics"),
    "logs": (logs_service_pb2.ExportLogsServiceRequest, logs_service_pb2_grpc, "LogsService", "resource_logs"),
}
ANSWERS = {
    "traces": trace_service_pb2.ExportTraceServiceResponse,
    "metrics": metrics_service_pb2.ExportMetricsServiceResponse,
    "logs": logs_service_pb2.ExportLogsServiceResponse,
}
# Ids are in hexadecimal digits where protocol buffers would have base 64.
IDS = {"traceId", "spanId", "parentSpanId"}
# Lists whose lengths go together.
LISTS = {"bucket_counts": [3, 0, 1], "explicit_bounds": [0.5, 1.5]}
NESTED_MAX = 3

count = itertools.count(1)


def value(field, variant):
    number = next(count)
    if field.name.endswith("trace_id"):
        return bytes([number % 255 + 1] * 16)
    if field.name.endswith("span_id"):
        return bytes([number % 255 + 1] * 8)
    if field.name.endswith("_unix_nano"):
        return 1_700_000_000_000_000_000 + number
    kinds = {
        FieldDescriptor.TYPE_STRING: f"{field.name} € {number}",
        FieldDescriptor.TYPE_BYTES: b"\x00\xff" + str(number).encode(),
        FieldDescriptor.TYPE_BOOL: True,
        FieldDescriptor.TYPE_DOUBLE: number + 0.1,
        FieldDescriptor.TYPE_SINT32: -number,
        FieldDescriptor.TYPE_INT64: -number,
        FieldDescriptor.TYPE_SFIXED64: -number,
    }
    if field.type == FieldDescriptor.TYPE_ENUM:
        values = [value.number for value in field.enum_type.values if value.number]
        return values[variant % len(values)]
    return kinds.get(field.type, number)


def fill(message, variant=0, nested=0):
    """Sets every field; of those that exclude each other, one."""
    for field in message.DESCRIPTOR.fields:
        # Indices into the dictionary of profiles have no meaning here.
        if field.name.endswith("_strindex"):
            continue
        if field.containing_oneof and len(field.containing_oneof.fields) > 1:
            choices = [choice for choice in field.containing_oneof.fields if not choice.name.endswith("_strindex")]
            if nested >= NESTED_MAX:
                choices = [choice for choice in choices if choice.type != FieldDescriptor.TYPE_MESSAGE]
            if field is not choices[variant % len(choices)]:
                continue
        if field.name in LISTS:
            getattr(message, field.name).extend(LISTS[field.name])
        elif field.type != FieldDescriptor.TYPE_MESSAGE:
            if field.is_repeated:
                getattr(message, field.name).extend([value(field, variant) for _ in range(2)])
            else:
                setattr(message, field.name, value(field, variant))
        else:
            deeper = nested + (field.message_type.name in ("ArrayValue", "KeyValueList"))
            if field.is_repeated:
                # As many as there are kinds of metrics, and of values where they are not nested.
                kinds = {"metrics": 5, "attributes": 7 if nested == 0 else 2}
                for at in range(kinds.get(field.name, 2)):
                    fill(getattr(message, field.name).add(), at if nested == 0 else next(count), deeper)
            else:
                getattr(message, field.name).SetInParent()
                fill(getattr(message, field.name), variant, deeper)
    return message


SENT = {signal: fill(kind()) for signal, (kind, *_) in SIGNALS.items()}


def records(scope):
    """What has attributes: spans, log records, data points."""
    for metric in getattr(scope, "metrics", ()):
        yield from getattr(metric, metric.WhichOneof("data")).data_points
    for name in ("spans", "log_records"):
        yield from getattr(scope, name, ())


def expected(signal, way):
    message = SIGNALS[signal][0].FromString(SENT[signal].SerializeToString())
    resources = getattr(message, SIGNALS[signal][3]) if way.startswith("changed") else ()
    for resource in resources:
        scopes = getattr(resource, SIGNALS[signal][3].replace("resource", "scope"))
        for changed in [resource.resource, *(record for scope in scopes for record in records(scope))]:
            changed.attributes.add(key="added").value.string_value = "x"
    return message


def with_ids(json_value, change):
    if isinstance(json_value, list):
        return [with_ids(item, change) for item in json_value]
    if isinstance(json_value, dict):
        return {key: change(item) if key in IDS else with_ids(item, change) for key, item in json_value.items()}
    return json_value


def to_json(message):
    tree = json_format.MessageToDict(message, use_integers_for_enums=True)
    return json.dumps(with_ids(tree, lambda text: base64.b64decode(text).hex())).encode()


def of_json(kind, body):
    tree = with_ids(json.loads(body), lambda text: base64.b64encode(bytes.fromhex(text)).decode())
    return json_format.ParseDict(tree, kind())


lock = threading.Lock()


def say(**line):
    with lock:
        print(json.dumps(line), flush=True)


def take(way, signal, message):
    wanted = expected(signal, way)
    texts = [str(each).splitlines() for each in (wanted, message)]
    diff = [] if message == wanted else list(difflib.unified_diff(*texts, "wanted", "came", lineterm=""))[:40]
    say(way=way, signal=signal, same=message == wanted, diff=diff)


def send(grpc_address, http_address):
    for signal, (_, services, service, _) in SIGNALS.items():
        with grpc.insecure_channel(grpc_address) as channel:
            getattr(services, f"{service}Stub")(channel).Export(SENT[signal], timeout=120)
        bodies = [("application/x-protobuf", SENT[signal].SerializeToString()), ("application/json", to_json(SENT[signal]))]
        for content_type, body in bodies:
            url = f"http://{http_address}/v1/{signal}"
            request = urllib.request.Request(url, body, {"Content-Type": content_type})
            urllib.request.urlopen(request, timeout=120).read()


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        way, _, signal = self.path.strip("/").rsplit("/", 2)
        kind = SIGNALS[signal][0]
        is_json = self.headers["Content-Type"] == "application/json"
        take(way, signal, of_json(kind, body) if is_json else kind.FromString(body))
        self.answer()

    def do_GET(self):
        to = parse_qs(urlsplit(self.path).query)
        try:
            send(to["grpc"][0], to["http"][0])
            say(sent=True, why="")
        except Exception as error:
            body = error.read().decode() if hasattr(error, "read") else ""
            say(sent=False, why=f"{error} {body}")
        self.answer()

    def answer(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def servicer(signal):
    _, services, service, _ = SIGNALS[signal]

    class Grpc(getattr(services, f"{service}Servicer")):
        def Export(self, request, context):
            take(dict(context.invocation_metadata())["way"], signal, request)
            return ANSWERS[signal]()

    return Grpc()


pool = grpc.server(ThreadPoolExecutor(4))
for signal, (_, services, service, _) in SIGNALS.items():
    getattr(services, f"add_{service}Servicer_to_server")(servicer(signal), pool)
port = pool.add_insecure_port("127.0.0.1:0")
pool.start()
server = ThreadingHTTPServer(("127.0.0.1", 0), Http)
say(grpc=f"127.0.0.1:{port}", http="127.0.0.1:%d" % server.server_address[1])
server.serve_forever()
