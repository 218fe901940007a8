// Accessibility: axe-core in the page, against WCAG 2 levels A and AA. It is
// used by these tests only and is no part of the product (MPL-2.0).
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const source = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8") + ";0";

async function run(page, only) {
  // Evaluated by the debugger: the page's Content Security Policy stays as it is.
  if (!await page.evaluate(() => "axe" in window)) await page.evaluate(source);
  return page.evaluate(async (runOnly) => {
    const found = await window.axe.run(document, { runOnly, resultTypes: ["violations"], preload: false, iframes: false, elementRef: false });
    return found.violations.flatMap((v) => v.nodes.map((n) => {
      const c = n.any.find((a) => a.id === "color-contrast")?.data;
      const colours = c ? ` (${c.fgColor} on ${c.bgColor} is ${c.contrastRatio}:1, wanted ${c.expectedContrastRatio})` : "";
      return `${v.id}: ${v.help}${colours}: ${n.target.join(" ")}`;
    }));
  }, only);
}

// violations returns what is wrong with the page as it is shown: the rule, what
// it wants, and the selector of each element.
export const violations = (page) => run(page, { type: "tag", values: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] });

// contrast looks at the colours alone.
export const contrast = (page) => run(page, { type: "rule", values: ["color-contrast", "link-in-text-block"] });
