/** The configuration: what runs, what a reload would change, the reload, and what the last one said. */
export const expects = {
  /** The names of files without their folders, and a text in the first. */
  files: ["config.alloy"],
  text: "prometheus.remote_write",
  /** What the last load was refused for: the line, and a part of the message. */
  refused: { line: 14, message: "does not exist or is out of scope" },
  /** A warning of what runs, likewise. */
  warning: null,
  /** What a reload would change; `argument` is `[id, name, before, after]`. */
  plan: {
    created: ["prometheus.scrape.new_team"],
    updated: ["prometheus.remote_write.mimir"],
    affected: ["prometheus.remote_write.archive"],
    removed: ["local.file.api_token"],
    argument: ["prometheus.remote_write.mimir", "endpoint", "https://mimir.example.com/api/v1/push", "https://mimir-2.example.com/api/v1/push"],
    /** In words, where the rest does not say it: "The files on disk are those that run." */
    says: null,
    /** What is wrong on disk, so that a reload would be refused: line and message. */
    wrong: null,
  },
  /** How each reload from the page ends. */
  reloads: ["refused", "ok"],
};

export default async function (t) {
  const { page, expect } = t;
  const region = (name) => page.getByRole("region", { name, exact: true });
  const diagnosed = async (what, { line, message }) => {
    const wrong = page.locator(`.code-line.has-${what}[data-line="${line}"]`);
    await wrong.waitFor();
    const told = wrong.locator("xpath=following-sibling::*[1]");
    const text = await told.innerText();
    if (!text.includes(message)) throw new Error(text);
    if (!(await wrong.isVisible())) throw new Error("the line is out of sight");
  };

  await t.check("the running files are shown", async () => {
    await t.open("config");
    await page.getByRole("heading", { level: 1, name: "Configuration" }).waitFor();
    for (const file of expect.files) await t.see(file);
    await t.until("its text", async () => (await page.locator(".file-text .code").innerText()).includes(expect.text));
  }, expect.files);
  await t.check("a warning stands at its line", () => diagnosed("warning", expect.warning), expect.warning);
  await t.shot("config");
  await t.check("a line is pointed at by the address", async () => {
    await t.open("config?line=3");
    await page.locator('.code-line.is-pointed[data-line="3"]').waitFor();
  });

  await t.check("a load that was refused is said on top, and its error stands at its line in the refused text", async () => {
    await t.open("config");
    await t.see("The last load was refused");
    await page.getByRole("button", { name: "Show why" }).click();
    await page.getByRole("tab", { name: /Last load/, selected: true }).waitFor();
    await diagnosed("error", expect.refused);
    await t.see("What ran before goes on");
  }, expect.refused);
  if (expect.refused) await t.shot("config-refused");

  await t.check("what a reload would change is told", async () => {
    await t.open("config?tab=disk");
    const plan = region("What a reload would change");
    await plan.waitFor({ timeout: 60_000 });
    for (const [key, title] of [["created", "Created"], ["updated", "Updated in place"], ["affected", "Affected"], ["removed", "Removed"]]) {
      for (const id of expect.plan[key] ?? []) await t.see(id, plan.getByRole("region", { name: title, exact: true }));
    }
    if (expect.plan.argument) {
      const [id, name, before, after] = expect.plan.argument;
      const change = plan.locator(".plan-change", { hasText: id }).filter({ hasText: name });
      await change.locator(".change-line.is-removed", { hasText: before }).waitFor();
      await change.locator(".change-line.is-added", { hasText: after }).waitFor();
    }
    if (expect.plan.says) await t.see(expect.plan.says, plan);
    if (expect.plan.wrong) {
      await t.see("It would be refused", plan);
      await diagnosed("error", expect.plan.wrong);
    }
  }, expect.plan);
  if (expect.plan) await t.shot("config-plan");

  for (const [index, outcome] of (expect.reloads ?? []).entries()) {
    await t.check(`reload ${index + 1} is ${outcome}, after it was said what it changes`, async () => {
      if (outcome === "refused") t.allow(400, "reload");
      await t.open("config");
      await page.getByRole("button", { name: "Reload…" }).click();
      const dialog = page.getByRole("dialog");
      for (const id of expect.plan?.created ?? []) await t.see(id, dialog);
      const confirm = dialog.getByRole("button", { name: /^Reload( all the same)?$/ });
      await confirm.waitFor();
      if (index === 0) await t.shot("config-reload");
      await confirm.click();
      if (outcome === "ok") {
        await t.see("Reloaded");
        await t.until("the dialog is gone", async () => (await page.locator("dialog.reload[open]").count()) === 0);
        await page.getByRole("tab", { name: "Last load" }).click();
        await t.see("Loaded");
      } else {
        await t.see("Refused", dialog);
        if (expect.refused) await t.see(expect.refused.message, dialog);
        await dialog.getByRole("button", { name: "Close" }).click();
      }
    });
  }
}
