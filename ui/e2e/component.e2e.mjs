/** The page of a component: what it is, refers to, is configured with, says of itself, and what its metrics are. */
export const expects = {
  id: "prometheus.relabel.shop_cardinality",
  health: "healthy",
  role: "stage",
  place: "config.alloy:",
  kinds: ["Prometheus metrics"],
  references: ["prometheus.remote_write.mimir"],
  referencedBy: ["prometheus.scrape.shop"],
  receivesFrom: ["prometheus.scrape.shop"],
  sendsTo: ["prometheus.remote_write.mimir"],
  /** Whether data flows at this time. */
  flows: true,
  dropped: "rule 2 drop",
  source: "target_label = \"workload\"",
  arguments: "target_label",
  exports: "receiver",
  metrics: ["corten_component_items_total", "request_duration_seconds"],
  docs: "forward_to",
  /** Tables of the debug information of a component, by what their rows say. */
  debug: { id: "prometheus.scrape.shop", heading: "Targets", rows: [["http://10.0.0.2:9100/metrics", "down", "connection refused"]] },
  /** A sink of which something is wrong. */
  sink: { id: "loki.write.central", state: "unhealthy", message: "503 Service Unavailable", end: "backup", answer: "503", pending: true },
  /** A component with a secret. `hidden` must be nowhere. */
  secret: { id: "prometheus.remote_write.mimir", name: "bearer_token", hidden: null },
  absent: "no.such.component",
};

const path = (id, tab = "") => `component/${id.split("/").map(encodeURIComponent).join("/")}${tab === "" ? "" : `?tab=${tab}`}`;

