// The editor of the hunting page: Ctrl+Enter runs, Tab indents within a query,
// and names of tables, columns, operators and functions are completed. The page
// works without it.
(function () {
  "use strict";
  var area = document.querySelector("textarea[data-kql]");
  if (!area) return;
  var list = document.getElementById("completions"), run = document.getElementById("hunt-run");
  var schema = null, chosen = -1, shown = [];

  fetch(area.dataset.kql, { credentials: "same-origin" }).then(function (r) { return r.ok ? r.json() : null; }).then(function (s) { schema = s; }).catch(function () { /* no completion then */ });

  function wordBefore() {
    var text = area.value.slice(0, area.selectionStart);
    var m = /[A-Za-z_][A-Za-z0-9_-]*$/.exec(text);
    return { text: m ? m[0] : "", before: text.slice(0, m ? m.index : text.length) };
  }

  // candidates are what may stand at the cursor: after a pipe operators, at the
  // beginning tables, elsewhere the columns of the tables of the query, and
  // functions.
  function candidates(w) {
    var tail = w.before.replace(/\s+$/, "");
    if (tail === "" || /[;]$/.test(tail) || /(^|[\s(,])(union|join|lookup|in)( kind=\w+)? *\(?$/.test(w.before)) return schema.tables.map(function (t) { return { name: t.name, kind: "table" }; });
    if (/\|$/.test(tail)) return schema.operators.map(function (o) { return { name: o, kind: "operator" }; });
    var used = schema.tables.filter(function (t) { return area.value.indexOf(t.name) >= 0; });
    var names = {}, out = [];
    used.forEach(function (t) { t.columns.forEach(function (c) { if (!names[c]) { names[c] = true; out.push({ name: c, kind: "column" }); } }); });
    return out.concat(schema.functions.map(function (f) { return { name: f, kind: "function" }; }));
  }

  function hide() { list.hidden = true; shown = []; chosen = -1; area.removeAttribute("aria-activedescendant"); }

  function show(force) {
    var w = wordBefore();
    if (!schema || (!force && w.text.length < 2)) { hide(); return; }
    var prefix = w.text.toLowerCase();
    var all = candidates(w).filter(function (c) { return c.name.toLowerCase().indexOf(prefix) === 0 && c.name !== w.text; });
    if (all.length === 0 && prefix.length > 2) all = candidates(w).filter(function (c) { return c.name.toLowerCase().indexOf(prefix) > 0; });
    shown = all.slice(0, 12);
    if (shown.length === 0) { hide(); return; }
    list.textContent = "";
    shown.forEach(function (c, i) {
      var li = document.createElement("li");
      li.id = "completion-" + i;
      li.setAttribute("role", "option");
      li.textContent = c.name;
      var kind = document.createElement("span");
      kind.className = "quiet";
      kind.textContent = c.kind;
      li.appendChild(kind);
      li.addEventListener("mousedown", function (e) { e.preventDefault(); accept(i); });
      list.appendChild(li);
    });
    list.hidden = false;
    choose(0);
  }

  function choose(i) {
    chosen = (i + shown.length) % shown.length;
    Array.prototype.forEach.call(list.children, function (li, k) { li.setAttribute("aria-selected", k === chosen ? "true" : "false"); });
    area.setAttribute("aria-activedescendant", "completion-" + chosen);
    list.children[chosen].scrollIntoView({ block: "nearest" });
  }

  function insert(text, from) {
    area.focus();
    area.setSelectionRange(from, area.selectionStart);
    // execCommand keeps the browser's undo.
    if (!document.execCommand("insertText", false, text)) area.setRangeText(text, from, area.selectionStart, "end");
  }

  function accept(i) {
    var w = wordBefore(), c = shown[i];
    insert(c.name + (c.kind === "function" ? "(" : c.kind === "operator" ? " " : ""), area.selectionStart - w.text.length);
    hide();
  }

  area.setAttribute("aria-autocomplete", "list");
  area.setAttribute("aria-controls", "completions");
  area.addEventListener("input", function () { show(false); });
  area.addEventListener("blur", hide);
  area.addEventListener("keydown", function (e) {
    if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) { e.preventDefault(); hide(); run.click(); return; }
    if (e.key === " " && e.ctrlKey) { e.preventDefault(); show(true); return; }
    if (list.hidden) return;
    if (e.key === "ArrowDown") { e.preventDefault(); choose(chosen + 1); }
    else if (e.key === "ArrowUp") { e.preventDefault(); choose(chosen - 1); }
    else if (e.key === "Enter" || e.key === "Tab") { e.preventDefault(); accept(chosen); }
    else if (e.key === "Escape") { e.preventDefault(); hide(); }
  });

  // The address of the page is that of the query, so it can be passed on.
  document.addEventListener("htmx:afterSwap", function (e) {
    if (e.target && e.target.id === "hunting-result" && area.value.length < 4000) {
      history.replaceState(null, "", "/hunting?q=" + encodeURIComponent(area.value));
    }
  });
})();
