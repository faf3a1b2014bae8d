/** The balance: equations of the program, components, edges and ends; what is open in red, on top. */
export const expects = {
  /** Whether everything is accounted for, at rest or at each moment. */
  closes: true,
  kinds: ["Loki logs", "Prometheus metrics"],
  /** Components with numbers of their rows: `taken`, `out` and so on, exactly; or none, where data moves. */
  components: [{ id: "prometheus.relabel.shop_cardinality" }],
  dropped: [{ id: "prometheus.relabel.shop_cardinality", reason: "rule 2 drop" }],
  edges: [{ from: "prometheus.scrape.shop", to: "prometheus.relabel.shop_cardinality" }],
  ends: [{ component: "loki.write.central", name: "backup" }],
};

export default async function (t) {
  const { page, expect } = t;
  const region = (name) => page.getByRole("region", { name, exact: true }).first();
  const rowOf = (table, ...texts) => {
    let row = region(table).locator("tbody tr:not(.sums-reasons)");
    for (const text of texts) row = row.filter({ hasText: text });
    return row.first();
  };

  await t.check("the verdict is on top", async () => {
    await t.open("balance");
    await page.getByRole("heading", { level: 1, name: "Balance" }).waitFor();
    if (expect.closes) await t.until("closed", () => page.getByRole("status").filter({ hasText: "Closed" }).isVisible(), 60_000);
  });
  await t.check("the equation of each kind is spelt out", async () => {
    for (const kind of expect.kinds) await t.see(kind, region("Program"));
    for (const term of ["taken", "received", "created", "out", "dropped", "merged", "held"]) await t.see(term, region("Program"));
    // What is shown adds up.
    const rows = await region("Program").locator(".rows-row").evaluateAll((list) =>
      list.map((row) => Object.fromEntries([...row.querySelectorAll(".term")].map((term) => [term.querySelector(".term-name").textContent, Number(term.querySelector(".term-value").textContent.replaceAll(",", ""))]))),
    );
    for (const row of rows) {
      const left = row.taken + row.received + row.created;
      const right = row.out + row.dropped + row.merged + row.held + (row.open ?? 0);
      if (left !== right) throw new Error(JSON.stringify(row));
    }
  }, expect.kinds);
  await t.check("components, edges and endpoints are found", async () => {
    const find = page.getByRole("searchbox", { name: "Find in the balance" });
    for (const { id, ...numbers } of expect.components ?? []) {
      await find.fill(id);
      const row = rowOf("Components", id);
      await row.waitFor();
      const head = (await region("Components").locator("thead th").allInnerTexts()).map((text) => text.replace(/^[+=]\s*/, "").trim());
      for (const [name, n] of Object.entries(numbers)) {
        await t.until(`${id}: ${name} ${n}`, async () => {
          const cells = await rowOf("Components", id).locator("td").allInnerTexts();
          const shown = Number(cells[head.indexOf(name)]?.replaceAll(",", ""));
          return shown === n || `is ${shown}`.length === 0;
        });
      }
    }
    for (const { from, to } of expect.edges ?? []) {
      await find.fill(from);
      await rowOf("Edges", from, to).waitFor();
    }
    for (const { component, name } of expect.ends ?? []) {
      await find.fill(component);
      await rowOf("Endpoints", component, name).waitFor();
    }
    await find.fill("");
  });
  await t.check("drops have their reasons", async () => {
    await page.getByRole("checkbox", { name: "Only with losses" }).check();
    for (const { id, reason } of expect.dropped) {
      await rowOf("Components", id).waitFor();
      await t.see(reason, region("Components"));
    }
    await page.getByRole("checkbox", { name: "Only with losses" }).uncheck();
  }, expect.dropped);
  await t.shot("balance");
  await t.check("what is open stands on top, in red", async () => {
    await page.route("**/api/v0/corten/balance", async (route) => {
      const answer = await route.fetch();
      const body = await answer.json();
      const [first] = body.components;
      if (first !== undefined) {
        first.rows[0].difference = 7;
        body.open = [{ where: first.id, kind: first.rows[0].kind, difference: 7 }];
      }
      await route.fulfill({ response: answer, json: { ...body, closes: false } });
    });
    await t.open("balance");
    const verdict = page.locator(".verdict");
    await t.see(/^7 .* came in and are not accounted for$/, verdict);
    const [r, g, b] = await verdict.locator("b").first().evaluate((element) => getComputedStyle(element).color.match(/[\d.]+/g).map(Number));
    if (!(r > 1.5 * g && r > 1.5 * b)) throw new Error(`the colour is ${[r, g, b]}`);
    await t.until("the row is marked", async () => (await region("Components").locator("tr.is-open").count()) === 1);
    if (expect.components) await t.shot("balance-open", { phone: false });
    await page.unroute("**/api/v0/corten/balance");
  });
}
