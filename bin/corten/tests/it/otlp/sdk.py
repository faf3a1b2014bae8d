"""Sends all three signals with OpenTelemetry's library for Python: sdk.py <packages> grpc|http <endpoint>"""

import logging
import sys

packages, protocol, endpoint = sys.argv[1:]
sys.path.insert(0, packages)

from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

if protocol == "grpc":
    from grpc import Compression
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    def exporter(kind, signal):
        return kind(endpoint=endpoint, insecure=True, compression=Compression.Gzip)
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    def exporter(kind, signal):
        return kind(endpoint=f"{endpoint}/v1/{signal}", compression=Compression.Deflate)


resource = Resource.create({"service.name": "shop", "service.instance.id": f"python-{protocol}"})

tracers = TracerProvider(resource=resource)
tracers.add_span_processor(BatchSpanProcessor(exporter(OTLPSpanExporter, "traces")))
meters = MeterProvider(
    resource=resource,
    metric_readers=[PeriodicExportingMetricReader(exporter(OTLPMetricExporter, "metrics"), export_interval_millis=3600000)],
    views=[View(instrument_name="size", aggregation=ExponentialBucketHistogramAggregation())],
)
loggers = LoggerProvider(resource=resource)
loggers.add_log_record_processor(BatchLogRecordProcessor(exporter(OTLPLogExporter, "logs")))

log = logging.getLogger("shop")
log.propagate = False
log.addHandler(LoggingHandler(level=logging.NOTSET, logger_provider=loggers))
log.setLevel(logging.INFO)

tracer = tracers.get_tracer("shop", "1.2.3")
for number in range(500):
    with tracer.start_as_current_span("order", kind=trace.SpanKind.SERVER, attributes={"number": number}) as order:
        links = [trace.Link(order.get_span_context(), {"why": "paid"})]
        with tracer.start_as_current_span("pay", attributes={"amounts": [1.5, 2.5], "ok": True}, links=links) as pay:
            pay.add_event("charged", {"currency": "€"})
            if number % 100 == 0:
                pay.set_status(trace.Status(trace.StatusCode.ERROR, "no funds"))
            log.warning("order %d", number, extra={"n": number})

meter = meters.get_meter("shop", "1.2.3")
counter = meter.create_counter("orders", unit="1", description="Orders that were taken")
histogram = meter.create_histogram("latency", unit="ms")
size = meter.create_histogram("size", unit="By")
# Exemplars are of what happens within a span.
within = trace.set_span_in_context(pay)
for number in range(100):
    counter.add(2, {"kind": "web" if number % 2 else "app"})
    histogram.record(number, {"kind": "web"}, context=within)
    size.record(number + 1)
meter.create_up_down_counter("open").add(-3)
meter.create_gauge("load").set(0.25, {"cpu": 1})

ok = tracers.force_flush(), loggers.force_flush(), meters.force_flush()
tracers.shutdown()
loggers.shutdown()
meters.shutdown()
print(ok)
sys.exit(0 if all(done is not False for done in ok) else 1)
