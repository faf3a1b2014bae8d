// Sends all three signals with OpenTelemetry's libraries for Node: sdk.js <packages> grpc|http <endpoint>
const [packages, protocol, endpoint] = process.argv.slice(2);
const load = (name) => require(`${packages}/node_modules/@opentelemetry/${name}`);

const { resourceFromAttributes } = load("resources");
const { BasicTracerProvider, BatchSpanProcessor } = load("sdk-trace-base");
const { AggregationType, MeterProvider, PeriodicExportingMetricReader } = load("sdk-metrics");
const { LoggerProvider, BatchLogRecordProcessor } = load("sdk-logs");
const { SpanKind, SpanStatusCode, context, trace } = load("api");
const form = protocol === "grpc" ? "grpc" : "http";
const { OTLPTraceExporter } = load(`exporter-trace-otlp-${form}`);
const { OTLPMetricExporter } = load(`exporter-metrics-otlp-${form}`);
const { OTLPLogExporter } = load(`exporter-logs-otlp-${form}`);

// Over HTTP these send JSON.
const url = (signal) => ({ url: protocol === "grpc" ? `http://${endpoint}` : `${endpoint}/v1/${signal}` });
const resource = resourceFromAttributes({ "service.name": "shop", "service.instance.id": `node-${protocol}` });

const tracers = new BasicTracerProvider({
  resource,
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter(url("traces")))],
});
const meters = new MeterProvider({
  resource,
  readers: [new PeriodicExportingMetricReader({ exporter: new OTLPMetricExporter(url("metrics")), exportIntervalMillis: 3600000 })],
  views: [{ instrumentName: "size", aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM } }],
});
const loggers = new LoggerProvider({ resource, processors: [new BatchLogRecordProcessor({ exporter: new OTLPLogExporter(url("logs")) })] });

async function main() {
  const tracer = tracers.getTracer("shop", "1.2.3");
  const log = loggers.getLogger("shop", "1.2.3");
  for (let number = 0; number < 500; number++) {
    const order = tracer.startSpan("order", { kind: SpanKind.SERVER, attributes: { number } });
    const within = trace.setSpan(context.active(), order);
    const links = [{ context: order.spanContext(), attributes: { why: "paid" } }];
    const pay = tracer.startSpan("pay", { attributes: { amounts: [1.5, 2.5], ok: true }, links }, within);
    pay.addEvent("charged", { currency: "€" });
    if (number % 100 === 0) pay.setStatus({ code: SpanStatusCode.ERROR, message: "no funds" });
    log.emit({ severityNumber: 13, severityText: "WARN", body: `order ${number}`, attributes: { n: number }, context: trace.setSpan(within, pay) });
    pay.end();
    order.end();
    if (number % 100 === 99) await Promise.all([tracers.forceFlush(), loggers.forceFlush()]);
  }
  const meter = meters.getMeter("shop", "1.2.3");
  const counter = meter.createCounter("orders", { unit: "1", description: "Orders that were taken" });
  const histogram = meter.createHistogram("latency", { unit: "ms" });
  const size = meter.createHistogram("size", { unit: "By" });
  for (let number = 0; number < 100; number++) {
    counter.add(2, { kind: number % 2 ? "web" : "app" });
    histogram.record(number, { kind: "web" });
    size.record(number + 1);
  }
  meter.createUpDownCounter("open").add(-3);
  meter.createGauge("load").record(0.25, { cpu: 1 });
  await Promise.all([tracers.forceFlush(), loggers.forceFlush(), meters.forceFlush()]);
  await Promise.all([tracers.shutdown(), loggers.shutdown(), meters.shutdown()]);
}

main().then(() => console.log("sent"), (error) => { console.error(error); process.exit(1); });
