// A person keeps the list of indicators: makes, changes, imports, finds,
// exports and deletes.
import { readFileSync } from "node:fs";

const csv = "IndicatorType,IndicatorValue,Action,Title,Severity\r\n" +
  "IpAddress,198.51.100.23,Block,Command and control,High\r\n" +
  "IpAddress,not an address,Block,Wrong,High\r\n" +
  "FileSha256," + "ab".repeat(32) + ",BlockAndRemediate,\"Implant, second stage\",High\r\n" +
  "DomainName,updates.example.org,Allowed,Our mirror,Informational\r\n";

export async function indicators({ page, base, expect, text, state }) {
  await page.goto(base + "/indicators");
  expect(/no indicators yet/.test(await text("#results")), "the list of indicators is empty");
  await page.getByRole("link", { name: "New indicator" }).click();
  await page.selectOption("select[name=type]", "DomainName");
  await page.fill("input[name=value]", "no domain");
  await page.fill("input[name=title]", "Phishing of May");
  await page.selectOption("select[name=action]", "Block");
  await page.getByRole("button", { name: "Save" }).click();
  await page.waitForSelector(".message.bad");
  expect(/no domain/.test(await text(".message.bad")) && await page.locator("input[name=title]").inputValue() === "Phishing of May", "a wrong value is refused in words, and nothing has to be typed again");
  await state("indicator-wrong");
  await page.fill("input[name=value]", "Login.Evil.example");
  await page.getByRole("button", { name: "Save" }).click();
  await page.waitForURL(/\/indicators\/\d+$/);
  expect((await text("h1")) === "Phishing of May" && await page.locator("input[name=value]").inputValue() === "login.evil.example", "the indicator is kept");

  await page.selectOption("select[name=action]", "Audit");
  await page.fill("input[name=expires]", "2099-01-31T12:00");
  await page.fill("textarea[name=description]", "Reported by the <b>help desk</b>");
  await page.getByRole("button", { name: "Save" }).click();
  await page.waitForURL(/\/indicators\/\d+$/);
  await page.reload();
  expect(await page.locator("select[name=action]").inputValue() === "Audit" && await page.locator("input[name=expires]").inputValue() === "2099-01-31T12:00", "the indicator is changed");
  const path = new URL(page.url()).pathname;
  await state("indicator");

  // Import: first a check, then in earnest; the wrong line is named.
  await page.goto(base + "/indicators");
  await page.getByRole("link", { name: "Import CSV" }).click();
  for (const [button, head] of [["Check only", "Checked: nothing was stored"], ["Import", "Imported"]]) {
    await page.setInputFiles("input[type=file]", { name: "feed.csv", mimeType: "text/csv", buffer: Buffer.from(csv) });
    await page.getByRole("button", { name: button }).click();
    await page.waitForFunction((h) => document.querySelector("#r-head")?.textContent === h, head);
    const problems = page.locator("section[aria-labelledby=r-head] tbody tr");
    expect(await problems.count() === 1 && /^\s*3\s+not an address/.test(await problems.innerText()), `${button}: line 3 is named`);
    expect(/4 lines read, 3 (right|stored), 1 wrong/.test(await text("section[aria-labelledby=r-head]")), `${button}: the lines are counted`);
  }
  await state("indicators-import");
  await page.setInputFiles("input[type=file]", { name: "feed.csv", mimeType: "text/csv", buffer: Buffer.from("Name;Value\n1;2\n") });
  await page.getByRole("button", { name: "Import" }).click();
  await page.waitForSelector(".message.bad");
  expect(/"Name;Value" is unknown/.test(await text(".message.bad")), "a file of another form is refused in words");

  await page.goto(base + "/indicators");
  const rows = page.locator("#results tbody tr");
  expect(await rows.count() === 4, "the list has what was made and imported");
  await state("indicators");
  await page.selectOption("select[name=type]", "IpAddress");
  await page.waitForFunction(() => document.querySelectorAll("#results tbody tr").length === 1);
  expect(/198\.51\.100\.23/.test(await text("#results tbody")), "the list is filtered by type");
  const [file] = await Promise.all([page.waitForEvent("download"), page.click(".exports a:has-text('CSV')")]);
  const exported = readFileSync(await file.path(), "utf8").trim().split("\n");
  expect(file.suggestedFilename() === "indicators.csv" && exported.length === 2 && exported[1].startsWith("IpAddress,198.51.100.23,"), "what is shown is exported");
  await page.selectOption("select[name=type]", "");
  await page.waitForFunction(() => document.querySelectorAll("#results tbody tr").length === 4);
  await page.fill("#q", "second stage");
  await page.waitForFunction(() => document.querySelectorAll("#results tbody tr").length === 1);
  await page.check("#results .choose");
  await page.getByRole("button", { name: "Delete the chosen" }).click();
  await page.waitForFunction(() => document.querySelectorAll("#results tbody tr").length === 3);
  expect(!/second stage/.test(await text("#results")), "the chosen one is deleted");
  await page.locator("#results a.row-link", { hasText: "198.51.100.23" }).click();
  await page.getByRole("button", { name: "Delete" }).click();
  await page.waitForURL(/\/indicators$/);
  expect(await rows.count() === 2 && !/198\.51\.100\.23/.test(await text("#results")), "one is deleted on its page");
  return path;
}
