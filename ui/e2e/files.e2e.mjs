/** Files that are followed: those that are read, one that is behind, those that are not read and why, and the targets behind it. */
export const expects = {
  /** A component that reads, and that finds files with a match. */
  reader: "loki.source.file.shop",
  /** A file that is read to its end. */
  read: "/var/log/shop/app-0.log",
  /** One that cannot be opened, and one that is not there; `null` where there is none. */
  unreadable: { path: "/var/log/shop/audit.log", error: "permission denied" },
  absent: null,
  /** The component and the file that is behind, by so many bytes at least, and why. */
  behind: { id: "loki.source.file.shop", path: "/var/log/shop/app-1.log", bytes: 4_000, why: "is not taken" },
  /** What finds files: how many, one that it left out and why, and what is wrong with another of its targets. */
  match: { id: "local.file_match.shop", count: null, excluded: null, pathless: null },
  /** Texts of the targets that are handed on, in the live view of the match. */
  live: null,
};

const path = (id, tab = "") => `component/${id.split("/").map(encodeURIComponent).join("/")}${tab === "" ? "" : `?tab=${tab}`}`;

export default async function (t) {
  const { page, expect } = t;
  const files = page.getByRole("region", { name: "Files", exact: true });
  const row = (path) => files.getByRole("row").filter({ hasText: path });
  const bytesOf = (cell) => cell.getAttribute("title").then((title) => Number(title.replace(/[^\d]/g, "")));
  const behind = (path) => bytesOf(row(path).locator('[data-name="behind"]'));
  const table = page.getByRole("table", { name: "Targets", exact: true });
  const target = (...texts) => texts.reduce((rows, text) => rows.filter({ hasText: text }), table.locator(".target"));
  const search = async (q) => {
    await page.getByRole("searchbox", { name: "Search targets" }).fill(q);
    await t.until("the answer", async () => (new URL(page.url()).searchParams.get("q") ?? "") === q && (await table.getAttribute("aria-busy")) !== "true");
  };

  await t.check("a file that is read to its end says so: where reading is, and how long it is", async () => {
    await t.open(path(expect.reader));
    await t.see("Behind is how many bytes were written to a file and not read yet.", files);
    await row(expect.read).waitFor();
    await t.until("all is read", async () => (await behind(expect.read)) === 0);
    const text = async (name) => (await row(expect.read).locator(`[data-name="${name}"]`).innerText()).replaceAll(",", "");
    await t.until("up to its length", async () => Number(await text("read up to byte")) > 0 && (await text("read up to byte")) === (await text("of")));
    await t.until("its lines", async () => Number(await text("lines")) > 0);
  });
  await t.check("a file that cannot be opened says why", async () => {
    await t.see(expect.unreadable.error, row(expect.unreadable.path));
  }, expect.unreadable);
  await t.check("a file that is not there is said to be waited for", async () => {
    await t.see("there is no such file", row(expect.absent));
  }, expect.absent);
  await t.shot("files");
  await t.check("a file of which nothing is taken says how far behind it is, since when, and why", async () => {
    const { id, path: name, bytes, why } = expect.behind;
    await t.open(path(id));
    await row(name).waitFor();
    await t.until(`more than ${bytes} bytes behind`, async () => (await behind(name)) >= bytes, 60_000);
    await t.see(/held up, since/, row(name));
    await t.see(why, row(name));
    await t.see(/behind$/, files.locator(".card-head"));
  }, expect.behind);
  if (expect.behind) await t.shot("files-behind");
  await t.check("the same stands in the debug information", async () => {
    await t.open(path(expect.behind.id, "debug"));
    const panel = page.getByRole("tabpanel");
    await t.see(expect.behind.path, panel);
    await t.see("lag bytes", panel);
    await t.see("held up by", panel);
  }, expect.behind);

  await t.check("files are found among the targets, with what became of them", async () => {
    await t.open("targets");
    await search(expect.read);
    await target(expect.reader, expect.read).filter({ hasText: "up" }).filter({ hasText: "all read" }).first().waitFor();
    if (expect.unreadable) {
      await search(expect.unreadable.path);
      await target("down", expect.unreadable.path, expect.unreadable.error).first().waitFor();
    }
    if (expect.absent) {
      await search(expect.absent);
      await target("down", expect.absent, "there is no such file").first().waitFor();
    }
  });
  await t.check("the file that is behind is the first of those that are the most behind", async () => {
    await search("");
    await page.getByRole("combobox", { name: "Order" }).selectOption("-behind");
    await t.until("the first", async () => (await table.locator(".target").first().innerText()).includes(" behind"));
    await table.locator(".target").filter({ hasText: expect.behind.path }).first().getByRole("button").click();
    await t.see(/bytes behind/, table.locator(".target-details"));
  }, expect.behind);
  if (expect.behind) await t.shot("targets-files");
  await t.check("what a match found, left out, and cannot look for is there, and why", async () => {
    const { id, excluded, pathless } = expect.match;
    await page.getByRole("combobox", { name: "Order" }).selectOption("");
    await search(expect.read);
    await target("found", id, expect.read).first().waitFor();
    await search(excluded);
    await target("dropped", excluded, "left out by __path_exclude__").first().waitFor();
    await search(pathless);
    await target("refused", id, "no label __path__").first().waitFor();
  }, expect.match?.excluded ?? null);
  await t.check("the graph says how many targets an edge has, and the component where they come from", async () => {
    await t.open("");
    const label = page.locator(`[data-label="${expect.match.id}>${expect.reader}"]`);
    await t.until(`${expect.match.count} targets`, async () => (await label.innerText()).replace(/\s+/g, " ").trim() === `${expect.match.count} targets`, 60_000);
    await t.open(path(expect.reader));
    await t.see(`${expect.match.count} targets now`, page.getByRole("region", { name: "Data", exact: true }));
  }, expect.match?.count ?? null);
  await t.check("the live view of an edge of targets shows their labels", async () => {
    const edge = page.getByRole("region", { name: "Data", exact: true }).getByRole("row").filter({ hasText: "targets now" });
    await edge.getByRole("link", { name: "live" }).click();
    await t.see("Only what passes between");
    for (const text of expect.live) await page.getByRole("option").filter({ hasText: text }).first().waitFor();
    const others = (await page.getByRole("option").allInnerTexts()).filter((text) => !text.includes("__path__"));
    if (others.length > 0) throw new Error(others.slice(0, 3).join("\n"));
  }, expect.live);
  if (expect.live) await t.shot("live-targets");
}
