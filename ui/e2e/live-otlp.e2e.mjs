/** What passes of OpenTelemetry: attributes are told by their keys, in the structure and in what changed. */
export const expects = {
  id: "otelcol.processor.attributes.shop",
  /** Attributes of what passes, by key and value. */
  attributes: { "service.name": "shop", "http.route": "/orders" },
  /** The attribute that the component adds. */
  added: { key: "env", value: "prod" },
};

export default async function (t) {
  const { page, expect } = t;
  const lines = (within) => within.locator(".structure-line").allInnerTexts().then((texts) => texts.map((text) => text.replace(/\s+/g, " ").trim()));
  const told = async (within) => {
    const all = await lines(within);
    const missing = Object.entries(expect.attributes).filter(([key, value]) => !all.some((line) => line.startsWith(`${key} ${value}`) || line.startsWith(`${key}: ${value}`) || line.startsWith(`${key}${value}`)));
    if (missing.length > 0) throw new Error(`${JSON.stringify(missing)} in ${all.join(" | ")}`);
    // Neither numbers of a list nor the wrapping of its elements.
    const wrapped = all.filter((line) => /^(\d+|key|stringValue)\b/.test(line));
    if (wrapped.length > 0) throw new Error(wrapped.join(" | "));
    return true;
  };

  await t.check("attributes are told by their keys", async () => {
    await t.open(`live/${expect.id}`);
    await page.getByRole("option").first().waitFor({ timeout: 60_000 });
    await page.getByRole("radio", { name: "Structure" }).click();
    await t.until("the attributes", () => told(page.locator(".live-item").first()), 60_000);
  });
  await t.check("what a component adds is told by its key", async () => {
    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByRole("region", { name: "After" }).getByRole("option").first().click();
    const details = page.getByRole("complementary", { name: "Item" });
    await t.until("the attributes", () => told(details));
    const row = details.locator(".differences tr").filter({ hasText: expect.added.key });
    await t.see(expect.added.value, row);
    if (!/attributes\.env$/.test((await row.locator("th").innerText()).trim())) throw new Error(await row.innerText());
  });
  await t.shot("live-otlp");
  await t.check("a press on an attribute filters by it", async () => {
    await page.getByRole("complementary", { name: "Item" }).getByRole("button", { name: "Filter by http.route" }).click();
    await t.until("the filter", async () => (await page.getByRole("searchbox", { name: "Filter" }).inputValue()).includes("http.route="));
  });
}
