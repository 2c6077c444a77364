"""How every page looks: one style sheet, light and dark."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f6f7f9; --ink: #1b2230; --soft: #5b6475; --line: #dfe3e9;
  --grid: #e7eaef; --accent: #2f66b0; --good: #1d7f5f; --bad: #b3402c;
  --verdict: #eef4fc; --code: #f2f4f7;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181f; --panel: #1c222c; --ink: #e7eaf0; --soft: #a2abba; --line: #323a47;
    --grid: #2a313d; --accent: #7fb0f0; --good: #5cc49d; --bad: #f08c78;
    --verdict: #1b2736; --code: #1c222c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 40px 28px 72px; }
header .kind {
  color: var(--accent); font-size: 13px; font-weight: 600; letter-spacing: .06em;
  text-transform: uppercase; margin: 0 0 4px;
}
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -.01em; }
h2 { font-size: 21px; margin: 52px 0 6px; letter-spacing: -.005em; }
h3 { font-size: 16px; margin: 28px 0 6px; }
p { margin: 0 0 12px; max-width: 76ch; }
.soft, figcaption, .note { color: var(--soft); }
.note, figcaption { font-size: 14px; max-width: 90ch; }
a { color: var(--accent); }
.verdict {
  background: var(--verdict); border-left: 4px solid var(--accent); border-radius: 4px;
  padding: 18px 22px; margin: 22px 0; font-size: 18px;
}
.verdict p { max-width: none; }
.verdict p:last-child { margin: 0; }
.verdict p + p { font-size: 15.5px; color: var(--soft); }
.cards {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(205px, 1fr));
  gap: 14px;
}
.card {
  background: var(--panel); border: 1px solid var(--line);
  border-radius: 8px; padding: 14px 16px;
}
.cards + .note { margin-top: 14px; }
.card .name { font-size: 13.5px; color: var(--soft); margin: 0; }
.card .value {
  font-size: 27px; font-weight: 650; line-height: 1.25;
  margin: 2px 0; letter-spacing: -.01em;
}
.card .value small { font-size: 15px; font-weight: 500; color: var(--soft); letter-spacing: 0; }
.card .baseline { font-size: 13px; line-height: 1.4; color: var(--soft); margin: 0; }
.good { color: var(--good); } .bad { color: var(--bad); }
figure { margin: 14px 0 8px; }
figcaption { margin-top: 6px; }
.plot { width: 100%; }
.wide { overflow-x: auto; margin: 12px 0; }
table {
  border-collapse: collapse; font-size: 14px;
  min-width: 50%; font-variant-numeric: tabular-nums;
}
th, td {
  padding: 6px 12px; text-align: right;
  border-bottom: 1px solid var(--line); white-space: nowrap;
}
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
thead th { border-bottom: 1.5px solid var(--soft); white-space: normal; line-height: 1.3; }
th:first-child, td:first-child, .text { text-align: left; }
td.text { white-space: normal; min-width: 8.5em; }
tr.marked td { background: var(--verdict); font-weight: 600; }
tr.group th { text-align: left; color: var(--ink); padding-top: 16px; }
td.changed { color: var(--accent); font-weight: 600; }
th small { font-weight: 400; display: block; }
pre {
  background: var(--code); border: 1px solid var(--line); border-radius: 6px; padding: 14px 16px;
  overflow-x: auto; font: 13px/1.5 ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace;
}
code { font-family: ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace; font-size: .92em; }
.pixels .pictures {
  display: grid; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); gap: 6px 10px;
  align-items: start;
}
.pixels .pictures p { margin: 0; font-size: 14px; line-height: 1.3; }
.pixels .pictures > p { align-self: end; overflow-wrap: anywhere; }
.pixels img { display: block; width: 100%; image-rendering: pixelated; }
.pixels .layered { position: relative; background: #fff; }
.pixels .layered img + img { position: absolute; inset: 0; height: 100%; }
.pixels .faint { filter: grayscale(1) opacity(.4); }
.class { display: inline-block; margin-right: 14px; font-size: 14px; }
.class span {
  display: inline-block; width: 13px; height: 13px; margin-right: 5px; vertical-align: -1px;
}
details {
  border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 16px; margin: 10px 0;
}
summary { cursor: pointer; font-weight: 600; }
dl {
  display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px;
  font-size: 14px; margin: 12px 0;
}
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
footer {
  margin-top: 56px; padding-top: 14px; border-top: 1px solid var(--line);
  font-size: 13px; color: var(--soft);
}
@media print { details:not([open]) > *:not(summary) { display: none; } h2 { break-after: avoid; } }
"""