export default async function (t) {
  const { page, expect } = t;
  const region = (name) => page.getByRole("region", { name, exact: true });

  await t.check("the head says what it is, how it is and where it is written", async () => {
    await t.open(path(expect.id));
    await page.getByRole("heading", { level: 1, name: expect.id }).waitFor();
    const head = page.locator(".component-head");
    await t.see(expect.health, head);
    await t.see(expect.role, head);
    for (const kind of expect.kinds ?? []) await t.see(kind, head);
    await head.getByRole("link", { name: expect.place }).waitFor();
  });
  await t.check("what it refers to and what refers to it are links", async () => {
    for (const id of expect.references) await region("Refers to").getByRole("link", { name: id }).waitFor();
    for (const id of expect.referencedBy) await region("Referred to by").getByRole("link", { name: id }).waitFor();
  }, expect.references && expect.referencedBy);
  await t.check("where its data comes from and goes, with rates", async () => {
    const data = region("Data");
    for (const id of [...expect.receivesFrom, ...expect.sendsTo]) await data.getByRole("link", { name: id }).waitFor();
    if (expect.flows) {
      await t.until("a rate that is not zero", async () => {
        const rates = await data.locator("td.num").allTextContents();
        return rates.some((text) => /^[\d.]+[kM]?\/s$/.test(text) && text !== "0/s");
      }, 60_000);
    }
  }, expect.receivesFrom && expect.sendsTo);
  await t.check("its balance names the reason of drops", () => t.see(expect.dropped, region("Balance")), expect.dropped);
  await t.check("its health has a history", async () => {
    await region("Health").getByRole("img", { name: /Health over/ }).waitFor();
    await t.see(expect.health, region("Health"));
  });
  await t.shot("component-state");

  await t.check("tabs are walked with the arrows, and stand in the address", async () => {
    await page.getByRole("tab", { name: "State" }).focus();
    await page.keyboard.press("ArrowRight");
    await t.until("the second tab", () => page.getByRole("tab", { name: "Configuration", selected: true }).isVisible());
    if (!page.url().includes("tab=configuration")) throw new Error(page.url());
    await page.keyboard.press("ArrowLeft");
    await page.getByRole("tab", { name: "State", selected: true }).waitFor();
  });

  await t.check("on a phone it is seen that there are more tabs, and keys lead to the last", async () => {
    const tabs = page.getByRole("tablist", { name: "About the component" });
    const hints = () => tabs.evaluate((row) => ["::before", "::after"].map((part) => getComputedStyle(row, part).content !== "none"));
    const seen = (name) => tabs.evaluate((row, name) => {
      const [own, tab] = [row.getBoundingClientRect(), [...row.children].find((tab) => tab.textContent.startsWith(name)).getBoundingClientRect()];
      return tab.left >= own.left - 1 && tab.right <= own.right + 1;
    }, name);
    await t.open(path(expect.id), "phone");
    await t.until("there is more at the end", async () => (await hints()).join() === "false,true");
    if (await seen("Reference")) throw new Error("the last tab is within the row");
    await page.getByRole("tab", { name: "State" }).focus();
    await page.keyboard.press("End");
    await page.getByRole("tab", { name: "Reference", selected: true }).waitFor();
    await t.until("the last tab is whole", () => seen("Reference"));
    await t.until("there is more at the start", async () => (await hints()).join() === "true,false");
    await t.open(path(expect.id));
    await t.until("where there is room nothing is hinted", async () => (await seen("Reference")) && (await hints()).join() === "false,false");
  });

  await t.check("the source is as it was written, arguments and exports as evaluated", async () => {
    await t.open(path(expect.id, "configuration"));
    const text = async (name) => (await region(name).locator(".code").innerText()).replace(/[ \t\u00a0]+/g, " ");
    await t.until("the source", async () => (await text("Source")).includes(expect.source.replace(/ +/g, " ")));
    if (expect.arguments) await t.until("the arguments", async () => (await text("Arguments")).includes(expect.arguments));
    if (expect.exports) await t.until("the exports", async () => (await text("Exports")).includes(expect.exports));
  }, expect.source);
  await t.check("the reference stands beside the configuration where there is room", async () => {
    const docs = page.getByRole("complementary", { name: "Reference" });
    await t.see(expect.docs, docs);
    const [left, right] = [await region("Source").boundingBox(), await docs.boundingBox()];
    if (!(right.x > left.x + left.width - 2)) throw new Error("it is not beside it");
  }, expect.docs);
  await t.shot("component-configuration");

  await t.check("a secret is shown as (secret)", async () => {
    const { id, name, hidden } = expect.secret;
    await t.open(path(id, "configuration"));
    await t.until("(secret)", async () => {
      const lines = (await region("Arguments").locator(".code-line").allInnerTexts()).map((line) => line.trim());
      return lines.some((line) => line.startsWith(name) && line.endsWith("(secret)"));
    });
    if (hidden !== null && (await page.content()).includes(hidden)) throw new Error("the secret is on the page");
  }, expect.secret);

  await t.check("debug information is a table", async () => {
    const { id, heading, rows } = expect.debug;
    await t.open(path(id, "debug"));
    await page.getByRole("heading", { name: heading }).waitFor();
    for (const texts of rows) {
      let row = page.getByRole("row");
      for (const text of texts) row = row.filter({ hasText: text });
      await row.first().waitFor();
    }
  }, expect.debug);
  if (expect.debug) await t.shot("component-debug");

  await t.check("metrics are charts that build up", async () => {
    await t.open(path(expect.id, "metrics"));
    const charts = page.getByRole("list", { name: "Metrics", exact: true });
    for (const name of expect.metrics) await t.see(name, charts);
    // A line needs two values.
    await t.until("a line", async () => {
      const paths = await charts.locator("path.chart-line").evaluateAll((list) => list.map((line) => line.getAttribute("d") ?? ""));
      return paths.some((path) => path.includes("L"));
    }, 60_000);
    await page.getByRole("searchbox", { name: "Find a metric" }).fill(expect.metrics[0]);
    await t.until("only that one", async () => (await page.locator(".charts h3").allTextContents()).every((name) => name === expect.metrics[0]));
    await page.getByRole("searchbox", { name: "Find a metric" }).fill("");
  }, expect.metrics);
  if (expect.metrics) await t.shot("component-metrics");

  await t.check("the reference is searched", async () => {
    await t.open(path(expect.id, "reference"));
    await t.see(expect.docs);
    await page.getByRole("searchbox", { name: "Find an argument" }).fill("no such argument");
    await t.see("No argument or block has");
  }, expect.docs);

  await t.check("a sink says what is wrong: health, queue, retries and the last answer", async () => {
    const { id, state, message, end, answer, pending } = expect.sink;
    await t.open(path(id));
    await t.see(state, page.locator(".component-head"));
    if (message) await t.see(message, page.locator(".component-head"));
    const card = region(`Endpoint ${end}`);
    if (answer) await t.until("the last answer", async () => (await card.locator(".end-answer").innerText()).includes(answer), 60_000);
    if (pending) {
      await t.until("what waits", async () => {
        const figure = card.locator(".figure", { hasText: "in the queue" }).first().locator(".figure-value");
        return (await figure.innerText()) !== "0";
      }, 60_000);
    }
    await t.see("retries", card);
  }, expect.sink);
  if (expect.sink) await t.shot("component-sink");

  await t.check("a component that is not there is said not to be", async () => {
    t.allow(404, "components/");
    await t.open(path(expect.absent));
    await t.see("There is no component");
    await page.getByRole("link", { name: "To the pipeline" }).waitFor();
  }, expect.absent);
}
