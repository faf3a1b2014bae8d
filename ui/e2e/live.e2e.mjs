/** The live view: items that pass, on both sides of a component. */
export const expects = {
  id: "loki.process.search_parse",
  /** A text that every item has. */
  item: "level=",
  /** Whether the component is looked at before and after. */
  both: true,
  /** A filter, and what every item has that it lets pass. */
  filter: "level=error",
  filtered: "level=error",
  /** A label or field in the structure of items. */
  field: "job",
  /** What a masked secret looks like, where one passes; the first may take a while. */
  secret: "(secret)",
  /** Must be nowhere. */
  hidden: null,
  /** What the comparison says of an item before and after, by the side that is pressed. */
  changed: null,
  wrongFilter: 'level="error',
};

export default async function (t) {
  const { page, expect } = t;
  const path = `live/${expect.id.split("/").map(encodeURIComponent).join("/")}`;
  const lists = page.getByRole("listbox");
  const items = page.getByRole("option");

  await t.check("items appear on each side, and how many is told", async () => {
    await t.open(path);
    await page.getByRole("heading", { level: 1, name: expect.id }).waitFor();
    await items.filter({ hasText: expect.item }).first().waitFor({ timeout: 60_000 });
    if (expect.both) {
      await page.getByRole("region", { name: "Before" }).getByRole("option").first().waitFor({ timeout: 60_000 });
      await page.getByRole("region", { name: "After" }).getByRole("option").first().waitFor({ timeout: 60_000 });
    }
    await t.see(/\/s pass/);
    await t.see(/\/s shown/);
  });
  await t.check("a secret is masked", async () => {
    await items.filter({ hasText: expect.secret }).first().waitFor({ timeout: 60_000 });
    if (expect.hidden !== null && (await page.content()).includes(expect.hidden)) throw new Error("the secret is on the page");
  }, expect.secret);

  await t.check("it stands still while it is paused, and says what waits", async () => {
    await page.getByRole("button", { name: "Pause" }).click();
    const before = await lists.first().innerText();
    await page.getByRole("button", { name: /Go on \(\d+ new\)/ }).waitFor({ timeout: 60_000 });
    if ((await lists.first().innerText()) !== before) throw new Error("it moved");
  });
  await t.check("an item is opened: whole, as structure, and with what became of it", async () => {
    await items.filter({ hasText: expect.item, visible: true }).last().click();
    const details = page.getByRole("complementary", { name: "Item" });
    await t.see(expect.item, details);
    await t.see("Structure", details);
    if (expect.field) await t.see(expect.field, details.locator(".structure"));
    if (expect.both) await details.getByRole("heading", { name: /What (became of it|it was)/ }).waitFor();
    if (expect.changed) await t.see(expect.changed, details);
  });
  await t.shot("live");
  await t.check("an item is copied", async () => {
    await page.getByRole("button", { name: "Copy the item as JSON" }).click();
    await t.see("Copied");
    JSON.parse(await page.evaluate(() => navigator.clipboard.readText()));
    await page.getByRole("button", { name: "Copy all" }).click();
    const all = await page.evaluate(() => navigator.clipboard.readText());
    if (!all.includes(expect.item)) throw new Error(`copied: ${all.slice(0, 200)}`);
  });
  await t.check("items are walked with the arrows", async () => {
    await lists.first().focus();
    await page.keyboard.press("ArrowUp");
    await t.until("the item before", () => page.getByRole("option", { selected: true }).first().isVisible());
    await page.keyboard.press("Escape");
    await t.until("none is chosen", async () => (await page.getByRole("option", { selected: true }).count()) === 0);
  });
  await t.check("it goes on, and items are shown as structure", async () => {
    await page.getByRole("button", { name: /Go on/ }).click();
    await page.getByRole("radio", { name: "Structure" }).click();
    if (expect.field) await t.see(expect.field, page.locator(".live-item .structure-name"));
    await page.getByRole("radio", { name: "Text" }).click();
  });

  await t.check("a filter shows what it finds and nothing else, and stands in the address", async () => {
    await page.getByRole("searchbox", { name: "Filter" }).fill(expect.filter);
    await t.see(/^Items where/);
    await t.until("the address", () => new URL(page.url()).searchParams.get("filter") === expect.filter);
    await items.filter({ hasText: expect.filtered }).first().waitFor({ timeout: 60_000 });
    const others = (await items.allInnerTexts()).filter((text) => !text.includes(expect.filtered));
    if (others.length > 0) throw new Error(others.slice(0, 3).join("\n"));
  }, expect.filter);
  await t.check("a filter that cannot be read is said to be wrong", async () => {
    await page.getByRole("searchbox", { name: "Filter" }).fill(expect.wrongFilter);
    await t.see("a quote is not closed");
    await page.getByRole("searchbox", { name: "Filter" }).fill("");
  }, expect.wrongFilter);
  await t.check("it is cleared", async () => {
    await t.until("items", async () => (await items.count()) > 0, 60_000);
    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByRole("button", { name: "Clear" }).click();
    await t.until("nothing", async () => (await items.count()) === 0);
    await page.getByRole("button", { name: /Go on/ }).click();
    await t.until("new items", async () => (await items.count()) > 0, 60_000);
  });
  if (expect.both) {
    await t.check("one side alone is chosen", async () => {
      await page.getByRole("radio", { name: "After", exact: true }).click();
      await t.until("one list", async () => (await lists.count()) === 1);
      await items.first().waitFor({ timeout: 60_000 });
    });
  }
}
