/** The metrics of a component as charts that build up while the page is open. */
import { useEffect, useRef, useState } from "preact/hooks";
import { idPath, useApi } from "../../api/client";
import type { Metrics } from "../../api/types";
import { ago, bytes, count, dateTime, duration, plural } from "../../parts/format";
import { Empty, ErrorNotice, Loading } from "../../parts/notice";
import { type Chart, isIdle, linePath, SeriesStore, type Unit, valueRange } from "../../parts/pages/series";

const EVERY_MS = 2_000;
const WIDTH = 320;
const HEIGHT = 72;
/** The least time that a chart spans. */
const SPAN_MIN_MS = 30_000;

export function MetricsTab({ id }: { id: string }) {
  const metrics = useApi<Metrics>(`components/${idPath(id)}/metrics`, {}, EVERY_MS);
  const store = useRef<SeriesStore | null>(null);
  store.current ??= new SeriesStore();
  const [, setDrawn] = useState(0);
  const [wanted, setWanted] = useState("");
  useEffect(() => {
    if (metrics.data === null) return;
    store.current?.push(metrics.data);
    setDrawn((n) => n + 1);
  }, [metrics.data]);
  if (metrics.data === null) {
    return metrics.error === null ? (
      <Loading what="metrics" />
    ) : (
      <ErrorNotice error={metrics.error} what="metrics" retry={metrics.reload} />
    );
  }
  const charts = store.current.charts();
  const find = wanted.trim().toLowerCase();
  const shown = charts.filter(
    (chart) => find === "" || chart.name.toLowerCase().includes(find) || chart.help.toLowerCase().includes(find),
  );
  return (
    <>
      <div class="row">
        <input
          class="input grow metrics-find"
          type="search"
          placeholder="Find a metric"
          aria-label="Find a metric"
          value={wanted}
          onInput={(event) => setWanted(event.currentTarget.value)}
        />
        <span class="muted">every {EVERY_MS / 1_000} s, counters per second</span>
      </div>
      {metrics.error !== null && <ErrorNotice error={metrics.error} what="new values" retry={metrics.reload} />}
      {shown.length === 0 ? (
        <Empty>{charts.length === 0 ? "This component has no metrics of its own." : "No metric has this in its name."}</Empty>
      ) : (
        <>
          <Charts label="Metrics" charts={shown.filter((chart) => !isIdle(chart))} until={metrics.data.t} />
          {shown.some(isIdle) && (
            <details class="idle-charts" open={find !== ""}>
              <summary>{plural(shown.filter(isIdle).length, "chart")} at zero</summary>
              <Charts label="Metrics at zero" charts={shown.filter(isIdle)} until={metrics.data.t} />
            </details>
          )}
        </>
      )}
    </>
  );
}

function Charts({ label, charts, until }: { label: string; charts: Chart[]; until: number }) {
  return (
    <ul class="charts" aria-label={label}>
      {charts.map((chart) => (
        <li key={`${chart.name} ${chart.what}`}>
          <ChartCard chart={chart} until={until} />
        </li>
      ))}
    </ul>
  );
}

function unitText(value: number | null, unit: Unit): string {
  if (value === null) return "–";
  switch (unit) {
    case "bytes":
      return bytes(value);
    case "seconds":
      return value === 0 ? "0 s" : duration(value * 1_000);
    case "time":
      return value === 0 ? "never" : `${ago(value * 1_000)} ago`;
    case "number":
      return count(value);
  }
}

function ChartCard({ chart, until }: { chart: Chart; until: number }) {
  const suffix = chart.what === "per second" ? "/s" : "";
  const [first] = chart.lines;
  const single = chart.lines.length === 1 && chart.left === 0 && first?.name === "";
  const { min, max } = valueRange(chart.lines);
  const start = Math.min(...chart.lines.map((line) => line.points[0]?.t ?? until));
  const from = Math.min(start, until - SPAN_MIN_MS);
  const isTime = chart.unit === "time";
  return (
    <article class="chart card" title={chart.help}>
      <header>
        <h3 class="mono break">{chart.title}</h3>
        {chart.what === "mean" && <span class="docs-tag">mean</span>}
        {single && (
          <span class="chart-now tabular" title={first?.raw === null ? "" : exactText(first?.raw ?? null, chart)}>
            {unitText(first?.last ?? null, chart.unit)}
            {first?.last === null || isTime ? "" : suffix}
          </span>
        )}
      </header>
      {!isTime && (
        <div class="chart-box">
          <svg
            viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
            preserveAspectRatio="none"
            role="img"
            aria-label={`${chart.title}, ${chart.what === "" ? "value" : chart.what}: up to ${unitText(max, chart.unit)}${suffix}`}
          >
            <path class="chart-grid" d={`M0 ${HEIGHT / 2}H${WIDTH}M0 0.5H${WIDTH}M0 ${HEIGHT - 0.5}H${WIDTH}`} vector-effect="non-scaling-stroke" />
            {chart.lines.map((line, index) => (
              <path
                key={line.name}
                class={`chart-line line-${index % 8}`}
                d={linePath(line.points, { from, to: until, min, max }, WIDTH, HEIGHT - 4)}
                transform="translate(0 2)"
                vector-effect="non-scaling-stroke"
              />
            ))}
          </svg>
          <span class="chart-max tabular">
            {unitText(max, chart.unit)}
            {suffix}
          </span>
        </div>
      )}
      {!single && (
        <ul class="legend">
          {chart.lines.map((line, index) => (
            <li key={line.name} title={exactText(line.raw, chart)}>
              <i class={`legend-dot line-${index % 8}`} aria-hidden="true" />
              <span class="legend-name mono">{line.name === "" ? "all" : line.name.slice(1, -1)}</span>
              <span class="tabular">
                {unitText(line.last, chart.unit)}
                {line.last === null || isTime ? "" : suffix}
              </span>
            </li>
          ))}
          {chart.left > 0 && <li class="muted">and {chart.left} more</li>}
        </ul>
      )}
    </article>
  );
}

function exactText(raw: number | null, chart: Chart): string {
  if (raw === null) return "";
  if (chart.unit === "time") return dateTime(raw * 1_000);
  return `${chart.type === "counter" ? "in all " : chart.type === "gauge" ? "" : "observed "}${raw.toLocaleString("en")}`;
}
