// Drives the portal as a person does. Started by browser_test.go with the
// environment variables below; every failed expectation throws, and the exit
// status is then 1.
import { chromium } from "playwright-core";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { contrast, violations } from "./axe.mjs";
import { incidents } from "./incidents.mjs";
import { indicators } from "./indicators.mjs";
import { keys } from "./keys.mjs";

const base = process.env.PORTAL_URL;
const oneTime = process.env.PORTAL_PASSWORD;
const shots = process.env.SCREENSHOT_DIR;
const alertId = process.env.ALERT_ID;
const deviceName = process.env.DEVICE_NAME;
const hostileAlert = process.env.HOSTILE_ALERT_ID;
const password = "correct horse battery staple";
if (shots) mkdirSync(shots, { recursive: true });

const problems = [];
function expect(ok, what) {
  if (!ok) throw new Error("expected: " + what);
  console.log("ok: " + what);
}

const browser = await chromium.launchPersistentContext(process.env.PROFILE_DIR, {
  executablePath: process.env.CHROMIUM,
  headless: true,
  ignoreHTTPSErrors: true,
  viewport: { width: 1360, height: 900 },
  reducedMotion: "reduce", // colours are looked at, not what is between two
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

// Everything that a browser reports as wrong fails the test: script errors,
// blocked resources (Content Security Policy), requests to other hosts.
function watch(page) {
  page.setDefaultTimeout(120000);
  page.on("pageerror", (e) => problems.push("script error: " + e.message));
  page.on("console", (m) => { if (m.type() === "error" && !/status of 4\d\d/.test(m.text())) problems.push("console: " + m.text()); });
  page.on("request", (r) => { if (!r.url().startsWith(base) && !r.url().startsWith("data:")) problems.push("request to " + r.url()); });
  page.on("dialog", (d) => { problems.push("dialog: " + d.message()); d.dismiss(); });
}

let page = browser.pages()[0] ?? await browser.newPage();
watch(page);
// Pictures are made only when somebody wants to look at them.
async function shot(name, full = true) {
  if (!shots) return;
  await page.evaluate(() => window.scrollTo(0, 0));
  await page.screenshot({ path: join(shots, name + ".png"), fullPage: full });
}

// accessible notes what axe finds wrong with the page as it is.
async function accessible(name) {
  for (const v of await violations(page)) problems.push(`${new URL(page.url()).pathname} (${name}): ${v}`);
}

// state is a picture of the page, and its accessibility.
async function state(name, full = true) {
  await accessible(name);
  await shot(name, full);
}
const text = (selector) => page.locator(selector).first().innerText();

try {
  // Sign in with the one-time password; another password is asked for first.
  await page.goto(base + "/devices");
  expect(new URL(page.url()).pathname === "/sign-in", "a visitor is sent to the sign-in page");
  await state("sign-in");
  await page.fill("input[name=name]", "admin");
  await page.fill("input[name=password]", "wrong password here");
  await page.click("button.primary");
  expect(/wrong/.test(await text(".message.bad")), "a wrong password is refused in words");
  await page.fill("input[name=password]", oneTime);
  await page.click("button.primary");
  await page.waitForURL("**/account/password");
  await page.goto(base + "/alerts");
  expect(new URL(page.url()).pathname === "/account/password", "nothing else works before the password is changed");
  await state("password");
  await page.fill("input[name=current]", oneTime);
  await page.fill("input[name=new]", password);
  await page.fill("input[name=again]", password);
  await page.click("button.primary");
  await page.waitForURL(base + "/");

  await page.waitForSelector(".tiles");
  await shot("overview");

  // Devices: list, search while typing, sort.
  await page.goto(base + "/devices");
  const row = page.locator("#results tbody tr", { hasText: deviceName });
  expect(await row.count() === 1, "the device is listed");
  expect(/Active/.test(await row.innerText()), "the device is Active");
  await shot("devices");
  await page.fill("#q", "no such device");
  await page.waitForSelector("#results .empty");
  expect(page.url().includes("q=no"), "the search is in the address");
  await page.fill("#q", deviceName);
  await page.waitForFunction(() => document.querySelectorAll("#results tbody tr").length === 1);
  await page.click("#results tbody a.row-link");
  await page.waitForSelector(".timeline");
  expect((await text("h1")) === deviceName, "the device page has its name");
  const devicePath = new URL(page.url()).pathname;
  expect(await page.locator(".timeline .event").count() === 40, "the timeline shows the newest events");
  await shot("device", false);
  await page.click(".timeline .more a");
  await page.waitForFunction(() => document.querySelectorAll(".timeline .event").length > 40);
  expect(true, "older events come without leaving the page");

  // Around the event of an alert, the processes around it, and the way to hunting.
  await page.fill("#tq", "AntivirusDetection");
  await page.waitForFunction(() => document.querySelectorAll(".timeline .event").length === 1);
  expect(/Eicar/.test(await text(".timeline .event .flag")), "the event of an alert is flagged");
  await page.click(".timeline .event details summary");
  await page.getByRole("link", { name: "Around this event" }).click();
  await page.waitForSelector("#here");
  expect(await page.locator(".timeline .event").count() > 30, "the timeline shows what is around the event");
  await shot("timeline-around");
  const aroundPath = new URL(page.url()).pathname + new URL(page.url()).search;
  await page.locator("#here").getByRole("link", { name: "Processes" }).click();
  await page.waitForSelector(".tree .subject");
  expect(/curl/.test(await text(".tree")), "the tree shows the process of the event");
  await shot("process");
  const processPath = new URL(page.url()).pathname + new URL(page.url()).search;
  await page.goto(base + "/threats");
  await page.click("a.row-link:has-text('Eicar-Test-Signature')");
  await page.waitForSelector("#devices tbody tr");
  await shot("threats");
  const threatPath = new URL(page.url()).pathname + new URL(page.url()).search;
  await page.goto(base + "/devices?q=" + deviceName);
  await page.click("#results tbody a.row-link");

  // A scan is ordered, and cancelled in the list of actions.
  await page.fill("#actions input[name=comment]", "from the browser");
  await page.getByRole("button", { name: "Run the scan" }).click();
  await page.waitForSelector("#actions .status.pending");
  await page.goto(base + "/actions");
  await shot("actions");
  await page.fill("#results input[name=comment]", "not needed");
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.waitForSelector("#results .status.cancelled");
  expect(/not needed/.test(await text("#results tbody")), "the action is cancelled, with the reason");
  const actionPath = await page.locator("#results a.row-link").first().getAttribute("href");

  // Alert: assign, comment, classify, resolve.
  await page.goto(base + "/alerts?status=Open");
  await shot("alerts");
  await page.click(`a[href="/alerts/${alertId}"]`);
  await page.waitForSelector(".tree");
  const tree = await text(".tree");
  for (const name of ["systemd", "sshd", "bash", "curl", "eicar.com"]) expect(tree.includes(name), "the ancestry shows " + name);
  expect((await text("#alert")).includes("275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"), "the file's hash is shown");
  await shot("alert");
  await page.click("button[value=assign]");
  await page.waitForFunction(() => document.querySelector("#alert .head .status")?.textContent === "In progress");
  expect(await page.locator("select[name=assigned]").inputValue() === "admin", "the alert is assigned to me");
  await page.fill("textarea[name=comment]", "Planned test. <b>not bold</b>\nsecond line");
  await page.getByRole("button", { name: "Add comment" }).click();
  await page.waitForSelector(".comment");
  expect((await text(".comment .prose")).includes("<b>not bold</b>"), "the comment is shown as it was written");
  await page.selectOption("select[name=classification]", "TruePositive");
  await page.selectOption("select[name=determination]", "SecurityTesting");
  await page.locator("form.stacked button", { hasText: "Save" }).click();
  await page.waitForFunction(() => document.querySelector(".message.good")?.textContent.includes("Saved") && document.querySelector("select[name=determination]").value === "SecurityTesting");
  await state("alert-handled");
  await page.click("button[value=resolve]");
  await page.waitForFunction(() => document.querySelector("#alert .head .status")?.textContent === "Resolved");
  await page.reload();
  expect((await text("#alert .head .status")) === "Resolved", "the alert is resolved after a reload");
  expect(await page.locator("select[name=classification]").inputValue() === "TruePositive", "the classification stays");

  // Text of a hostile device is text.
  await page.goto(base + "/alerts/" + hostileAlert);
  await shot("hostile");
  const hostile = await page.evaluate(() => ({ pwned: window.pwned, scripts: document.querySelectorAll("main script, main img").length, text: document.body.innerText }));
  expect(hostile.pwned === undefined && hostile.scripts === 0, "no element came out of device data");
  expect(hostile.text.includes("<script>window.pwned=1</script>"), "the markup is shown as text");
  expect(hostile.text.includes("\\u202e") && !hostile.text.includes("\u202e"), "a change of direction is shown as an escape");

  const what = { page, base, password, expect, text, state, alertId };
  const incidentPath = await incidents(what);
  const indicatorPath = await indicators(what);

  // Hunting: completion, a result with links, an error with its place, a chart,
  // an export, a saved query.
  await page.goto(base + "/hunting");
  await page.locator("#query").pressSequentially("DeviceProcessEv", { delay: 5 });
  await page.waitForSelector("#completions li[aria-selected=true]");
  expect(/DeviceProcessEvents/.test(await text("#completions li")), "a table is completed");
  await page.keyboard.press("Enter");
  expect(await page.locator("#query").inputValue() === "DeviceProcessEvents", "the completion is put in");
  await page.fill("#query", "DeviceProcessEvents\n| summarize Runs = count() by DeviceId, DeviceName, FileName\n| top 20 by Runs");
  await page.keyboard.press("Control+Enter");
  await page.waitForSelector("#hunting-result table.result tbody tr");
  expect(await page.locator(`#hunting-result a[href^="/devices/"]`).count() > 0, "a result links to the device");
  expect(page.url().includes("/hunting?q="), "the query is in the address");
  await state("hunting");
  await page.fill("#query", "DeviceProcessEvents\n| where FileNme == 'curl'");
  await page.click("#hunt-run");
  await page.waitForSelector("#hunting-result .message.bad");
  expect(/Line 2, column 9.*no column FileNme.*did you mean FileName/s.test(await text("#hunting-result .message")), "an error says where and what was meant");
  await page.fill("#query", "DeviceProcessEvents | summarize Processes = count() by bin(Timestamp, 1m) | render timechart");
  await page.click("#hunt-run");
  await page.waitForSelector("#hunting-result svg polyline");
  await state("hunting-chart");
  const [csv] = await Promise.all([page.waitForEvent("download"), page.click("button[value=csv]")]);
  expect(csv.suggestedFilename() === "hunting.csv", "the result is exported");
  await page.click(".save summary");
  await page.fill(".save input[name=name]", "From the browser");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.waitForSelector(".hunting-side li a");
  expect(/From the browser/.test(await text(".hunting-side ul.plain")), "the query is saved");

  // A custom detection out of a query: tested, kept, run; its alerts; the matrix.
  await page.fill("#query", "DeviceProcessEvents\n| where FileName == 'ls' and ProcessCommandLine endswith '-30'");
  await page.getByRole("button", { name: "Make a detection" }).click();
  await page.waitForSelector("#rule");
  await page.fill("input[name=name]", "Listing of site 30");
  await page.fill("input[name=techniques]", "T1083, T1105");
  await page.getByRole("button", { name: "Test", exact: true }).click();
  await page.waitForSelector("#trial table tbody tr");
  await accessible("detection-tested");
  expect(/would have raised 1 alert on 1 device/.test(await text("#trial h2")), "the test says what it would have raised");
  await shot("detection");
  await page.fill("#query", "DeviceProcessEvents\n| where FileNme == 'ls'");
  await page.getByRole("button", { name: "Test", exact: true }).click();
  await page.waitForSelector("#trial .message.bad");
  await accessible("detection-wrong");
  expect(/no column FileNme/.test(await text("#trial .message.bad")), "a wrong query is told beside");
  await page.fill("#query", "DeviceProcessEvents\n| where FileName == 'ls' and ProcessCommandLine endswith '-30'");
  await page.getByRole("button", { name: "Create" }).click();
  await page.waitForURL("**/detections/custom/*");
  await page.getByRole("button", { name: "Run now" }).click();
  await page.waitForSelector("#runs .run.succeeded");
  await shot("detection-runs");
  const detectionPath = new URL(page.url()).pathname;
  await page.goto(base + "/detections");
  await shot("detections");
  await page.locator("#main table a", { hasText: /^1$/ }).click();
  await page.waitForSelector("#results tbody tr");
  expect(/Listing of site 30/.test(await text("#results tbody")), "the alert of the detection is listed");
  await page.goto(base + "/detections/shipped?q=reverse");
  expect(await page.locator("#results tbody tr").count() > 0, "the rules on the devices are listed");
  await shot("shipped");
  await page.click("#results tbody a.row-link");
  await page.waitForSelector("pre.source");
  const shippedPath = new URL(page.url()).pathname;
  await shot("shipped-rule");
  await page.goto(base + "/attack");
  expect(await page.locator(".technique.seen").count() > 0 && await page.locator(".technique.covered").count() > 50, "the matrix shows what is covered and seen");
  await page.locator(".technique.seen summary").first().click();
  await shot("attack");

  // Onboarding: the package comes as a file and is listed; revoke it.
  await page.goto(base + "/onboarding");
  await page.fill("input[name=name]", "from the browser");
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("button.primary")]);
  expect(download.suggestedFilename() === "onboard.json", "onboard.json is downloaded");
  await page.goto(base + "/onboarding");
  const packageRow = page.locator("tbody tr", { hasText: "from the browser" });
  await packageRow.getByRole("button").click();
  await page.waitForURL("**/onboarding");
  expect(/Revoked/.test(await page.locator("tbody tr", { hasText: "from the browser" }).innerText()), "the package is revoked");
  await shot("onboarding");

  await page.goto(base + "/tokens");
  await page.fill("input[name=name]", "browser token");
  await page.check("input[value='Alert.Read.All']");
  await page.click("form.stacked button.primary");
  expect(/^bwa_/.test(await text("#secret")), "the new token is shown once");
  await state("tokens-new");
  await keys(what);
  // A second factor that is being set up: its QR code, in the walk below too.
  await page.goto(base + "/account/second-factor");
  await page.getByRole("button", { name: "Set up" }).click();
  await page.waitForSelector("svg.qr");
  await state("second-factor");
  await page.goto(base + "/audit?verify=1");
  expect(/as they were written/.test(await text(".message")), "the audit log holds");
  await shot("audit", false);

  // Settings: everything answers, the options are there with where they came from.
  await page.goto(base + "/settings");
  // On a busy machine a part may take longer than it may.
  for (let i = 0; i < 10 && await page.locator(".message.good").count() === 0; i++) await page.reload();
  expect(/Everything answers/.test(await text(".message.good")), "nothing of the portal has failed");
  expect(/--data-dir/.test(await text("section[aria-labelledby=s-given]")) && /command line/.test(await text("section[aria-labelledby=s-given]")), "the options that were given are listed with their origin");
  await page.locator("section[aria-labelledby=s-defaults] summary").focus();
  await page.keyboard.press("Enter");
  await page.waitForSelector("section[aria-labelledby=s-defaults] tbody tr");
  await state("settings-open");
  await page.setViewportSize({ width: 360, height: 760 });
  expect(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth) <= 0, "the open settings fit 360 pixels");
  await shot("settings-open-narrow");
  await page.setViewportSize({ width: 1360, height: 900 });
  const [report] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "JSON" }).click()]);
  expect(report.suggestedFilename() === "settings.json", "the settings are exported");

  // By keyboard: skip link first, slash for the search.
  await page.goto(base + "/alerts");
  await page.keyboard.press("Tab");
  expect(await page.evaluate(() => document.activeElement.className) === "skip", "the first stop is the skip link");
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("/");
  expect(await page.evaluate(() => document.activeElement.id) === "q", "slash goes to the search");

  // Every page: accessible, in the dark too, and without scrolling sideways on a
  // telephone. One load of each has to do.
  const pages = [
    ["overview", "/"], ["alerts", "/alerts?status=Open"], ["alert", "/alerts/" + alertId], ["hostile", "/alerts/" + hostileAlert],
    ["incidents", "/incidents"], ["incident", incidentPath], ["threats", threatPath],
    ["devices", "/devices"], ["device", devicePath], ["timeline-around", aroundPath], ["process", processPath], ["live", devicePath + "/live"],
    ["actions", "/actions"], ["action", actionPath], ["library", "/library"], ["hunting", "/hunting"],
    ["indicators", "/indicators"], ["indicator", indicatorPath], ["indicator-new", "/indicators/new"], ["indicators-import", "/indicators/import"],
    ["detections", "/detections"], ["detection", detectionPath], ["shipped", "/detections/shipped"], ["shipped-rule", shippedPath], ["attack", "/attack"],
    ["policies", "/policies"], ["policy", "/policies/new"], ["groups", "/groups"],
    ["onboarding", "/onboarding"], ["tokens", "/tokens"], ["exports", "/exports"], ["export-new", "/exports/new"], ["audit", "/audit"], ["settings", "/settings"], ["users", "/users"], ["second-factor", "/account/second-factor"], ["password", "/account/password"], ["no-such-page", "/nothing"],
  ];
  const walked = pages.map(([, path]) => path.split("?")[0]);
  for (const href of await page.locator(".side a").evaluateAll((all) => all.map((a) => a.pathname))) expect(walked.includes(href), `the walk has ${href} of the menu`);
  const long = ["timeline-around", "shipped", "attack", "device", "policy"];
  for (const [name, path] of pages) {
    await page.setViewportSize({ width: 1280, height: 900 });
    await page.goto(base + path);
    await state("wide-" + name, !long.includes(name));
    await page.emulateMedia({ colorScheme: "dark" });
    for (const v of await contrast(page)) problems.push(`${path} (${name}, dark): ${v}`);
    await shot("dark-" + name, !long.includes(name));
    await page.setViewportSize({ width: 360, height: 760 });
    await shot("dark-narrow-" + name, !long.includes(name));
    await page.emulateMedia({ colorScheme: "light" });
    await shot("narrow-" + name, !long.includes(name));
    const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    expect(over <= 0, `${path} fits 360 pixels (${over} over)`);
  }
  await page.setViewportSize({ width: 2560, height: 1300 });
  for (const [name, path] of [["overview", "/"], ["settings", "/settings"]]) {
    await page.goto(base + path);
    await shot("wide-" + name + "-2560", false);
  }
  await page.setViewportSize({ width: 3840, height: 2160 });
  await page.goto(base + "/settings");
  await shot("settings-4k", false);

  // Sign out; the old cookie is of no use.
  const cookies = await browser.cookies();
  expect(cookies.length === 1 && cookies[0].httpOnly && cookies[0].secure && cookies[0].sameSite === "Lax", "one cookie: HttpOnly, Secure, SameSite");
  await page.setViewportSize({ width: 1360, height: 900 });
  await page.click(".menu summary");
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.waitForURL("**/sign-in");
  await browser.addCookies(cookies);
  await page.goto(base + "/alerts");
  expect(new URL(page.url()).pathname === "/sign-in", "a session that was signed out is over");

  // Without scripts the same works with plain forms.
  const plain = await browser.browser()?.newContext({ javaScriptEnabled: false, ignoreHTTPSErrors: true });
  if (plain) {
    page = await plain.newPage();
    await page.goto(base + "/alerts/" + alertId);
    await page.fill("input[name=name]", "admin");
    await page.fill("input[name=password]", password);
    await page.click("button.primary");
    await page.click("button[value=reopen]");
    expect((await text("#alert .head .status")) === "In progress", "an alert is reopened without scripts");
    await page.fill("textarea[name=comment]", "no scripts here");
    await page.getByRole("button", { name: "Add comment" }).click();
    expect(await page.locator(".comment").count() === 2, "a comment is added without scripts");
    await plain.close();
  } else {
    throw new Error("no second context for the test without scripts");
  }
  if (problems.length) throw new Error("the browser reported:\n" + problems.join("\n"));
} catch (e) {
  console.error(String(e.stack || e));
  if (problems.length) console.error("reported by the browser:\n" + problems.join("\n"));
  try { await shot("failure", false); } catch { /* the page is gone */ }
  process.exitCode = 1;
} finally {
  await browser.close();
}
