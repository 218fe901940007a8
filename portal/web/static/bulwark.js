// Small helps; every page works without them.
(function () {
  "use strict";

  function dark() {
    var chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  function prepare(root) {
    root.querySelectorAll("[data-copy]").forEach(function (b) { b.hidden = !navigator.clipboard; });
    // What an incident is about is at the right end of its graph.
    root.querySelectorAll(".graph-box").forEach(function (b) {
      var first = b.querySelector("a rect");
      if (first) b.scrollLeft = Math.max(0, first.x.baseVal.value - b.clientWidth / 3);
    });
  }

  document.querySelectorAll("[data-theme-toggle]").forEach(function (b) { b.hidden = false; });
  prepare(document);
  document.addEventListener("htmx:afterSwap", function (e) { prepare(e.target.parentElement || document); });

  document.addEventListener("click", function (e) {
    var toggle = e.target.closest("[data-theme-toggle]");
    if (toggle) {
      var theme = dark() ? "light" : "dark";
      document.documentElement.dataset.theme = theme;
      try { localStorage.setItem("bulwark-theme", theme); } catch (err) { /* only for this page then */ }
      return;
    }
    var copy = e.target.closest("[data-copy]");
    if (copy) {
      navigator.clipboard.writeText(copy.dataset.copy).then(function () {
        copy.textContent = "Copied";
        setTimeout(function () { copy.textContent = "Copy"; }, 1500);
      });
    }
    document.querySelectorAll("details.menu[open]").forEach(function (d) { if (!d.contains(e.target)) d.open = false; });
  });

  // Lists follow what is typed. The change that a search field reports when the
  // reader then clicks into the list would load the list again, and close or
  // uncheck what was clicked.
  document.addEventListener("change", function (e) {
    if (e.target.matches("form.filters input[type=search]")) e.stopPropagation();
  }, true);

  document.addEventListener("keydown", function (e) {
    if (e.key === "Escape") document.querySelectorAll("details.menu[open]").forEach(function (d) { d.open = false; d.querySelector("summary").focus(); });
    if (e.key === "/" && !e.ctrlKey && !e.metaKey && !e.altKey && !e.target.closest("input, textarea, select")) {
      var search = document.querySelector("main input[type=search]") || document.querySelector(".global input");
      if (search) { search.focus(); e.preventDefault(); }
    }
  });

  // A failed request of htmx shows the page that the portal answered with.
  document.addEventListener("htmx:beforeSwap", function (e) {
    if (e.detail.xhr.status >= 400) {
      var page = new DOMParser().parseFromString(e.detail.xhr.responseText, "text/html");
      var text = page.querySelector("main h1, main .message");
      var why = page.querySelector("main .problem p");
      var p = document.createElement("p");
      p.className = "message bad";
      p.setAttribute("role", "alert");
      p.textContent = (text ? text.textContent : "This did not work") + (why ? ": " + why.textContent : "");
      document.querySelectorAll("main > .message").forEach(function (m) { m.remove(); });
      document.querySelector("main").prepend(p);
    }
  });
})();
