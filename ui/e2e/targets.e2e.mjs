/** The targets: found, kept or dropped and by which rule, scraped when, last error. */
export const expects = {
  /** How many there are; the least, where more may come. */
  total: 649,
  /** How many of a state. */
  states: { up: 431, down: 64, dropped: 53, refused: 50 },
  /** One that is down: what to search for, and its error. */
  down: { q: "10.0.0.10:9101", url: "http://10.0.0.10:9101/metrics", error: "context deadline exceeded" },
  /** One that was dropped, and by what. */
  dropped: { q: "10.0.0.14:9102", address: "10.0.0.14:9102", rule: "rule 2", action: "drop", component: "discovery.relabel.fleet", place: "config.alloy:", label: "env" },
  /** One of which rules changed labels. */
  changed: { q: "10.0.0.1:9101", url: "http://10.0.0.1:9101/metrics", added: "job", removed: "__meta_team" },
  component: "prometheus.scrape.shop",
  /** The longest that a search may take until its rows are seen, in milliseconds; `null` is not measured. */
  searchMs: null,
};

export default async function (t) {
  const { page, expect } = t;
  const table = page.getByRole("table", { name: "Targets", exact: true });
  const search = page.getByRole("searchbox", { name: "Search targets" });
  const rows = table.locator(".target:not(.is-missing)");
  const chip = (name) => page.getByRole("radio", { name: new RegExp(`^${name} `) });
  const count = async (name) => Number((await chip(name).locator("b").innerText()).replaceAll(",", ""));
  const find = async (q, within) => {
    const began = Date.now();
    await search.fill(q);
    await t.until("the answer", async () => {
      const asked = new URL(page.url()).searchParams.get("q") === q;
      return asked && (await table.getAttribute("aria-busy")) === "false";
    }, 60_000);
    await rows.filter({ hasText: within }).first().waitFor({ timeout: 60_000 });
    return Date.now() - began;
  };

  await t.check("all are counted, by state", async () => {
    await t.open("targets");
    await rows.first().waitFor({ timeout: 60_000 });
    await t.until("the total", async () => (await count("all")) >= expect.total, 60_000);
    for (const [state, n] of Object.entries(expect.states ?? {})) {
      await t.until(`${n} ${state}`, async () => (await count(state)) === n, 60_000);
    }
  });
  await t.shot("targets");
  await t.check("the last row is reached, however many there are", async () => {
    const n = await count("all");
    await table.evaluate((box) => {
      box.scrollTop = box.scrollHeight;
    });
    await t.until("the last row", async () => (await table.locator(`[role=row][aria-rowindex="${n + 1}"]`).count()) === 1, 60_000);
    await t.until("rows that are loaded", async () => (await table.locator(".is-missing").count()) === 0, 60_000);
    const made = await table.locator(".target").count();
    if (made > 120) throw new Error(`${made} rows are made at once`);
    await table.evaluate((box) => {
      box.scrollTop = 0;
    });
  });
  await t.check("a state is chosen, and stands in the address", async () => {
    await chip("down").click();
    await t.until("only those that are down", async () => {
      const states = await rows.locator(".target-state").allInnerTexts();
      return states.length > 0 && states.every((state) => state.trim() === "down");
    });
    if (!page.url().includes("state=down")) throw new Error(page.url());
    await page.keyboard.press("ArrowLeft");
    await page.keyboard.press("ArrowLeft");
    await t.until("all are chosen", async () => (await chip("all").getAttribute("aria-checked")) === "true");
  }, expect.down);
  await t.check("one that is down is found, with its last error", async () => {
    const { q, url, error } = expect.down;
    await find(q, url);
    await rows.filter({ hasText: url }).filter({ hasText: error }).first().waitFor({ timeout: 60_000 });
    await rows.filter({ hasText: url }).first().getByRole("button").click();
    await t.see("Last error", table.locator(".target-details"));
    await t.see(error, table.locator(".target-details"));
  }, expect.down);
  await t.check("one that was dropped names the rule, and where it is written", async () => {
    const { q, address, rule, action, component, place, label } = expect.dropped;
    await find(q, "dropped");
    const row = rows.filter({ hasText: "dropped" }).filter({ hasText: address }).first();
    await row.getByRole("button").focus();
    await page.keyboard.press("Enter");
    const details = table.locator(".target-details");
    await t.until("the rule", async () => {
      const said = (await details.innerText()).replace(/[✓!?×]/g, "").replace(/\s+/g, " ");
      return said.includes(`Dropped by ${rule}, action ${action}, of ${component}`) && said;
    });
    if (place) await details.getByRole("link", { name: place }).waitFor();
    if (label) await t.see(label, details);
  }, expect.dropped);
  if (expect.dropped) await t.shot("targets-dropped");
  await t.check("what rules changed is marked", async () => {
    const { q, url, added, removed } = expect.changed;
    await find(q, url);
    await rows.filter({ hasText: url }).first().getByRole("button").click();
    const details = table.locator(".target-details");
    if (added) await details.getByRole("row").filter({ hasText: added }).filter({ hasText: "added" }).first().waitFor();
    if (removed) await details.getByRole("row").filter({ hasText: removed }).filter({ hasText: "removed" }).first().waitFor();
  }, expect.changed);
  if (expect.changed) await t.shot("targets-open");
  await t.check("the targets of one component are chosen", async () => {
    await search.fill("");
    await page.getByRole("combobox", { name: "Component", exact: true }).selectOption(expect.component);
    await t.until("only its targets", async () => {
      const ids = await rows.locator(".target-component").allInnerTexts();
      return ids.length > 0 && ids.every((id) => id.trim() === expect.component);
    });
    await page.getByRole("combobox", { name: "Component", exact: true }).selectOption("");
  }, expect.component);
  await t.check("the slowest come first", async () => {
    await page.getByRole("combobox", { name: "Order" }).selectOption("-durationMs");
    await t.until("the order", () => page.url().includes("sort=-durationMs"));
    await rows.first().waitFor();
    await page.getByRole("combobox", { name: "Order" }).selectOption("");
  });
  await t.check("a search that finds nothing says so, one that cannot be read, too", async () => {
    await search.fill("no-such-target-anywhere");
    await t.see("No target matches");
    await search.fill('env="');
    await t.see("a quote is not closed");
    await search.fill("");
    await rows.first().waitFor({ timeout: 60_000 });
  });
  await t.check("a search is quick", async () => {
    const took = await find(expect.down.q, expect.down.url);
    if (took > expect.searchMs) throw new Error(`${took} ms`);
  }, expect.searchMs);
  await t.check("a page whose code cannot be had says so, and a reload leads to it", async () => {
    const code = /\/assets\/targets-[^/]*\.js$/;
    t.allow(404, "/assets/targets-");
    await page.route(code, (route) => route.fulfill({ status: 404, body: "404 page not found" }));
    await t.open("");
    await page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name: "Targets" }).click();
    await t.see("This page cannot be loaded");
    // What stands around it still leads elsewhere, and back.
    await page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name: "Balance" }).click();
    await page.getByRole("heading", { level: 1, name: "Balance" }).waitFor();
    await page.goBack();
    await t.see("This page cannot be loaded");
    await page.unroute(code);
    await page.getByRole("button", { name: "Reload" }).click();
    await page.getByRole("heading", { level: 1, name: "Targets" }).waitFor();
    await rows.first().waitFor({ timeout: 60_000 });
  });
  await t.check("who follows a link with the keys goes on within the page it leads to", async () => {
    await page.locator("main a[href*='component/']").first().press("Enter");
    await page.getByRole("tab").first().waitFor();
    await t.until("the page has the focus", () => page.evaluate(() => document.activeElement?.id === "main"));
    await page.keyboard.press("Tab");
    if (!(await page.evaluate(() => document.activeElement?.closest("main") !== null))) throw new Error("the focus left the page");
    await page.goBack();
  });
}
