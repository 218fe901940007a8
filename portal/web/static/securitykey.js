// Security keys (WebAuthn). A form with data-key-ask gets what a registered key
// answers to those options in its field "answer", one with data-key-create what a
// new key answers in its field "created", and is then submitted.
(() => {
  const decode = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const encode = (buffer) => btoa(Array.from(new Uint8Array(buffer), (b) => String.fromCharCode(b)).join(""))
    .replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const described = (list) => (list || []).map((c) => ({ ...c, id: decode(c.id) }));

  function answer(credential, response) {
    return JSON.stringify({
      id: credential.id, rawId: encode(credential.rawId), type: credential.type, response,
      authenticatorAttachment: credential.authenticatorAttachment ?? undefined,
      clientExtensionResults: credential.getClientExtensionResults(),
    });
  }

  async function ask(form) {
    const o = JSON.parse(form.dataset.keyAsk).publicKey;
    const credential = await navigator.credentials.get({
      publicKey: { ...o, challenge: decode(o.challenge), allowCredentials: described(o.allowCredentials) },
    });
    const r = credential.response;
    form.elements.answer.value = answer(credential, {
      clientDataJSON: encode(r.clientDataJSON), authenticatorData: encode(r.authenticatorData), signature: encode(r.signature),
      userHandle: r.userHandle ? encode(r.userHandle) : undefined,
    });
  }

  async function create(form) {
    const o = JSON.parse(form.dataset.keyCreate).publicKey;
    const credential = await navigator.credentials.create({
      publicKey: {
        ...o, challenge: decode(o.challenge), user: { ...o.user, id: decode(o.user.id) }, excludeCredentials: described(o.excludeCredentials),
      },
    });
    const r = credential.response;
    form.elements.created.value = answer(credential, {
      clientDataJSON: encode(r.clientDataJSON), attestationObject: encode(r.attestationObject),
      transports: r.getTransports ? r.getTransports() : [],
    });
  }

  const reasons = {
    NotAllowedError: "The security key did not answer, or it was cancelled.",
    InvalidStateError: "This security key is registered already.",
    SecurityError: "The browser refuses security keys here: the portal has to be reached by its name, with a certificate that the browser trusts.",
  };

  function show(form, text) {
    const p = form.querySelector("[data-key-problem]");
    p.textContent = text;
    p.hidden = text === "";
  }

  // run does what the form needs; it submits only if all of it worked.
  async function run(form, submitter) {
    show(form, "");
    if (!window.PublicKeyCredential) {
      show(form, "This browser has no security keys, or the connection is not secure.");
      return;
    }
    try {
      if (form.dataset.keyAsk && !other(form)) await ask(form);
      if (form.dataset.keyCreate) await create(form);
    } catch (e) {
      show(form, reasons[e.name] || "The security key did not work: " + e.message);
      return;
    }
    // The browser may show the page again as it was left, with the field of before.
    for (const old of form.querySelectorAll("[data-key-do]")) old.remove();
    if (submitter && submitter.name) {
      const field = document.createElement("input");
      field.type = "hidden";
      field.dataset.keyDo = "";
      field.name = submitter.name;
      field.value = submitter.value;
      form.append(field);
    }
    form.submit(); // without another submit event
  }

  // other is the code that somebody typed instead of using a key.
  function other(form) {
    const field = form.querySelector("[data-key-else]") || form.elements.code;
    return field.value.trim();
  }

  for (const form of document.querySelectorAll("form[data-key-ask], form[data-key-create]")) {
    const button = form.querySelector("[data-key-submit]");
    if (button) {
      button.hidden = false;
      button.addEventListener("click", () => { form.elements.code.value = ""; run(form, null); });
      continue;
    }
    form.addEventListener("submit", (e) => {
      if (!form.dataset.keyCreate && other(form)) return;
      e.preventDefault();
      run(form, e.submitter);
    });
  }
})();
