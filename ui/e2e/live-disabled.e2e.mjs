/** The live view where the configuration does not allow it. */
export const expects = { id: "loki.process.search_parse" };

export default async function (t) {
  const { page, expect } = t;
  await t.check("the block to add is shown, and can be copied", async () => {
    await t.open(`live/${expect.id}`);
    await page.getByRole("heading", { name: "Live debugging is disabled" }).waitFor();
    await t.see("livedebugging");
    await page.getByRole("button", { name: "Copy the block" }).click();
    const copied = await page.evaluate(() => navigator.clipboard.readText());
    if (copied !== "livedebugging {\n  enabled = true\n}\n") throw new Error(copied);
  });
  await t.shot("live-disabled");
}
