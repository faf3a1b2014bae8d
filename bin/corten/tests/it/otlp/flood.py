"""Sends more logs than are taken: flood.py <packages> <endpoint of gRPC>

Eight senders of half a megabyte each, until two hundred requests were refused. Says how many had which outcome. Then sends one
small request after the other until one is taken, and says how long that took.
"""

import json
import sys
import threading
import time
from collections import Counter

sys.path.insert(0, sys.argv[1])

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub

REFUSED = 200


def say(**line):
    print(json.dumps(line), flush=True)


def request(number, records, filler):
    out = ExportLogsServiceRequest()
    logs = out.resource_logs.add().scope_logs.add().log_records
    for at in range(records):
        record = logs.add(severity_text=filler)
        record.body.int_value = number + at
    return out


outcomes, lock = Counter(), threading.Lock()


def outcome(stub, message):
    try:
        stub.Export(message, timeout=120)
        return "OK"
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"


def refused():
    with lock:
        return sum(times for name, times in outcomes.items() if name != "OK")


def flood(sender):
    message = request((sender + 1) << 32, 100, "x" * 5000)
    with grpc.insecure_channel(sys.argv[2], options=[("grpc.enable_retries", 0)]) as channel:
        stub = LogsServiceStub(channel)
        until = time.monotonic() + 100
        while refused() < REFUSED and time.monotonic() < until:
            name = outcome(stub, message)
            with lock:
                outcomes[name] += 1


say(begins=True)
senders = [threading.Thread(target=flood, args=(sender,)) for sender in range(8)]
for sender in senders:
    sender.start()
for sender in senders:
    sender.join()
say(outcomes=outcomes)

began = time.monotonic()
with grpc.insecure_channel(sys.argv[2], options=[("grpc.enable_retries", 0)]) as channel:
    stub = LogsServiceStub(channel)
    while (last := outcome(stub, request(1, 1, ""))) != "OK" and time.monotonic() < began + 100:
        time.sleep(0.05)
say(last=last, seconds=time.monotonic() - began)
