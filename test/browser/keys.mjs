// A person with a security key (a virtual authenticator of Chromium): registers
// it, signs in with it, and turns it off again.
export async function keys({ page, base, password, expect, text, state }) {
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("WebAuthn.enable");
  const { authenticatorId } = await cdp.send("WebAuthn.addVirtualAuthenticator", {
    options: { protocol: "ctap2", transport: "usb", hasResidentKey: false, hasUserVerification: false, isUserVerified: false, automaticPresenceSimulation: true },
  });
  const here = "/account/second-factor";
  const add = async (name) => {
    const form = page.locator("form[data-key-create]");
    await form.locator("input[name=name]").fill(name);
    await form.locator("input[name=password]").fill(password);
    await form.getByRole("button").click();
  };

  await page.goto(base + here);
  await add("Desk <b>key</b>");
  await page.waitForSelector(".codes li");
  expect(await page.locator(".codes li").count() === 10, "the first key brings recovery codes");
  expect(/Desk <b>key<\/b>/.test(await text(".keys li")) && /not used yet/.test(await text(".keys li")), "the key is listed by its name");
  await state("second-factor-key");
  await page.setViewportSize({ width: 360, height: 760 });
  expect(await page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth), "the page with a key fits 360 pixels");
  await state("narrow-second-factor-key");
  await page.setViewportSize({ width: 1360, height: 900 });
  await page.goto(base + here);
  await add("The same");
  await page.waitForSelector("form[data-key-create] [data-key-problem]:not([hidden])");
  expect(/registered already/.test(await text("form[data-key-create] [data-key-problem]")), "the same key is not registered twice");

  const signIn = async () => {
    await page.click(".menu summary");
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.waitForURL("**/sign-in");
    await page.fill("input[name=name]", "admin");
    await page.fill("input[name=password]", password);
    await page.click("button.primary");
    await page.waitForURL("**/sign-in/code**");
  };
  await signIn();
  await state("sign-in-key");
  await page.getByRole("button", { name: "Use a security key" }).click();
  await page.waitForURL(base + "/");
  expect(true, "the key signs in after the password");

  // Without the key: the browser says so, and nobody comes in.
  await signIn();
  const { credentials } = await cdp.send("WebAuthn.getCredentials", { authenticatorId });
  expect(credentials.length === 1 && credentials[0].signCount > 0, "the authenticator has one credential, and has used it");
  await cdp.send("WebAuthn.clearCredentials", { authenticatorId });
  await page.getByRole("button", { name: "Use a security key" }).click();
  await page.waitForSelector("[data-key-problem]:not([hidden])");
  await page.goto(base + "/alerts");
  expect(new URL(page.url()).pathname === "/sign-in", "without the key nobody comes in");

  // A copy that has made fewer signatures is refused, the key itself is not.
  const enter = async (signCount) => {
    await cdp.send("WebAuthn.clearCredentials", { authenticatorId });
    await cdp.send("WebAuthn.addCredential", { authenticatorId, credential: { ...credentials[0], signCount } });
    await page.getByRole("button", { name: "Use a security key" }).click();
  };
  await page.goto(base + "/sign-in/code");
  await enter(0);
  await page.waitForSelector(".message.bad[role=alert]:not([hidden])");
  expect(/not accepted/.test(await text(".message.bad:not([hidden])")), "a copy of the key is refused");
  await enter(100);
  await page.waitForURL(base + "/");

  await page.goto(base + here);
  expect(/last used/.test(await text(".keys li")), "the list says when the key was used last");
  const form = page.locator("form:has(button[value=disable])");
  await form.locator("input[name=password]").fill(password);
  // The page stays as it was left when nothing comes back; then another button.
  const sent = [];
  await page.route("**" + here, (route) => {
    if (route.request().method() !== "POST") return route.continue();
    sent.push(new URLSearchParams(route.request().postData()).getAll("do").join());
    return route.fulfill({ status: 204 });
  });
  for (const name of ["Make new recovery codes", "Turn the second factor off"]) {
    await Promise.all([page.waitForRequest((r) => r.method() === "POST"), form.getByRole("button", { name }).click()]);
  }
  await page.unroute("**" + here);
  expect(sent.join(" ") === "codes disable", "the form does what the button says that was pressed last: " + sent.join(" "));
  expect(await form.locator("button[value^=remove-]").count() === 0, "the only key cannot be removed");
  await form.getByRole("button", { name: "Turn the second factor off" }).click();
  await page.waitForFunction(() => !document.querySelector(".keys"));
  expect(/a password alone does not sign in/.test(await text("main")), "the second factor is off");
  await cdp.send("WebAuthn.removeVirtualAuthenticator", { authenticatorId });
  await cdp.detach();
}
