// A person handles an incident: finds it, reads it, takes it, writes, resolves.

const open = async (page) => Number(await page.locator("#t-incidents + .figure > a").innerText());

export async function incidents({ page, base, expect, text, state, alertId }) {
  await page.goto(base + "/");
  const before = await open(page);
  expect(before >= 4, `the overview counts the open incidents (${before})`);
  expect(/ unassigned/.test(await text(".tile:has(#t-incidents)")), "the overview counts those that nobody has taken");
  await page.click("#t-incidents + .figure > a");
  await page.waitForURL("**/incidents?status=Open");
  expect((await text(".pager")).includes(`of ${before}`), "the list has as many");
  await state("incidents");

  const row = page.locator("#results tbody tr", { hasText: "web-01.example.org" });
  expect(await row.count() === 1 && await row.locator("td.number").first().innerText() === "2", "the alerts of one process tree are one incident");
  await page.selectOption("select[name=severity]", "Medium");
  await page.waitForFunction(() => !document.querySelector("#results").textContent.includes("web-01.example.org"));
  expect(/of 2$/.test((await text(".pager .quiet")).trim()), "the list is filtered by severity");
  await page.selectOption("select[name=severity]", "");
  await page.fill("#q", "web-01");
  await page.waitForFunction(() => document.querySelectorAll("#results tbody tr").length === 1);
  await row.locator("a.row-link").click();

  await page.waitForSelector("#incident .graph");
  const path = new URL(page.url()).pathname;
  const graph = await page.locator(".graph").evaluate((g) => g.textContent);
  for (const name of ["sshd", "bash", "curl", "sh"]) expect(graph.includes(name), "the graph has " + name);
  expect(await page.locator(`.graph a[href="/alerts/${alertId}"]`).count() === 2, "a process of the graph and its file lead to the alert");
  expect(await page.locator(".story > li").count() === 2, "the story has both alerts");
  expect(/275a021bbfb6489e/.test(await text("section[aria-labelledby=n-evidence]")), "the evidence has the file's hash");
  await state("incident");

  const status = (want) => page.waitForFunction((w) => document.querySelector("#incident .head .status")?.textContent === w, want);
  await page.click("button[value=assign]");
  await status("In progress");
  expect(await page.locator("select[name=assigned]").inputValue() === "admin", "the incident is assigned to me");
  await page.fill("textarea[name=comment]", "Seen before. <i>not italic</i>\nsecond line");
  await page.getByRole("button", { name: "Add comment" }).click();
  await page.waitForSelector(".comment");
  expect((await text(".comment .prose")).includes("<i>not italic</i>\nsecond line"), "the comment of the incident is shown as it was written");
  await page.selectOption("select[name=classification]", "TruePositive");
  await page.fill("input[name=tags]", "drill, web tier");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.waitForFunction(() => document.querySelectorAll("#incident .lead .tag").length === 2);
  await page.click("button[value=resolve]");
  await status("Resolved");
  await page.reload();
  expect((await text("#incident .head .status")) === "Resolved", "the incident is resolved after a reload");
  const states = await page.locator(".story .status").allInnerTexts();
  expect(states.length === 2 && states.every((s) => s === "Resolved"), "its alerts are resolved with it");
  expect(/admin/.test(await text("section[aria-labelledby=n-history]")), "the history says who did what");
  await state("incident-resolved");

  await page.goto(base + "/incidents?status=Resolved");
  await page.click("#results a.tag:has-text('web tier')");
  await page.waitForURL((u) => u.searchParams.get("tag") === "web tier");
  expect(await page.locator("#results tbody tr").count() === 1, "incidents are found by their tags");
  await page.goto(base + "/");
  expect(await open(page) === before - 1, "the overview counts one less");
  return path;
}
