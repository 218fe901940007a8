// Runs before the page is drawn, so that a chosen theme does not flash.
(function () {
  var chosen = null;
  try { chosen = localStorage.getItem("bulwark-theme"); } catch (e) { /* storage is off: follow the system */ }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
